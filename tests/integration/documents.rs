//! What the documents tell people to type is typed here, and what they tell them to write is read.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::support::receiver::Receiver;
use crate::support::{Cluster, Sandbox, installed, stock};

fn read(file: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap()
}

/// Returns the content of a document's code blocks in `language`.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut open: Option<String> = None;
    for line in text.lines().map(str::trim_start) {
        match &mut open {
            Some(block) if line == "```" => {
                blocks.push(std::mem::take(block));
                open = None;
            }
            Some(block) => *block += &format!("{line}\n"),
            None if line == format!("```{language}") => open = Some(String::new()),
            None => {}
        }
    }
    blocks
}

/// Returns the arguments of each `opsctl …` line, without comments and where its output goes.
fn command_lines(text: &str) -> Vec<Vec<String>> {
    // A line goes on behind a backslash.
    let text = text.replace("\\\n", " ");
    let lines = text.lines().filter_map(|line| {
        let line = line.split(" #").next()?.split(" | ").next()?.split(" > ").next()?;
        Some(words(line.trim().trim_start_matches("$ ").strip_prefix("opsctl ")?))
    });
    lines.collect()
}

/// Takes a command line apart as a shell does: what stands between quotes is one word.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut quote) = (vec![String::new()], None);
    for c in line.chars() {
        match (c, quote) {
            ('"' | '\'', None) => quote = Some(c),
            (_, Some(open)) if c == open => quote = None,
            (' ', None) => words.push(String::new()),
            _ => words.last_mut().unwrap().push(c),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// Returns the documents that people read, by their path.
fn documents() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for folder in ["", "runbooks/", "docs/", "docs/decisions/"] {
        let names = std::fs::read_dir(root.join(folder)).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        found.extend(names.filter(|n| n.ends_with(".md")).map(|n| format!("{folder}{n}")));
    }
    found.sort();
    found
}

const MISSING: &str = "failed to read `/nowhere/opsctl.toml`";

/// Returns a sandbox in which a command line is understood, and then nothing is done: its configuration is not there.
fn nowhere() -> Sandbox {
    let mut sandbox = Sandbox::new("");
    sandbox.set("OPSCTL_CONFIG", "/nowhere/opsctl.toml");
    sandbox
}

/// Has opsctl understand the arguments, all together and not only each, and do nothing.
fn is_understood(sandbox: &Sandbox, from: &str, arguments: &[String]) {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    // They need no configuration, and would do it.
    let does = arguments.first().is_some_and(|command| ["demo", "init"].contains(command));
    let help: &[&str] = if does { &["--help"] } else { &[] };
    let run = sandbox.run(&[&arguments[..], help].concat());
    let line = arguments.join(" ");
    let is_known = match run.status {
        // What is asked of opsctl itself.
        0 | 3 if run.stderr.is_empty() || line.starts_with("runbook ") => true,
        // What there is to do first is to read the configuration.
        3 | 10 => [&run.stderr, &run.stdout].iter().any(|said| said.contains(MISSING)),
        _ => false,
    };
    assert!(is_known, "{from} has `opsctl {line}`: {run:#?}");
}

#[test]
fn every_line_of_the_crontab_is_understood() {
    let sandbox = nowhere();
    let crontab = read("crontab.example");
    let mut found = 0;
    // Also those that are there to be thought about.
    let lines = crontab.lines().map(|line| line.trim_start_matches("# "));
    let begins = |line: &&str| line.starts_with(|c: char| c.is_ascii_digit() || c == '*');
    for line in lines.filter(begins) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (times, command) = fields.split_at(5);
        let is_time =
            |field: &&str| field.chars().all(|c| c.is_ascii_digit() || "*/,-".contains(c));
        assert!(times.iter().all(is_time), "{line}");
        assert_eq!(command[0], "opsctl", "{line}");
        // cron takes a percent sign for the end of the line.
        assert!(!line.contains('%'), "{line}");
        is_understood(&sandbox, "crontab.example", &command_lines(&command.join(" "))[0]);
        found += 1;
    }
    assert!(found >= 2, "crontab.example has {found} lines");
    // Nobody would read what goes to an example: that line is there to be filled in.
    for variable in ["SHELL=", "PATH=", "#MAILTO="] {
        assert!(
            crontab.lines().any(|line| line.starts_with(variable)),
            "crontab.example sets no {variable}"
        );
    }
}

