//! Which invalid indexes are what a concurrent build left behind, and may go. Pure.
//!
//! A valid index never goes, whatever it is called. Of the invalid ones only what REINDEX CONCURRENTLY itself made goes, by the suffix
//! that it gives, and only beside a valid index of the same definition; a failed CREATE INDEX CONCURRENTLY is somebody's, who may want it.

use super::look::Name;
use super::past::Past;
use crate::clock::Moment;

/// An index that is not valid.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a condition of its own")]
pub(crate) struct Invalid {
    pub(crate) oid: u32,
    pub(crate) name: Name,
    pub(crate) table: u32,
    /// Valid indexes of the same table and the same definition.
    pub(crate) same: Vec<u32>,
    pub(crate) is_of_constraint: bool,
    /// Is it the table's replica identity, or what it is clustered by?
    pub(crate) is_identity: bool,
    /// Is it being built, or does somebody hold or want a lock on it or its table that a build would take?
    pub(crate) is_in_use: bool,
    pub(crate) may: bool,
}

/// What may become of an invalid index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// A run of opsctl made it, and did not come to its end.
    Own,
    /// Somebody else made it, a while ago, and nobody is at work on it.
    Abandoned,
    /// It stays, because of this.
    Stays(String),
}

/// How long somebody else's may be at rest before it counts as abandoned.
const ABANDONED: chrono::TimeDelta = chrono::TimeDelta::hours(1);

/// Is this what REINDEX CONCURRENTLY calls an index in between? The server may add a number, and cuts the name before it.
pub(crate) fn is_transient(name: &str) -> bool {
    let bare = name.trim_end_matches(|c: char| c.is_ascii_digit());
    bare.ends_with("_ccnew") || bare.ends_with("_ccold")
}

/// Says what may become of an invalid index, by what earlier runs noted.
pub(crate) fn judge(invalid: &Invalid, past: &Past, now: Moment) -> Verdict {
    let stays = |reason: &str| Verdict::Stays(reason.to_owned());
    if !is_transient(&invalid.name.name) {
        return stays(
            "a failed CREATE INDEX CONCURRENTLY of somebody's: build it anew, or drop it",
        );
    }
    if invalid.same.is_empty() {
        return stays("there is no valid index of the same definition");
    }
    if invalid.is_of_constraint || invalid.is_identity {
        return stays("a constraint, the replica identity or CLUSTER uses it");
    }
    if invalid.is_in_use {
        return stays("somebody is at work on it or its table");
    }
    if !invalid.may {
        return stays("it needs the owner of the table");
    }
    let seen = past.seen.get(&invalid.oid);
    // After the change of places the old index has the number of the one that was built anew.
    let is_own = past.work.iter().any(|work| {
        let is_new =
            seen.is_none_or(|seen| *seen > work.began) && invalid.same.contains(&work.index);
        work.table == invalid.table && (work.index == invalid.oid || is_new)
    });
    match seen {
        _ if is_own => Verdict::Own,
        Some(seen) if *seen + ABANDONED <= now => Verdict::Abandoned,
        Some(_) => stays("it was seen less than an hour ago for the first time"),
        None => stays("it is seen for the first time: the next run removes it"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::past::Work;
    use super::*;

    fn now() -> Moment {
        "2026-11-26T02:00:00Z".parse().unwrap()
    }

    fn leftover() -> Invalid {
        let name = |name: &str| Name { schema: "public".to_owned(), name: name.to_owned() };
        Invalid {
            oid: 10,
            name: name("orders_pkey_ccnew"),
            table: 1,
            same: vec![2],
            is_of_constraint: false,
            is_identity: false,
            is_in_use: false,
            may: true,
        }
    }

    fn seen(hours: i64) -> Past {
        let mut past = Past::default();
        past.seen.insert(10, now() - chrono::TimeDelta::hours(hours));
        past
    }

    fn working(index: u32) -> Past {
        let work = Work { table: 1, index, began: now() - chrono::TimeDelta::minutes(5) };
        Past { work: vec![work], ..Past::default() }
    }

    #[test]
    fn transient_names_are_those_of_the_server() {
        for name in ["a_ccnew", "a_ccold", "a_ccnew1", "a_ccold23"] {
            assert!(is_transient(name), "{name}");
        }
        for name in ["a", "a_ccnew_b", "accnew", "a_ccnew1x", "_idx"] {
            assert!(!is_transient(name), "{name}");
        }
    }

    #[test]
    fn own_ones_go_at_once_and_those_of_others_when_nobody_wants_them() {
        assert_eq!(judge(&leftover(), &working(2), now()), Verdict::Own);
        assert_eq!(judge(&leftover(), &working(10), now()), Verdict::Own);
        assert!(matches!(judge(&leftover(), &working(3), now()), Verdict::Stays(_)));
        assert!(matches!(judge(&leftover(), &Past::default(), now()), Verdict::Stays(_)));
        assert!(matches!(judge(&leftover(), &seen(0), now()), Verdict::Stays(_)));
        assert_eq!(judge(&leftover(), &seen(2), now()), Verdict::Abandoned);
        // It was there before the own work began.
        let both = Past { work: working(2).work, ..seen(0) };
        let before = Past { seen: seen(2).seen, ..both };
        assert_eq!(judge(&leftover(), &before, now()), Verdict::Abandoned);
    }

    proptest! {
        #[test]
        fn nothing_goes_that_fails_one_of_the_conditions(
            transient: bool, has_same: bool, of_constraint: bool, identity: bool, in_use: bool, may: bool, own: bool, hours in 0i64..3,
        ) {
            let mut invalid = leftover();
            if !transient {
                invalid.name.name = "orders_pkey".to_owned();
            }
            if !has_same {
                invalid.same.clear();
            }
            (invalid.is_of_constraint, invalid.is_identity) = (of_constraint, identity);
            (invalid.is_in_use, invalid.may) = (in_use, may);
            let past = if own { working(10) } else { seen(hours) };
            let goes = !matches!(judge(&invalid, &past, now()), Verdict::Stays(_));
            let is_old = own || hours >= 1;
            prop_assert_eq!(goes, transient && has_same && !of_constraint && !identity && !in_use && may && is_old);
        }
    }
}
