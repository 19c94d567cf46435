//! `opsctl generate`: its man pages are sound and say what the help says, and its completions complete.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Run, Sandbox, stock};

/// Returns every command that the help shows, as typed, with its help.
fn commands(sandbox: &Sandbox) -> Vec<(Vec<String>, String)> {
    let (mut found, mut open) = (Vec::new(), vec![Vec::<String>::new()]);
    while let Some(words) = open.pop() {
        let args: Vec<&str> = words.iter().map(String::as_str).chain(["--help"]).collect();
        let help = sandbox.run(&args).expect(0).stdout;
        let list = help.lines().skip_while(|line| *line != "Commands:").skip(1);
        for line in list.take_while(|line| line.starts_with("  ")) {
            let name = line.strip_prefix("  ").filter(|line| !line.starts_with(' '));
            if let Some(name) = name.and_then(|line| line.split(' ').next())
                && name != "help"
            {
                open.push([words.clone(), vec![name.to_owned()]].concat());
            }
        }
        found.push((words, help));
    }
    found
}

fn file_names(dir: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn every_command_has_a_man_page_that_is_sound_and_says_its_exit_statuses() {
    let sandbox = Sandbox::new("");
    let out = sandbox.path("below/man");
    let said = sandbox.run(&["generate", "man", "--out", out.to_str().unwrap()]).expect(0).stdout;
    let commands = commands(&sandbox);
    assert!(commands.len() > 40, "{}", commands.len());
    let page = |words: &[String]| {
        let words: Vec<_> =
            std::iter::once("opsctl").chain(words.iter().map(String::as_str)).collect();
        format!("{}.1", words.join("-"))
    };
    let mut expected: BTreeSet<String> = commands.iter().map(|(words, _)| page(words)).collect();
    expected.insert("opsctl.toml.5".to_owned());
    let found = file_names(&out);
    assert_eq!(found, expected);
    assert_eq!(said, format!("{} man pages are in {}\n", found.len(), out.display()));

    for name in &found {
        let path = out.join(name);
        let mut mandoc = Command::new("mandoc");
        let lint = Run::of(mandoc.args(["-Tlint", "-Wwarning"]).arg(&path));
        // Without a date what is built twice is the same.
        let complaints: Vec<_> =
            lint.stdout.lines().filter(|line| !line.contains("missing date")).collect();
        assert!(complaints.is_empty(), "{complaints:#?}");
        let mut man = Command::new("man");
        man.args(["--warnings", "--no-hyphenation", "-l"]).arg(&path);
        let shown = Run::of(man.env("MANWIDTH", "100").env("LC_ALL", "C.UTF-8"));
        assert_eq!((shown.stderr.as_str(), shown.status), ("", 0), "{name}");
        assert!(shown.stdout.contains("\nFILES\n"), "{name}: {}", shown.stdout);
        let Some((words, help)) = commands.iter().find(|(words, _)| page(words) == *name) else {
            continue;
        };
        let (_, statuses) = shown.stdout.split_once("\nEXIT STATUS\n").expect(name);
        let (statuses, _) = statuses.split_once("\nFILES\n").unwrap();
        let listed: Vec<&str> = statuses
            .lines()
            .filter_map(|line| line.trim_start().split("  ").next())
            .filter(|word| word.starts_with(|c: char| c.is_ascii_digit()))
            .collect();
        let (_, in_help) = help.split_once("Exit statuses").expect(name);
        let in_help = in_help.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(listed.len() >= 2, "{words:?}: {statuses}");
        for numbers in listed {
            assert!(
                in_help.contains(&format!(" {numbers} ")),
                "{words:?} has no {numbers}: {in_help}"
            );
        }
        // Nothing is lost on the way: as many statuses as the help has, and so many words.
        let both: Vec<&str> = statuses.split_whitespace().collect();
        assert!(both.len() + 6 >= in_help.split(' ').count(), "{words:?}: {statuses}");
    }
    let read = |name: &str| std::fs::read_to_string(out.join(name)).unwrap();
    // What the help of a command does not explain, its page does.
    assert!(read("opsctl-backup-list.1").contains("Print the report as one JSON document"));
    let example = read("opsctl.toml.5");
    assert!(example.contains("keep_monthly"), "{example}");
}

/// Writes the completions for a shell and returns their file.
fn completions(sandbox: &Sandbox, shell: &str, name: &str) -> PathBuf {
    let printed = sandbox.run(&["generate", "completions", shell]).expect(0).stdout;
    let path = sandbox.write(name, &printed);
    stock(Command::new(shell).arg("-n").arg(&path));
    path
}

#[test]
fn bash_completes_commands_and_options() {
    let sandbox = Sandbox::new("");
    let file = completions(&sandbox, "bash", "opsctl.bash");
    let complete = |words: &str| {
        let script = format!(
            "source '{}'; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             _opsctl opsctl \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD - 1]}}\"; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            file.display()
        );
        stock(Command::new("bash").args(["--norc", "-c", &script]))
    };
    assert_eq!(complete("opsctl verify-"), "verify-backup\n");
    assert_eq!(complete("opsctl backup --repo"), "--repository\n");
    assert_eq!(complete("opsctl backup pr"), "prune\n");
    assert_eq!(complete("opsctl health-check --format nag"), "nagios\n");
}

#[test]
fn fish_completes_commands_and_options() {
    let mut sandbox = Sandbox::new("");
    sandbox.set("HOME", sandbox.path("home").to_str().unwrap());
    let file = completions(&sandbox, "fish", "opsctl.fish");
    let complete = |line: &str| {
        let script = format!("source '{}'; complete -C '{line}'", file.display());
        let mut fish = Command::new("fish");
        fish.env("HOME", sandbox.path("home")).args(["--no-config", "-c", &script]);
        stock(&mut fish)
    };
    let first = |line: &str| complete(line).split('\t').next().unwrap().to_owned();
    assert_eq!(first("opsctl verify-"), "verify-backup");
    assert_eq!(first("opsctl backup --repo"), "--repository");
    assert_eq!(first("opsctl backup pr"), "prune");
}

#[test]
fn zsh_finds_the_completions_by_their_file() {
    let sandbox = Sandbox::new("");
    let folder = sandbox.path("site-functions");
    std::fs::create_dir(&folder).unwrap();
    completions(&sandbox, "zsh", "site-functions/_opsctl");
    let script = format!(
        "fpath=('{}' $fpath); autoload -Uz compinit; compinit -u -D; print $_comps[opsctl]; autoload +X _opsctl && whence -w _opsctl",
        folder.display()
    );
    let mut zsh = Command::new("zsh");
    let said = stock(zsh.env("HOME", sandbox.path("home")).args(["-f", "-c", &script]));
    assert_eq!(said, "_opsctl\n_opsctl: function\n");
}