#[test]
fn every_command_of_the_documents_is_understood() {
    let sandbox = nowhere();
    let mut found = 0;
    for file in documents() {
        let text = read(&file);
        for language in ["sh", "bash", "console"] {
            for arguments in command_lines(&blocks(&text, language).concat()) {
                is_understood(&sandbox, &file, &arguments);
                found += 1;
            }
        }
    }
    assert!(found >= 150, "only {found} commands were found");
}

#[test]
fn every_command_within_a_sentence_is_understood() {
    let sandbox = nowhere();
    let mut found = 0;
    // What is history may name what is not there any more, and a recipe what is not there yet.
    let is_of_today = |f: &String| {
        !["CHANGELOG.md", "CONTRIBUTING.md"].contains(&f.as_str()) && !f.contains("decisions")
    };
    let files = documents().into_iter().filter(is_of_today);
    for file in files {
        let text = read(&file);
        let mut prose = String::new();
        let mut fenced = false;
        for line in text.lines() {
            fenced ^= line.trim_start().starts_with("```");
            // Sentences go on in the next line, cells of tables do not.
            prose += if fenced { "" } else { line };
            prose.push(if line.starts_with('|') || line.is_empty() { '\n' } else { ' ' });
        }
        for paragraph in prose.lines() {
            for span in paragraph.split('`').skip(1).step_by(2) {
                // What is left out cannot be understood.
                if span.contains('…') {
                    continue;
                }
                for mut arguments in command_lines(&span.replace("\\|", "|")) {
                    // Something that people put in: a folder, a time, one of several words.
                    for word in &mut arguments {
                        *word = match word.as_str() {
                            "FILE" | "DIR" | "ID" | "PAGE" | "KIND" | "RULE" => word.to_lowercase(),
                            "NAME" => "connect".to_owned(),
                            "KEY" => "17".to_owned(),
                            "SEGMENT" => "2024/2024-03-01_2024-03-31".to_owned(),
                            _ => word.split('|').next().unwrap().to_owned(),
                        };
                    }
                    names_a_command(&sandbox, &file, &arguments);
                    found += 1;
                }
            }
        }
    }
    assert!(found >= 100, "only {found} commands were found");
}

/// Has opsctl understand each of the arguments: a sentence need not have all that is needed.
fn names_a_command(sandbox: &Sandbox, from: &str, arguments: &[String]) {
    let help: &[&str] = if arguments == ["help"] { &[] } else { &["--help"] };
    let arguments = arguments.iter().map(String::as_str).chain(help.iter().copied());
    let arguments: Vec<&str> = arguments.collect();
    let run = sandbox.run(&arguments);
    assert_eq!(run.status, 0, "{from} has `opsctl {}`: {}", arguments.join(" "), run.stderr);
}

#[test]
fn every_configuration_of_the_documents_is_valid() {
    let mut sandbox = Sandbox::new("postgresql:///members");
    sandbox.unset("OPSCTL_REPOSITORY");
    let mut found = 0;
    for file in documents() {
        for block in blocks(&read(&file), "toml") {
            let path = sandbox.write("block.toml", &block);
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
            let check = ["config", "check", "--config", path.to_str().unwrap()];
            let run = sandbox.run(&check);
            assert_eq!(run.status, 0, "{file} has\n{block}\n{run:#?}");
            found += 1;
        }
    }
    assert!(found >= 6, "only {found} were found");
}

