//! `RESTORE.md`: how to restore one backup with stock tools alone, written into that backup.
//!
//! Whoever reads it may have nothing but the files, years later. The commands in it are run by a test
//! (`tests/integration/restore_notes.rs`).

use std::fmt::Write as _;

use crate::backup::manifest::{Kind, Layout, Manifest};
use crate::compression::Format;

/// The name of the notes in a backup.
pub(crate) const NOTES: &str = "RESTORE.md";

/// Where a repository is, as stock tools name it.
#[derive(Clone, Debug)]
pub(crate) enum Address {
    /// An absolute path.
    Directory(String),
    /// A bucket and prefix as `s3://bucket/prefix`, and the endpoint unless it is Amazon's.
    S3 { url: String, region: String, endpoint: Option<String> },
}

/// Returns the text for a backup in `folder` of a repository, whose text is encoded in `encoding`.
pub(crate) fn notes(manifest: &Manifest, at: &Address, folder: &str, encoding: &str) -> String {
    let mut notes = Notes { text: String::new(), steps: 0 };
    introduce(&mut notes, manifest, at, folder);
    fetch(&mut notes, manifest, at, folder);
    notes.step("Is every byte as it was written?", &[], &["sha256sum --check --quiet SHA256SUMS"]);
    if manifest.is_encrypted() {
        decrypt(&mut notes, manifest);
    }
    if manifest.layout == Layout::Objects {
        join(&mut notes);
    }
    if manifest.artifacts.iter().any(|a| a.kind == Kind::Globals) {
        let mut prose = vec!["Errors about roles that exist already are harmless."];
        if !manifest.scope.role_passwords {
            prose.push("Passwords are not in the backup: set them anew.");
        }
        let command = "psql --no-psqlrc --quiet --dbname=postgres --file=globals.sql";
        notes.step("Roles and tablespaces, on a new server", &prose, &[command]);
    }
    restore(&mut notes, encoding);
    notes.text
}

/// The text in the making.
struct Notes {
    text: String,
    steps: u32,
}

impl Notes {
    fn line(&mut self, line: &str) {
        // Writing to a String cannot fail.
        let _infallible = writeln!(self.text, "{line}");
    }

    fn step(&mut self, title: &str, prose: &[&str], commands: &[&str]) {
        self.steps += 1;
        let heading = format!("\n## {}. {title}\n", self.steps);
        self.line(&heading);
        for line in prose {
            self.line(line);
        }
        if !prose.is_empty() {
            self.line("");
        }
        self.line("```sh");
        for line in commands {
            self.line(line);
        }
        self.line("```");
    }
}

fn introduce(notes: &mut Notes, manifest: &Manifest, at: &Address, folder: &str) {
    let Manifest { id, database, server, .. } = manifest;
    let client = match manifest.compression {
        Format::Zstd => server.major.max(16),
        Format::None | Format::Gzip => server.major,
    };
    let place = match at {
        Address::Directory(path) => path,
        Address::S3 { url, .. } => url,
    };
    let moment = manifest.snapshot_at.format("%Y-%m-%d %H:%M:%S UTC");
    notes.line(&format!("# Restoring backup {id} of database `{database}`\n"));
    notes.line(&format!(
        "It holds the state of {moment}, dumped from PostgreSQL {} by opsctl {} with pg_dump {}.",
        server.version, manifest.opsctl, manifest.pg_dump
    ));
    notes.line(&format!("It was written to `{place}`, folder `{folder}`."));
    notes.line(&format!(
        "Stock tools restore it; opsctl is not needed. Use `pg_restore` of PostgreSQL {client} or newer."
    ));
    notes.line("The commands are for a shell in an empty directory with room for all of it.");
    notes.line("Where the server is, they learn from `PGHOST`, `PGPORT`, `PGUSER` and the like.");
}

