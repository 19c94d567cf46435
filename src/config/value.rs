//! Single values: how they are written, read and checked.
//!
//! Every parser says what it would have taken, without repeating where: the caller knows the place.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::{Compression, ObjectLockMode};
use crate::secret::{Secret, redact};

/// The longest timeout; a longer one is a slip of the pen, and deadlines must not overflow.
const LONGEST: Duration = Duration::from_secs(365 * 86_400);

/// What S3 knows, of what makes sense for backups.
const STORAGE_CLASSES: [&str; 9] = [
    "STANDARD",
    "STANDARD_IA",
    "ONEZONE_IA",
    "INTELLIGENT_TIERING",
    "GLACIER_IR",
    "GLACIER",
    "DEEP_ARCHIVE",
    "REDUCED_REDUNDANCY",
    "EXPRESS_ONEZONE",
];

impl FromStr for Compression {
    type Err = String;

    fn from_str(text: &str) -> Result<Compression, String> {
        let (method, level) = match text.split_once(':') {
            Some((method, level)) => (method, Some(level)),
            None => (text, None),
        };
        let level_to = |most: u8, default: u8| match level {
            None => Some(default),
            Some(level) if level.bytes().all(|b| b.is_ascii_digit()) => {
                level.parse().ok().filter(|level| (1..=most).contains(level))
            }
            Some(_) => None,
        };
        let compression = match method {
            "auto" if level.is_none() => Some(Compression::Auto),
            "none" if level.is_none() => Some(Compression::None),
            "gzip" => level_to(9, 6).map(Compression::Gzip),
            "zstd" => level_to(19, 3).map(Compression::Zstd),
            _ => None,
        };
        compression.ok_or_else(|| {
            let quoted = quote(text);
            format!(
                "{quoted} is not one of auto, none, gzip, gzip:1 to gzip:9, zstd, zstd:1 to zstd:19"
            )
        })
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Compression::Auto => f.write_str("auto"),
            Compression::None => f.write_str("none"),
            Compression::Gzip(level) => write!(f, "gzip:{level}"),
            Compression::Zstd(level) => write!(f, "zstd:{level}"),
        }
    }
}

/// Reads a span of time: a whole number and `s`, `m`, `h` or `d`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let seconds = text.len().checked_sub(1).and_then(|at| text.split_at_checked(at)).and_then(
        |(number, unit)| {
            let factor = match unit {
                "s" => 1,
                "m" => 60,
                "h" => 3600,
                "d" => 86_400,
                _ => return None,
            };
            let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
            number.parse::<u64>().ok().filter(|_| digits)?.checked_mul(factor)
        },
    );
    match seconds.map(Duration::from_secs) {
        Some(duration) if !duration.is_zero() && duration <= LONGEST => Ok(duration),
        Some(_) => Err(format!("{} is not from 1s to 365d", quote(text))),
        None => Err(format!("{} is not a time like 90s, 15m, 4h or 2d", quote(text))),
    }
}

/// Writes a span of time the way [`parse_duration`] reads it, in the largest unit that divides it.
pub(crate) fn format_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    [(86_400, 'd'), (3600, 'h'), (60, 'm')]
        .into_iter()
        .find(|(factor, _)| seconds != 0 && seconds.is_multiple_of(*factor))
        .map_or_else(
            || format!("{seconds}s"),
            |(factor, unit)| format!("{}{unit}", seconds / factor),
        )
}

/// Reads a boolean from an environment variable.
pub(super) fn parse_bool(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err(format!("{} is not true or false", quote(text))),
    }
}

/// Reads a number from an environment variable.
pub(super) fn parse_number(text: &str, least: u32, most: u32) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| format!("{} is not a whole number from {least} to {most}", quote(text)))
}

/// Checks the name of a database or repository; it becomes part of paths and keys.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if name.is_empty() || !name.chars().all(plain) {
        Err(format!("the name {} may have only letters, digits and `.`, `_`, `-`", quote(name)))
    } else if name.starts_with(['.', '-']) {
        Err(format!("the name {} must not begin with `.` or `-`", quote(name)))
    } else {
        Ok(())
    }
}

/// Checks that something looks like an age recipient; whether its checksum is right, age will tell.
pub(super) fn parse_recipient(text: &str) -> Result<String, String> {
    if text.to_ascii_uppercase().starts_with("AGE-SECRET-KEY-") {
        let message =
            "is a secret key: a recipient is the public key, `age1…`, which `age-keygen -y` prints";
        return Err(message.to_owned());
    }
    let bech32 = |c: char| "qpzry9x8gf2tvdw0s3jn54khce6mua7l".contains(c);
    let data = text.strip_prefix("age1").unwrap_or_default();
    if data.len() == 58 && data.chars().all(bech32) {
        Ok(text.to_owned())
    } else {
        // Not quoted: the text may be the key of something else.
        Err("is not an age recipient: `age1` and 58 characters".to_owned())
    }
}

/// Reads who may shorten an Object Lock.
pub(super) fn parse_lock_mode(text: &str) -> Result<ObjectLockMode, String> {
    match text {
        "governance" => Ok(ObjectLockMode::Governance),
        "compliance" => Ok(ObjectLockMode::Compliance),
        _ => Err(format!("{} is not governance or compliance", quote(text))),
    }
}

/// Checks a storage class.
pub(super) fn parse_storage_class(text: &str) -> Result<String, String> {
    let known = STORAGE_CLASSES.contains(&text).then(|| text.to_owned());
    known.ok_or_else(|| format!("{} is not one of {}", quote(text), STORAGE_CLASSES.join(", ")))
}

