//! A value that may be a secret: stated in the file, in a file of its own, or in a variable of the environment.

use std::path::PathBuf;

use super::Reader;
use crate::config::{Error, Problem, Source, find};
use crate::environment::Environment;
use crate::secret::Secret;

/// Where a value is.
#[derive(Clone, Debug)]
pub(crate) enum Given {
    Stated(Secret),
    File(PathBuf),
    /// Found in this variable when it was looked for, if it was there.
    Variable(String, Option<Secret>),
}

impl Given {
    /// Finds `KEY`, `KEY_file` or `KEY_env`: one of them at most. What `show` hides is a secret.
    pub(super) fn find(
        keys: &mut Reader<'_>,
        key: &str,
        show: impl Fn(&str) -> String,
        parse: impl Fn(&str) -> Result<Secret, String>,
    ) -> Option<Given> {
        let (of_file, of_environment) = (format!("{key}_file"), format!("{key}_env"));
        let all = [key, &of_file, &of_environment];
        let there: Vec<_> = all.iter().filter(|key| keys.section.line_of(key).is_some()).collect();
        if let [first, second, ..] = there[..] {
            let line = keys.section.line_of(second)?;
            keys.section.complain(
                second,
                line,
                &format!("`{first}` is there as well: keep one of them"),
            );
            return None;
        }
        if let Some(stated) = keys.section.parsed(key, parse) {
            let shown = show(stated.value.reveal());
            if shown != stated.value.reveal() {
                keys.is_secret(key, stated.line);
            }
            return keys.take(key, Some(stated), |_| shown).map(Given::Stated);
        }
        let file = keys.section.path(&of_file);
        if let Some(path) = keys.take(&of_file, file, |path| path.display().to_string()) {
            return Some(Given::File(path));
        }
        keys.text(&of_environment).map(|name| Given::Variable(name, None))
    }

    /// Complains if it is not there in any way.
    pub(super) fn require(keys: &Reader<'_>, key: &str, line: usize, kind: &str) {
        let (of_file, of_environment) = (format!("{key}_file"), format!("{key}_env"));
        if [key, &of_file, &of_environment].iter().all(|key| keys.section.line_of(key).is_none()) {
            let needs = format!("needs `{key}`, `{of_file}` or `{of_environment}`");
            keys.problem(line, &format!("[[health.{kind}]] {needs}"));
        }
    }

    /// Returns the same with what the environment says of it.
    pub(crate) fn known(&self, environment: &Environment) -> Given {
        match self {
            Given::Variable(name, _) => {
                Given::Variable(name.clone(), environment.get(name).map(Secret::new))
            }
            given => given.clone(),
        }
    }

    /// Returns the value, read from its file now if it is in one, without white space around it.
    pub(crate) fn read(&self) -> Result<Secret, Error> {
        let value = match self {
            Given::Stated(secret) => return Ok(secret.clone()),
            Given::Variable(name, value) => {
                let missing = || Problem::new(Source::environment(name), "is not set, or empty");
                value.clone().ok_or_else(missing)?
            }
            Given::File(path) => {
                let text = find::read_text(path);
                Secret::new(text.map_err(|error| find::failed(Source::Default, path, &error))?)
            }
        };
        match value.reveal().trim() {
            "" => {
                let what = format!("{self} is empty");
                Err(Problem::new(Source::Default, what).into())
            }
            text => Ok(Secret::new(text)),
        }
    }
}

impl std::fmt::Display for Given {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Given::Stated(_) => f.write_str("what the configuration says"),
            Given::File(path) => write!(f, "`{}`", path.display()),
            Given::Variable(name, _) => write!(f, "the variable {name}"),
        }
    }
}
