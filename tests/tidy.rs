//! Rules about the tree that neither the compiler nor clippy knows. Each failure says what to do.
//!
//! They read the files as text and need no server. A rule that has to know exceptions lists them here,
//! each with its reason; an exception that is no longer needed fails as well.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "these are tests: a surprise must end them"
)]

mod tree;

use std::collections::{BTreeMap, BTreeSet};

use tree::{code, files, imports, is_for_tests, is_in, module, read, root, with_suffix};

/// What each module of `src` may import of the others, by its longest listed name. What it may import is
/// always below it; `lib.rs` draws the same picture.
const LAYERS: &[(&str, &[&str])] = &[
    // Plain values, which know of nothing else.
    ("clock", &[]),
    ("secret", &[]),
    ("text", &[]),
    ("exit", &[]),
    ("environment", &[]),
    ("sync", &[]),
    ("stop", &["sync"]),
    ("certificate", &[]),
    ("compression", &[]),
    ("encryption", &["sync"]),
    ("lock", &[]),
    ("json_path", &[]),
    ("id", &["clock"]),
    ("log", &["clock", "id", "secret"]),
    ("window", &["clock"]),
    ("config", &["clock", "environment", "health::kind", "json_path", "secret", "window"]),
    // What reaches out of the process. The settings of a bucket are a plain value; nothing else of the
    // configuration is known here.
    ("child", &["secret", "stop", "sync"]),
    ("http", &["secret", "stop"]),
    ("network", &["certificate", "clock", "http", "secret", "stop", "sync"]),
    ("history", &["clock", "db", "exit", "id", "stop", "sync"]),
    ("notify", &["clock", "config", "history", "http", "secret", "stop", "text"]),
    // What is news is decided without I/O.
    ("notify::incident", &["clock", "config::Severity", "history::incidents"]),
    ("metrics", &["clock", "http", "secret", "stop"]),
    ("ping", &["config", "exit", "http", "id", "secret", "stop", "sync"]),
    ("runbook", &[]),
    ("manual", &[]),
    ("schedule", &["config"]),
    ("host", &[]),
    ("host::growth", &["clock"]),
    ("service", &["child", "clock", "secret", "stop"]),
    ("logs", &["child", "clock", "secret", "stop"]),
    ("db", &["certificate", "child", "clock", "environment", "network", "secret", "stop"]),
    ("storage", &["clock", "secret", "stop"]),
    ("storage::s3", &["clock", "config", "secret", "stop"]),
    // What the commands are about: decisions without I/O first, then the I/O that uses them.
    ("backup", &[BELOW, "child", "config", "db", "environment", "exit", "storage"]),
    ("backup::rows", &[]),
    ("backup::toc", &["compression"]),
    ("backup::manifest", &["backup::rows", "clock", "compression", "id", "storage::Key"]),
    ("backup::objects", &["backup::manifest", "backup::rows", "backup::toc"]),
    ("backup::restore::sql", &[]),
    ("backup::plan", &[]),
    ("backup::retention", &["clock", "config::Retention", "id"]),
    ("backup::shrink", &["backup::manifest"]),
    ("backup::notes", &["backup::manifest", "compression"]),
    // The kinds of checks are a table, which the configuration must know as well.
    (
        "health",
        &[
            BELOW,
            "archive::folder",
            "archive::window",
            "backup",
            "certificate",
            "config",
            "db",
            "environment",
            "history::due",
            "host",
            "http",
            "logs",
            "network",
            "service",
            "text",
        ],
    ),
    ("health::kind", &[]),
    ("health::limits", &[]),
    ("health::postgres::literals", &[]),
    ("health::format", &["clock"]),
    ("archive", &[BELOW, "child", "config", "db", "exit", "storage"]),
    ("archive::questions", &["archive::query_copy", "archive::row"]),
    ("archive::row", &[]),
    ("archive::line", &["archive::row"]),
    ("archive::merkle", &[]),
    ("archive::window", &["clock", "config::AuditWindow"]),
    (
        "archive::retention",
        &["archive::window", "clock", "config::AuditRetention", "config::RetentionPreset"],
    ),
    (
        "archive::deletion::condition",
        &["archive::hold::Said", "archive::retention::Kept", "clock", "text"],
    ),
    ("archive::manifest", &["archive::merkle", "archive::row", "archive::window", "clock"]),
    ("sessions", &[BELOW, "config", "db"]),
    ("sessions::rule", &["config"]),
    ("sessions::batch", &[]),
    ("sessions::walk", &[]),
    ("sessions::expired", &["clock", "config", "db", "sessions::rule"]),
    ("sessions::revoke::cohort", &["config", "db", "sessions::catalogue"]),
    ("sessions::preset", &["config", "sessions::catalogue::Layout", "sessions::rule"]),
    (
        "maintain",
        &[
            BELOW,
            "config::Maintain",
            "db",
            "health::postgres::HORIZON",
            "health::postgres::Row",
            "health::postgres::every_sequence",
            "health::postgres::literals",
            "host::file_system",
            "text",
        ],
    ),
    ("setup", &["child", "stop"]),
    ("setup::grants", &["config", "sessions::preset"]),
    ("setup::first_file", &["clock"]),
    ("maintain::need", &[]),
    ("maintain::bloat", &[]),
    ("maintain::latency", &[]),
    ("maintain::report::growth", &["clock"]),
    (
        "doctor",
        &[
            "child",
            "clock",
            "db",
            "environment",
            "health::postgres::Row",
            "host::file_system",
            "secret",
            "stop",
            "storage",
            "text",
        ],
    ),
    ("doctor::crontab", &[]),
    ("doctor::started", &["config::Scheduled", "config::Times"]),
    // One invocation.
    (
        "failure",
        &[
            "backup::chunk",
            "child",
            "config",
            "db",
            "encryption",
            "exit",
            "lock",
            "secret",
            "stop",
            "storage",
        ],
    ),
    (
        "cli",
        &[
            "clock",
            "config",
            "doctor::Area",
            "exit",
            "health::kind",
            "log",
            "setup::grants::Purpose",
        ],
    ),
    (
        "commands",
        &[
            BELOW,
            "archive",
            "backup",
            "cli",
            "config",
            "db",
            "doctor",
            "environment",
            "exit",
            "failure",
            "health",
            "history",
            "http",
            "lock",
            "maintain",
            "manual",
            "metrics",
            "notify",
            "ping",
            "runbook",
            "schedule",
            "setup",
            "sessions",
            "storage",
            "text",
            "window",
        ],
    ),
    (
        "run",
        &[
            BELOW,
            "cli",
            "commands",
            "environment",
            "exit",
            "failure",
            "health::Outcome",
            "history",
            "log",
            "metrics",
            "notify",
            "ping",
        ],
    ),
    ("lib", &[]),
    ("main", &[]),
];

