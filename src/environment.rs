//! The process environment, read once at the start of a run and then passed as a value.
//!
//! Nothing else in the crate reads environment variables (clippy enforces it), so that tests can
//! state the whole environment and so that it can be said in one place what opsctl listens to.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// A snapshot of the environment variables, restricted to those that are valid Unicode.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Environment(BTreeMap<String, String>);

impl Environment {
    /// Reads the environment of this process.
    #[expect(clippy::disallowed_methods, reason = "this is where the environment is read, once")]
    pub(crate) fn capture() -> Environment {
        let pairs = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Environment(pairs)
    }

    /// Returns the value of `name`; an empty value counts as not set, as libpq and the AWS tools have it.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Returns all variables that are set, with their values.
    pub(crate) fn variables(&self) -> &BTreeMap<String, String> {
        &self.0
    }

    /// Returns the user's home directory from `HOME`.
    pub(crate) fn home(&self) -> Option<PathBuf> {
        self.get("HOME").map(PathBuf::from)
    }
}

#[cfg(test)]
impl<const N: usize> From<[(&str, &str); N]> for Environment {
    fn from(pairs: [(&str, &str); N]) -> Environment {
        Environment(pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect())
    }
}
