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
fn make_installs_into_any_directory() {
    let sandbox = Sandbox::new("");
    let built = sandbox.path("built");
    std::fs::create_dir_all(built.join("release")).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_opsctl"), built.join("release/opsctl")).unwrap();
    let destination = sandbox.path("it's a destination");
    let make = |target: &str| {
        let mut make = Command::new("make");
        make.arg("-C").arg(root()).args([target, "CARGO=true", "PREFIX=/opt/ops"]);
        make.arg(format!("CARGO_TARGET_DIR={}", built.display()));
        make.arg(format!("DESTDIR={}", destination.display()));
        stock(make.stdin(Stdio::null()).env_remove("ZSH_DIR").env_remove("MAKEFLAGS"));
        files(&destination)
    };
    std::fs::create_dir(&destination).unwrap();
    let there = make("install");
    assert!(there.contains("opt/ops/bin/opsctl"), "{there:#?}");
    assert!(there.contains("opt/ops/share/man/man1/opsctl.1"), "{there:#?}");
    assert_eq!(make("uninstall"), BTreeSet::new());
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

/// Returns the program that a script of `scripts/` gets.
fn got(script: &str, argument: &str) -> String {
    let mut bash = Command::new("bash");
    bash.arg(root().join("scripts").join(script)).arg(argument).stdin(Stdio::null());
    stock(&mut bash).lines().last().expect("it says where the program is").to_owned()
}

#[test]
fn the_base_for_kubernetes_is_what_is_printed_and_an_overlay_says_the_rest() {
    let mut sandbox = Sandbox::new("");
    sandbox.unset("OPSCTL_REPOSITORY");
    let base = root().join("packaging/kubernetes");
    let config = base.join("opsctl.toml");
    let config = config.to_str().unwrap();
    sandbox.run(&["config", "check", "--config", config]).ends_with(0);
    let print = ["schedule", "print", "--format", "kubernetes", "--config", config];
    let printed = sandbox.run(&print).expect(0).stdout;
    let advice = "print it anew: opsctl schedule print --format kubernetes --config packaging/kubernetes/opsctl.toml";
    assert_eq!(read(&base.join("opsctl.yaml")), printed, "{advice}");

    // The overlay is the one that the base's own comment proposes.
    let text = read(&base.join("kustomization.yaml"));
    let proposed = text.lines().filter_map(|line| line.strip_prefix("#   "));
    let proposed: Vec<_> = proposed.filter(|line| !line.starts_with("opsctl ")).collect();
    assert_eq!(proposed.len(), 5, "{proposed:#?}");
    let overlay = sandbox.path("operations");
    let copy = sandbox.path("opsctl/packaging/kubernetes");
    std::fs::create_dir(&overlay).unwrap();
    std::fs::create_dir_all(&copy).unwrap();
    for name in files(&base) {
        std::fs::copy(base.join(&name), copy.join(&name)).unwrap();
    }
    sandbox.write("operations/kustomization.yaml", &proposed.join("\n"));
    sandbox.write("operations/opsctl.toml", "[repository]\nlocation = \"s3://ours/opsctl\"\n");
    sandbox.write("operations/opsctl.env", "DATABASE_URL=postgresql://db.example.com/members\n");
    let kubectl = got("install-packaging.sh", "kubectl");
    let build = |folder: &Path| {
        let mut build = Command::new(&kubectl);
        stock(build.arg("kustomize").arg(folder).env("HOME", sandbox.path("home")))
    };
    let ours = build(&overlay);
    for (text, times) in [
        ("kind: CronJob", 5),
        ("namespace: operations", 7),
        ("image: registry.example.com/opsctl:", 5),
        ("kind: Secret", 1),
        ("s3://ours/opsctl", 1),
        ("s3://company-backups/opsctl", 0),
    ] {
        assert_eq!(ours.matches(text).count(), times, "{text}: {ours}");
    }
    // Each job has the very configuration and secret: their names change with what is in them.
    for kind in ["ConfigMap", "Secret"] {
        let (document, _) = ours.split_once(&format!("kind: {kind}\n")).unwrap();
        let name = ours[document.len()..].split_once("  name: ").unwrap().1.lines().next().unwrap();
        assert!(name.starts_with("opsctl-"), "{name}");
        assert_eq!(ours.matches(&format!("name: {name}\n")).count(), 6, "{name}: {ours}");
    }
    let validate = got("install-kubernetes-validate.sh", "");
    for (name, built) in [("base", build(&copy)), ("ours", ours)] {
        let file = sandbox.write(&format!("{name}.yaml"), &built);
        let said = stock(Command::new(&validate).arg("--strict").arg(file));
        assert!(said.matches(" passed ").count() >= 6, "{name}: {said}");
    }
}

#[test]
fn the_dockerfile_has_no_bad_habits() {
    let lint = got("install-packaging.sh", "dockerfilelint");
    let said = stock(Command::new(&lint).arg(root().join("Dockerfile")));
    assert!(said.contains("None found"), "{said}");
    // It would say so otherwise.
    let sandbox = Sandbox::new("");
    let bad = sandbox.write("Dockerfile", "FROM debian:latest\nRUN apt-get install curl\n");
    let said = Command::new(&lint).arg(bad).output().unwrap();
    assert!(!said.status.success(), "{said:?}");
    // The image is the one that the manifests are about.
    let dockerfile = read(&root().join("Dockerfile"));
    let manifest = read(&root().join("packaging/kubernetes/opsctl.yaml"));
    let user = dockerfile.lines().find_map(|line| line.strip_prefix("USER ")).unwrap();
    let (user, group) = user.split_once(':').unwrap();
    assert!(manifest.contains(&format!("runAsUser: {user}\n")), "{user}");
    assert!(manifest.contains(&format!("runAsGroup: {group}\n")), "{group}");
}
