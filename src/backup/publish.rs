//! Publishing: what makes a backup of artifacts that are stored.
//!
//! Notes, then `SHA256SUMS`, then the manifest, each durable before the next is begun. Nothing is copied here.

use anyhow::Context as _;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use sha2::{Digest as _, Sha256};

use crate::backup::manifest::{
    Artifact, Chunk, Contents, Detail, Kind, Layout, MANIFEST, Manifest, Server, Totals, VERSION,
};
use crate::backup::notes;
use crate::backup::repository::{Folder, LEASE, Repository, SUMS};
use crate::backup::sink::{LaneResult, hex};
use crate::backup::snapshot::Snapshot;
use crate::backup::take::Request;
use crate::backup::toc::Header;
use crate::clock;
use crate::compression::{Codec, Format};
use crate::db::programs::ClientPrograms;
use crate::storage::Overwrite;

/// Everything the manifests have in common.
pub(super) struct Draft<'a> {
    pub(super) request: &'a Request<'a>,
    pub(super) snapshot: &'a Snapshot,
    pub(super) programs: &'a ClientPrograms,
    pub(super) codec: Codec,
    pub(super) header: &'a Header,
    pub(super) detail: Detail,
}

impl Draft<'_> {
    /// Makes a backup of what a lane has stored: notes, sums, and last of all the manifest.
    pub(super) fn publish(&self, folder: &Folder, lane: LaneResult) -> anyhow::Result<Manifest> {
        let LaneResult { repository, artifacts } = lane;
        let mut manifest = self.manifest(&repository, artifacts?)?;
        let put = |name: &str, content: Vec<u8>| -> anyhow::Result<()> {
            self.request.stop.check()?;
            Ok(repository.storage.put(&folder.key(name)?, content.into(), Overwrite::Refuse)?)
        };
        let encoding = self.snapshot.encoding;
        let text = notes::notes(&manifest, &repository.address, folder.path(), encoding);
        let text = text.into_bytes();
        manifest.artifacts.push(notes_artifact(&text, manifest.layout));
        manifest.totals = manifest.sums();
        put(notes::NOTES, text)?;
        let json = manifest.to_json()?;
        put(SUMS, sums(&manifest, &json).into_bytes())?;
        // Another host may have taken this run for dead and swept its folder.
        repository
            .storage
            .head(&folder.key(LEASE)?)
            .context("the lease is gone, and with it the artifacts")?;
        put(MANIFEST, json)?;
        if let Err(error) = repository.storage.remove(&folder.key(LEASE)?) {
            tracing::warn!("the lease of a finished backup was not removed: {error}");
        }
        Ok(manifest)
    }

    fn manifest(
        &self,
        repository: &Repository,
        artifacts: Vec<Artifact>,
    ) -> anyhow::Result<Manifest> {
        let contents = match &repository.recipients {
            None => Contents::Open(self.detail.clone()),
            Some(recipients) => {
                let sealed = recipients.encrypt(&serde_json::to_vec(&self.detail)?)?;
                Contents::Sealed(BASE64_STANDARD.encode(sealed))
            }
        };
        let ended_at = clock::now();
        let server = &self.snapshot.server_version;
        Ok(Manifest {
            version: VERSION,
            id: self.request.run.clone(),
            database: self.request.database.to_owned(),
            opsctl: env!("CARGO_PKG_VERSION").to_owned(),
            begun_at: self.request.begun_at,
            snapshot_at: self.snapshot.taken_at,
            ended_at,
            server: Server {
                version: server.to_string(),
                major: server.major(),
                standby: self.snapshot.standby,
            },
            pg_dump: self.programs.version(),
            archive_version: format!("{}.{}", self.header.version.0, self.header.version.1),
            compression: self.codec.format(),
            compression_level: self.codec.level(),
            recipients: repository
                .recipients
                .as_ref()
                .map(crate::encryption::Recipients::names)
                .unwrap_or_default(),
            layout: repository.layout,
            scope: self.request.scope.clone(),
            totals: Totals::default(),
            shrink_accepted: self.request.shrink_accepted,
            locked_until: repository
                .lock_days
                .map(|days| ended_at + chrono::TimeDelta::days(i64::from(days))),
            artifacts,
            contents,
        })
    }
}

/// Describes the notes, which are never encrypted: they tell how to decrypt the rest.
fn notes_artifact(text: &[u8], layout: Layout) -> Artifact {
    let (size, sha256) = (text.len() as u64, hex(&Sha256::digest(text)));
    let object = (layout == Layout::Objects).then(|| notes::NOTES.to_owned());
    let chunk = Chunk { object, size, sha256: sha256.clone(), raw_bytes: size, rows: 0 };
    let name = notes::NOTES.to_owned();
    Artifact {
        name,
        kind: Kind::Notes,
        compression: Format::None,
        size,
        sha256,
        chunks: vec![chunk],
    }
}

/// Returns the content of `SHA256SUMS`: every stored object, and the manifest.
pub(crate) fn sums(manifest: &Manifest, json: &[u8]) -> String {
    let line = |name: &str, sha256: &str| format!("{sha256}  {name}\n");
    let objects = manifest.objects().map(|(name, _, sha256)| line(name, sha256));
    objects.chain([line(MANIFEST, &hex(&Sha256::digest(json)))]).collect()
}
