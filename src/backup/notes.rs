//! `RESTORE.md`: how to restore one backup with stock tools alone, written into that backup.
//!
//! Whoever reads it may have nothing but the files, years later. The commands in it are run by a test.

use std::fmt::Write as _;

use crate::backup::manifest::{Kind, Layout, Manifest};
use crate::compression::Format;

/// The name of the notes in a backup.
pub(crate) const NOTES: &str = "RESTORE.md";

/// Returns the text for a backup that lies in `folder` of `place`.
pub(crate) fn notes(manifest: &Manifest, place: &str, folder: &str) -> String {
    let mut text = String::new();
    let Manifest { id, database, server, .. } = manifest;
    let at = manifest.snapshot_at.format("%Y-%m-%d %H:%M:%S UTC");
    let client = match manifest.compression {
        Format::Zstd => server.major.max(16),
        Format::None | Format::Gzip => server.major,
    };
    let mut put = |lines: &str| {
        // Writing to a String cannot fail.
        let _infallible = writeln!(text, "{lines}");
    };
    put(&format!("# Restoring backup {id} of database `{database}`"));
    put("");
    put(&format!(
        "It holds the state of {at}, dumped from PostgreSQL {} by opsctl {} with pg_dump {}.",
        server.version, manifest.opsctl, manifest.pg_dump
    ));
    put(&format!("It was written to {place}, folder `{folder}`."));
    put(&format!(
        "Stock tools restore it; opsctl is not needed. Use `pg_restore` of PostgreSQL {client} or newer."
    ));
    put(
        "The commands are for a shell whose current directory is a copy of the folder with this file.",
    );
    put("");
    put("## 1. Is every byte as it was written?");
    put("");
    put("```sh");
    put("sha256sum --check --quiet SHA256SUMS");
    put("```");
    let mut step = 2;
    if manifest.is_encrypted() {
        put("");
        put(&format!("## {step}. Decrypt"));
        put("");
        put("Every artifact is an age file (https://age-encryption.org) for these recipients:");
        put("");
        for recipient in &manifest.recipients {
            put(&format!("- `{recipient}`"));
        }
        put("");
        put("`key.txt` is the identity file that belongs to one of them.");
        put("");
        put("```sh");
        put(
            "for f in *.age; do age --decrypt --identity \"${KEY:-key.txt}\" --output \"${f%.age}\" \"$f\" && rm \"$f\" || break; done",
        );
        put("```");
        step += 1;
    }
    if manifest.layout == Layout::Objects {
        put("");
        put(&format!("## {step}. Join the chunks"));
        put("");
        put(
            "An artifact of several chunks is stored as `NAME.000001`, `NAME.000002`, …; joined in this order they are the file.",
        );
        put("");
        put("```sh");
        put("for f in *.000001; do");
        put("  [ -e \"$f\" ] || continue");
        put("  n=${f%.000001}");
        put(
            "  cat \"$n\".[0-9][0-9][0-9][0-9][0-9][0-9]* > \"$n\" && rm \"$n\".[0-9][0-9][0-9][0-9][0-9][0-9]*",
        );
        put("done");
        put("```");
        step += 1;
    }
    if manifest.artifacts.iter().any(|a| a.kind == Kind::Globals) {
        put("");
        put(&format!("## {step}. Roles and tablespaces, on a new server"));
        put("");
        put("Errors about roles that exist already are harmless.");
        if !manifest.scope.role_passwords {
            put("Passwords are not in the backup: set them anew.");
        }
        put("");
        put("```sh");
        put("psql --dbname=postgres --file=globals.sql");
        put("```");
        step += 1;
    }
    put("");
    put(&format!("## {step}. The database"));
    put("");
    put("Into a new database; the name is yours to choose.");
    put("");
    put("```sh");
    put("createdb --template=template0 \"${NEWDB:-restored}\"");
    put("pg_restore --exit-on-error --jobs=4 --dbname=\"${NEWDB:-restored}\" .");
    put("```");
    put("");
    put(
        "Compare the row counts with `manifest.json` (or `opsctl verify-backup`): `pg_restore` does not notice a file that lacks its end.",
    );
    text
}
