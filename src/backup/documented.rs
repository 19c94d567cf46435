//! `docs/formats.md` is held to what is stored: its tables list exactly the fields that there are, and its
//! example is computed.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::backup::lease::Lease;
use crate::backup::manifest::{self, Contents, Detail, LargeObject, Objects};
use crate::backup::publish::sums;
use crate::backup::repository::{LEASE, SUMS, VERIFICATIONS};
use crate::backup::rows::{Digest, END_MARKER, RowCounter};
use crate::backup::sample::{Proven, Sample};
use crate::backup::verified::Depth;
use crate::backup::verify::{Finding, RestoreTest, Verification};
use crate::clock::Moment;
use crate::id::RunId;

const DOCUMENT: &str = include_str!("../../docs/formats.md");

/// Returns the text of one section.
fn section(heading: &str) -> &'static str {
    let (_, text) = DOCUMENT.split_once(&format!("\n## {heading}\n")).expect(heading);
    text.split_once("\n## ").map_or(text, |(text, _)| text)
}

/// Returns the fields that a section's table lists.
fn documented(heading: &str) -> BTreeSet<String> {
    let rows = section(heading).lines().filter_map(|line| line.strip_prefix("| `"));
    rows.filter_map(|row| Some(row.split_once('`')?.0.to_owned())).collect()
}

/// Collects the paths of all values: `a.b`, `list[].c`, and `map.*.d` for the maps named in `maps`.
fn paths(value: &Value, path: &str, maps: &[&str], found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let key = if maps.contains(&path) { "*" } else { key };
                let dot = if path.is_empty() { "" } else { "." };
                paths(value, &format!("{path}{dot}{key}"), maps, found);
            }
        }
        Value::Array(list) if list.iter().any(Value::is_object) => {
            for value in list {
                paths(value, &format!("{path}[]"), maps, found);
            }
        }
        _ => {
            found.insert(path.to_owned());
        }
    }
}

fn now() -> Moment {
    "2026-11-21T02:15:00Z".parse().unwrap()
}

#[test]
fn the_document_lists_every_field() {
    let check = |heading: &str, values: &[Value]| {
        let mut found = BTreeSet::new();
        let maps = ["contents.open.tables", "contents.open.large_objects", "contents.open.objects"];
        for value in values {
            paths(value, "", &maps, &mut found);
        }
        assert_eq!(documented(heading), found, "docs/formats.md, section {heading}");
    };
    let run = RunId::new(now(), 1);

    let mut plain = manifest::tests::sample(run.clone(), now());
    plain.artifacts[0].chunks[0].object = Some(String::new());
    plain.shrink_accepted = true;
    if let Contents::Open(detail) = &mut plain.contents {
        let object = LargeObject { oid: 1, bytes: 0, digest: Digest::default() };
        detail.large_objects.insert("blob_1.dat".to_owned(), object);
        let objects = Objects { count: 1, digest: Digest::default() };
        detail.objects.insert("INDEX".to_owned(), objects);
        detail.tables.values_mut().for_each(|table| table.partition_root = Some(String::new()));
    }
    let sealed = manifest::Manifest { contents: Contents::Sealed(String::new()), ..plain.clone() };
    check(
        "manifest.json",
        &[plain, sealed].map(|manifest| serde_json::to_value(manifest).unwrap()),
    );

    let lease = serde_json::from_slice(&Lease::new(&run, now()).to_json().unwrap()).unwrap();
    check(LEASE, &[lease]);

    let finding = Finding {
        artifact: Some(String::new()),
        chunk: Some(1),
        offset: Some(0),
        what: String::new(),
    };
    let verification = Verification {
        at: now(),
        backup: run.to_string(),
        repository: String::new(),
        good: true,
        depth: Depth::Artifacts,
        sample: Some(Sample {
            piece: 1,
            pieces: 1,
            proven: vec![Proven { piece: 1, at: now(), backup: run.clone() }],
        }),
        opsctl: "",
        pg_restore: None,
        artifacts: 0,
        chunks: 0,
        rows: 0,
        stored_bytes: 0,
        restore: Some(RestoreTest {
            server: String::new(),
            seconds: 0.0,
            data_age_seconds: 0,
            tables: 0,
            rows: 0,
            large_objects: 0,
            objects: 0,
            queries: 0,
            amcheck: false,
        }),
        findings: vec![finding],
        findings_not_listed: 0,
    };
    let heading = format!("{VERIFICATIONS}<time>-<depth>-<result>.json");
    check(&heading, &[serde_json::to_value(verification).unwrap()]);
}

#[test]
fn an_absent_field_is_the_documented_default() {
    let detail: Detail =
        serde_json::from_str(r#"{"database":"","host":"","tables":{},"large_objects":{}}"#)
            .unwrap();
    assert_eq!(detail, Detail::default());
}

#[test]
fn the_example_of_a_digest_is_right() {
    let rows = section("Digests").lines().filter_map(|line| line.strip_prefix("| "));
    let cells = rows.filter_map(|row| {
        let (name, digest) = row.split_once(" | `")?;
        Some((name.trim_matches('`').replace('⇥', "\t"), digest.split_once('`')?.0.to_owned()))
    });
    let mut digests: BTreeMap<String, String> = cells.collect();
    let table = digests.remove("the table's digest").expect("the example has a sum");
    let mut all = RowCounter::default();
    assert_eq!(digests.len(), 2);
    for (row, digest) in &digests {
        let mut one = RowCounter::default();
        for counter in [&mut one, &mut all] {
            counter.push(row.as_bytes());
            counter.push(b"\n");
        }
        assert_eq!(one.finish().0.digest.to_string(), *digest, "{row}");
    }
    assert_eq!(all.finish().0.digest.to_string(), table);
}

#[test]
fn the_end_of_a_table_and_the_sums_are_as_documented() {
    let bytes: Vec<String> = END_MARKER.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(section("Artifacts and chunks").contains(&format!("`{}`", bytes.join(" "))));
    let manifest = manifest::tests::sample(RunId::new(now(), 1), now());
    let sums = sums(&manifest, b"");
    let lines: Vec<&str> = sums.lines().collect();
    assert_eq!(lines.len(), manifest.artifacts.len() + 1, "{SUMS}");
    assert!(lines.iter().all(|line| line.get(64..66) == Some("  ")));
    assert!(lines.last().unwrap().ends_with("  manifest.json"));
}
