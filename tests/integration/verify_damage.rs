//! `opsctl verify-backup`, proved by damage: one test per way to be broken.
//!
//! Each is found, named with backup, artifact, chunk and offset, ends with status 3, and is stored beside the backup.

use serde_json::json;

use crate::support::broken::{self, Broken, add_up, artifact, flip, sha256};

/// Returns where chunk `n`, counted from 1, of an artifact begins.
fn offset(backup: &Broken, name: &str, n: usize) -> u64 {
    let manifest = backup.manifest();
    let chunks = artifact(&manifest, name)["chunks"].as_array().unwrap();
    assert!(chunks.len() >= 3, "the table should have several chunks");
    chunks[..n - 1].iter().map(|c| c["size"].as_u64().unwrap()).sum()
}

#[test]
fn a_missing_artifact_is_found() {
    let backup = Broken::new();
    let name = backup.table("small_3");
    std::fs::remove_file(backup.path(&name)).unwrap();
    backup.is_found(&[&format!("artifact `{name}`: is missing")]);
    backup.is_listed_as_damaged();
}

#[test]
fn a_truncated_artifact_is_found() {
    let backup = Broken::new();
    let name = backup.table("members");
    let content = std::fs::read(backup.path(&name)).unwrap();
    let (size, cut) = (content.len(), content.len() - 1);
    std::fs::write(backup.path(&name), &content[..cut]).unwrap();
    let chunks = backup.chunks_of(&name);
    let last = offset(&backup, &name, chunks);
    backup.is_found(&[
        &format!("artifact `{name}`: has {cut} bytes where the manifest says {size}"),
        &format!("artifact `{name}`, chunk {chunks} at offset {last}: {} bytes from {last} asked of {cut}", size as u64 - last),
    ]);
    backup.is_listed_as_damaged();
}

#[test]
fn a_flipped_bit_is_found() {
    let backup = Broken::new();
    let name = backup.table("members");
    let at = offset(&backup, &name, 3);
    flip(&backup.path(&name), usize::try_from(at).unwrap() + 1000);
    backup.is_found(&[&format!(
        "artifact `{name}`, chunk 3 at offset {at}: its SHA-256 differs: its bytes were changed"
    )]);
    backup.is_listed_as_damaged();
}

#[test]
fn swapped_artifacts_are_found() {
    let backup = Broken::new();
    let mut names = [backup.table("small_1"), backup.table("small_2")];
    names.sort();
    let [first, second] = &names;
    let (a, b) =
        (std::fs::read(backup.path(first)).unwrap(), std::fs::read(backup.path(second)).unwrap());
    assert_eq!(a.len(), b.len());
    std::fs::write(backup.path(first), b).unwrap();
    std::fs::write(backup.path(second), a).unwrap();
    let changed = |name: &String| {
        format!(
            "artifact `{name}`, chunk 1 at offset 0: its SHA-256 differs: its bytes were changed"
        )
    };
    backup.is_found(&[&changed(first), &changed(second)]);
}

#[test]
fn an_extra_object_is_found() {
    let backup = Broken::new();
    std::fs::write(backup.path("9999.dat.gz"), "").unwrap();
    backup.is_found(&[
        "artifact `9999.dat.gz`: is not in the manifest: it does not belong to this backup",
    ]);
}

#[test]
fn a_missing_manifest_is_found() {
    let backup = Broken::new();
    std::fs::remove_file(backup.path("manifest.json")).unwrap();
    backup.is_found(&["there is no `manifest.json`: the backup was never completed"]);
    let run = backup.sandbox.run(&["verify-backup"]).expect(3);
    assert!(run.stdout.contains("there is no backup of `ip2a` to verify in "), "{}", run.stdout);
}

#[test]
fn a_manifest_from_the_future_is_found_and_kept() {
    let backup = Broken::new();
    backup.edit(|manifest| manifest["version"] = 2.into());
    backup.is_found(&["the manifest has version 2, this opsctl reads version 1: use a newer one"]);
    let run = backup.sandbox.run(&["verify-backup"]).expect(3);
    assert!(
        run.stdout.contains("has version 2"),
        "the newest is looked at, also if it cannot be read: {}",
        run.stdout
    );
    let run = backup.sandbox.run(&["backup", "list"]).expect(0);
    assert!(run.stdout.contains("its manifest cannot be read"), "{}", run.stdout);
}

#[test]
fn a_manifest_that_is_no_json_is_found() {
    let backup = Broken::new();
    std::fs::write(backup.path("manifest.json"), "{\"version\": 1").unwrap();
    backup.is_found(&["the manifest is not valid JSON of the documented form: EOF while parsing an object at line 1 column 13"]);
}

