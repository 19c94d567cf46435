//! `opsctl config`.

use crate::support::Sandbox;

#[test]
fn the_printed_example_passes_the_check() {
    let sandbox = Sandbox::new("");
    let example = sandbox.run(&["config", "example"]).expect(0).stdout;
    let file = sandbox.write("example.toml", &example);
    let run = sandbox.run(&["config", "check", "--config", file.to_str().unwrap()]).expect(0);
    assert!(run.stdout.contains("example.toml"), "{run:#?}");
    // It connects to nothing: the database in the example does not exist.
    assert_eq!(
        sandbox.json(0, &["config", "check", "--config", file.to_str().unwrap()])["databases"],
        1
    );
}

#[test]
fn all_that_is_wrong_is_said_at_once_with_its_line() {
    let sandbox = Sandbox::new("");
    let file =
        sandbox.write("wrong.toml", "[database]\nurll = \"x\"\n\n[backup]\njobs = \"many\"\n");
    let file = file.to_str().unwrap();
    let run = sandbox.run(&["config", "check", "--config", file]).expect(10);
    // What is wrong is what was asked for, and so the report.
    for part in ["wrong.toml:2", "urll", "wrong.toml:5", "jobs"] {
        assert!(run.stdout.contains(part), "{part}: {run:#?}");
    }
    let json = sandbox.json(10, &["config", "check", "--config", file]);
    assert!(json.to_string().contains("urll"), "{json}");
    // Every other command refuses it as well, before it does anything.
    let run = sandbox.run(&["backup", "--config", file]).expect(10);
    assert!(run.stdout.is_empty() && run.stderr.contains("urll"), "{run:#?}");
    assert!(!sandbox.path("backups").exists());
}

#[test]
fn a_file_that_was_named_must_be_there() {
    let sandbox = Sandbox::new("");
    let run = sandbox.run(&["config", "check", "--config", "nowhere.toml"]).expect(10);
    assert!(run.stdout.contains("nowhere.toml"), "{run:#?}");
}

#[test]
fn what_is_shown_names_its_source_and_no_secret() {
    let mut sandbox = Sandbox::new("postgresql://ann:geheim@db.example.com/members");
    sandbox
        .set("OPSCTL_JOBS", "3")
        .set("AWS_ACCESS_KEY_ID", "AKIA")
        .set("AWS_SECRET_ACCESS_KEY", "streng-geheim");
    let args = ["config", "show", "--repository", "s3://bucket/prefix", "--compression", "gzip:9"];
    // `--compression` is the backup's.
    sandbox.run(&args).ends_with(2);
    let run = sandbox.run(&args[..4]).expect(0);
    for part in
        ["environment OPSCTL_JOBS", "environment DATABASE_URL", "flag --repository", "default"]
    {
        assert!(run.stdout.contains(part), "{part}: {run:#?}");
    }
    let json = sandbox.json(0, &args[..4]).to_string();
    for secret in ["geheim", "streng-geheim"] {
        assert!(!run.stdout.contains(secret) && !json.contains(secret), "{run:#?} {json}");
    }
    assert!(!run.stderr.contains("geheim"), "{run:#?}");
}
