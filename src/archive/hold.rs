//! Legal holds: while one is in force, no row that it covers is deleted.
//!
//! They lie beside the segments as `holds/<number>.json`, and are only ever added to: a hold is ended by one more record. Each record
//! is signed and has the SHA-256 of the one before. What cannot be read or trusted is an error, and then nothing is deleted.

use anyhow::Context as _;
use bytes::Bytes;

use crate::archive::folder::Folder;
use crate::archive::manifest::sha256;
use crate::archive::signature::{Signer, Signers};
use crate::archive::window::Window;
use crate::clock::Moment;
use crate::storage::Overwrite;

/// What lies beside the segments, below the folder of the table.
const HOLDS: &str = "holds/";
/// No record is larger.
const MAX_RECORD: u64 = 1 << 16;

/// Something that was said about a hold.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
pub(crate) struct Record {
    /// From 1 up, without gaps.
    pub(crate) number: u64,
    /// Of the object before.
    pub(crate) previous_sha256: Option<String>,
    /// As the configuration has it.
    pub(crate) table: String,
    #[serde(flatten)]
    pub(crate) said: Said,
}

/// What somebody says.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
pub(crate) struct Said {
    pub(crate) action: Action,
    /// The name of the hold, such as that of a case.
    pub(crate) hold: String,
    /// Only rows of this time; all, if there is none.
    pub(crate) from: Option<Moment>,
    pub(crate) to: Option<Moment>,
    pub(crate) why: String,
    pub(crate) who: String,
    pub(crate) at: Moment,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Action {
    Add,
    Remove,
}

/// A record as it is stored: the signature is over the bytes of the text.
#[derive(serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
struct Signed {
    record: String,
    signature: String,
}

/// All that was said about the holds of a table.
#[derive(Clone, Debug, Default)]
pub(crate) struct Holds {
    pub(crate) records: Vec<Record>,
    /// Of the newest object.
    last_sha256: Option<String>,
}

impl Holds {
    /// Reads all records.
    pub(crate) fn read(folder: &Folder, signers: &Signers) -> anyhow::Result<Holds> {
        Holds::read_all(folder, signers)
            .with_context(|| format!("the legal holds of {} cannot be trusted", folder.place()))
    }

    fn read_all(folder: &Folder, signers: &Signers) -> anyhow::Result<Holds> {
        let mut holds = Holds::default();
        for key in folder.beside(HOLDS)? {
            let number = holds.records.len() as u64 + 1;
            let json = folder.storage.get(&key, MAX_RECORD)?;
            let signed: Signed =
                serde_json::from_slice(&json).with_context(|| format!("`{key}` is no record"))?;
            let is_signed = signers.accept(signed.record.as_bytes(), signed.signature.as_bytes());
            anyhow::ensure!(is_signed, "`{key}` is not signed by a key that may sign");
            let record: Record = serde_json::from_str(&signed.record)
                .with_context(|| format!("`{key}` is no record"))?;
            let is_of_this_table =
                Folder::new(folder.storage.clone(), &record.table).name() == folder.name();
            anyhow::ensure!(is_of_this_table, "`{key}` is about {}", record.table);
            let follows = record.number == number && record.previous_sha256 == holds.last_sha256;
            anyhow::ensure!(follows, "`{key}` does not follow the one before: one is missing");
            holds.last_sha256 = Some(sha256(&json));
            holds.records.push(record);
        }
        Ok(holds)
    }

    /// Returns the holds that are in force, in the order in which they were added.
    pub(crate) fn in_force(&self) -> Vec<&Said> {
        let mut in_force: Vec<&Said> = Vec::new();
        for Record { said, .. } in &self.records {
            in_force.retain(|hold| hold.hold != said.hold);
            if said.action == Action::Add {
                in_force.push(said);
            }
        }
        in_force
    }

    /// Returns a hold that covers any moment of a window.
    pub(crate) fn over(&self, window: Window) -> Option<&Said> {
        self.in_force().into_iter().find(|hold| {
            hold.from.is_none_or(|from| from < window.to)
                && hold.to.is_none_or(|to| window.from < to)
        })
    }