/// Stands in [`LAYERS`] for what nearly everybody needs.
const BELOW: &str = "below";
const BELOW_IS: &[&str] = &["clock", "compression", "encryption", "id", "secret", "stop", "sync"];

/// What `storage::s3` may know of the configuration: values, no file.
const PLAIN_SETTINGS: &[&str] =
    &["S3", "ObjectLock", "ObjectLockMode", "ServerSideEncryption", "Credentials", "self"];

/// Subcommands that lack something, each with the reason.
const WITHOUT: &[(&str, &str, &str)] = &[
    ("config", "runbook", "its output says what to do; runbooks/exit-codes.md has status 10"),
    ("archive-audit", "cron", "`schedule print` has it where there is [[audit]]"),
    ("cleanup-sessions", "cron", "`schedule print` has it where [sessions] has rules"),
    ("db-maintain", "cron", "`schedule print` has it where there is [maintain]"),
    ("config", "cron", "people ask for it"),
    ("doctor", "cron", "people ask for it, when something was changed"),
    ("demo", "runbook", "nobody depends on it"),
    ("demo", "cron", "people ask for it"),
    ("init", "cron", "once, by a person"),
    ("init", "runbook", "once, before anything runs: README.md"),
    ("generate", "runbook", "packages call it, and people do not"),
    ("generate", "cron", "packages call it"),
    ("history", "runbook", "it answers questions of other runbooks"),
    ("history", "cron", "people ask for it"),
    ("notify", "cron", "people try it"),
    ("silence", "cron", "people ask for it before they work"),
    ("runbook", "cron", "people ask for it"),
    ("runbook", "runbook", "it shows them"),
    ("schedule", "cron", "it prints what cron reads"),
    ("setup", "cron", "a person reads it, and runs it"),
    ("setup", "runbook", "once, before anything runs: docs/security.md"),
    (
        "restore",
        "cron",
        "it takes the place of a database: a person decides, or their own line says where to",
    ),
];

