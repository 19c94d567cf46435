//! Backups to be broken: a copy of a good one, and ways to change it so that its sums still agree.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::every_object::only_backup;
use super::{Cluster, Run, Sandbox, stock, unique};

/// The database's name in the repositories.
pub(crate) const DATABASE: &str = "ip2a";

/// A sandbox whose repository has one backup, in the layout of a directory.
pub(crate) struct Broken {
    pub(crate) sandbox: Sandbox,
    pub(crate) id: String,
    pub(crate) folder: PathBuf,
}

/// Returns a database with a table of several chunks, some small ones, and a large object.
pub(crate) fn database() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| {
        let cluster = Cluster::shared();
        let name = format!("breakable_{}", unique());
        cluster.sql("postgres", &format!("CREATE DATABASE {name} TEMPLATE template0"));
        // As many workers as tables: the more workers, the smaller the chunks.
        let small: String = (1..16).map(|n| format!("CREATE TABLE small_{n} AS SELECT {n} AS n;")).collect();
        let large = "CREATE TABLE members AS SELECT i AS id, md5(i::text) || md5((-i)::text) AS name FROM generate_series(1, 100000) i;";
        cluster.sql(&name, &format!("{small}{large} SELECT lo_from_bytea(4711, 'the scanned contract')"));
        name
    })
}

/// Takes a backup of that database that has chunks of 2 MiB.
pub(crate) fn back_up(sandbox: &Sandbox, args: &[&str]) -> String {
    static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    sandbox.back_up(&[&["--jobs", "16", "--compression", "gzip:1"], args].concat())
}

/// Returns a sandbox whose configuration names that database, and has `repositories` behind it.
pub(crate) fn sandbox(repositories: &str) -> Sandbox {
    let mut sandbox = Sandbox::new("unused");
    sandbox.unset("DATABASE_URL").unset("OPSCTL_REPOSITORY");
    let url = Cluster::shared().url(database());
    sandbox
        .write("opsctl.toml", &format!("[databases.{DATABASE}]\nurl = \"{url}\"\n{repositories}"));
    sandbox
}

/// Returns the configuration of a directory repository in the sandbox.
pub(crate) const DIRECTORY: &str = "[repository]\nlocation = \"backups\"\n";

impl Broken {
    /// Copies a good backup, which is taken once for all.
    pub(crate) fn new() -> Broken {
        static GOOD: OnceLock<Sandbox> = OnceLock::new();
        let good = GOOD.get_or_init(|| {
            let sandbox = sandbox(DIRECTORY);
            back_up(&sandbox, &[]);
            sandbox
        });
        let sandbox = sandbox(DIRECTORY);
        stock(Command::new("cp").arg("-a").arg(good.path("backups")).arg(sandbox.path("backups")));
        let folder = only_backup(&sandbox.path("backups"));
        let id = folder.file_name().unwrap().to_str().unwrap().to_owned();
        Broken { sandbox, id, folder }
    }

    /// Returns the path of a file of the backup.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Returns the manifest.
    pub(crate) fn manifest(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.path("manifest.json")).unwrap()).unwrap()
    }

    /// Returns the name of a table's artifact.
    pub(crate) fn table(&self, name: &str) -> String {
        table(&self.manifest(), name)
    }

    /// Changes the manifest, and `SHA256SUMS` with it.
    pub(crate) fn edit(&self, change: impl FnOnce(&mut Value)) {
        let mut manifest = self.manifest();
        change(&mut manifest);
        let json = serde_json::to_vec_pretty(&manifest).unwrap();
        let line = |name: &str, sum: &str| format!("{sum}  {name}\n");
        let artifacts = manifest["artifacts"].as_array().unwrap().iter();
        let lines =
            artifacts.map(|a| line(a["name"].as_str().unwrap(), a["sha256"].as_str().unwrap()));
        let sums: String = lines.chain([line("manifest.json", &sha256(&json))]).collect();
        std::fs::write(self.path("manifest.json"), json).unwrap();
        std::fs::write(self.path("SHA256SUMS"), sums).unwrap();
    }

    /// Returns how many chunks an artifact has.
    pub(crate) fn chunks_of(&self, name: &str) -> usize {
        artifact(&self.manifest(), name)["chunks"].as_array().unwrap().len()
    }

    /// Returns the decompressed chunks of an artifact.
    pub(crate) fn chunks(&self, name: &str) -> Vec<Vec<u8>> {
        let file = std::fs::read(self.path(name)).unwrap();
        let mut rest = file.as_slice();
        let manifest = self.manifest();
        let chunks = artifact(&manifest, name)["chunks"].as_array().unwrap();
        let mut chunk = |chunk: &Value| {
            let (stored, tail) =
                rest.split_at(usize::try_from(chunk["size"].as_u64().unwrap()).unwrap());
            rest = tail;
            decompress(name, stored)
        };
        chunks.iter().map(&mut chunk).collect()
    }

    /// Replaces the content of an artifact, chunk by chunk, so that all sizes and SHA-256 agree with it.
    pub(crate) fn rewrite(&self, name: &str, chunks: &[Vec<u8>]) {
        let stored: Vec<Vec<u8>> = chunks.iter().map(|raw| compress(name, raw)).collect();
        std::fs::write(self.path(name), stored.concat()).unwrap();
        self.edit(|manifest| {
            let artifacts = manifest["artifacts"].as_array_mut().unwrap();
            let artifact = artifacts.iter_mut().find(|a| a["name"] == name).unwrap();
            artifact["size"] = stored.concat().len().into();
            artifact["sha256"] = sha256(&stored.concat()).into();
            let known = artifact["chunks"].as_array_mut().unwrap();
            known.truncate(chunks.len());
            for ((known, raw), stored) in known.iter_mut().zip(chunks).zip(&stored) {
                known["size"] = stored.len().into();
                known["sha256"] = sha256(stored).into();
                known["raw_bytes"] = raw.len().into();
            }
            add_up(manifest);
        });
    }

    /// Runs verify-backup, which must find `findings` and nothing else, say so everywhere, and store it.
    #[track_caller]
    pub(crate) fn is_found(&self, findings: &[&str]) {
        is_found(&self.sandbox, &self.id, &[], findings);
        let stored =
            std::fs::read_dir(self.path("verifications")).unwrap().last().unwrap().unwrap();
        let stored: Value = serde_json::from_slice(&std::fs::read(stored.path()).unwrap()).unwrap();
        assert_eq!((&stored["good"], &stored["backup"]), (&json!(false), &json!(self.id)));
        assert_eq!(stored["findings"].as_array().unwrap().len(), findings.len());
    }

    /// Asserts that `backup list` shows the backup as damaged.
    #[track_caller]
    pub(crate) fn is_listed_as_damaged(&self) {
        let run = self.sandbox.run(&["backup", "list"]).expect(0);
        assert!(
            run.stdout.contains(&self.id) && run.stdout.contains("DAMAGED 2"),
            "{}",
            run.stdout
        );
    }
}

