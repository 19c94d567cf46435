//! `archive-audit prove`: one row, to somebody who may not see the others.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::archive::Archive;

/// Two months, the second one with so many rows that a block of the tree has several.
const ROWS: &str = "
    CREATE TABLE audit_logs (org text, n int, at timestamptz NOT NULL, what text, PRIMARY KEY (org, n));
    INSERT INTO audit_logs
        SELECT 'hall ' || n % 3, n, '2024-03-01 00:00+00'::timestamptz + n * interval '1 hour', 'secret ' || n FROM generate_series(0, 99) n;
    INSERT INTO audit_logs
        SELECT 'hall ' || n % 3, n, '2024-04-01 00:00+00'::timestamptz + n % 700 * interval '1 hour', 'secret ' || n FROM generate_series(100, 3000) n";

/// Asks opsctl and the small program for what they say of a proof, which must be the same.
fn verdict(archive: &Archive, proof: &Value) -> bool {
    let file = archive.sandbox.write("proof.json", &proof.to_string());
    let file = file.to_str().unwrap();
    let run = archive.sandbox.run(&["archive-audit", "prove", "--check", file]);
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/verify_proof.py");
    let signers = archive.folder().join("allowed_signers");
    let status =
        Command::new("python3").arg(program).arg(file).arg(signers).output().unwrap().status;
    assert_eq!(Some(run.status), status.code(), "{run:#?}\n{proof:#}");
    assert!([0, 3].contains(&run.status), "{run:#?}");
    run.status == 0
}

#[test]
fn a_row_is_proven_and_nothing_else_is_shown() {
    let archive = Archive::new(ROWS);
    archive.json(0, &[]);
    for (org, n) in [
        ("hall 0", "0"),
        ("hall 1", "100"),
        ("hall 2", "2999"),
        ("hall 0", "3000"),
        ("hall 1", "1234"),
    ] {
        let run = archive.sandbox.run(&["archive-audit", "prove", org, n]).expect(0);
        let proof: Value = serde_json::from_str(&run.stdout).unwrap();
        let line: Value = serde_json::from_str(proof["line"].as_str().unwrap()).unwrap();
        assert_eq!(
            (&line["org"], &line["n"], &line["what"]),
            (&json!(org), &json!(n), &json!(format!("secret {n}")))
        );
        assert_eq!(run.stdout.matches("secret").count(), 1, "{}", run.stdout);
        assert!(verdict(&archive, &proof), "{proof:#}");
    }
}

#[test]
fn a_proof_that_was_changed_anywhere_proves_nothing() {
    let archive = Archive::new(ROWS);
    archive.json(0, &[]);
    let file = archive.sandbox.path("out.json");
    let run = archive.sandbox.run(&[
        "archive-audit",
        "prove",
        "hall 1",
        "2500",
        "--out",
        file.to_str().unwrap(),
    ]);
    assert!(run.expect(0).stdout.contains("is proven by"));
    let good: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert!(verdict(&archive, &good));
    let index = good["index"].as_u64().unwrap();
    let first = good["path"][0].as_str().unwrap().to_owned();
    let changed = |key: &str, value: Value| {
        let mut proof = good.clone();
        proof[key] = value;
        assert!(!verdict(&archive, &proof), "{key}");
    };
    let replaced = |key: &str, from: &str, to: &str| {
        let text = good[key].as_str().unwrap();
        assert!(text.contains(from), "{key}: {text}");
        changed(key, text.replacen(from, to, 1).into());
    };
    replaced("line", "secret 2500", "secret 2501");
    replaced("manifest", "\"late\": false", "\"late\": true");
    replaced("signature", "U1NIU0lH", "U1NIU0lI");
    changed("index", (index + 1).into());
    changed("index", (index ^ 4).into());
    changed("index", 1_000_000.into());
    changed("path", json!([]));
    let path = good["path"].as_array().unwrap();
    changed("path", path[1..].into());
    changed("path", [path.as_slice(), &path[..1]].concat().into());
    let other = first.replace('0', "1");
    changed("path", [&[json!(other)], &path[1..]].concat().into());
}

#[test]
fn what_cannot_be_proven_is_said() {
    let archive = Archive::new(ROWS);
    archive.json(0, &[]);
    let prove = |more: &[&str]| archive.sandbox.run(&[&["archive-audit", "prove"], more].concat());
    let run = prove(&["hall 0", "1"]).expect(3);
    assert!(run.stderr.contains("no row with the key hall 0, 1 is in the archive"), "{run:#?}");
    prove(&["hall 0"]).ends_with(3);
    prove(&["hall 1", "100", "--segment", "2024/2024-03-01_2024-03-31"]).ends_with(3);
    prove(&[]).ends_with(2);
    prove(&["a", "--check", "b"]).ends_with(2);
    prove(&["--check", "/nowhere"]).ends_with(3);
    // The same key once more, of a time that was archived already.
    archive
        .sql("UPDATE audit_logs SET at = '2024-03-20 00:00+00' WHERE org = 'hall 1' AND n = 100");
    archive.json(0, &[]);
    let run = prove(&["hall 1", "100"]).expect(2);
    assert!(
        run.stderr.contains(
            "in several segments: 2024/2024-04-01_2024-04-30, 2024/2024-03-01_2024-03-31.2"
        ),
        "{run:#?}"
    );
    let run = prove(&["hall 1", "100", "--segment", "2024/2024-03-01_2024-03-31.2"]).expect(0);
    assert!(verdict(&archive, &serde_json::from_str(&run.stdout).unwrap()));
    // Of a damaged segment nothing is proven.
    let rows = archive.folder().join("2024/2024-04-01_2024-04-30/rows.ndjson.zst");
    let mut bytes = std::fs::read(&rows).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&rows, bytes).unwrap();
    let run = prove(&["hall 0", "3000"]).expect(3);
    assert!(run.stderr.contains("proves nothing"), "{run:#?}");
}