/// Files over [`MAX_LINES`], each with the reason.
const LONG: &[(&str, &str)] = &[];
const MAX_LINES: usize = 800;

/// File names that say nothing.
const EMPTY_NAMES: &[&str] =
    &["util", "utils", "helper", "helpers", "common", "misc", "manager", "handler"];

/// Fails with all that was found, and what to do about it.
#[track_caller]
fn expect_none(found: &[String], advice: &str) {
    assert!(found.is_empty(), "\n{}\n\n{advice}\n", found.join("\n"));
}

#[test]
fn imports_point_down() {
    let mut found = Vec::new();
    let mut used: BTreeMap<(&str, &str), bool> = BTreeMap::new();
    for file in with_suffix(&[".rs"]).iter().filter(|f| f.starts_with("src/") && !is_for_tests(f)) {
        let module = module(file);
        let rule = LAYERS
            .iter()
            .filter(|(name, _)| is_in(&module, name))
            .max_by_key(|(name, _)| name.len());
        let Some((name, allowed)) = rule else {
            found.push(format!("{file}: the module `{module}` is in no layer"));
            continue;
        };
        let top = name.split("::").next().unwrap();
        let allowed: Vec<&str> = allowed
            .iter()
            .flat_map(
                |a| if *a == BELOW { BELOW_IS.iter() } else { std::slice::from_ref(a).iter() },
            )
            .copied()
            .collect();
        for allowed in &allowed {
            used.entry((name, allowed)).or_insert(false);
        }
        for path in imports(&code(&read(file))) {
            // A file of pure decisions names its few neighbours; any other may use all of its own module.
            let own = if top == *name || !["archive", "backup", "sessions"].contains(&top) {
                is_in(&path, top)
            } else {
                is_in(&path, name)
            };
            let permission = allowed.iter().find(|a| is_in(&path, a));
            if let Some(permission) = permission {
                used.insert((name, permission), true);
            } else if !own {
                found.push(format!("{file}: imports `{path}`"));
            }
        }
    }
    let unused =
        used.into_iter().filter(|((_, allowed), used)| !used && !BELOW_IS.contains(allowed));
    found.extend(unused.map(|((name, allowed), _)| {
        format!("LAYERS: `{name}` does not import `{allowed}` (any more)")
    }));
    expect_none(
        &found,
        "Imports point down only: move the thing to the layer that both may use, or pass it as an argument. \
         A new module, or a permission that is right, goes into LAYERS of tests/tidy.rs and into the picture of src/lib.rs.",
    );
}

