//! The pages about archived audit rows, read where somebody asks for them and where the archive is not what it was.

use std::path::Path;

use crate::support::archive::Archive;
use crate::support::python;
use crate::support::reader::{But, Reader};

const ROWS: &str = "
    CREATE TABLE audit_logs (id bigserial PRIMARY KEY, at timestamptz NOT NULL, who text);
    INSERT INTO audit_logs (at, who) SELECT date '2024-03-05' + n * interval '1 day', 'user ' || n FROM generate_series(0, 50) n";

/// Returns an archive with all rows in it, and the keys that may sign, as others have them.
fn archived() -> Archive {
    let archive = Archive::new(ROWS);
    archive.json(0, &[]);
    let public = std::fs::read_to_string(archive.sandbox.path("key.pub")).unwrap();
    archive.sandbox.write("signers.txt", &format!("opsctl {public}"));
    archive
}

fn program(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib").join(name);
    format!("python3 {}", path.display())
}

#[test]
fn an_auditor_is_answered_by_the_page() {
    let mut archive = archived();
    archive.sandbox.set("PYTHONPATH", python("readers").to_str().unwrap());
    archive.sandbox.back_up(&[]);
    let anchor = archive.sandbox.path("audit.anchor").display().to_string();
    let reader = Reader::of("audit-request", &archive.sandbox)
        .with("/mnt/elsewhere/audit.anchor", &anchor)
        .with("verify_proof.py", &program("verify_proof.py"));
    reader.does("Check", &[]);
    let seen = reader.does("Act", &[]);
    let answer = seen.iter().find(|run| run.stdout.starts_with("count_star()")).unwrap();
    assert!(answer.stdout.ends_with("\n51\n"), "{answer:#?}");
    let march = std::fs::read_to_string(archive.sandbox.path("rows.ndjson")).unwrap();
    assert_eq!(march.lines().count(), 27);
    reader.does("Verify", &[]);
}

#[test]
fn an_archive_that_was_cut_is_found_and_added_to_no_more_by_the_page() {
    let archive = archived();
    let anchor = archive.sandbox.path("audit.anchor").display().to_string();
    let location = archive.folder().display().to_string();
    let reader = Reader::of("archive-audit", &archive.sandbox)
        .with("/mnt/elsewhere/audit.anchor", &anchor)
        .with("COPY/public.audit_logs", &location)
        .with("verify_archive.py", &program("verify_archive.py"));
    reader.does("Check", &[]);
    let good = archive.content();
    let newest = archive.newest();
    std::fs::remove_dir_all(archive.segment(&newest)).unwrap();
    let seen = reader.does("Check", &[("opsctl archive-audit verify", But::Ends(3))]);
    assert!(seen[2].stdout.contains("anchor"), "{seen:#?}");
    archive.put_back(&good);
    archive.cut("2024/2024-03-01_2024-03-31");
    let seen = reader.does("Check", &[("opsctl archive-audit verify", But::Ends(3))]);
    assert!(seen[2].stdout.contains("2024/2024-03-01_2024-03-31"), "{seen:#?}");
    archive.put_back(&good);
    archive.edit("2024/2024-04-01_2024-04-30", |manifest| manifest["rows"] = 1.into());
    let seen = reader.does("Act", &[("opsctl archive-audit", But::Ends(3))]);
    assert!(seen[0].stdout.contains("NOTHING ADDED"), "{seen:#?}");
    archive.put_back(&good);
    reader.does("Act", &[]);
    reader.does("Verify", &[]);
}