/// Checks an S3 endpoint: scheme, host and port only.
pub(super) fn parse_endpoint(text: &str) -> Result<String, String> {
    let address = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    match address.map(|address| address.trim_end_matches('/')) {
        Some(host) if host.contains('@') => {
            Err("has a user or a password: they go into a profile or the environment".to_owned())
        }
        Some(host) if !host.is_empty() && !host.contains(['/', '?', '#', ' ']) => {
            Ok(text.trim_end_matches('/').to_owned())
        }
        _ => Err(format!("{} is not like https://host or http://host:9000", quote(text))),
    }
}

/// Checks a URL for requests; `{command}` may stand in it. The message never quotes it: all of it may be a secret.
pub(super) fn parse_http(text: &str) -> Result<Secret, String> {
    let text = text.trim();
    let filled = text.replace("{command}", "command");
    let url = reqwest::Url::parse(&filled);
    if !url.is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host()) {
        return Err("is not a URL like https://host/path".to_owned());
    }
    if filled.contains(['{', '}']) {
        return Err("has braces other than `{command}`".to_owned());
    }
    Ok(Secret::new(text))
}

/// Checks a URL that is the beginning of others. The message never quotes it.
pub(super) fn parse_base(text: &str) -> Result<Secret, String> {
    if text.contains(['?', '#', '{', '}']) {
        return Err("is not only the beginning of a URL, such as http://host:9091".to_owned());
    }
    parse_http(text)
}

/// Takes any text but an empty one.
pub(super) fn parse_text(text: &str) -> Result<String, String> {
    if text.trim().is_empty() { Err("is empty".to_owned()) } else { Ok(text.to_owned()) }
}

/// Shows a value in a message: in back-ticks, without secrets, short.
pub(super) fn quote(text: &str) -> String {
    let short: String = redact(text).chars().take(80).collect();
    format!("`{short}`")
}

/// How much of a backup a sample is: more than 0, at most 100 percent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Percent(f64);

impl std::str::FromStr for Percent {
    type Err = String;

    fn from_str(text: &str) -> Result<Percent, String> {
        let number = text.strip_suffix('%').unwrap_or(text).parse::<f64>();
        // Smaller pieces than these nobody would live to see the last of.
        let valid = number.ok().filter(|number| (0.1..=100.0).contains(number));
        valid.map(Percent).ok_or_else(|| "use a percentage from 0.1% to 100%".to_owned())
    }
}

impl Percent {
    /// Returns how many pieces there are, so that none is larger than this.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is from 1 to 1000"
    )]
    pub(crate) fn pieces(self) -> u64 {
        (100.0 / self.0).ceil() as u64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_compressions() {
        let check = |text: &str, expected| assert_eq!(text.parse().ok(), expected, "{text}");
        check("auto", Some(Compression::Auto));
        check("none", Some(Compression::None));
        check("gzip", Some(Compression::Gzip(6)));
        check("gzip:9", Some(Compression::Gzip(9)));
        check("zstd", Some(Compression::Zstd(3)));
        check("zstd:19", Some(Compression::Zstd(19)));
        for text in
            ["", "gzip:0", "gzip:10", "zstd:20", "zstd:", "zstd:+3", "auto:1", "lz4", "GZIP"]
        {
            check(text, None);
        }
    }

    #[test]
    fn reads_durations() {
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(parse_duration(text).ok().map(|d| d.as_secs()), expected, "{text}");
        };
        check("90s", Some(90));
        check("15m", Some(900));
        check("4h", Some(14_400));
        check("2d", Some(172_800));
        check("365d", Some(365 * 86_400));
        for text in
            ["", "s", "0s", "4", "4 h", "+4h", "-4h", "4w", "366d", "99999999999999999999s", "4ä"]
        {
            check(text, None);
        }
        assert_eq!(format_duration(Duration::from_secs(5400)), "90m");
    }

    #[test]
    fn takes_only_public_keys_as_recipients() {
        let public = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";
        assert_eq!(parse_recipient(public).unwrap(), public);
        let message = parse_recipient("AGE-SECRET-KEY-1QQQQ").unwrap_err();
        assert!(!message.contains("1QQQQ"), "{message}");
        parse_recipient("age1short").unwrap_err();
    }

    proptest! {
        #[test]
        fn compressions_survive_a_round_trip(zstd: bool, level in 1u8..=19) {
            let compression =
                if zstd { Compression::Zstd(level) } else { Compression::Gzip(level.min(9)) };
            prop_assert_eq!(compression.to_string().parse(), Ok(compression));
        }

        #[test]
        fn durations_survive_a_round_trip(seconds in 1u64..=365 * 86_400) {
            let duration = Duration::from_secs(seconds);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }

        #[test]
        fn parsers_never_panic(text in any::<String>()) {
            let _ignored = (text.parse::<Compression>(), parse_duration(&text), parse_endpoint(&text));
            let _ignored = (check_name(&text), parse_recipient(&text), parse_text(&text));
        }
    }

    #[test]
    fn percentages_divide_into_pieces() {
        for (text, pieces) in [("100", 1), ("50%", 2), ("34%", 3), ("0.1", 1000)] {
            assert_eq!(text.parse::<Percent>().unwrap().pieces(), pieces);
        }
        for wrong in ["0", "0.05%", "101%", "-1", "x%", "NaN", ""] {
            assert!(wrong.parse::<Percent>().is_err(), "{wrong}");
        }
    }
}
