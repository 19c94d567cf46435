//! What packages install: the files of `packaging/` are what opsctl prints, and `make install` puts everything in its place and
//! takes it away again. The Debian package itself is tried by `make test-package`.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::{Sandbox, stock};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Returns every file below a folder, by its path from there.
fn files(folder: &Path) -> BTreeSet<String> {
    fn walk(top: &Path, folder: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                walk(top, &entry.path(), found);
            } else {
                let path = entry.path();
                found.insert(path.strip_prefix(top).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    let mut found = BTreeSet::new();
    walk(folder, folder, &mut found);
    found
}

fn install(sandbox: &Sandbox, argument: &str) {
    let script = root().join("scripts/install.sh");
    let mut install = Command::new("bash");
    install.arg(script).arg(argument).stdin(Stdio::null());
    install.env("DESTDIR", sandbox.path("destination")).env("PREFIX", "/opt/ops");
    stock(install.env_remove("ZSH_DIR"));
}

#[test]
fn what_is_installed_is_complete_and_all_of_it_is_removed() {
    let sandbox = Sandbox::new("");
    install(&sandbox, env!("CARGO_BIN_EXE_opsctl"));
    let there = files(&sandbox.path("destination"));
    for name in [
        "bin/opsctl",
        "share/man/man1/opsctl.1",
        "share/man/man1/opsctl-archive-audit-hold-add.1",
        "share/man/man5/opsctl.toml.5",
        "share/bash-completion/completions/opsctl",
        "share/zsh/site-functions/_opsctl",
        "share/fish/vendor_completions.d/opsctl.fish",
        "share/doc/opsctl/crontab.example",
        "share/doc/opsctl/opsctl.toml.example",
        "share/doc/opsctl/docs/configuration.md",
        "share/doc/opsctl/contrib/prometheus-alerts.yml",
        "lib/systemd/system/opsctl-backup.service",
        "lib/systemd/system/opsctl-backup.timer",
    ] {
        assert!(there.contains(&format!("opt/ops/{name}")), "{name} is missing: {there:#?}");
    }
    assert!(there.iter().all(|path| path.starts_with("opt/ops/")), "{there:#?}");
    let installed = |name: &str| sandbox.path("destination/opt/ops").join(name);

    // The program says what it is, and the units call it where it is.
    let said = stock(Command::new(installed("bin/opsctl")).arg("--version"));
    assert_eq!(said, format!("opsctl {}\n", env!("CARGO_PKG_VERSION")));
    let unit = read(&installed("lib/systemd/system/opsctl-backup.service"));
    assert!(unit.contains("\nExecStart=/opt/ops/bin/opsctl backup "), "{unit}");

    // In the example nothing is in force, and with everything in force it is the one that is printed.
    let example = installed("share/doc/opsctl/opsctl.toml.example");
    assert!(read(&example).lines().all(|line| line.is_empty() || line.starts_with('#')));
    sandbox.run(&["config", "check", "--config", example.to_str().unwrap()]).ends_with(0);
    let printed = sandbox.run(&["config", "example"]).expect(0).stdout;
    let bare = |text: &str| text.lines().map(|l| l.trim_start_matches('#').to_owned()).collect();
    let (example, printed): (Vec<String>, Vec<String>) = (bare(&read(&example)), bare(&printed));
    assert_eq!(example, printed);

    // What somebody else put there stays.
    std::fs::write(installed("share/man/man1/other.1"), "").unwrap();
    install(&sandbox, "--remove");
    let left = files(&sandbox.path("destination"));
    assert_eq!(left, BTreeSet::from(["opt/ops/share/man/man1/other.1".to_owned()]));
}

#[test]
fn the_units_of_packages_are_what_is_printed() {
    let mut sandbox = Sandbox::new("");
    sandbox.set("OPSCTL_REPOSITORY", "/var/backups/opsctl").unset("OPSCTL_STATE_DIR");
    let out = sandbox.path("units");
    std::fs::create_dir(&out).unwrap();
    let print = ["schedule", "print", "--format", "systemd", "--out", out.to_str().unwrap()];
    sandbox.run(&print).ends_with(0);
    let ours = root().join("packaging/systemd");
    assert_eq!(files(&ours), files(&out));
    for name in files(&out) {
        let advice = "print it anew: OPSCTL_REPOSITORY=/var/backups/opsctl opsctl schedule print --format systemd";
        assert_eq!(read(&ours.join(&name)), read(&out.join(&name)), "{name}: {advice}");
    }
}