/// Runs verify-backup on one backup, which must find exactly `findings`.
#[track_caller]
pub(crate) fn is_found(sandbox: &Sandbox, id: &str, args: &[&str], findings: &[&str]) {
    let Run { status, stdout, stderr } =
        sandbox.run(&[&["verify-backup", "--backup", id], args].concat());
    assert_eq!(status, 3, "{stdout}{stderr}");
    let mut lines = stdout.lines();
    let first = lines.next().unwrap();
    assert!(
        first.starts_with(&format!("{DATABASE}: backup {id} in "))
            && first.ends_with(" is DAMAGED:"),
        "{stdout}"
    );
    let found: Vec<&str> = lines.map(str::trim_start).collect();
    assert_eq!(found, findings);
    let n = if findings.len() == 1 {
        "1 finding".to_owned()
    } else {
        format!("{} findings", findings.len())
    };
    assert!(
        stderr.contains(&format!("backup {id} of `{DATABASE}` in "))
            && stderr.contains(&format!("is DAMAGED: {n}")),
        "{stderr}"
    );
    let report = sandbox.json(3, &[&["verify-backup", "--backup", id], args].concat());
    let report = &report["verifications"][0];
    assert_eq!(
        (&report["good"], &report["backup"], &report["database"]),
        (&json!(false), &json!(id), &json!(DATABASE))
    );
    let found = report["findings"].as_array().unwrap();
    assert_eq!(found.len(), findings.len());
    for finding in found {
        let what = finding["what"].as_str().unwrap();
        let said = findings.iter().any(|f| {
            let artifact = finding["artifact"]
                .as_str()
                .is_none_or(|a| f.starts_with(&format!("artifact `{a}`")));
            let place = finding["chunk"]
                .as_u64()
                .map(|c| format!("chunk {c} at offset {}", finding["offset"]));
            artifact && place.is_none_or(|place| f.contains(&place)) && f.ends_with(what)
        });
        assert!(said, "{finding}");
    }
}

/// Returns the name of a table's artifact.
pub(crate) fn table(manifest: &Value, name: &str) -> String {
    let tables = manifest["contents"]["open"]["tables"].as_object().unwrap();
    tables.iter().find(|(_, table)| table["name"] == name).unwrap().0.clone()
}

/// Returns what the manifest says of an artifact.
pub(crate) fn artifact<'a>(manifest: &'a Value, name: &str) -> &'a Value {
    manifest["artifacts"].as_array().unwrap().iter().find(|a| a["name"] == name).unwrap()
}

/// Makes the totals those of the artifacts.
pub(crate) fn add_up(manifest: &mut Value) {
    let chunks = manifest["artifacts"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|a| a["chunks"].as_array().unwrap());
    let (mut rows, mut raw, mut stored) = (0, 0, 0);
    for chunk in chunks {
        rows += chunk["rows"].as_u64().unwrap_or(0);
        raw += chunk["raw_bytes"].as_u64().unwrap();
        stored += chunk["size"].as_u64().unwrap();
    }
    manifest["totals"]["rows"] = rows.into();
    manifest["totals"]["raw_bytes"] = raw.into();
    manifest["totals"]["stored_bytes"] = stored.into();
}

/// Changes one bit of a file.
pub(crate) fn flip(path: &Path, at: usize) {
    let mut content = std::fs::read(path).unwrap();
    content[at] ^= 0x10;
    std::fs::write(path, content).unwrap();
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn compress(name: &str, raw: &[u8]) -> Vec<u8> {
    if !name.ends_with(".gz") {
        return raw.to_vec();
    }
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(raw).unwrap();
    encoder.finish().unwrap()
}

fn decompress(name: &str, stored: &[u8]) -> Vec<u8> {
    let mut raw = Vec::new();
    if name.ends_with(".gz") {
        flate2::read::GzDecoder::new(stored).read_to_end(&mut raw).unwrap();
    } else {
        raw.extend_from_slice(stored);
    }
    raw
}