    /// Adds a record, unless it says what is so already. Of two at the same time one fails.
    pub(crate) fn add(
        &mut self,
        folder: &Folder,
        signer: &Signer,
        table: &str,
        said: Said,
    ) -> anyhow::Result<()> {
        let is_in_force = self.in_force().iter().any(|hold| hold.hold == said.hold);
        match said.action {
            Action::Add if is_in_force => anyhow::bail!("the hold `{}` is in force", said.hold),
            Action::Remove if !is_in_force => anyhow::bail!("there is no hold `{}`", said.hold),
            _ => {}
        }
        let number = self.records.len() as u64 + 1;
        let previous_sha256 = self.last_sha256.clone();
        let record = Record { number, previous_sha256, table: table.to_owned(), said };
        let text = serde_json::to_string(&record).context("failed to write the record")?;
        let signature = signer.sign(text.as_bytes())?;
        let stored = Signed { record: text, signature };
        let mut json = serde_json::to_vec_pretty(&stored).context("failed to write the record")?;
        json.push(b'\n');
        let key = folder.key(&format!("{HOLDS}{number:06}.json"))?;
        folder.storage.put(&key, Bytes::from(json.clone()), Overwrite::Refuse)?;
        self.last_sha256 = Some(sha256(&json));
        self.records.push(record);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::storage::Shared;
    use crate::storage::memory::Memory;

    fn said(action: Action, hold: &str, span: Option<(&str, &str)>) -> Said {
        let moment = |day: &str| format!("{day}T00:00:00Z").parse().unwrap();
        Said {
            action,
            hold: hold.to_owned(),
            from: span.map(|(from, _)| moment(from)),
            to: span.map(|(_, to)| moment(to)),
            why: "x v. y".to_owned(),
            who: "ann@host".to_owned(),
            at: moment("2026-01-01"),
        }
    }

    fn window(from: &str, to: &str) -> Window {
        let moment = |day: &str| format!("{day}T00:00:00Z").parse().unwrap();
        Window { from: moment(from), to: moment(to) }
    }

    #[test]
    fn a_hold_is_in_force_until_it_is_removed_and_covers_its_time() {
        let storage: Shared = Arc::new(Memory::new());
        let (folder, signer) = (Folder::new(storage, "t"), Signer::for_tests());
        let signers = signer.signers();
        let mut holds = Holds::read(&folder, &signers).unwrap();
        let march = window("2024-03-01", "2024-04-01");
        assert!(holds.over(march).is_none());
        let mut say = |said: Said| holds.add(&folder, &signer, "t", said);
        say(said(Action::Add, "a", Some(("2024-03-31", "2024-05-01")))).unwrap();
        say(said(Action::Add, "a", None)).unwrap_err();
        say(said(Action::Add, "b", None)).unwrap();
        say(said(Action::Remove, "b", None)).unwrap();
        say(said(Action::Remove, "b", None)).unwrap_err();
        let read = Holds::read(&folder, &signers).unwrap();
        assert_eq!(read.records, holds.records);
        assert_eq!(read.over(march).map(|hold| hold.hold.as_str()), Some("a"));
        assert!(read.over(window("2024-02-01", "2024-03-01")).is_none());
        assert!(read.over(window("2024-05-01", "2024-06-01")).is_none());
        // They are no segments, and none that was begun.
        assert!(folder.contents().unwrap().unfinished.is_empty());
    }

    #[test]
    fn holds_that_were_tampered_with_are_an_error() {
        let (memory, signer) = (Memory::new(), Signer::for_tests());
        let folder = Folder::new(Arc::new(memory), "t");
        let signers = signer.signers();
        let mut holds = Holds::default();
        for name in ["a", "b"] {
            holds.add(&folder, &signer, "t", said(Action::Add, name, None)).unwrap();
        }
        let first = folder.key("holds/000001.json").unwrap();
        let json = folder.storage.get(&first, MAX_RECORD).unwrap();
        folder.storage.remove(&first).unwrap();
        let error = format!("{:#}", Holds::read(&folder, &signers).unwrap_err());
        assert!(error.contains("one is missing"), "{error}");
        let forged = String::from_utf8(json.to_vec()).unwrap().replace("x v. y", "x v. z");
        folder.storage.put(&first, Bytes::from(forged), Overwrite::Refuse).unwrap();
        let error = format!("{:#}", Holds::read(&folder, &signers).unwrap_err());
        assert!(error.contains("is not signed"), "{error}");
    }
}
