//! A table of a test's own that is archived, and what a thief may do to its archive.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::broken::sha256;
use super::{Cluster, Sandbox, installed, stock};

/// A database with a table `audit_logs`, and a sandbox whose configuration archives it.
pub(crate) struct Archive {
    cluster: &'static Cluster,
    pub(crate) database: String,
    pub(crate) sandbox: Sandbox,
    location: String,
}

impl Archive {
    /// Makes a database with `sql` in it, and a key that signs.
    pub(crate) fn new(sql: &str) -> Archive {
        Archive::on(Cluster::shared(), sql)
    }

    /// The same on a server of its own, which lives as long as the tests.
    pub(crate) fn alone(sql: &str) -> (Archive, &'static Cluster) {
        let cluster: &Cluster = Box::leak(Box::new(Cluster::start(&installed(), &[], &[])));
        (Archive::on(cluster, sql), cluster)
    }

    fn on(cluster: &'static Cluster, sql: &str) -> Archive {
        let database = cluster.database();
        cluster.sql(&database, sql);
        let sandbox = Sandbox::new(&cluster.url(&database));
        let key = sandbox.path("key");
        stock(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(key));
        let archive = Archive { cluster, database, sandbox, location: "archive".to_owned() };
        archive.configure("");
        archive
    }

    /// Writes the configuration, with more keys.
    pub(crate) fn configure(&self, more: &str) {
        let time = if more.contains("time_column") { "" } else { "time_column = \"at\"\n" };
        let location = &self.location;
        let text = format!(
            "[[audit]]\ntable = \"audit_logs\"\n{time}location = \"{location}\"\nsigning_key = \"key\"\n{more}"
        );
        self.sandbox.write("opsctl.toml", &text);
    }

    pub(crate) fn set_location(&mut self, location: &str) {
        location.clone_into(&mut self.location);
    }

    pub(crate) fn url(&self) -> String {
        self.cluster.url(&self.database)
    }

    #[track_caller]
    pub(crate) fn sql(&self, sql: &str) -> String {
        self.cluster.sql(&self.database, sql)
    }

    /// Runs `archive-audit`, expects the status, and returns what the report says of the table.
    #[track_caller]
    pub(crate) fn json(&self, status: i32, args: &[&str]) -> Value {
        let report = self.sandbox.json(status, &[&["archive-audit"], args].concat());
        report["databases"][0]["tables"][0].clone()
    }

    /// Returns the folder of the table.
    pub(crate) fn folder(&self) -> PathBuf {
        self.sandbox.path("archive/audit_logs")
    }