#[test]
fn storage_knows_no_configuration_file() {
    let mut found = Vec::new();
    for file in
        with_suffix(&[".rs"]).iter().filter(|f| f.starts_with("src/storage/s3") && !is_for_tests(f))
    {
        let code = code(&read(file));
        for path in imports(&code) {
            let Some(item) = path.strip_prefix("config::") else { continue };
            if !PLAIN_SETTINGS.contains(&item.split("::").next().unwrap()) {
                found.push(format!("{file}: imports `{path}`"));
            }
        }
        for (at, _) in code.match_indices("config::") {
            let item: String =
                code[at + 8..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if !item.is_empty()
                && !code[..at].ends_with("::")
                && !PLAIN_SETTINGS.contains(&item.as_str())
            {
                found.push(format!("{file}: uses `config::{item}`"));
            }
        }
    }
    expect_none(&found, "The storage gets plain settings: let the command pass what it needs.");
}

#[test]
fn commands_do_not_import_each_other() {
    let commands: BTreeSet<String> = subcommands()
        .iter()
        .flat_map(|name| [name.replace('-', "_"), format!("{}_command", name.replace('-', "_"))])
        .collect();
    let mut found = Vec::new();
    for file in with_suffix(&[".rs"])
        .iter()
        .filter(|f| f.starts_with("src/commands/") && *f != "src/commands/mod.rs")
    {
        let module = module(file);
        let own = module.split("::").nth(1).unwrap();
        for path in imports(&code(&read(file))) {
            let other = path.strip_prefix("commands::").and_then(|rest| rest.split("::").next());
            if other.is_some_and(|other| other != own && commands.contains(other)) {
                found.push(format!("{file}: imports `{path}`"));
            }
        }
    }
    expect_none(
        &found,
        "What two commands share belongs below them: into backup/, or into commands/open.rs if it opens things.",
    );
}

#[test]
fn no_path_climbs_two_levels() {
    let climbs = |f: &String| code(&read(f)).contains("super::super");
    let found: Vec<_> =
        with_suffix(&[".rs"]).into_iter().filter(|f| f.starts_with("src/") && climbs(f)).collect();
    expect_none(
        &found,
        "Write `crate::…` instead of `super::super`, so that the layers can be seen.",
    );
}

#[test]
fn nothing_is_left_undone() {
    // Written in halves, because this file is searched, too.
    let words = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("X", "XX"),
        concat!("todo", "!"),
        concat!("unimplemented", "!"),
        concat!("dbg", "!"),
        concat!("#[ig", "nore"),
    ];
    let mut found = Vec::new();
    for file in
        with_suffix(&[".rs", ".sh", ".sql", ".md", ".toml", ".py", "Makefile", "crontab.example"])
    {
        for (line, text) in read(&file).lines().enumerate() {
            let is_word = |at: usize, word: &str| {
                let part = |c: char| c.is_alphanumeric() || c == '_';
                let before = text[..at].ends_with(part);
                let after = word.ends_with(char::is_alphanumeric)
                    && text[at + word.len()..].starts_with(part);
                word.starts_with('#') || !before && !after
            };
            for word in words {
                if text.match_indices(word).any(|(at, _)| is_word(at, word)) {
                    found.push(format!("{file}:{}: {word}", line + 1));
                }
            }
        }
    }
    expect_none(&found, "Do it, or open an issue; a test that cannot run yet is not written yet.");
}

#[test]
fn the_project_stands_alone() {
    let places = [
        concat!("../sha", "red"),
        concat!("/wo", "rk/"),
        concat!("/ro", "ot/"),
        concat!(".lib", "rary"),
    ];
    let mut found = Vec::new();
    for file in with_suffix(&[
        ".rs",
        ".sh",
        ".sql",
        ".md",
        ".toml",
        ".py",
        ".txt",
        "Makefile",
        "crontab.example",
        ".ci/run",
    ]) {
        let text = read(&file);
        for place in places {
            let foreign = |(at, _): (usize, &str)| {
                !text[..at].ends_with(|c: char| c.is_alphanumeric() || "_}./".contains(c))
            };
            if text.match_indices(place).any(foreign) {
                found.push(format!("{file}: {place}"));
            }
        }
    }
    expect_none(
        &found,
        "Nothing outside of the project may be named: say it here, in the project's own words.",
    );
}

