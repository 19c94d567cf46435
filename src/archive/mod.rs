//! Audit rows that leave the hot table's shadow: segments that anybody can check, with stock tools and without opsctl.
//!
//! `window` decides which times are closed, `row` reads what COPY writes, `line` makes evidence of a row, `merkle` and `manifest` make
//! it checkable, `signature` says by whom: they do no I/O, but that a key is read from its file. `folder` knows the names, `evidence`
//! writes and reads a segment's rows, `query_copy` makes Parquet of
//! them, which `questions` are put to by `duckdb`, `source` asks the server. `run`, `verify` and `deletion` are the
//! stories, from beginning to end; `hold` and `retention` say what must be kept.
//!
//! Rows leave a table only by `deletion`, and nothing that lies in an archive is overwritten.

pub(crate) mod compare;
pub(crate) mod deletion;
pub(crate) mod duckdb;
mod evidence;
pub(crate) mod export;
pub(crate) mod folder;
pub(crate) mod hold;
mod line;
pub(crate) mod manifest;
mod merkle;
mod parquet;
pub(crate) mod proof;
pub(crate) mod query_copy;
pub(crate) mod questions;
pub(crate) mod restore;
pub(crate) mod retention;
mod row;
pub(crate) mod run;
pub(crate) mod signature;
pub(crate) mod source;
#[cfg(test)]
mod tests;
pub(crate) mod thaw;
pub(crate) mod verify;
pub(crate) mod window;

/// Reads bytes as a line of COPY's, as a line of evidence and as a manifest; what was read is written and read again.
#[cfg(fuzzing)]
pub(crate) fn fuzz(bytes: &[u8]) {
    let mut row = row::Row::default();
    if row.read(bytes).is_ok() {
        let column = |n: usize| row::Column { name: n.to_string(), type_name: "text".to_owned() };
        let shape = line::Shape::of(&(0..row.len()).map(column).collect::<Vec<_>>());
        let mut text = Vec::new();
        if shape.write(&row, &mut text).is_ok() {
            let mut again = row::Row::default();
            assert!(shape.read(&text, &mut again).is_some());
            assert!(again.values().eq(row.values()));
        }
    }
    if let Ok(manifest) = manifest::Manifest::parse(bytes) {
        let json = manifest.to_json().unwrap_or_default();
        assert!(manifest::Manifest::parse(&json).is_ok_and(|again| again == manifest));
    }
}