/// Returns what links to the headings of a document end with.
fn anchors(text: &str) -> BTreeSet<String> {
    let (mut found, mut fenced) = (BTreeSet::new(), false);
    for line in text.lines() {
        fenced ^= line.trim_start().starts_with("```");
        let heading = line.trim_start_matches('#');
        if fenced || heading.len() == line.len() || !heading.starts_with(' ') {
            continue;
        }
        let keep = |c: char| match c {
            ' ' => Some('-'),
            '-' | '_' => Some(c),
            _ => c.is_alphanumeric().then_some(c),
        };
        let anchor: String = heading.trim().to_lowercase().chars().filter_map(keep).collect();
        // The second of the same name has a number.
        let numbered = (1..).map(|n| format!("{anchor}-{n}"));
        let anchor = std::iter::once(anchor.clone()).chain(numbered).find(|a| !found.contains(a));
        found.insert(anchor.unwrap());
    }
    found
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut wrong = Vec::new();
    for file in documents() {
        let text = read(&file);
        let folder = root.join(&file).parent().unwrap().to_owned();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") || link.contains(' ') {
                continue;
            }
            let (path, anchor) = link.split_once('#').map_or((link, None), |(p, a)| (p, Some(a)));
            let target = if path.is_empty() { root.join(&file) } else { folder.join(path) };
            let is_there = match anchor {
                None => target.exists(),
                Some(anchor) => std::fs::read_to_string(&target)
                    .is_ok_and(|text| anchors(&text).contains(anchor)),
            };
            if !is_there {
                wrong.push(format!("{file}: {link}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn whatever_names_a_page_names_one_that_is_there() {
    let sandbox = nowhere();
    let (mut folders, mut found) = (vec!["src".to_owned(), "contrib".to_owned()], 0);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(&folder)).unwrap()
        {
            let entry = entry.unwrap();
            let path = format!("{folder}/{}", entry.file_name().to_str().unwrap());
            if entry.file_type().unwrap().is_dir() {
                folders.push(path);
                continue;
            }
            let Ok(text) = std::fs::read_to_string(entry.path()) else { continue };
            for before in ["opsctl runbook show ", "runbooks/"] {
                for rest in text.split(before).skip(1) {
                    let is_name = |c: char| c.is_ascii_alphanumeric() || "-_.#".contains(c);
                    let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
                    let page = rest[..end].trim_end_matches('.');
                    // What is put together while it runs has tests of its own; no page is called so.
                    let is_none = page.is_empty() || ["PAGE", "help"].contains(&page);
                    if is_none || rest[end..].starts_with(['{', '<']) {
                        continue;
                    }
                    let run = sandbox.run(&["runbook", "show", page]);
                    assert_eq!(run.status, 0, "{path}: {before}{page}: {}", run.stderr);
                    found += 1;
                }
            }
        }
    }
    assert!(found >= 10, "only {found} were found");
}

#[test]
fn every_page_is_read_by_a_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut tests = String::new();
    for entry in std::fs::read_dir(root.join("tests/integration")).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name().to_str().unwrap().starts_with("runbook_") {
            tests += &std::fs::read_to_string(entry.path()).unwrap();
        }
    }
    let (mut read_by_none, mut found) = (Vec::new(), 0);
    for file in documents() {
        let Some(page) = file.strip_prefix("runbooks/").and_then(|f| f.strip_suffix(".md")) else {
            continue;
        };
        if blocks(&read(&file), "sh").is_empty() {
            continue;
        }
        found += 1;
        let by = ["Reader::of(", ".reads("].map(|opens| format!("{opens}\"{page}\""));
        if !by.iter().any(|by| tests.contains(by)) {
            read_by_none.push(file);
        }
    }
    assert!(found > 20, "only {found} pages have lines");
    assert!(read_by_none.is_empty(), "nobody types the lines of {read_by_none:?}");
}

#[test]
fn the_table_of_what_runs_when_is_the_schedule() {
    let sandbox = Sandbox::new("postgresql:///members");
    sandbox.write(
        "opsctl.toml",
        "[maintain]\n[[audit]]\ntable = \"t\"\ntime_column = \"at\"\nlocation = \"a\"\nsigning_key = \"k\"\n\
         [[sessions.rule]]\npreset = \"laravel\"\ngrace = \"2h\"\n",
    );
    let crontab = sandbox.run(&["schedule", "print", "--format", "crontab"]).expect(0).stdout;
    let scheduled =
        crontab.lines().filter(|l| l.starts_with(|c: char| c.is_ascii_digit() || c == '*'));
    let scheduled: BTreeSet<(String, String)> = scheduled
        .map(|line| {
            let (times, command) = line.split_once("opsctl ").unwrap();
            let times = times.split_whitespace().collect::<Vec<_>>().join(" ");
            let typed = command.split(" --quiet").next().unwrap();
            (times, typed.to_owned())
        })
        .collect();
    let page = read("runbooks/README.md");
    let rows = page.lines().filter_map(|line| {
        let cells: Vec<&str> = line.split('`').collect();
        let is_row = line.starts_with("| `") && cells.len() >= 5 && cells[1].contains('*');
        is_row.then(|| (cells[1].to_owned(), cells[3].to_owned()))
    });
    assert_eq!(rows.collect::<BTreeSet<_>>(), scheduled);
}