#[test]
fn file_names_say_what_is_in_the_file() {
    let empty = |f: &String| {
        f.split('/').any(|part| EMPTY_NAMES.contains(&part.split('.').next().unwrap()))
    };
    let found: Vec<_> = files().into_iter().filter(empty).collect();
    expect_none(&found, "Name the file after its main type or verb.");
}

#[test]
fn every_module_says_what_it_is_for() {
    let silent = |f: &String| !read(f).starts_with("//! ");
    let found: Vec<_> = with_suffix(&[".rs"]).into_iter().filter(silent).collect();
    expect_none(
        &found,
        "Open the file with `//!`: what it is for, and what it deliberately does not do.",
    );
}

#[test]
fn files_stay_readable() {
    let mut found = Vec::new();
    for file in with_suffix(&[".rs", ".sh"]) {
        let lines = read(&file).lines().count();
        match LONG.iter().any(|(name, _)| *name == file) {
            true if lines <= MAX_LINES => {
                found.push(format!("{file}: {lines} lines: needs no exception any more"));
            }
            false if lines > MAX_LINES => found.push(format!("{file}: {lines} lines")),
            _ => {}
        }
    }
    expect_none(&found, "Split it by ideas, or list it in LONG of tests/tidy.rs with the reason.");
}

/// Returns the names of the subcommands, as typed, from `cli/mod.rs`.
fn subcommands() -> Vec<String> {
    let text = read("src/cli/mod.rs");
    let (_, variants) =
        text.split_once("pub(crate) enum Command {\n").expect("cli/mod.rs has the enum Command");
    let (variants, _) = variants.split_once("\n}").unwrap();
    let names = variants.lines().map(str::trim).filter(|l| l.starts_with(char::is_uppercase));
    let names = names.map(|line| {
        let name: String = line.chars().take_while(|c| c.is_alphanumeric()).collect();
        name.chars().enumerate().fold(String::new(), |mut kebab, (n, c)| {
            if c.is_uppercase() && n > 0 {
                kebab.push('-');
            }
            kebab.extend(c.to_lowercase());
            kebab
        })
    });
    names.collect()
}

#[test]
fn every_subcommand_is_complete() {
    let files: BTreeSet<String> = files().into_iter().collect();
    let crontab = read("crontab.example");
    let mut found = Vec::new();
    for name in subcommands() {
        let snake = name.replace('-', "_");
        let scheduled =
            crontab.lines().any(|l| !l.starts_with('#') && l.contains(&format!("opsctl {name}")));
        let things = [
            (
                "runbook",
                format!("runbooks/{name}.md"),
                files.contains(&format!("runbooks/{name}.md")),
            ),
            (
                "test",
                format!("tests/integration/{snake}.rs"),
                files.contains(&format!("tests/integration/{snake}.rs")),
            ),
            ("cron", format!("a line `opsctl {name} …` in crontab.example"), scheduled),
        ];
        for (what, where_, exists) in things {
            let excused = WITHOUT.iter().any(|(n, w, _)| *n == name && *w == what);
            if !exists && !excused {
                found.push(format!("`opsctl {name}` has no {what}: {where_}"));
            } else if exists && excused {
                found.push(format!(
                    "`opsctl {name}` has a {what}: WITHOUT of tests/tidy.rs says it has none"
                ));
            }
        }
    }
    expect_none(&found, "Write it, or give the reason in WITHOUT of tests/tidy.rs.");
}

/// Returns the table of exit statuses from `exit.rs`.
fn exit_statuses() -> BTreeMap<u8, String> {
    let text = code(&read("src/exit.rs"));
    let mut numbers = BTreeMap::new();
    let mut table = BTreeMap::new();
    for line in text.lines().map(str::trim) {
        if let Some((name, number)) = line.split_once(" = ")
            && let Ok(number) = number.trim_end_matches(',').parse::<u8>()
        {
            numbers.insert(name.to_owned(), number);
        }
    }
    let (_, entries) = text.split_once("TABLE").expect("exit.rs has the TABLE");
    for entry in entries.split("Exit::").skip(1) {
        let Some((name, rest)) = entry.split_once(',') else { continue };
        let Some(meaning) = rest.trim_start().strip_prefix('"').and_then(|r| r.split_once('"'))
        else {
            continue;
        };
        table.insert(numbers[name], meaning.0.to_owned());
    }
    assert!(table.len() > 5, "exit.rs is not written as expected: {table:?}");
    table
}

