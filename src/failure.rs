//! From an error to an exit status and a hint: the one place that decides both.

use crate::backup::chunk;
use crate::db;
use crate::encryption;
use crate::exit::{Exit, Failure};
use crate::stop::{Reason, Stopped};
use crate::{child, config, lock, storage};

/// Returns the exit status of a run that ended with `error`: that of the outermost cause that has one.
pub(crate) fn exit(error: &anyhow::Error) -> Exit {
    error.chain().find_map(exit_of_cause).unwrap_or(Exit::Failed)
}

fn exit_of_cause(cause: &(dyn std::error::Error + 'static)) -> Option<Exit> {
    if let Some(failure) = cause.downcast_ref::<Failure>() {
        return Some(failure.exit);
    }
    if let Some(Stopped(reason)) = cause.downcast_ref::<Stopped>() {
        return Some(exit_of_stop(*reason));
    }
    if cause.is::<config::Error>() {
        return Some(Exit::Configuration);
    }
    if let Some(error) = cause.downcast_ref::<lock::Error>() {
        return Some(match error {
            lock::Error::Held { .. } => Exit::Locked,
            lock::Error::Failed(..) => Exit::Failed,
        });
    }
    if let Some(error) = cause.downcast_ref::<db::Error>() {
        return Some(match error {
            db::Error::Parameters(..) | db::Error::Programs(..) => Exit::Configuration,
            db::Error::Unreachable { .. } | db::Error::Refused { .. } | db::Error::Lost { .. } => {
                Exit::Database
            }
            db::Error::Query { .. } => Exit::Failed,
            // The run knows why it was stopped, and that decides.
            db::Error::Stopped => Exit::Terminated,
        });
    }
    if let Some(error) = cause.downcast_ref::<chunk::Error>() {
        return match error {
            chunk::Error::Damaged { .. } => Some(Exit::BadNews),
            chunk::Error::Storage(error) => exit_of_cause(error),
        };
    }
    if let Some(error) = cause.downcast_ref::<storage::Error>() {
        return Some(match error {
            storage::Error::Stopped(Stopped(reason)) => exit_of_stop(*reason),
            storage::Error::NotFound { .. }
            | storage::Error::Exists { .. }
            | storage::Error::Frozen { .. }
            | storage::Error::Denied { .. }
            | storage::Error::Full { .. }
            | storage::Error::Corrupt { .. }
            | storage::Error::Failed { .. } => Exit::Storage,
        });
    }
    if let Some(error) = cause.downcast_ref::<encryption::Error>() {
        return Some(match error {
            encryption::Error::Recipient(..)
            | encryption::Error::Identities(..)
            | encryption::Error::NoIdentity => Exit::Configuration,
            encryption::Error::Encrypt(..) | encryption::Error::Decrypt(..) => Exit::Failed,
        });
    }
    if let Some(child::Error::Stopped(Stopped(reason))) = cause.downcast_ref::<child::Error>() {
        return Some(exit_of_stop(*reason));
    }
    None
}

/// Returns the exit status of a run that was asked to stop.
pub(crate) fn exit_of_stop(reason: Reason) -> Exit {
    match reason {
        Reason::Deadline => Exit::Deadline,
        Reason::Signal(signal_hook::consts::SIGINT) => Exit::Interrupted,
        Reason::Signal(_) => Exit::Terminated,
    }
}

/// Returns what to do about it, where that depends on the cause.
pub(crate) fn hint(error: &anyhow::Error) -> Option<String> {
    if let Some(hint) =
        error.chain().find_map(|c| c.downcast_ref::<Failure>()).and_then(|f| f.hint.clone())
    {
        return Some(hint);
    }
    let is_frozen = |cause: &(dyn std::error::Error + 'static)| {
        matches!(cause.downcast_ref(), Some(storage::Error::Frozen { .. }))
    };
    if error.chain().any(is_frozen) {
        let hint = "Ask for it (`opsctl archive-audit thaw`; of a backup: `aws s3api restore-object`), and run this again when it is there: after minutes to 48 hours, by storage class and tier.";
        return Some(hint.to_owned());
    }
    let is_full = |cause: &(dyn std::error::Error + 'static)| {
        matches!(cause.downcast_ref(), Some(storage::Error::Full { .. }))
    };
    if error.chain().any(is_full) {
        let hint = "Make room, or remove what no rule keeps (`opsctl backup prune`): `opsctl runbook show disk-full`.";
        return Some(hint.to_owned());
    }
    let hint = match exit(error) {
        Exit::Locked => {
            "Another run is at work: wait for it, or look for its process. The lock goes with it."
        }
        Exit::Database => {
            "Try the same connection with `psql`; `opsctl config show` says where each value comes from, and `opsctl runbook show database-down` what to do."
        }
        Exit::Storage => {
            "Check the repository's location, credentials and free space: `opsctl config show`."
        }
        Exit::Deadline => {
            "Give it more time with `--timeout` or a longer `--window`, or find out what it waited for with `-v`."
        }
        Exit::Configuration => {
            "`opsctl config check` lists what is wrong, `opsctl config example` shows how it should be."
        }
        _ => return None,
    };
    Some(hint.to_owned())
}

/// Says on stderr why a command failed and what to do about it, and returns both.
pub(crate) fn log(command: &str, error: &anyhow::Error) -> (String, Option<String>) {
    let (message, hint) = (one_line(error), hint(error));
    tracing::error!("{command} failed: {message}");
    if let Some(hint) = &hint {
        tracing::error!("hint: {hint}");
    }
    (message, hint)
}

/// Returns the whole chain of causes on one line.
pub(crate) fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    let mut previous = String::new();
    for cause in error.chain() {
        let text = cause.to_string();
        // Some libraries repeat their source in their own message.
        if !previous.ends_with(&text) {
            let separator = if line.is_empty() { "" } else { ": " };
            line.push_str(separator);
            line.push_str(&text);
        }
        previous = text;
    }
    crate::secret::redact(&line.replace('\n', " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_names_the_page_about_its_cause() {
        let full = storage::Error::Full {
            action: "write `x`".to_owned(),
            place: "directory `/y`".to_owned(),
            source: None,
        };
        let error = anyhow::Error::new(full).context("it failed");
        assert_eq!(exit(&error), Exit::Storage);
        assert!(hint(&error).unwrap().contains("`opsctl runbook show disk-full`"));
        let refused = anyhow::Error::new(Failure::new(Exit::Database, "no"));
        assert!(hint(&refused).unwrap().contains("`opsctl runbook show database-down`"));
        let own = anyhow::Error::new(Failure::new(Exit::Database, "no").hint("Do this."));
        assert_eq!(hint(&own).unwrap(), "Do this.");
    }
}
