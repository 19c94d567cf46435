//! Rows of segments that a lifecycle rule moved to Glacier: which have to be thawed before they are read, and the wish that they be.

use crate::archive::folder::Folder;
use crate::archive::manifest::Manifest;
use crate::storage::{self, Frost};

/// How many of the objects can be read, how many not yet, and how many not before somebody asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Thawed {
    pub(crate) readable: usize,
    pub(crate) thawing: usize,
    pub(crate) frozen: usize,
}

impl Thawed {
    pub(crate) fn all(self) -> usize {
        self.readable + self.thawing + self.frozen
    }
}

/// How long what is thawed can be read, and how fast it is thawed, in S3's words.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    pub(crate) days: u32,
    pub(crate) tier: &'static str,
}

/// Asks for what is frozen if there is a wish, and returns how far it is.
pub(crate) fn thaw(
    folder: &Folder,
    segments: &[(&str, &Manifest)],
    wish: Option<Wish>,
) -> anyhow::Result<Thawed> {
    let mut thawed = Thawed::default();
    for (name, manifest) in segments {
        for file in &manifest.files {
            let key = folder.key(&format!("{name}/{}", file.name))?;
            let frost = match (folder.storage.frost(&key)?, wish) {
                (Frost::Frozen, Some(wish)) => asked(folder, &key, wish)?,
                (other, _) => other,
            };
            *match frost {
                Frost::None => &mut thawed.readable,
                Frost::Thawing => &mut thawed.thawing,
                Frost::Frozen => &mut thawed.frozen,
            } += 1;
        }
    }
    Ok(thawed)
}

fn asked(folder: &Folder, key: &storage::Key, wish: Wish) -> storage::Result<Frost> {
    folder.storage.thaw(key, wish.days, wish.tier)?;
    tracing::info!("asked for `{key}` to be thawed");
    folder.storage.frost(key)
}