#[test]
fn exit_statuses_are_the_same_everywhere() {
    let expected = exit_statuses();
    let mut found = Vec::new();
    for file in ["README.md", "runbooks/exit-codes.md"] {
        let rows = read(file);
        let rows = rows.lines().filter_map(|line| {
            let mut cells = line.strip_prefix("| ")?.split(" | ");
            Some((
                cells.next()?.parse::<u8>().ok()?,
                cells.next()?.trim_end_matches(" |").to_owned(),
            ))
        });
        // Another table of the page may say more about each.
        let mut first = BTreeMap::new();
        for (number, meaning) in rows {
            first.entry(number).or_insert(meaning);
        }
        if first != expected {
            found.push(format!("{file} has {first:#?}"));
        }
    }
    expect_none(
        &found,
        &format!("The one table is src/exit.rs; write the same into the documents: {expected:#?}"),
    );
}

#[test]
fn the_changelog_knows_the_version() {
    let manifest = read("Cargo.toml");
    let version = manifest
        .lines()
        .find_map(|l| l.strip_prefix("version = "))
        .unwrap()
        .trim_matches('"')
        .to_owned();
    let changelog = read("CHANGELOG.md");
    let headings: Vec<&str> = changelog.lines().filter(|l| l.starts_with("## ")).collect();
    assert!(
        headings.iter().any(|h| h.starts_with(&format!("## [{version}]"))),
        "CHANGELOG.md has no `## [{version}]`"
    );
    assert!(headings[0].contains("Unreleased"), "CHANGELOG.md begins with what is unreleased");
}

#[test]
fn no_test_file_is_forgotten() {
    let main = read("tests/integration/main.rs");
    let mut found = Vec::new();
    for file in files() {
        let Some(name) =
            file.strip_prefix("tests/integration/").and_then(|f| f.strip_suffix(".rs"))
        else {
            continue;
        };
        let name = name.strip_suffix("/mod").unwrap_or(name);
        if !name.contains('/') && name != "main" && !main.contains(&format!("mod {name};")) {
            found.push(file);
        }
    }
    expect_none(&found, "Add `mod …;` to tests/integration/main.rs, or nobody runs it.");
}

#[test]
fn every_fixture_is_used() {
    let sources: String =
        with_suffix(&[".rs", ".sh", ".py", "Makefile"]).iter().map(|f| read(f)).collect();
    let used = |file: &String| {
        // A whole folder may be used by its name.
        file.split('/').skip(2).any(|part| {
            sources.contains(&format!("{part}\"")) || sources.contains(&format!("/{part}"))
        })
    };
    let is_fixture = |f: &String| {
        f.starts_with("tests/fixtures/") || f.ends_with(".sql") && f.starts_with("src/")
    };
    let found: Vec<_> =
        files().into_iter().filter(|f| is_fixture(f) && !f.ends_with(".md") && !used(f)).collect();
    expect_none(&found, "Use it in a test, or remove it.");
}

