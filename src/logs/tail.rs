//! The end of a log file that lies in a window: read backwards, across a rotation, and never more than a limit.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::time::{self, Clock};
use crate::clock::Moment;

/// How much is read at once.
const BLOCK: u64 = 256 * 1024;
/// So many files are looked into, if a pattern names many.
const FILES: usize = 16;

/// Lines, oldest first, that reach at least as far back as was asked, unless they were cut.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    pub(crate) text: Vec<u8>,
    /// Was there more in the window than may be read?
    pub(crate) cut: bool,
}

impl Tail {
    /// Returns the lines; what is not UTF-8 in them is replaced.
    pub(crate) fn lines(&self) -> impl Iterator<Item = std::borrow::Cow<'_, str>> {
        self.text.split(|byte| *byte == b'\n').map(String::from_utf8_lossy)
    }
}

/// Reads the end of a log, of which `path` is the newest file; its name may have one `*`.
///
/// Older lines are looked for in what a rotation made of it: the same name and `.1`, or the other files of the pattern.
pub(crate) fn read(path: &Path, since: Moment, limit: u64, clock: &Clock) -> io::Result<Tail> {
    let mut pieces = Vec::new();
    let mut left = limit;
    let mut cut = false;
    for (n, path) in files(path)?.iter().enumerate() {
        let file = match open(path) {
            // It was rotated away just now, or was never rotated.
            Err(error) if n > 0 && error.kind() == io::ErrorKind::NotFound => continue,
            opened => opened?,
        };
        let changed_at = file.metadata()?.modified().map(Moment::from)?;
        if n > 0 && changed_at < since {
            break;
        }
        let piece = end(&file, since, left, clock)?;
        left -= piece.text.len() as u64;
        let done = piece.reached || piece.cut;
        cut = piece.cut;
        pieces.push(piece.text);
        if done {
            break;
        }
    }
    pieces.reverse();
    Ok(Tail { text: pieces.join(&b'\n'), cut })
}

/// Returns the files of a log, newest first.
fn files(path: &Path) -> io::Result<Vec<PathBuf>> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("");
    let Some((before, after)) = name.split_once('*') else {
        let mut rotated = path.as_os_str().to_owned();
        rotated.push(".1");
        return Ok(vec![path.to_owned(), rotated.into()]);
    };
    let mut found = Vec::new();
    for entry in path.parent().unwrap_or(Path::new("/")).read_dir()? {
        let entry = entry?;
        let name = entry.file_name();
        let fits = |name: &str| {
            name.len() >= before.len() + after.len()
                && name.starts_with(before)
                && name.ends_with(after)
        };
        if name.to_str().is_some_and(fits) {
            let metadata = entry.metadata()?;
            if metadata.is_file() {
                found.push((metadata.modified()?, entry.path()));
            }
        }
    }
    if found.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "no file has such a name"));
    }
    found.sort_by(|a, b| b.cmp(a));
    Ok(found.into_iter().take(FILES).map(|(_, path)| path).collect())
}

fn open(path: &Path) -> io::Result<File> {
    // Opening a pipe would wait for its other end.
    if !path.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a file"));
    }
    File::open(path)
}

struct Piece {
    text: Vec<u8>,
    /// Is there a line from before the window?
    reached: bool,
    cut: bool,
}

/// Reads blocks from the end, until one begins before the window.
fn end(file: &File, since: Moment, limit: u64, clock: &Clock) -> io::Result<Piece> {
    let mut start = file.metadata()?.len();
    let least = start.saturating_sub(limit);
    let mut blocks: Vec<Vec<u8>> = Vec::new();
    let mut reached = false;
    while start > least && !reached {
        let from = start.saturating_sub(BLOCK).max(least);
        let mut block = vec![0; usize::try_from(start - from).unwrap_or(0)];
        file.read_exact_at(&mut block, from)?;
        reached = first_stamp(&block, from == 0, clock).is_some_and(|at| at < since);
        blocks.push(block);
        start = from;
    }
    blocks.reverse();
    let mut text = blocks.concat();
    if start > 0 {
        // The first line has no beginning.
        let whole = text.iter().position(|byte| *byte == b'\n').map_or(text.len(), |at| at + 1);
        text.drain(..whole);
    }
    Ok(Piece { text, reached, cut: start > 0 && !reached })
}

