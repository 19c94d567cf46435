//! The configuration to begin with, commented, as `opsctl init` writes it. Every other key is in `opsctl config example`.

use std::path::Path;

use crate::clock::Moment;

/// What is asked for.
pub(crate) struct Wanted<'w> {
    /// The URL of the database; it may have a password in it.
    pub(crate) url: &'w str,
    /// A directory, or `s3://bucket/prefix`.
    pub(crate) location: &'w str,
    /// Where locks and the history are kept, if not where they are by default.
    pub(crate) state_dir: Option<&'w Path>,
    /// Can backups be proven by restoring them on this host?
    pub(crate) restore_tests: bool,
    pub(crate) now: Moment,
}

/// Writes the file.
pub(crate) fn text(wanted: &Wanted<'_>) -> String {
    let Wanted { url, location, state_dir, restore_tests, now } = wanted;
    let state_dir = state_dir.map_or_else(String::new, |dir| {
        format!(
            "# Locks, and the history of all runs.\nstate_dir = {}\n\n",
            quoted(&dir.to_string_lossy())
        )
    });
    let other_host = if location.starts_with("s3://") {
        "# Object lock keeps backups even from those who have this host: `object_lock` in [repository.s3]."
    } else {
        "# A disk of this host is lost with it. Put a second one elsewhere, in place of this section:\n\
         #   [repositories.local]    location = \"...\"\n\
         #   [repositories.offsite]  location = \"s3://bucket/prefix\""
    };
    let restore_test = if *restore_tests {
        "# Each week the newest backup is restored into a server that is thrown away, and every row compared.\n\
         #restore_test = \"0 7 * * 6\"\n"
    } else {
        "# Off: this host has no server to restore into. Let another one prove the backups.\n\
         restore_test = \"off\"\n"
    };
    format!(
        "# Written by `opsctl init` on {}. `opsctl config example` prints every key, with its default.
# `opsctl config check` says what is wrong in here, `opsctl doctor` what is wrong around it.

{state_dir}[database]
# Better without the password: that goes into ~/.pgpass, or all of it into a file (`url_file`).
url = {}

[repository]
location = {}
{other_host}
# Encrypted for these age public keys, if there are any (`age-keygen`). Keep the identity where this host is not.
#recipients = [\"age1...\"]

[repository.retention]
# All of two weeks, and the newest of each month for a year. The last good one is never removed.
keep_days = 14
keep_monthly = 12

# When each command is expected to run; `opsctl schedule print` makes a crontab of it, `opsctl status` says what is late.
[schedule]
#backup = \"0 2 * * *\"
{restore_test}
# Who is told when a run fails or is late (docs/notifications.md). Until then it is cron's mail.
#[notify.channels.ops]
#webhook_file = \"/etc/opsctl/webhook\"

# A monitor outside that rings when it hears nothing, such as healthchecks.io.
#[ping]
#url_file = \"/etc/opsctl/ping-url\"

# Cleaning sessions, archiving audit rows, maintenance: [sessions], [[audit]] and [maintain] in `opsctl config example`.
",
        now.format("%Y-%m-%d"),
        quoted(url),
        quoted(location),
    )
}

/// Writes a string as TOML wants it.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_asked_for_can_be_read_back() {
        for (url, location) in [
            ("postgresql://a:p%22'\\@h/d", "/var/back ups/\"x\""),
            ("host=/tmp dbname='it''s'", "s3://bucket/prefix"),
        ] {
            for restore_tests in [true, false] {
                let state_dir = Some(Path::new("/s\\t"));
                let wanted =
                    Wanted { url, location, state_dir, restore_tests, now: Moment::UNIX_EPOCH };
                let read: toml::Table = text(&wanted).parse().unwrap();
                assert_eq!(read["database"]["url"].as_str(), Some(url));
                assert_eq!(read["repository"]["location"].as_str(), Some(location));
                assert_eq!(read["state_dir"].as_str(), Some("/s\\t"));
                assert_eq!(read["schedule"].get("restore_test").is_none(), restore_tests);
            }
        }
    }
}
