//! What log files and journals say of the last minutes: errors, what is said over and over, refused requests and logins.
//!
//! `tail.rs` and `journal.rs` fetch the lines of a window, `line.rs` and `time.rs` understand one line, `count.rs` counts, and
//! `shape.rs` makes of a message what may be shown of it. Nothing is remembered between runs, memory has a limit that does not
//! grow with the file, and what a line means for somebody's sleep is decided elsewhere (`health/`).

pub(crate) mod count;
pub(crate) mod journal;
pub(crate) mod line;
pub(crate) mod shape;
pub(crate) mod tail;
pub(crate) mod time;

/// How much of a log is looked at.
pub(crate) const LIMIT: u64 = 16 << 20;

/// Understands lines, counts them, and makes shapes of them.
#[cfg(fuzzing)]
pub(crate) fn fuzz(bytes: &[u8]) {
    let now = crate::clock::Moment::default();
    let clock = time::Clock { now, local: |time| Some(time.and_utc()) };
    let any = |_: &str| true;
    let mut counter = count::Counter::new(crate::clock::Moment::MIN_UTC, now, &any);
    for line in String::from_utf8_lossy(bytes).lines() {
        let line = line::parse(line, &clock);
        let shape = shape::shape(&line.message);
        assert!(!shape.contains(|c: char| c.is_ascii_digit()), "{shape}");
        counter.count(&line);
    }
    assert!(counter.finish().lines <= bytes.len() as u64);
}
