//! Names of runs and of backups: a backup's id is that of the run which took it.
//!
//! An id reads `20261121T021500Z-4f3a9c`: the moment the run began in UTC, and six random hexadecimal
//! digits so that two runs of one second differ. The time in it is for people; decisions use the manifest's.

use std::fmt;

use crate::clock::Moment;

/// The id of a run, and of the backup it takes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub(crate) struct RunId(String);

impl RunId {
    /// Makes the id of a run that began at `now`, with the low 24 bits of `random`.
    pub(crate) fn new(now: Moment, random: u32) -> RunId {
        RunId(format!("{}-{:06x}", now.format("%Y%m%dT%H%M%SZ"), random & 0xff_ffff))
    }

    /// Reads an id; `None` if `text` is none.
    pub(crate) fn parse(text: &str) -> Option<RunId> {
        let (time, random) = text.split_once('-')?;
        let valid = chrono::NaiveDateTime::parse_from_str(time, "%Y%m%dT%H%M%SZ").is_ok()
            && time.len() == 16
            && random.len() == 6
            && random.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        valid.then(|| RunId(text.to_owned()))
    }

    /// Returns the moment in it, to the second.
    pub(crate) fn at(&self) -> Moment {
        let time = self.0.split('-').next().unwrap_or_default();
        chrono::NaiveDateTime::parse_from_str(time, "%Y%m%dT%H%M%SZ").unwrap_or_default().and_utc()
    }

    /// Returns the id as text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for RunId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<RunId, D::Error> {
        let text = String::deserialize(deserializer)?;
        RunId::parse(&text).ok_or_else(|| serde::de::Error::custom(format!("`{text}` is no id")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes_and_nothing_else() {
        let id = RunId::new(crate::clock::now(), 0xffab_cdef);
        assert_eq!(RunId::parse(id.as_str()), Some(id.clone()));
        assert!(id.as_str().ends_with("Z-abcdef"));
        assert_eq!(
            RunId::parse("20261121T021500Z-4f3a9c").unwrap().at().to_rfc3339(),
            "2026-11-21T02:15:00+00:00"
        );
        for text in [
            "",
            "lost+found",
            "20261121T021500Z",
            "20261121T021500Z-4f3a9",
            "20261399T021500Z-4f3a9c",
            "20261121T021500Z-4F3A9C",
        ] {
            assert_eq!(RunId::parse(text), None, "{text}");
        }
    }
}
