//! Which checks are asked for: by name, tag and profile. Pure.

use super::kind::{self, Profile};
use super::{Check, Inquiry};

/// What is wanted.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    /// Names of checks, or of kinds; empty means all.
    pub(crate) only: Vec<String>,
    pub(crate) skip: Vec<String>,
    /// Any of these; empty means all.
    pub(crate) tags: Vec<String>,
    pub(crate) profile: Profile,
}

impl Selection {
    /// Leaves what is wanted of each inquiry, and no inquiry without a check.
    ///
    /// A name that fits nothing is an error: a slip of the pen must not look like good news. What is named by `only` is
    /// asked for whatever the profile.
    pub(crate) fn apply(&self, inquiries: Vec<Inquiry>) -> Result<Vec<Inquiry>, String> {
        let all = || inquiries.iter().flat_map(|inquiry| &inquiry.checks);
        for name in self.only.iter().chain(&self.skip) {
            if !all().any(|check| is_named(check, name)) {
                let what = if kind::find(name).is_some() {
                    "no check of that kind is configured"
                } else {
                    "there is no such check"
                };
                return Err(format!("`{name}`: {what}"));
            }
        }
        if let Some(tag) = self.tags.iter().find(|tag| !all().any(|check| check.tags.contains(tag)))
        {
            return Err(format!("`{tag}`: no check has that tag"));
        }
        let mut inquiries = inquiries;
        for inquiry in &mut inquiries {
            inquiry.checks.retain(|check| self.wants(check));
        }
        inquiries.retain(|inquiry| !inquiry.checks.is_empty());
        Ok(inquiries)
    }

    fn wants(&self, check: &Check) -> bool {
        let named = |names: &[String]| names.iter().any(|name| is_named(check, name));
        let in_profile = check.kind.profile <= self.profile;
        (if self.only.is_empty() { in_profile } else { named(&self.only) })
            && !named(&self.skip)
            && (self.tags.is_empty() || self.tags.iter().any(|tag| check.tags.contains(tag)))
    }
}

fn is_named(check: &Check, name: &str) -> bool {
    check.name == name || check.kind.name == name
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::CheckSettings;

    fn selected(
        only: &[&str],
        skip: &[&str],
        tags: &[&str],
        profile: Profile,
    ) -> Result<Vec<String>, String> {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let settings = CheckSettings::default();
        let check =
            |kind: &str, instance: &str| Check::new(kind::find(kind).unwrap(), instance, &settings);
        let inquiries = vec![
            Inquiry::new(vec![check("connect", "a"), check("xid-age", "a")], |_, _, _| Ok(())),
            Inquiry::new(vec![check("connect", "b"), check("xid-age", "b")], |_, _, _| Ok(())),
            Inquiry::new(vec![check("http", "api")], |_, _, _| Ok(())),
        ];
        let selection = Selection { only: list(only), skip: list(skip), tags: list(tags), profile };
        let inquiries = selection.apply(inquiries)?;
        assert!(inquiries.iter().all(|inquiry| !inquiry.checks.is_empty()));
        Ok(inquiries.into_iter().flat_map(|i| i.checks).map(|check| check.name).collect())
    }

    #[test]
    fn checks_are_chosen_by_name_kind_tag_and_profile() {
        let full = Profile::Full;
        assert_eq!(selected(&[], &[], &[], full).unwrap().len(), 5);
        let smoke = selected(&[], &[], &[], Profile::Smoke).unwrap();
        assert_eq!(smoke, ["connect/a", "connect/b", "http/api"]);
        assert_eq!(
            selected(&["xid-age"], &[], &[], Profile::Smoke).unwrap(),
            ["xid-age/a", "xid-age/b"]
        );
        assert_eq!(
            selected(&["connect", "xid-age/b"], &["connect/a"], &[], full).unwrap(),
            ["connect/b", "xid-age/b"]
        );
        assert_eq!(selected(&[], &[], &["network"], full).unwrap(), ["http/api"]);
    }

    #[test]
    fn a_name_that_fits_nothing_is_no_good_news() {
        for (only, skip, tags) in
            [(&["conect"][..], &[][..], &[][..]), (&[], &["http/www"], &[]), (&[], &[], &["redis"])]
        {
            assert!(selected(only, skip, tags, Profile::Full).is_err());
        }
        let error = selected(&["archiver"], &[], &[], Profile::Full).unwrap_err();
        assert_eq!(error, "`archiver`: no check of that kind is configured");
    }
}
