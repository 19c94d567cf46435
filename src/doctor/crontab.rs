//! Crontabs as cron reads them: the lines that start opsctl, and what is set above each.
//!
//! Text in, lines out: which files there are, and what the lines mean for the schedule, is not known here.

use std::collections::BTreeMap;

/// The name of the program that is looked for.
const PROGRAM: &str = "opsctl";
/// What ends a command of the shell.
const OPERATORS: [&str; 6] = ["&&", "||", ";", "|", "&", ">"];

/// A line that starts opsctl.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// File and number of the line.
    pub(crate) place: String,
    /// The five fields, or a word such as `@daily`.
    pub(crate) times: String,
    /// The user it runs as, in the system's crontabs.
    pub(crate) user: Option<String>,
    /// The program as it is written.
    pub(crate) program: String,
    /// What stands behind the program, up to the end of its command.
    pub(crate) arguments: Vec<String>,
    /// What is set above it, and on the line itself.
    pub(crate) variables: BTreeMap<String, String>,
    /// Is there a percent sign that cron takes for the end of the line?
    pub(crate) is_cut: bool,
}

/// Finds the lines that start opsctl. Those in `/etc/crontab` and `/etc/cron.d` have a user behind the times.
pub(crate) fn lines(place: &str, text: &str, has_user: bool) -> Vec<Line> {
    let mut settings = BTreeMap::new();
    let mut found = Vec::new();
    for (n, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some((name, value)) = setting(line) {
            settings.insert(name, value);
            continue;
        }
        let (times, rest) = if line.starts_with('@') { split(line, 1) } else { split(line, 5) };
        let (user, command) = if has_user { split(rest, 1) } else { ("", rest) };
        let Some((program, arguments, inline)) = start(command) else { continue };
        let mut variables = settings.clone();
        variables.extend(inline);
        found.push(Line {
            place: format!("{place}:{}", n + 1),
            times: times.split_whitespace().collect::<Vec<_>>().join(" "),
            user: Some(user.to_owned()).filter(|user| !user.is_empty()),
            program,
            arguments,
            variables,
            is_cut: command.replace(r"\%", "").contains('%'),
        });
    }
    found
}

impl Line {
    /// Does it start this command, given as the schedule has it, such as `verify-backup --restore-test`?
    pub(crate) fn starts(&self, command: &str) -> bool {
        let mut words = command.split(' ');
        let name = words.next().unwrap_or_default();
        let Some(at) = self.arguments.iter().position(|word| word == name) else { return false };
        // A word behind it, such as in `backup list`, makes another command of it.
        let is_itself = self.arguments.get(at + 1).is_none_or(|word| word.starts_with('-'));
        let is_test = self.has("--restore-test");
        is_itself
            && words.all(|word| self.has(word))
            && is_test == command.contains("--restore-test")
    }

    /// Is this word among its arguments?
    pub(crate) fn has(&self, word: &str) -> bool {
        let given = |argument: &String| {
            argument.strip_prefix(word).is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
        };
        self.arguments.iter().any(given)
    }
}

/// Reads `NAME = value`, with or without quotes.
fn setting(line: &str) -> Option<(String, String)> {
    let (name, value) = line.split_once('=')?;
    let name = name.trim().trim_matches(['"', '\'']);
    let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let is_name = is_name && !name.starts_with(|c: char| c.is_ascii_digit());
    let value = value.trim();
    let quoted = ['"', '\''].iter().find_map(|q| value.strip_prefix(*q)?.strip_suffix(*q));
    is_name.then(|| (name.to_owned(), quoted.unwrap_or(value).to_owned()))
}

/// Splits the first `n` words off.
fn split(text: &str, n: usize) -> (&str, &str) {
    let mut rest = text;
    for _ in 0..n {
        rest = rest.trim_start();
        rest = rest.find(char::is_whitespace).map_or("", |at| &rest[at..]);
    }
    (text[..text.len() - rest.len()].trim(), rest.trim_start())
}

