//! One function for each parser of bytes that come from elsewhere, for the targets in `fuzz/`.
//!
//! Compiled only by `cargo fuzz`. Each must return, whatever the bytes are, and must not take more memory than is in
//! proportion to them; where there is a way back, what was read is written and read again.

use crate::backup::evidence::Record;
use crate::backup::lease::Lease;
use crate::backup::manifest::Manifest;
use crate::backup::repository::database_prefix;
use crate::backup::rows::RowCounter;
use crate::backup::toc;
use crate::backup::verified::Verified;
use crate::compression::{self, Format};
use crate::id::RunId;
use crate::secret::redact;
use crate::storage::Key;

/// A table of contents, from pg_dump's pipe or from a repository.
pub fn toc(bytes: &[u8]) {
    let Ok(mut reader) = toc::Reader::open(bytes) else { return };
    let version = reader.header().version;
    drop(reader.header().to_directory(Format::Gzip));
    while let Ok(Some(entry)) = reader.next_entry() {
        drop((entry.columns(), entry.file_name(version), entry.to_directory("1.dat")));
    }
}

/// A manifest.
pub fn manifest(bytes: &[u8]) {
    let Ok(manifest) = Manifest::parse(bytes) else { return };
    let json = manifest.to_json().unwrap_or_default();
    assert!(
        Manifest::parse(&json).is_ok_and(|again| again == manifest),
        "written and read again it differs"
    );
    assert_eq!(manifest.sums(), manifest.totals);
    assert!(manifest.objects().all(|(name, ..)| Key::new(name).is_some()));
}

/// A line of COPY's and the line of evidence that is made of it, and the manifest of a segment.
pub fn archive(bytes: &[u8]) {
    crate::archive::fuzz(bytes);
}

/// Connection strings, password files and service files.
pub fn connection(bytes: &[u8]) {
    crate::db::fuzzing::connection(&String::from_utf8_lossy(bytes));
}

/// The configuration file.
pub fn config(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        crate::config::fuzz(text);
    }
}

/// A stored chunk; the first three bytes are the format and the length that the manifest says.
pub fn compression(bytes: &[u8]) {
    let [first, low, high, stored @ ..] = bytes else { return };
    let format = [Format::None, Format::Gzip, Format::Zstd][usize::from(first % 3)];
    let length = u64::from(u16::from_le_bytes([*low, *high]));
    if let Ok(content) = compression::decode(format, stored, length) {
        assert_eq!(content.len() as u64, length);
    }
}

/// The small JSON documents of a repository.
pub fn notes(bytes: &[u8]) {
    if let Some(lease) = Lease::parse(bytes) {
        assert_eq!(Lease::parse(&lease.to_json().unwrap_or_default()), Some(lease));
    }
    drop(serde_json::from_slice::<Record>(bytes));
}

/// Names: ids, keys, folders, and text that may hold a secret.
pub fn names(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(verified) = text.parse::<Verified>() {
        assert_eq!(verified.to_string().parse(), Ok(verified));
    }
    if let Some(id) = RunId::parse(&text) {
        assert_eq!(id.as_str(), text);
    }
    let prefix = database_prefix(&text);
    assert!(text.is_empty() || Key::new(format!("{prefix}x")).is_some(), "{prefix}");
    drop(redact(&text));
}

/// Lines of a log, read as one that begins at any moment.
pub fn logs(bytes: &[u8]) {
    crate::logs::fuzz(bytes);
}

/// What a restore makes of `globals.sql` and of a table of contents.
pub fn restore(bytes: &[u8]) {
    crate::backup::restore::fuzz(bytes);
}

/// Rows in COPY's text format; the first byte says where the stream is cut.
pub fn rows(bytes: &[u8]) {
    let Some((first, text)) = bytes.split_first() else { return };
    let (mut whole, mut cut) = (RowCounter::default(), RowCounter::default());
    whole.push(text);
    text.chunks(usize::from(*first) + 1).for_each(|piece| cut.push(piece));
    let ((a, a_ended), (b, b_ended)) = (whole.finish(), cut.finish());
    assert_eq!((a, a_ended), (b, b_ended));
    assert_eq!(a.count, text.iter().filter(|byte| **byte == b'\n').count() as u64);
}
