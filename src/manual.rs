//! Man pages: one for each command, out of the definition of the command line, and one for the configuration file. As text;
//! it writes no file, and says nothing that the help does not say.

use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

/// A page.
#[derive(Debug)]
pub(crate) struct Page {
    /// Its file's name, such as `opsctl-backup.1`.
    pub(crate) name: String,
    pub(crate) text: String,
}

/// Which files there are, and for what.
const FILES: &[(&str, &str)] = &[
    ("./opsctl.toml", "The configuration, where it is there."),
    (
        "/etc/opsctl/opsctl.toml",
        "The configuration, where the other is not. --config and OPSCTL_CONFIG name another one.",
    ),
    (
        "/etc/opsctl/environment",
        "Variables for the units that opsctl schedule print makes for systemd, such as DATABASE_URL.",
    ),
    (
        "/var/lib/opsctl",
        "The state of root, and of the units: locks, and history.db, which is what ran. --state-dir and OPSCTL_STATE_DIR name \
         another one.",
    ),
    ("~/.local/state/opsctl", "The state of everybody else."),
    ("~/.pgpass", "Passwords of PostgreSQL, as for psql(1)."),
];

/// Makes a page for the command and for each one below it; hidden ones have none.
pub(crate) fn commands(command: clap::Command) -> std::io::Result<Vec<Page>> {
    // `help` repeats all of them.
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let mut pages = Vec::new();
    add(&mut pages, &command, None)?;
    Ok(pages)
}

fn add(pages: &mut Vec<Page>, command: &clap::Command, above: Option<&str>) -> std::io::Result<()> {
    pages.push(of_command(command, above)?);
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        add(pages, below, Some(name))?;
    }
    Ok(())
}

fn of_command(command: &clap::Command, above: Option<&str>) -> std::io::Result<Page> {
    let man = Man::new(command.clone());
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    let mut text = title(name, 1);
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if command.get_subcommands().any(|below| !below.is_hide_set()) {
        man.render_subcommands_section(&mut text)?;
    }
    let mut roff = Roff::new();
    exit_statuses(
        &mut roff,
        &command.get_after_help().map(ToString::to_string).unwrap_or_default(),
    );
    section(&mut roff, "FILES", FILES);
    let below = command.get_subcommands().filter(|below| !below.is_hide_set());
    let below = below.filter_map(|below| below.get_display_name()).map(|name| format!("{name}(1)"));
    let related = above.map(|name| format!("{name}(1)")).into_iter().chain(below);
    let related: Vec<_> = related.chain(["opsctl.toml(5)".to_owned()]).collect();
    roff.control("SH", ["SEE ALSO"]).text([roman(related.join(", "))]);
    roff.to_writer(&mut text)?;
    // clap_mangen makes an empty line where possible values follow, which a page must not have.
    let text = String::from_utf8_lossy(&text).replace("\n.br\n\n.br\n", "\n\n");
    Ok(Page { name: format!("{name}.1"), text })
}

/// Without a date: what is built twice is the same.
fn title(name: &str, section: u8) -> Vec<u8> {
    format!(".TH {name} {section} \"\" \"opsctl {}\" opsctl\n", env!("CARGO_PKG_VERSION"))
        .into_bytes()
}

/// Makes the page of the configuration file out of its example.
pub(crate) fn configuration(example: &str) -> std::io::Result<Page> {
    let mut roff = Roff::new();
    roff.control("SH", ["NAME"]).text([roman("opsctl.toml - the configuration of opsctl")]);
    roff.control("SH", ["DESCRIPTION"]);
    roff.text([
        roman("This is the file that "),
        bold("opsctl config example"),
        roman(" prints: every key, what it means, and its default. "),
        bold("opsctl config check"),
        roman(" lists everything that is wrong with one."),
    ]);
    roff.control("PP", []).control("nf", []);
    for line in example.lines() {
        roff.text([roman(line)]);
    }
    roff.control("fi", []);
    section(&mut roff, "FILES", FILES);
    roff.control("SH", ["SEE ALSO"]).text([roman("opsctl(1), opsctl-config(1)")]);
    let mut text = title("opsctl.toml", 5);
    roff.to_writer(&mut text)?;
    let text = String::from_utf8_lossy(&text).into_owned();
    Ok(Page { name: "opsctl.toml.5".to_owned(), text })
}