#[test]
fn make_check_needs_no_server() {
    let makefile = read("Makefile");
    let skipped = makefile
        .lines()
        .find_map(|l| l.strip_prefix("WITH_SERVERS := "))
        .expect("Makefile has WITH_SERVERS");
    let skipped: Vec<&str> = skipped.split_whitespace().collect();
    let mut found = Vec::new();
    for file in
        with_suffix(&[".rs"]).iter().filter(|f| f.starts_with("src/") && !f.ends_with("testing.rs"))
    {
        let text = read(file);
        let starts = [
            "testing::server",
            "testing::bucket",
            "testing::start",
            "crate::db::testing",
            "crate::storage::testing",
            "storage::{suite, testing}",
            "use super::testing",
        ];
        let module = module(file);
        if starts.iter().any(|s| text.contains(s)) && !skipped.iter().any(|s| is_in(&module, s)) {
            found.push(format!("{file}: its tests start servers"));
        }
    }
    expect_none(
        &found,
        "Add the module to WITH_SERVERS in the Makefile, so that `make check` needs no server.",
    );
}

#[test]
fn invariants_name_tests_that_exist() {
    let map = read("src/lib.rs");
    let (_, table) = map
        .split_once("//! | invariant | guarded by |")
        .expect("lib.rs has the table of invariants");
    let (table, _) = table.split_once("//! # ").unwrap();
    let sources: String = with_suffix(&[".rs"]).iter().map(|f| read(f)).collect();
    let cells = table
        .lines()
        .filter_map(|line| line.rsplit(" | ").next())
        .flat_map(|cell| cell.split('`').skip(1).step_by(2));
    let found: Vec<_> =
        cells.filter(|name| !sources.contains(&format!("fn {name}("))).map(str::to_owned).collect();
    expect_none(
        &found,
        "An invariant without its test is a wish: name the test that guards it now.",
    );
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut found = Vec::new();
    for file in with_suffix(&[".md"]) {
        let folder = root().join(&file).parent().unwrap().to_owned();
        for (at, _) in read(&file).match_indices("](") {
            let text = read(&file);
            let link = text[at + 2..].split(')').next().unwrap();
            let path = link.split('#').next().unwrap();
            if !path.is_empty() && !path.contains("://") && !folder.join(path).exists() {
                found.push(format!("{file}: {link}"));
            }
        }
    }
    expect_none(&found, "Mend the link.");
}

#[test]
fn every_key_of_the_configuration_is_documented() {
    let document = read("docs/configuration.md");
    let example = read("src/config/example.toml");
    let keys = example.lines().filter_map(|line| {
        let (key, value) = line.trim_start_matches('#').split_once(" = ")?;
        (key.chars().all(|c| c.is_ascii_lowercase() || c == '_') && !value.is_empty())
            .then_some(key)
    });
    let keys: BTreeSet<&str> = keys.collect();
    assert!(keys.len() > 20, "example.toml is not written as expected: {keys:?}");
    let found: Vec<_> = keys
        .iter()
        .filter(|k| !document.contains(&format!("`{k}`")))
        .map(ToString::to_string)
        .collect();
    expect_none(&found, "Add the key to the tables of docs/configuration.md.");
}

#[test]
fn every_decision_is_numbered_and_complete() {
    let mut found = Vec::new();
    for file in files() {
        let Some(name) = file.strip_prefix("docs/decisions/") else { continue };
        let text = read(&file);
        let complete = ["## Context", "## Decision", "## Alternatives", "## Consequences"]
            .iter()
            .all(|h| text.contains(h));
        if !name.starts_with(|c: char| c.is_ascii_digit()) || !complete {
            found.push(file);
        }
    }
    expect_none(
        &found,
        "A decision is docs/decisions/NNNN-title.md with Context, Decision, Alternatives and Consequences.",
    );
}

#[test]
fn runbooks_have_the_same_five_parts() {
    let mut found = Vec::new();
    for file in files().iter().filter(|f| f.starts_with("runbooks/") && !f.ends_with("README.md")) {
        let text = read(file);
        let headings: Vec<&str> = text.lines().filter_map(|l| l.strip_prefix("## ")).collect();
        if headings != ["Symptom", "Check", "Act", "Verify", "Escalate"] {
            found.push(format!("{file}: {headings:?}"));
        }
    }
    expect_none(
        &found,
        "A runbook has the parts Symptom, Check, Act, Verify, Escalate, in this order: it is read at 3 a.m.",
    );
}