#[test]
fn a_wrong_digest_is_found() {
    let backup = Broken::new();
    let name = backup.table("small_5");
    let digest = backup.manifest()["contents"]["open"]["tables"][&name]["digest"]
        .as_str()
        .unwrap()
        .to_owned();
    let none = "00000000000000000000000000000000";
    backup.edit(|m| m["contents"]["open"]["tables"][&name]["digest"] = json!(none));
    backup.is_found(&[&format!(
        "the manifest contradicts itself: the contents and the chunks of artifact `{name}` differ"
    )]);
    backup.edit(|m| m["contents"]["open"]["tables"][&name]["chunks"] = json!([none]));
    backup.is_found(&[&format!(
        "artifact `{name}`, chunk 1 at offset 0: its rows are not those that were dumped: digest {digest}"
    )]);
    // As before the digests of chunks were noted.
    backup.edit(|m| m["contents"]["open"]["tables"][&name]["chunks"] = json!([]));
    backup.is_found(&[&format!(
        "artifact `{name}`: its rows are not those that were dumped: digest {digest}"
    )]);
    backup.is_listed_as_damaged();
}

#[test]
fn a_row_count_that_contradicts_the_chunks_is_found() {
    let backup = Broken::new();
    let name = backup.table("small_5");
    backup.edit(|m| m["contents"]["open"]["tables"][&name]["rows"] = 2.into());
    backup.is_found(&[&format!(
        "the manifest contradicts itself: the contents and the chunks of artifact `{name}` differ"
    )]);
}

#[test]
fn a_wrong_row_count_is_found() {
    let backup = Broken::new();
    let name = backup.table("members");
    let mut rows = 0;
    backup.edit(|m| {
        let artifacts = m["artifacts"].as_array_mut().unwrap();
        let chunk = &mut artifacts.iter_mut().find(|a| a["name"] == name).unwrap()["chunks"][1];
        rows = chunk["rows"].as_u64().unwrap();
        chunk["rows"] = (rows + 1).into();
        m["contents"]["open"]["tables"][&name]["rows"] = 100_001.into();
        add_up(m);
    });
    let at = offset(&backup, &name, 2);
    backup.is_found(&[&format!(
        "artifact `{name}`, chunk 2 at offset {at}: holds {rows} rows where the manifest says {}",
        rows + 1
    )]);
}

#[test]
fn a_wrong_sha256_of_a_chunk_is_found() {
    let backup = Broken::new();
    let name = backup.table("small_7");
    backup.edit(|m| {
        let artifacts = m["artifacts"].as_array_mut().unwrap();
        artifacts.iter_mut().find(|a| a["name"] == name).unwrap()["chunks"][0]["sha256"] =
            sha256(b"another").into();
    });
    backup.is_found(&[&format!(
        "artifact `{name}`, chunk 1 at offset 0: its SHA-256 differs: its bytes were changed"
    )]);
}

#[test]
fn a_wrong_sha256_of_a_whole_artifact_is_found() {
    let backup = Broken::new();
    let name = backup.table("members");
    backup.edit(|m| {
        let artifacts = m["artifacts"].as_array_mut().unwrap();
        artifacts.iter_mut().find(|a| a["name"] == name).unwrap()["sha256"] =
            sha256(b"another").into();
    });
    backup.is_found(&[&format!(
        "artifact `{name}`: its SHA-256 as a whole differs, though its chunks' do not"
    )]);
}

#[test]
fn the_manifest_of_another_backup_is_found() {
    let backup = Broken::new();
    backup.edit(|manifest| manifest["id"] = json!("20200101T000000Z-abcdef"));
    backup.is_found(&["the manifest is that of backup 20200101T000000Z-abcdef"]);
}

#[test]
fn a_table_of_contents_that_ends_early_is_found() {
    let backup = Broken::new();
    let toc = backup.chunks("toc.dat").concat();
    backup.rewrite("toc.dat", &[toc[..toc.len() / 2].to_vec()]);
    let found = backup.sandbox.json(3, &["verify-backup"]);
    let findings = found["verifications"][0]["findings"].as_array().unwrap();
    assert!(findings.iter().all(|f| f["artifact"] == "toc.dat"), "{findings:?}");
    assert!(
        findings
            .iter()
            .any(|f| f["what"].as_str().unwrap().contains("pg_restore does not accept it")),
        "{findings:?}"
    );
    assert_eq!(findings.len(), 2, "opsctl reads it, too: {findings:?}");
}

#[test]
fn a_table_of_contents_that_names_another_file_is_found() {
    let backup = Broken::new();
    let name = backup.table("small_9");
    let plain = name.strip_suffix(".gz").unwrap();
    let mut toc = backup.chunks("toc.dat").concat();
    let at = toc.windows(plain.len()).position(|w| w == plain.as_bytes()).unwrap();
    toc[at] = b'9';
    let other = format!("9{}", &name[1..]);
    backup.rewrite("toc.dat", &[toc]);
    backup.is_found(&[
        &format!("artifact `{name}`: the manifest names it, `toc.dat` does not"),
        &format!("artifact `{other}`: `toc.dat` names it, the manifest does not"),
    ]);
}

