//! How the help looks: that of each command fits one screen of 100 columns and 50 lines, and ends with its exit statuses. What it
//! says stands with the options.
//!
//! clap's own two helps are one here, `-h` and `--help`: its longer one has three lines for each option. Below the first level
//! the options of every command are named and not explained again.

use std::ffi::OsString;

use clap::{Arg, ArgAction, Command};

/// Says where the options of every command are explained.
const ELSEWHERE: &str = "Also --config --state-dir --json --quiet --verbose --log-format --timeout --window: opsctl --help";

/// Gives a definition, and all commands below it, its help.
pub(super) fn on_one_screen(command: Command) -> Command {
    let help = Arg::new("help").short('h').long("help").help("Print this");
    let command = command.disable_help_subcommand(true).disable_help_flag(true);
    let command = command.arg(help.action(ArgAction::HelpShort).global(true));
    let everywhere = command.get_arguments().filter(|argument| argument.is_global_set());
    // Their text is there for man pages, which take it from the longer help.
    let unseen = |argument: &Arg| {
        let text = argument.get_help().cloned().unwrap_or_default();
        argument.clone().hide_short_help(true).long_help(text)
    };
    let everywhere: Vec<Arg> = everywhere.map(unseen).collect();
    // Here they are among the others.
    let command = command.mut_args(|argument| argument.help_heading(None::<&str>));
    let command = with_whole_description(below(command, &everywhere));
    command.help_template("{before-help}{usage-heading} {usage}\n\n{all-args}{after-help}")
}

/// Does the same for the commands below one, where the options of every command are not shown.
fn below(command: Command, everywhere: &[Arg]) -> Command {
    command.mut_subcommands(|command| {
        let command = with_whole_description(below(command.args(everywhere), everywhere));
        let options = format!("{{all-args}}\n\n{ELSEWHERE}{{after-help}}");
        command.help_template(format!("{{before-help}}{{usage-heading}} {{usage}}\n\n{options}"))
    })
}

/// Puts the whole description where the short help begins.
fn with_whole_description(command: Command) -> Command {
    let about = command.get_long_about().or(command.get_about()).cloned();
    if let Some(about) = about { command.before_help(about) } else { command }
}

/// Understands `opsctl help backup list`, and `opsctl backup help list`, as `opsctl backup list --help`.
pub(super) fn asked_in_front(command: &Command, mut arguments: Vec<OsString>) -> Vec<OsString> {
    let (mut command, mut at) = (command, 1);
    while let Some(word) = arguments.get(at).filter(|_| command.has_subcommands()) {
        if word == "help" {
            arguments.remove(at);
            arguments.push("--help".into());
            break;
        }
        let Some(below) = command.find_subcommand(word) else { break };
        (command, at) = (below, at + 1);
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::super::Cli;
    use super::*;

    const COLUMNS: usize = 100;
    const LINES: usize = 50;

    /// Calls `look` with the words of each command and its help, as a terminal of so many columns shows it.
    fn for_each_help(mut look: impl FnMut(&[&str], &str)) {
        fn walk<'a>(
            command: &'a Command,
            words: &mut Vec<&'a str>,
            look: &mut impl FnMut(&[&str], &str),
        ) {
            for flag in ["-h", "--help"] {
                let arguments = words.iter().copied().chain([flag]);
                let definition = Cli::definition().term_width(COLUMNS);
                let shown = definition.try_get_matches_from(arguments).unwrap_err();
                look(words, &shown.to_string());
            }
            for below in command.get_subcommands() {
                words.push(below.get_name());
                walk(below, words, look);
                words.pop();
            }
        }
        let definition = Cli::definition();
        walk(&definition, &mut vec!["opsctl"], &mut look);
    }

    #[test]
    fn every_help_fits_one_screen_and_ends_with_its_exit_statuses() {
        let (mut found, mut seen) = (Vec::new(), 0);
        for_each_help(|words, help| {
            seen += 1;
            let words = words.join(" ");
            let (lines, columns) =
                (help.lines().count(), help.lines().map(|line| line.chars().count()).max());
            if lines > LINES || columns > Some(COLUMNS) {
                found.push(format!("{words}: {lines} lines, {columns:?} columns"));
            }
            let last = help.trim_end().rsplit("\n\n").next().unwrap_or_default();
            if !last.starts_with("Exit statuses") {
                found.push(format!("{words}: ends with {last}"));
            }
        });
        assert!(seen > 90, "{seen}");
        found.sort();
        found.dedup();
        assert!(found.is_empty(), "make them shorter:\n{}", found.join("\n"));
    }

    #[test]
    fn the_options_that_are_explained_elsewhere_are_those_of_every_command() {
        let definition = Cli::definition();
        let everywhere = definition
            .get_arguments()
            .filter(|a| a.is_global_set() && !a.is_hide_set() && a.get_id() != "help");
        let names: Vec<_> =
            everywhere.filter_map(|a| a.get_long()).map(|name| format!("--{name}")).collect();
        assert_eq!(ELSEWHERE, format!("Also {}: opsctl --help", names.join(" ")));
    }

    #[test]
    fn every_option_is_explained() {
        fn walk(command: &Command, found: &mut Vec<String>) {
            let silent = command.get_arguments().filter(|a| a.get_help().is_none());
            found.extend(silent.map(|a| format!("{}: {}", command.get_name(), a.get_id())));
            command.get_subcommands().for_each(|below| walk(below, found));
        }
        let mut found = Vec::new();
        walk(&Cli::definition(), &mut found);
        assert_eq!(found, Vec::<String>::new());
    }

    #[test]
    fn help_may_stand_in_front() {
        let ask = |line: &str| {
            let words = line.split(' ').map(OsString::from).collect();
            let words = asked_in_front(&Cli::definition(), words);
            words.into_iter().map(|word| word.into_string().unwrap()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(ask("opsctl help backup list"), "opsctl backup list --help");
        assert_eq!(ask("opsctl help"), "opsctl --help");
        assert_eq!(ask("opsctl backup help prune"), "opsctl backup prune --help");
        assert_eq!(ask("opsctl health-check explain help"), "opsctl health-check explain help");
        assert_eq!(ask("opsctl --quiet help"), "opsctl --quiet help");
    }
}
