//! What a message looks like without what differs from one time to the next, and without what must not be shown. Pure.
//!
//! Numbers, ids, addresses and quoted values become `#`, so that the same complaint is counted as one; what follows a word such
//! as `token=` goes as a whole. Over-redaction is accepted: a shape is for people, who have the log for the rest.

use crate::secret::redact;

/// How long a shape may be, in bytes.
const LONGEST: usize = 160;
/// Longer words are ids or keys, whatever they consist of.
const LONGEST_WORD: usize = 32;
/// What comes behind these and a `=` or `:` is not shown.
const SECRET_WORDS: [&str; 9] =
    ["password", "passwd", "pwd", "secret", "token", "key", "authorization", "cookie", "session"];
/// What comes behind these is not shown.
const SCHEMES: [&str; 3] = ["bearer", "basic", "digest"];

/// Returns the shape of a message.
pub(crate) fn shape(message: &str) -> String {
    let message = redact(super::line::cut(message, 4 * LONGEST));
    let mut shape = String::new();
    let mut hidden = false;
    for word in message.split_whitespace() {
        if shape.len() > LONGEST {
            break;
        }
        let show = !std::mem::take(&mut hidden);
        let lower = word.to_ascii_lowercase();
        let bare = lower.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        let part = if show { plain(word) } else { "#".to_owned() };
        let secret = SECRET_WORDS.iter().any(|secret| bare.ends_with(secret));
        // `Authorization: Bearer x` is two words behind the first.
        hidden = SCHEMES.contains(&bare)
            || show && secret && lower.trim_end_matches(['"', '\'']).ends_with([':', '='])
            || (word == "=" || word == ":") && shape_ends_with_secret(&shape);
        if part == "#" && shape.ends_with('#') {
            continue;
        }
        if !shape.is_empty() {
            shape.push(' ');
        }
        shape.push_str(&part);
    }
    super::line::cut(&shape, LONGEST).trim_end().to_owned()
}

fn shape_ends_with_secret(shape: &str) -> bool {
    let lower = shape.to_ascii_lowercase();
    let bare = lower.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
    SECRET_WORDS.iter().any(|secret| bare.ends_with(secret))
}

/// Returns a word without its variable parts.
fn plain(word: &str) -> String {
    // A query string may hold anything.
    let word = word.split('?').next().unwrap_or(word);
    let lower = word.to_ascii_lowercase();
    for secret in SECRET_WORDS {
        for (at, _) in lower.match_indices(secret) {
            let behind = at + secret.len();
            let rest = lower[behind..].trim_start_matches(['"', '\'']);
            if rest.len() > 1 && rest.starts_with(['=', ':']) {
                return format!("{}#", &word[..=word.len() - rest.len()]);
            }
        }
    }
    // An address is somebody's.
    let personal = word.contains('@');
    let mut plain = String::new();
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let mut rest = word;
    while let Some(first) = rest.chars().next() {
        let end = rest.find(|c| is_part(c) != is_part(first)).unwrap_or(rest.len());
        let (run, behind) = rest.split_at(end);
        rest = behind;
        let varies = run.contains(|c: char| c.is_ascii_digit()) || run.len() > LONGEST_WORD;
        let joins = plain.ends_with('#')
            || plain.ends_with("#-")
            || plain.ends_with("#.")
            || plain.ends_with("#:");
        match () {
            () if is_part(first) && (varies || personal) && joins => {
                plain.truncate(plain.trim_end_matches(['-', '.', ':']).len());
            }
            () if is_part(first) && (varies || personal) => plain.push('#'),
            () if personal => {}
            () => plain.push_str(run),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_varies_is_left_out() {
        let check = |message: &str, expected: &str| assert_eq!(shape(message), expected);
        check("user 17 of 2026-11-25 not found", "user # of # not found");
        check("job 0b5f8a7e-1111-4f6e-8d1c-000000000001 failed", "job # failed");
        check("connect to 10.0.0.1:5432 failed (errno 111)", "connect to # failed (errno #)");
        check(
            "[17] a@b ERROR:  relation \"t\" does not exist",
            "[#] # ERROR: relation \"t\" does not exist",
        );
        check("at 0xdeadbeef1 in frame", "at # in frame");
        check("GET /members/7?email=x&token=y", "GET /members/#");
        check("a 1 2 3 b", "a # b");
    }

    #[test]
    fn no_secret_is_left() {
        for message in [
            "login with password=geheim failed",
            "login with password = geheim failed",
            r#"{"user":"u","password":"geheim"}"#,
            r#"sent "token": "geheim", ok"#,
            "Authorization: Bearer geheim",
            "authorization: geheim",
            "got bearer geheim and went on",
            "api_key=geheim",
            "postgresql://u:geheim@h/d",
            "https://h/x?geheim",
            "Cookie: geheim",
            "X-Api-Key: geheim",
            "mail from geheim@example.org refused",
        ] {
            assert!(!shape(message).contains("geheim"), "{}", shape(message));
        }
        assert_eq!(
            shape("password authentication failed for user \"u\""),
            "password authentication failed for user \"u\""
        );
    }

    proptest! {
        #[test]
        fn whatever_is_said_has_a_short_shape(message in "\\PC{0,400}") {
            let shape = shape(&message);
            prop_assert!(shape.len() <= LONGEST && !shape.contains(|c: char| c.is_ascii_digit()));
        }
    }
}