#[test]
fn a_table_of_contents_that_names_no_file_is_found() {
    let backup = Broken::new();
    let name = backup.table("small_9");
    let mut toc = backup.chunks("toc.dat").concat();
    let (file, number) = (name.strip_suffix(".gz").unwrap(), name.strip_suffix(".dat.gz").unwrap());
    let at = toc.windows(file.len()).position(|w| w == file.as_bytes()).unwrap();
    // Its length of four bytes behind the sign, least significant first, becomes that of an empty text.
    toc.splice(at - 4..at + file.len(), [0; 4]);
    backup.rewrite("toc.dat", &[toc]);
    backup.is_found(&[&format!(
        "artifact `toc.dat`: the table of contents is damaged: entry {number} has data and no file"
    )]);
}

#[test]
fn an_artifact_without_its_end_is_found_though_all_sums_agree() {
    let backup = Broken::new();
    let name = backup.table("members");
    let mut chunks = backup.chunks(&name);
    let last = chunks.last_mut().unwrap();
    last.truncate(last.len() - b"\\.\n\n\n".len());
    backup.rewrite(&name, &chunks);
    let at = offset(&backup, &name, chunks.len());
    let n = chunks.len();
    backup.is_found(&[&format!("artifact `{name}`, chunk {n} at offset {at}: does not end with the COPY end marker: it lacks its end")]);
}

#[test]
fn a_changed_row_is_found_though_all_sums_agree() {
    let backup = Broken::new();
    let name = backup.table("members");
    let mut chunks = backup.chunks(&name);
    let byte = chunks[1].iter_mut().rev().find(|byte| byte.is_ascii_hexdigit()).unwrap();
    *byte = if *byte == b'0' { b'1' } else { b'0' };
    backup.rewrite(&name, &chunks);
    let found = backup.sandbox.json(3, &["verify-backup"]);
    let findings = found["verifications"][0]["findings"].as_array().unwrap();
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert_eq!((&findings[0]["artifact"], &findings[0]["chunk"]), (&json!(name), &json!(2)));
    assert!(
        findings[0]["what"]
            .as_str()
            .unwrap()
            .starts_with("its rows are not those that were dumped: digest ")
    );
    backup.is_listed_as_damaged();
}

#[test]
fn a_changed_large_object_is_found_though_all_sums_agree() {
    let backup = Broken::new();
    let name = "blob_4711.dat.gz";
    assert_eq!(backup.chunks(name).concat(), b"the scanned contract");
    backup.rewrite(name, &[b"the scanned contrast".to_vec()]);
    backup.is_found(&[&format!(
        "artifact `{name}`: its content is not that of the large object that was dumped"
    )]);
}

#[test]
fn an_empty_file_in_place_of_an_artifact_is_found() {
    let backup = Broken::new();
    let name = backup.table("small_2");
    let size = std::fs::metadata(backup.path(&name)).unwrap().len();
    let mut empty =
        flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()).finish().unwrap();
    empty.truncate(20);
    std::fs::write(backup.path(&name), &empty).unwrap();
    backup.is_found(&[
        &format!("artifact `{name}`: has 20 bytes where the manifest says {size}"),
        &format!("artifact `{name}`, chunk 1 at offset 0: {size} bytes from 0 asked of 20"),
    ]);
}

#[test]
fn an_empty_file_in_place_of_an_artifact_is_found_though_all_sums_agree() {
    let backup = Broken::new();
    let name = backup.table("small_2");
    backup.rewrite(&name, &[Vec::new()]);
    backup.is_found(&[
        &format!("artifact `{name}`, chunk 1 at offset 0: does not end with the COPY end marker: it lacks its end"),
    ]);
}

#[test]
fn missing_sums_are_found() {
    let backup = Broken::new();
    std::fs::remove_file(backup.path("SHA256SUMS")).unwrap();
    backup.is_found(&["artifact `SHA256SUMS`: is missing"]);
}

#[test]
fn changed_sums_are_found() {
    let backup = Broken::new();
    flip(&backup.path("SHA256SUMS"), 3);
    backup.is_found(&[
        "artifact `SHA256SUMS`: does not agree with `manifest.json`: one of the two was changed",
    ]);
}

#[test]
fn changed_notes_are_found() {
    let backup = Broken::new();
    flip(&backup.path("RESTORE.md"), 10);
    backup.is_found(&[
        "artifact `RESTORE.md`, chunk 1 at offset 0: its SHA-256 differs: its bytes were changed",
    ]);
}

#[test]
fn a_manifest_that_was_changed_alone_is_found_by_the_sums() {
    let backup = Broken::new();
    let path = backup.path("manifest.json");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("\"opsctl\": \"", "\"opsctl\": \"9")).unwrap();
    backup.is_found(&[
        "artifact `SHA256SUMS`: does not agree with `manifest.json`: one of the two was changed",
    ]);
}

#[test]
fn a_backup_that_is_not_there_is_said_to_be_missing_and_nothing_is_written() {
    let backup = Broken::new();
    let id = "20200101T000000Z-abcdef";
    broken::is_found(
        &backup.sandbox,
        id,
        &[],
        &["there is no `manifest.json`: the backup was never completed"],
    );
    assert!(!backup.folder.with_file_name(id).exists(), "a folder was made for it");
}
