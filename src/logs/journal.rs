//! The journal of systemd, asked by `journalctl` for the entries of one unit, newest first.

use std::io::{BufRead as _, BufReader, Read as _};

use super::line::{Level, Line};
use crate::child::{self, Spec};
use crate::clock::Moment;
use crate::stop::Stop;

/// Entries of a unit, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Entries {
    pub(crate) lines: Vec<Line<'static>>,
    /// Was there more in the window than may be read?
    pub(crate) cut: bool,
    /// Has the journal anything of this unit that this user may read? If not, silence says nothing.
    pub(crate) is_known: bool,
}

/// An entry may be that long, in bytes.
const LONGEST_ENTRY: u64 = 4 << 20;

/// What is read of an entry. Source: systemd.journal-fields(7), journalctl(1).
#[derive(serde::Deserialize)]
struct Entry {
    #[serde(rename = "__REALTIME_TIMESTAMP")]
    at: String,
    #[serde(default, rename = "PRIORITY")]
    priority: Option<String>,
    #[serde(default, rename = "MESSAGE")]
    message: serde_json::Value,
}

/// Reads the entries of a unit since a moment.
pub(crate) fn read(
    unit: &str,
    since: Moment,
    limit: u64,
    stop: &Stop,
) -> Result<Entries, child::Error> {
    let mut arguments: Vec<String> =
        ["--quiet", "--no-pager", "--reverse", "--output=json"].map(str::to_owned).into();
    arguments.push("--output-fields=MESSAGE,PRIORITY".to_owned());
    arguments.push(format!("--unit={unit}"));
    arguments.push(format!("--since=@{}", since.timestamp()));
    let mut child = Spec::new("journalctl").args(arguments).spawn(stop)?;
    let Some(stdout) = child.take_stdout() else { return Ok(Entries::default()) };
    let mut reader = BufReader::new(stdout.take(limit));
    let mut entries = Entries::default();
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = reader.read_until(b'\n', &mut line);
        read.map_err(|e| child::Error::Pipe("read from", "journalctl".to_owned(), e))?;
        match line.last() {
            None => break,
            Some(b'\n') => entries.lines.extend(understand(&line)),
            // The limit fell into the middle of it.
            Some(_) => entries.cut = true,
        }
    }
    entries.cut |= reader.get_ref().limit() == 0;
    if entries.cut {
        child.end();
    } else {
        child.wait()?;
    }
    entries.lines.reverse();
    entries.is_known = !entries.lines.is_empty() || has_any(unit, stop)?;
    Ok(entries)
}

/// Is there any entry of a unit, however old?
fn has_any(unit: &str, stop: &Stop) -> Result<bool, child::Error> {
    let arguments = ["--quiet", "--no-pager", "--lines=1", "--output=json"].map(str::to_owned);
    let spec = Spec::new("journalctl").args(arguments).args([format!("--unit={unit}")]);
    Ok(!spec.output(stop, LONGEST_ENTRY)?.is_empty())
}

fn understand(line: &[u8]) -> Option<Line<'static>> {
    let entry: Entry = serde_json::from_slice(line).ok()?;
    let at = Moment::from_timestamp_micros(entry.at.parse().ok()?);
    let level = match entry.priority.as_deref().and_then(|priority| priority.parse::<u8>().ok()) {
        Some(..=3) => Level::Error,
        Some(4) => Level::Warning,
        _ => Level::Other,
    };
    let message = match entry.message {
        serde_json::Value::String(text) => text,
        // What is not UTF-8 comes as a list of bytes.
        serde_json::Value::Array(bytes) => {
            let byte = |byte: &serde_json::Value| u8::try_from(byte.as_u64()?).ok();
            let bytes: Vec<u8> = bytes.iter().filter_map(byte).collect();
            String::from_utf8_lossy(&bytes).into_owned()
        }
        _ => String::new(),
    };
    Some(Line { at, level, message: message.into(), status: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_a_line() {
        let text = br#"{"__REALTIME_TIMESTAMP":"1795633200000000","PRIORITY":"3","MESSAGE":"x"}"#;
        let line = understand(text).unwrap();
        assert_eq!(line.at, Some("2026-11-25T19:00:00Z".parse().unwrap()));
        assert_eq!((line.level, line.message.as_ref()), (Level::Error, "x"));
        let text = br#"{"__REALTIME_TIMESTAMP":"1","MESSAGE":[104,105,255]}"#;
        assert_eq!(understand(text).unwrap().message, "hi\u{fffd}");
        assert_eq!(understand(b"{}"), None);
    }
}
