//! What verifications say of a backup, by the names under which they are stored. Pure.
//!
//! The name says the result, so that listing backups reads none of the records. What else is in a record is
//! `evidence.rs`'s and `verify/`'s.

use std::str::FromStr;

use crate::clock::Moment;

/// How thoroughly a backup was looked at.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize, serde::Serialize,
)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Depth {
    /// Sizes and SHA-256 of what is stored, because no identity was given to decrypt it.
    Stored,
    /// Everything was read, decompressed and counted.
    Artifacts,
    /// It was restored and compared.
    Restored,
}

/// The result of a verification, as far as its name says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Verified {
    /// When it ended.
    pub(crate) at: Moment,
    pub(crate) depth: Depth,
    /// Was only a piece of it looked at?
    pub(crate) sample: bool,
    /// Was everything as it should be?
    pub(crate) good: bool,
}

const TIME: &str = "%Y%m%dT%H%M%S%.6fZ";

impl std::fmt::Display for Depth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Depth::Stored => "stored",
            Depth::Artifacts => "artifacts",
            Depth::Restored => "restored",
        })
    }
}

/// Writes the name, such as `20261121T021500.123456Z-restored-sample-good.json`.
impl std::fmt::Display for Verified {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sample = if self.sample { "-sample" } else { "" };
        let good = if self.good { "good" } else { "damaged" };
        write!(f, "{}-{}{sample}-{good}.json", self.at.format(TIME), self.depth)
    }
}

impl FromStr for Verified {
    type Err = ();

    fn from_str(name: &str) -> Result<Verified, ()> {
        let name = name.strip_suffix(".json").ok_or(())?;
        let (at, rest) = name.split_once('-').ok_or(())?;
        let at = chrono::NaiveDateTime::parse_from_str(at, TIME).map_err(|_| ())?.and_utc();
        let (rest, good) = rest.rsplit_once('-').ok_or(())?;
        let good = match good {
            "good" => true,
            "damaged" => false,
            _ => return Err(()),
        };
        let sample = rest.ends_with("-sample");
        let depth = match rest.strip_suffix("-sample").unwrap_or(rest) {
            "stored" => Depth::Stored,
            "artifacts" => Depth::Artifacts,
            "restored" => Depth::Restored,
            _ => return Err(()),
        };
        Ok(Verified { at, depth, sample, good })
    }
}

/// Returns the result that stands, out of all of a backup, oldest first.
///
/// That is the newest, but damage stands until somebody looked at all of the backup, no less thoroughly, and found none.
pub(crate) fn standing(all: &[Verified]) -> Option<Verified> {
    all.iter().copied().reduce(|stands, next| {
        let clears = !next.sample && next.depth >= stands.depth;
        if stands.good || !next.good || clears { next } else { stands }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verified(name: &str) -> Verified {
        name.parse().unwrap()
    }

    #[test]
    fn a_name_is_read_as_it_was_written() {
        for name in [
            "20261121T021500.123456Z-stored-good.json",
            "20261121T021500.000000Z-artifacts-sample-damaged.json",
            "20261121T021500.000000Z-restored-good.json",
        ] {
            assert_eq!(verified(name).to_string(), name);
        }
        for name in ["", "x.json", "20261121T021500.000000Z.json", "20261121-stored-good.json"] {
            assert!(name.parse::<Verified>().is_err(), "{name}");
        }
    }

    #[test]
    fn damage_stands_until_all_of_it_was_found_good_as_thoroughly() {
        let at = "20261121T021500.000000Z";
        let result = |names: &[&str]| {
            let all: Vec<_> = names.iter().map(|n| verified(&format!("{at}-{n}.json"))).collect();
            standing(&all).map(|v| v.good)
        };
        assert_eq!(result(&[]), None);
        assert_eq!(result(&["artifacts-good", "stored-damaged"]), Some(false));
        assert_eq!(result(&["restored-damaged", "artifacts-good", "stored-good"]), Some(false));
        assert_eq!(result(&["artifacts-damaged", "restored-sample-good"]), Some(false));
        assert_eq!(result(&["artifacts-damaged", "restored-good"]), Some(true));
        assert_eq!(result(&["restored-sample-damaged", "restored-good"]), Some(true));
    }
}