    pub(crate) fn segment(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    /// Returns the segment with the highest number.
    pub(crate) fn newest(&self) -> String {
        let segments = self.json(0, &["list"])["segments"].clone();
        let number = |segment: &&Value| segment["number"].as_u64();
        let newest = segments.as_array().unwrap().iter().max_by_key(number).unwrap().clone();
        newest["segment"].as_str().unwrap().to_owned()
    }

    /// Returns every file with its content.
    pub(crate) fn content(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        fn read(dir: &Path, found: &mut BTreeMap<PathBuf, Vec<u8>>) {
            for entry in std::fs::read_dir(dir).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    read(&path, found);
                } else if let Ok(bytes) = std::fs::read(&path) {
                    // A run that is at work may have renamed it.
                    found.insert(path, bytes);
                }
            }
        }
        let mut found = BTreeMap::new();
        read(&self.folder(), &mut found);
        found
    }

    /// Makes the archive what it was.
    pub(crate) fn put_back(&self, content: &BTreeMap<PathBuf, Vec<u8>>) {
        std::fs::remove_dir_all(self.folder()).unwrap();
        for (path, bytes) in content {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
    }

    /// Asserts that opsctl and the reference verifier find nothing.
    #[track_caller]
    pub(crate) fn is_well(&self) {
        let table = self.json(0, &["verify"]);
        assert_eq!(self.reference(&[]), (0, BTreeSet::new()), "{table:#}");
    }

    /// Runs the reference verifier; returns its status, and segment and kind of each finding.
    pub(crate) fn reference(&self, more: &[&str]) -> (i32, BTreeSet<(String, String)>) {
        let verifier = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/verify_archive.py");
        let public = std::fs::read_to_string(self.sandbox.path("key.pub")).unwrap();
        let signers = self.sandbox.write("signers", &format!("opsctl {public}"));
        let mut command = Command::new("python3");
        command.arg(verifier).arg(self.folder()).arg(signers).args(more);
        let run = super::Run::of(command.current_dir(self.sandbox.dir.path()));
        assert_eq!(run.stderr, "", "{run:#?}");
        let finding = |line: &str| {
            let mut parts = line.splitn(3, ": ");
            Some((parts.next()?.to_owned(), parts.next()?.to_owned()))
        };
        (run.status, run.stdout.lines().filter_map(finding).collect())
    }

    /// Returns the lines of a segment.
    pub(crate) fn lines(&self, segment: &str) -> String {
        stock(Command::new("zstd").arg("-dcq").arg(self.segment(segment).join("rows.ndjson.zst")))
    }

    /// Cuts the rows of a segment off.
    pub(crate) fn cut(&self, segment: &str) {
        let path = self.segment(segment).join("rows.ndjson.zst");
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
    }

    /// Changes the manifest of a segment.
    pub(crate) fn edit(&self, segment: &str, change: impl FnOnce(&mut Value)) {
        let path = self.segment(segment).join("manifest.json");
        let mut manifest = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(&mut manifest);
        std::fs::write(path, serde_json::to_vec_pretty(&manifest).unwrap()).unwrap();
    }

    /// Changes lines, and the file's size and hash in the manifest; if asked, the tree as well, where no line came or went.
    pub(crate) fn forge(
        &self,
        segment: &str,
        change: impl FnOnce(&mut Vec<String>),
        with_tree: bool,
    ) {
        let mut lines: Vec<String> = self.lines(segment).lines().map(str::to_owned).collect();
        change(&mut lines);
        let mut zstd = Command::new("zstd");
        let mut zstd =
            zstd.arg("-qc").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        zstd.stdin.take().unwrap().write_all((lines.join("\n") + "\n").as_bytes()).unwrap();
        let bytes = zstd.wait_with_output().unwrap().stdout;
        self.edit(segment, |manifest| {
            manifest["files"][0]["bytes"] = bytes.len().into();
            manifest["files"][0]["sha256"] = sha256(&bytes).into();
            if with_tree {
                let leaf = |line: &String| sha256(&[&[0], line.as_bytes()].concat());
                let blocks: Vec<String> = lines.iter().map(leaf).collect();
                manifest["merkle"]["root"] = tree(&blocks).into();
                manifest["merkle"]["blocks"] = blocks.into();
            }
        });
        std::fs::write(self.segment(segment).join("rows.ndjson.zst"), bytes).unwrap();
    }

    /// Signs a manifest with a key of the sandbox.
    pub(crate) fn sign(&self, segment: &str, key: &str) {
        self.unsign(segment);
        let mut keygen = Command::new("ssh-keygen");
        keygen.args(["-q", "-Y", "sign", "-n", "opsctl-archive", "-f"]).arg(self.sandbox.path(key));
        stock(keygen.arg(self.segment(segment).join("manifest.json")));
    }

    pub(crate) fn unsign(&self, segment: &str) {
        std::fs::remove_file(self.segment(segment).join("manifest.json.sig")).unwrap();
    }
}

/// The definition of RFC 6962, over hashes of leaves in hexadecimal.
fn tree(hashes: &[String]) -> String {
    if let [one] = hashes {
        return one.clone();
    }
    let mut k = 1;
    while k * 2 < hashes.len() {
        k *= 2;
    }
    let bytes = |hash: String| -> Vec<u8> {
        (0..32).map(|n| u8::from_str_radix(&hash[2 * n..2 * n + 2], 16).unwrap()).collect()
    };
    sha256(&[vec![1], bytes(tree(&hashes[..k])), bytes(tree(&hashes[k..]))].concat())
}