/// Finds the first stamp in a block; its first line may have no beginning.
fn first_stamp(block: &[u8], whole: bool, clock: &Clock) -> Option<Moment> {
    let lines = block.split(|byte| *byte == b'\n').skip(usize::from(!whole));
    // The last line goes on in the next block.
    lines.take(10_000).find_map(|line| {
        let text = String::from_utf8_lossy(line);
        super::line::parse(&text, clock)
            .at
            .or_else(|| time::leading(&text, clock).map(|(at, _)| at))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::time::tests::clock;

    fn stamp(n: u32) -> String {
        let first: Moment = "2026-11-25T00:00:00Z".parse().unwrap();
        (first + chrono::TimeDelta::seconds(i64::from(n))).to_rfc3339()
    }

    fn lines(numbers: std::ops::Range<u32>) -> String {
        numbers.map(|n| format!("{} line {n} {}\n", stamp(n), "x".repeat(60))).collect()
    }

    #[expect(clippy::disallowed_methods, reason = "a test writes what it reads")]
    fn write(path: impl AsRef<Path>, content: impl AsRef<[u8]>) {
        std::fs::write(path, content).unwrap();
    }

    fn since(n: u32) -> Moment {
        stamp(n).parse().unwrap()
    }

    /// Reads and returns the numbers of the first and last line with a stamp.
    fn numbers(path: &Path, from: u32, limit: u64) -> (Option<u32>, Option<u32>, bool) {
        let tail = read(path, since(from), limit, &clock()).unwrap();
        let number = |line: std::borrow::Cow<'_, str>| line.split(' ').nth(2)?.parse().ok();
        let found: Vec<u32> = tail.lines().filter_map(number).collect();
        assert!(found.windows(2).all(|pair| pair[0] + 1 == pair[1]), "lines are missing");
        (found.first().copied(), found.last().copied(), tail.cut)
    }

    #[test]
    fn no_more_is_read_than_the_window_needs() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        write(&path, lines(0..20_000));
        let (first, last, cut) = numbers(&path, 19_000, 16 << 20);
        assert!(first.unwrap() <= 19_000 && first.unwrap() > 10_000, "{first:?}");
        assert_eq!((last, cut), (Some(19_999), false));
        assert_eq!(numbers(&path, 0, 16 << 20), (Some(0), Some(19_999), false));
        // A limit cuts, and says so.
        let (first, last, cut) = numbers(&path, 0, 100_000);
        assert!(first.unwrap() > 18_000 && last == Some(19_999) && cut, "{first:?}");
    }

    #[test]
    fn a_rotation_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        write(dir.path().join("log.1"), lines(0..100));
        write(&path, lines(100..110));
        assert_eq!(numbers(&path, 50, 16 << 20), (Some(0), Some(109), false));
        assert_eq!(numbers(&path, 105, 16 << 20), (Some(100), Some(109), false));
        write(&path, "");
        assert_eq!(numbers(&path, 50, 16 << 20), (Some(0), Some(99), false));
        // The limit is for both together.
        write(&path, lines(100..110));
        let (first, _, cut) = numbers(&path, 0, 5000);
        assert!(first.unwrap() > 30 && cut, "{first:?}");
    }

    #[test]
    fn a_pattern_names_several_files() {
        let dir = tempfile::tempdir().unwrap();
        for (name, numbers) in [("pg-b.log", 0..10), ("pg-a.log", 10..20)] {
            let path = dir.path().join(name);
            write(&path, lines(numbers.clone()));
            let at = std::time::SystemTime::from(since(1_000_000 + numbers.end));
            File::options().write(true).open(&path).unwrap().set_modified(at).unwrap();
        }
        let path = dir.path().join("pg-*.log");
        assert_eq!(numbers(&path, 0, 16 << 20), (Some(0), Some(19), false));
        assert!(read(&dir.path().join("no-*.log"), since(0), 1, &clock()).is_err());
    }

    #[test]
    fn what_is_no_file_is_an_error_and_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::from(0o600)).unwrap();
        for path in [pipe.as_path(), dir.path(), &dir.path().join("missing")] {
            assert!(read(path, since(0), 100, &clock()).is_err());
        }
    }
}