fn fetch(notes: &mut Notes, manifest: &Manifest, at: &Address, folder: &str) {
    match at {
        Address::Directory(path) => {
            let prose: &[&str] = if manifest.layout == Layout::Joined {
                &["Or `cd` to the folder and skip this: nothing below changes a file in it."]
            } else {
                &[]
            };
            let from = quote(&format!("{}/{folder}/.", path.trim_end_matches('/')));
            notes.step("Copy", prose, &[&format!("cp -R {from} .")]);
        }
        Address::S3 { url, region, endpoint } => {
            let mut command = "aws s3 cp --recursive --only-show-errors".to_owned();
            for (option, value) in [("region", Some(region)), ("endpoint-url", endpoint.as_ref())] {
                if let Some(value) = value {
                    command += &format!(" --{option} {}", quote(value));
                }
            }
            command += &format!(" {} .", quote(&format!("{url}/{folder}/")));
            let prose = [
                "With the AWS CLI, which finds its keys in `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY` or its own files.",
                "Any other S3 client does as well. Objects in `GLACIER` or `DEEP_ARCHIVE` have to be asked for first (`aws s3api restore-object`).",
            ];
            notes.step("Download", &prose, &[&command]);
        }
    }
}

fn decrypt(notes: &mut Notes, manifest: &Manifest) {
    let mut prose = vec![
        "Every artifact is an age file (https://age-encryption.org) for these recipients:"
            .to_owned(),
        String::new(),
    ];
    prose.extend(manifest.recipients.iter().map(|recipient| format!("- `{recipient}`")));
    prose.push(String::new());
    prose.push("`KEY` is the identity file that belongs to one of them.".to_owned());
    let prose: Vec<&str> = prose.iter().map(String::as_str).collect();
    let commands = [
        "for f in *.age; do",
        "  age --decrypt --identity \"${KEY:-key.txt}\" --output \"${f%.age}\" \"$f\" && rm \"$f\" || echo \"FAILED: $f\"",
        "done",
    ];
    notes.step("Decrypt", &prose, &commands);
}

/// A table may have more chunks than fit into one command line, and more than six digits can number.
fn join(notes: &mut Notes) {
    let prose = [
        "An artifact of several chunks is stored as `NAME.000001`, `NAME.000002`, …; joined in this order they are the file.",
    ];
    let commands = [
        "for f in *.000001; do",
        "  [ -e \"$f\" ] || continue",
        "  n=${f%.000001}",
        "  printf '%s\\n' \"$n\".[0-9][0-9][0-9][0-9][0-9][0-9]* | sort -V | xargs cat > \"$n\" &&",
        "    printf '%s\\n' \"$n\".[0-9][0-9][0-9][0-9][0-9][0-9]* | xargs rm",
        "done",
    ];
    notes.step("Join the chunks", &prose, &commands);
}

fn restore(notes: &mut Notes, encoding: &str) {
    let encoding = match encoding {
        // Bytes of no known encoding: any other would refuse some of them.
        "SQL_ASCII" => "--encoding=SQL_ASCII --locale=C",
        _ => "--encoding=UTF8",
    };
    let prose = [
        "Into a new database; the name is yours to choose.",
        "Add `--locale` if the server's default is not what the database had.",
    ];
    let create = format!("createdb --template=template0 {encoding} \"${{NEWDB:-restored}}\"");
    let restore = "pg_restore --exit-on-error --jobs=4 --dbname=\"${NEWDB:-restored}\" .";
    notes.step("The database", &prose, &[&create, restore]);
    notes.line("");
    notes.line(
        "Compare the row counts with `manifest.json` (or `opsctl verify-backup`): `pg_restore` does not notice a file that lacks its end.",
    );
}

/// Quotes a word for the shell.
fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::manifest::tests::sample;
    use crate::id::RunId;

    #[test]
    fn odd_places_are_quoted_for_the_shell_and_amazon_needs_no_endpoint() {
        let at = "2026-11-21T02:00:00Z".parse().unwrap();
        let manifest = sample(RunId::new(at, 1), at);
        let text =
            notes(&manifest, &Address::Directory("/a b/it's $HOME".to_owned()), "db/1", "UTF8");
        assert!(text.contains("\ncp -R '/a b/it'\\''s $HOME/db/1/.' .\n"), "{text}");
        let s3 =
            Address::S3 { url: "s3://b/p".to_owned(), region: "eu-1".to_owned(), endpoint: None };
        let text = notes(&manifest, &s3, "My%20DB/1", "UTF8");
        let command =
            "aws s3 cp --recursive --only-show-errors --region 'eu-1' 's3://b/p/My%20DB/1/' .";
        assert!(text.contains(command), "{text}");
    }
}
