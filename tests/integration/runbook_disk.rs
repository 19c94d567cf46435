//! The page about a disk that is full, read where one is: a small file system with nothing but the repository on it.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};

use crate::support::reader::{But, Reader, beside};
use crate::support::running::unshare;
use crate::support::{Cluster, Run, Sandbox};

/// A process that sees a small file system, and nobody else does.
struct Small(Child);

impl Small {
    fn mount(path: &str, size: &str) -> Small {
        let script =
            format!("mount -t tmpfs -o size={size} opsctl-test {path} && echo mounted && read -r");
        let mut command = unshare(&[]);
        command.args(["bash", "-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "mounted\n");
        Small(child)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn a_repository_that_is_full_has_room_again_by_the_page() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    cluster.sql(
        &database,
        "CREATE TABLE t AS SELECT md5(random()::text) AS x FROM generate_series(1, 90000)",
    );
    let sandbox = Sandbox::new(&cluster.url(&database));
    let backups = sandbox.path("backups").display().to_string();
    std::fs::create_dir(&backups).unwrap();
    let small = Small::mount(&backups, "8M");
    let settings = "[health.disk]\npaths = [\"backups\"]\n";
    sandbox.write("opsctl.toml", settings);
    let back_up = || {
        let script = format!("cd {}; opsctl backup", sandbox.dir.path().display());
        Run::of(&mut beside(small.0.id(), &sandbox.shell(&script)))
    };
    let mut taken = 0;
    let full = loop {
        let run = back_up();
        if run.status != 0 {
            break run;
        }
        taken += 1;
        assert!(taken < 20, "it does not become full");
    };
    assert!(taken >= 3 && full.status == 13, "{taken}: {full:#?}");
    assert!(full.stdout.contains("No space left on device"), "{full:#?}");

    // Nobody had said which backups may go.
    sandbox.write("opsctl.toml", &format!("{settings}[repository.retention]\nkeep_last = 1\n"));
    let this = format!("--only disk{backups} --only inodes{backups}");
    let reader = Reader::of("disk-full", &sandbox)
        .beside(small.0.id())
        .with("--only disk --only inodes", &this)
        .with("--max-depth=2 /var", "--max-depth=2 backups");
    let seen = reader.does("Check", &[("opsctl health-check", But::Ends(2))]);
    assert!(seen[0].stdout.contains(&format!("CRITICAL  disk{backups}")), "{seen:#?}");
    let seen = reader.does("Act", &[]);
    assert!(seen[2].stdout.contains(&format!("{} removed", taken - 1)), "{seen:#?}");
    let seen = reader.does("Verify", &[]);
    assert!(seen[1].stdout.contains(&database), "{seen:#?}");
}