#[test]
fn the_quick_start_works_without_a_file() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    cluster.sql(&database, "CREATE TABLE members AS SELECT generate_series(1, 100) AS id");
    let sandbox = Sandbox::new(&cluster.url(&database));
    let directory = sandbox.path("repository").display().to_string();
    let blocks = blocks(&read("README.md"), "sh");
    let block = blocks.iter().find(|b| b.contains("backup --repository")).expect("the quick start");
    let lines = command_lines(&block.replace("/var/backups/opsctl", &directory));
    assert!(lines.len() >= 4, "{lines:?}");
    for arguments in lines {
        sandbox.run(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).ends_with(0);
    }
}

#[test]
fn the_quick_start_works_with_a_file() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    cluster.sql(&database, "CREATE TABLE members AS SELECT generate_series(1, 100) AS id");
    let mut sandbox = Sandbox::new("");
    sandbox.unset("DATABASE_URL").unset("OPSCTL_REPOSITORY");
    let toml = blocks(&read("README.md"), "toml").concat();

    // As it stands it is valid.
    let file = sandbox.write("as-printed.toml", &toml);
    sandbox.run(&["config", "check", "--config", file.to_str().unwrap()]).ends_with(0);

    // With places that exist here it works; both repositories get the backup.
    let (local, offsite) = (sandbox.path("local"), sandbox.path("offsite"));
    let toml = toml
        .replace(
            "postgresql://backup@db.example.com/members?sslmode=verify-full",
            &cluster.url(&database),
        )
        .replace("/var/backups/opsctl", local.to_str().unwrap())
        .replace("s3://company-backups/opsctl", offsite.to_str().unwrap());
    let file = sandbox.write("opsctl.toml", &toml);
    sandbox.set("OPSCTL_CONFIG", file.to_str().unwrap());
    let blocks = blocks(&read("README.md"), "sh");
    let block =
        blocks.iter().find(|block| block.contains("config check")).expect("the quick start");
    let lines = command_lines(block);
    assert!(lines.len() >= 3, "{lines:?}");
    for arguments in lines {
        let run = sandbox.run(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        // The server of this machine may be in want of an update.
        let most = i32::from(arguments[0] == "health-check");
        assert!(run.status <= most, "{run:#?}");
    }
    for repository in [local, offsite] {
        let folder =
            std::fs::read_dir(repository.join(&database)).unwrap().next().unwrap().unwrap().path();
        assert!(folder.join("manifest.json").exists(), "{}", folder.display());
    }
}

#[test]
fn the_restore_of_the_readme_works() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    cluster.sql(&database, "CREATE TABLE members AS SELECT generate_series(1, 100) AS id");
    let sandbox = Sandbox::new(&cluster.url(&database));
    let id = sandbox.back_up(&[]);
    let folder = sandbox.path("backups").join(&database).join(id);
    let restored = format!("restored_{database}");
    let blocks = blocks(&read("README.md"), "sh");
    let block =
        blocks.iter().find(|block| block.contains("pg_restore")).expect("the README restores");
    let script = block
        .replace("/var/backups/opsctl/members/20261121T021500Z-4f3a9c", folder.to_str().unwrap())
        .replace(" restored\n", &format!(" {restored}\n"))
        .replace("--dbname=restored", &format!("--dbname={restored}"));
    let path = format!("{}:/usr/bin:/bin", cluster.bin_dir.display());
    let mut bash = std::process::Command::new("bash");
    bash.env("PGHOST", &cluster.dir).env("PGPORT", &cluster.port).env("PGUSER", "postgres");
    stock(bash.env("PATH", path).args(["-euc", &script]));
    assert_eq!(cluster.sql(&restored, "SELECT count(*) FROM members"), "100");
}

