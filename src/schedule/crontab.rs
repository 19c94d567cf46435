//! A crontab(5), for a user's own.

use super::{Job, calendar, comment};

/// What a crontab has to know besides the jobs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Crontab<'a> {
    /// The folder of the program.
    pub(crate) bin_dir: &'a str,
    /// Whom cron tells of what a job says; without a word about it the owner of the crontab.
    pub(crate) mail_to: Option<&'a str>,
}

const HEAD: &str = "\
# opsctl from cron, as `opsctl schedule print` makes it of [schedule]: change the times there and print it again, so that
# `opsctl status` expects what cron does. For a user's own crontab (`crontab -e`); /etc/cron.d wants a user name behind the
# times. They are in this host's time zone.
# cron knows no PATH to speak of and no terminal: say both what to run and whom to tell. Each line is silent when all is
# well, so that a mail is news, and gives up after its time rather than run into the day.
";

/// An address of an example would be one that nobody reads, so it is not in force.
const NOBODY: &str = "\
# Without it, mail goes to the owner of the crontab (`opsctl schedule print --mail-to ADDRESS`).
#MAILTO=ops@example.com";

/// What not everybody wants.
const OPTIONAL: &str = "
# Is the restore test too much for one night? A tenth of the rows every night, another tenth each time: after ten nights all
# of it is proven.
# 0 7 * * *     opsctl verify-backup --restore-test --sample 10 --quiet --timeout 12h

# Once a month: what was written within the last month is read again, for disks that forget.
# 0 9 1 * *     opsctl verify-backup --within 31d --quiet --timeout 12h

# On Mondays: staging becomes what production was last night.
# 0 6 * * 1     opsctl restore --replace members_staging --drop-old --quiet --timeout 8h
";

/// Directories of the PATH that need not be added.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Prints a crontab.
pub(crate) fn crontab(jobs: &[Job<'_>], settings: Crontab<'_>) -> String {
    let Crontab { bin_dir, mail_to } = settings;
    let is_known = PATH.split(':').any(|dir| dir == bin_dir);
    let path = if is_known { PATH.to_owned() } else { format!("{bin_dir}:{PATH}") };
    let mail_to = mail_to.map_or_else(|| NOBODY.to_owned(), |address| format!("MAILTO={address}"));
    let mut text = format!("{HEAD}SHELL=/bin/sh\nPATH={path}\n{mail_to}\n");
    for job in jobs {
        let words: Vec<String> = job.arguments.iter().map(|word| quoted(word)).collect();
        let (times, about) = (calendar::cron(job.times), comment(job.about));
        text += &format!("\n{about}{times:<15} opsctl {}\n", words.join(" "));
    }
    text + OPTIONAL
}

/// Quotes a word for the shell, and then for cron, which takes a bare `%` for the end of the line.
fn quoted(word: &str) -> String {
    shell_word(word).replace('%', r"\%")
}

/// Quotes a word for the shell, if it has to be.
pub(crate) fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_a_crontab() {
        let settings = Crontab { bin_dir: "/opt/opsctl/bin", mail_to: Some("ops@example.com") };
        crate::schedule::testing::jobs(|jobs| {
            let text = crontab(jobs, settings);
            let own = text.strip_prefix(HEAD).unwrap().strip_suffix(OPTIONAL).unwrap();
            insta::assert_snapshot!(own);
        });
    }

    #[test]
    fn no_address_is_in_force_that_nobody_gave() {
        let settings = Crontab { bin_dir: "/usr/bin", mail_to: None };
        crate::schedule::testing::jobs(|jobs| {
            let text = crontab(jobs, settings);
            assert!(!text.lines().any(|line| line.starts_with("MAILTO")), "{text}");
            assert!(text.contains("\n#MAILTO="), "{text}");
        });
    }

    #[test]
    fn words_survive_the_shell_and_cron() {
        for (word, expected) in
            [("4h", "4h"), ("", "''"), ("a b", "'a b'"), ("it's 5%", r"'it'\''s 5\%'")]
        {
            assert_eq!(quoted(word), expected);
        }
    }
}