/// Finds the program, its arguments, and the variables that are set in front of it.
fn start(command: &str) -> Option<(String, Vec<String>, BTreeMap<String, String>)> {
    let words = words(command);
    // What only names a place of that name, such as `tar c /etc/opsctl`, has no command behind it.
    let is_command = |word: &String| {
        word.bytes().all(|b| b.is_ascii_lowercase() || b == b'-') && !word.starts_with('-')
    };
    let is_program = |at: &usize| words[*at].rsplit('/').next() == Some(PROGRAM);
    let starts = |at: &usize| is_program(at) && words[at + 1..].iter().any(is_command);
    let at = (0..words.len()).find(starts)?;
    let inline = words[..at].iter().filter_map(|word| setting(word)).collect();
    let ends =
        |word: &&String| OPERATORS.iter().any(|o| word.starts_with(o)) || word.starts_with("2>");
    let arguments = words[at + 1..].iter().take_while(|word| !ends(word)).cloned().collect();
    Some((words[at].clone(), arguments, inline))
}

/// Takes a command apart as the shell does, as far as crontabs go: quotes, backslashes, white space.
fn words(command: &str) -> Vec<String> {
    let (mut words, mut quote, mut escaped) = (vec![String::new()], None, false);
    for c in command.chars() {
        let last = words.len() - 1;
        match (c, quote) {
            _ if escaped => {
                words[last].push(c);
                escaped = false;
            }
            ('\\', None | Some('"')) => escaped = true,
            ('"' | '\'', None) => quote = Some(c),
            (_, Some(open)) if c == open => quote = None,
            (c, None) if c.is_whitespace() => words.push(String::new()),
            // `;` ends a word without white space before it.
            (';', None) => words.extend([";".to_owned(), String::new()]),
            _ => words[last].push(c),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "\
# A comment about opsctl.
PATH=/opt/opsctl/bin:/usr/bin
MAILTO = \"ops@example.com\"
0 2 * * *  opsctl backup --quiet --timeout 4h
DATABASE_URL=postgresql:///a
0 7 * * 6  cd /srv && AWS_PROFILE=x /usr/local/bin/opsctl --config '/etc/a b.toml' verify-backup --restore-test; echo done
@daily flock -n /tmp/lock opsctl backup list >/tmp/log-%F 2>&1
5 5 * * * tar czf /tmp/opsctl.tar /etc/opsctl
";

    #[test]
    fn lines_are_read_as_cron_reads_them() {
        let found = lines("crontab", OWN, false);
        let [backup, test, list] = &found[..] else { panic!("{found:#?}") };
        assert_eq!((backup.place.as_str(), backup.times.as_str()), ("crontab:4", "0 2 * * *"));
        assert_eq!(backup.variables["MAILTO"], "ops@example.com");
        assert!(!backup.variables.contains_key("DATABASE_URL") && !backup.is_cut);
        assert_eq!(test.program, "/usr/local/bin/opsctl");
        assert_eq!(
            test.arguments,
            ["--config", "/etc/a b.toml", "verify-backup", "--restore-test"]
        );
        assert_eq!(test.variables["AWS_PROFILE"], "x");
        assert_eq!(test.variables["DATABASE_URL"], "postgresql:///a");
        assert_eq!((list.times.as_str(), list.is_cut), ("@daily", true));
    }

    #[test]
    fn a_line_starts_one_command() {
        let found = lines("crontab", OWN, false);
        let starts =
            |command: &str| found.iter().map(|line| line.starts(command)).collect::<Vec<_>>();
        assert_eq!(starts("backup"), [true, false, false]);
        assert_eq!(starts("verify-backup"), [false, false, false]);
        assert_eq!(starts("verify-backup --restore-test"), [false, true, false]);
        assert!(found[1].has("--config") && !found[1].has("--conf"));
    }

    #[test]
    fn the_systems_crontabs_name_a_user() {
        let found = lines("/etc/cron.d/opsctl", "0 2 * * * opsctl /usr/bin/opsctl backup\n", true);
        assert_eq!(found[0].user.as_deref(), Some("opsctl"));
        assert_eq!(found[0].program, "/usr/bin/opsctl");
    }
}
