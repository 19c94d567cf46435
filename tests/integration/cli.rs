//! The help: every command says what it is for and ends with its exit statuses.

use crate::support::Cluster;
use crate::support::patient::sandbox;

#[test]
fn every_help_ends_with_the_exit_statuses() {
    let sandbox = sandbox(&Cluster::shared().url("postgres"));
    for command in [
        &[][..],
        &["backup"],
        &["backup", "list"],
        &["backup", "prune"],
        &["verify-backup"],
        &["schedule"],
        &["schedule", "print"],
        &["config"],
        &["config", "check"],
        &["config", "show"],
        &["config", "example"],
        &["demo"],
    ] {
        let help = sandbox.run(&[command, &["--help"]].concat()).expect(0);
        assert_eq!(help.stderr, "", "{command:?}");
        let last = help.stdout.trim_end().rsplit("\n\n").next().unwrap();
        assert!(last.starts_with("Exit statuses"), "{command:?}: {}", help.stdout);
        assert!(help.stdout.lines().all(|line| line.chars().count() <= 100), "{}", help.stdout);
    }
}

#[test]
fn the_version_is_one_line() {
    let sandbox = sandbox("");
    let version = sandbox.run(&["--version"]).expect(0);
    assert_eq!(version.stdout, format!("opsctl {}\n", env!("CARGO_PKG_VERSION")));
}
