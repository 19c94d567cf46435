//! What the documents tell people to type is typed here, and what they tell them to write is read.

use std::path::Path;

use crate::support::{Cluster, Sandbox, stock};

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
    let lines = text.lines().filter_map(|line| {
        let line = line.split(" #").next()?.split(" | ").next()?.split(" > ").next()?;
        Some(words(line.trim().strip_prefix("opsctl ")?))
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

/// Has opsctl understand the arguments, and do nothing.
fn is_understood(sandbox: &Sandbox, from: &str, arguments: &[String]) {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).chain(["--help"]).collect();
    let run = sandbox.run(&arguments);
    assert_eq!(run.status, 0, "{from} has `opsctl {}`: {}", arguments.join(" "), run.stderr);
}

#[test]
fn every_line_of_the_crontab_is_understood() {
    let sandbox = Sandbox::new("");
    let crontab = read("crontab.example");
    let mut found = 0;
    for line in crontab.lines().filter(|line| line.contains("opsctl ") && !line.starts_with('#')) {
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
    for variable in ["SHELL=", "PATH=", "MAILTO="] {
        assert!(
            crontab.lines().any(|line| line.starts_with(variable)),
            "crontab.example sets no {variable}"
        );
    }
}

#[test]
fn every_command_of_the_documents_is_understood() {
    let sandbox = Sandbox::new("");
    let mut found = 0;
    let runbooks =
        ["README", "backup", "backup-failed", "exit-codes", "restore", "schedule", "verify-backup"];
    let files =
        runbooks.iter().map(|name| format!("runbooks/{name}.md")).chain(["README.md".to_owned()]);
    for file in files {
        for arguments in command_lines(&blocks(&read(&file), "sh").concat()) {
            is_understood(&sandbox, &file, &arguments);
            found += 1;
        }
    }
    assert!(found >= 15, "only {found} commands were found");
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