/// The end of a help, taken apart.
#[derive(Debug, PartialEq, Eq)]
struct Statuses<'a> {
    /// What stands before the list, if it says more than what it is.
    which: Option<&'a str>,
    /// Numbers, and what they mean.
    list: Vec<(&'a str, String)>,
    /// What is said of all of them.
    rest: &'a str,
}

impl<'a> Statuses<'a> {
    /// Reads `Exit statuses: 0 done; 1 failed. More.`, or the table of them below such a line.
    fn of(help: &'a str) -> Statuses<'a> {
        let (heading, said) = help.split_once(':').unwrap_or((help, ""));
        let which = heading.strip_prefix("Exit statuses").unwrap_or(heading);
        let which = which.trim_matches(|c| ", ()".contains(c));
        let (said, rest, separator) = match said.split_once(". ") {
            _ if said.starts_with('\n') => (said, "", "\n"),
            Some((said, rest)) => (said, rest, "; "),
            None => (said.trim_end_matches('.'), "", "; "),
        };
        let mut list: Vec<(&str, String)> = Vec::new();
        for item in said.split(separator).map(str::trim).filter(|item| !item.is_empty()) {
            let is_number = |c: char| c.is_ascii_digit() || c == ',' || c == ' ';
            let end = item.find(|c| !is_number(c)).unwrap_or(item.len());
            match (item.split_at(end), list.last_mut()) {
                // It goes on behind a semicolon of its own.
                (("", more), Some((_, meaning))) => *meaning += &format!("; {more}"),
                ((numbers, meaning), _) => list.push((numbers.trim(), meaning.to_owned())),
            }
        }
        Statuses { which: Some(which).filter(|which| !which.is_empty()), list, rest }
    }
}

fn exit_statuses(roff: &mut Roff, help: &str) {
    let Statuses { which, list, rest } = Statuses::of(help);
    roff.control("SH", ["EXIT STATUS"]);
    if let Some(which) = which {
        roff.text([roman(format!("They are {which}:"))]);
    }
    for (numbers, meaning) in list {
        roff.control("TP", []).text([bold(numbers)]).text([roman(meaning)]);
    }
    if !rest.is_empty() {
        roff.control("PP", []).text([roman(rest)]);
    }
}

fn section(roff: &mut Roff, title: &str, items: &[(&str, &str)]) {
    roff.control("SH", [title]);
    for (name, meaning) in items {
        roff.control("TP", []).text([bold(*name)]).text([roman(*meaning)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_statuses_become_a_list() {
        let pairs = |list: &[(&'static str, &str)]| {
            list.iter().map(|(numbers, meaning)| (*numbers, (*meaning).to_owned())).collect()
        };
        let help = "Exit statuses: 0 done: all of it; 1 failed, or not; whatever; 130, 143 interrupted. It is \
                    whole. Always.";
        let list = pairs(&[
            ("0", "done: all of it"),
            ("1", "failed, or not; whatever"),
            ("130, 143", "interrupted"),
        ]);
        let rest = "It is whole. Always.";
        assert_eq!(Statuses::of(help), Statuses { which: None, list, rest });

        let which = Some("as plugins have them");
        let list = pairs(&[("0", "ok"), ("1", "warning")]);
        let read = Statuses::of("Exit statuses, as plugins have them: 0 ok; 1 warning.");
        assert_eq!(read, Statuses { which, list, rest: "" });

        let which = Some("any other number means failure");
        let list = pairs(&[("0", "did it; or not. So"), ("10", "configuration: wrong")]);
        let read = Statuses::of(
            "Exit statuses (any other number means failure):\n    0  did it; or not. So\n   10  configuration: wrong",
        );
        assert_eq!(read, Statuses { which, list, rest: "" });
    }
}