#[test]
fn the_rest_of_the_readme_works() {
    let cluster = Cluster::start(&installed(), &[], &[]);
    let new = Cluster::start(&installed(), &[], &[]);
    for database in ["members", "members_staging"] {
        cluster.sql("postgres", &format!("CREATE DATABASE {database} TEMPLATE template0"));
    }
    cluster.sql(
        "members",
        "CREATE TABLE members AS SELECT n AS id, 'Ida' AS name FROM generate_series(1, 100) n",
    );
    cluster.sql("members", "CREATE TABLE dues AS SELECT generate_series(1, 10) AS id");
    let sandbox = Sandbox::new(&cluster.url("members"));
    let receiver = Receiver::start();
    sandbox.write("hook", &receiver.url(""));
    sandbox.write("opsctl.toml", "[notify.channels.ops]\nwebhook_file = \"hook\"\n");
    sandbox.write("names.sql", "UPDATE members SET name = 'somebody'");
    sandbox.back_up(&[]);
    cluster.sql("members", "DELETE FROM members");
    let blocks = blocks(&read("README.md"), "sh");
    let block = |has: &str| blocks.iter().find(|block| block.contains(has)).unwrap();
    let mut typed = 0;
    for text in [block("opsctl notify test"), block("opsctl restore")] {
        let text = text.replace("postgresql://admin@new.example.com/members", &new.url("members"));
        for arguments in command_lines(&text) {
            let run = sandbox.run(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
            // On this machine nothing starts opsctl.
            let expected = if arguments[0] == "doctor" { 3 } else { 0 };
            assert_eq!(run.status, expected, "{arguments:?}: {run:#?}");
            typed += 1;
        }
    }
    assert!(typed >= 12, "only {typed} lines");
    assert!(receiver.requests().iter().any(|request| request.body.contains("notify test")));
    let count = |cluster: &Cluster, database: &str, table: &str| {
        cluster.sql(database, &format!("SELECT count(*) FROM {table}"))
    };
    for database in ["members", "members_copy"] {
        assert_eq!(count(&cluster, database, "members"), "100", "{database}");
    }
    assert_eq!(count(&new, "members", "members"), "100");
    assert_eq!(count(&cluster, "members_dues", "dues"), "10");
    assert_eq!(cluster.sql("members_staging", "SELECT DISTINCT name FROM members"), "somebody");
}

#[test]
fn every_target_of_make_that_is_named_is_there() {
    let makefile = read("Makefile");
    let mut found = 0;
    for file in documents().into_iter().filter(|file| file != "CHANGELOG.md") {
        let text = read(&file);
        let spans = text.split('`').skip(1).step_by(2).filter(|span| span.starts_with("make "));
        let blocks = self::blocks(&text, "sh").concat();
        let lines = blocks.lines().filter(|line| line.starts_with("make "));
        for line in spans.chain(lines) {
            let target = line.split_whitespace().nth(1).unwrap();
            assert!(makefile.contains(&format!("\n{target}:")), "{file} has `{line}`");
            found += 1;
        }
    }
    assert!(found >= 4, "only {found} were found");
}

#[test]
fn the_verification_is_stored_where_the_document_says() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    let sandbox = Sandbox::new(&cluster.url(&database));
    cluster.sql(&database, "CREATE TABLE members AS SELECT 1 AS id");
    let id = sandbox.back_up(&[]);
    sandbox.run(&["verify-backup"]).ends_with(0);
    let folder = sandbox.path("backups").join(&database).join(id);
    let names = std::fs::read_dir(folder.join("verifications")).unwrap();
    let names: Vec<_> =
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(names.len(), 1);
    let (time, result) = names[0].split_once('-').unwrap();
    assert_eq!(time.len(), "YYYYMMDDTHHMMSS.ffffffZ".len(), "{names:?}");
    assert_eq!(result, "artifacts-good.json");
    let sums = std::fs::read_to_string(folder.join("SHA256SUMS")).unwrap();
    assert!(sums.lines().last().unwrap().ends_with("  manifest.json"));
    assert!(!folder.join("lease.json").exists());
}
