//! What a backup is and how one is taken, verified, restored, kept and removed.
pub(crate) mod chunk;
mod copy;
pub(crate) mod description;
pub(crate) mod evidence;
pub(crate) mod lease;
pub(crate) mod manifest;
pub(crate) mod notes;
pub(crate) mod objects;
pub(crate) mod plan;
pub(crate) mod prune;
pub(crate) mod publish;
pub(crate) mod repository;
pub(crate) mod restore;
pub(crate) mod retention;
pub(crate) mod rows;
pub(crate) mod sample;
pub(crate) mod shrink;
pub(crate) mod sink;
pub(crate) mod snapshot;
pub(crate) mod take;
pub(crate) mod toc;
pub(crate) mod verified;
pub(crate) mod verify;

#[cfg(test)]
mod documented;
#[cfg(test)]
mod tests;
