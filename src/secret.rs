//! Values that must not be shown: passwords, keys, tokens.
//!
//! A [`Secret`] prints as `***` whatever formatting is asked for; only [`Secret::reveal`] gives the
//! value, so that a search for `reveal` finds every place where a secret goes. [`redact`] is the
//! second line of defence, for text that came from elsewhere (a server's message, a child's stderr).

use std::fmt;
use std::ops::Range;

/// A string that is never displayed.
#[derive(Clone, PartialEq, Eq, Default)]
pub(crate) struct Secret(String);

impl Secret {
    /// Wraps a secret value.
    pub(crate) fn new(value: impl Into<String>) -> Secret {
        Secret(value.into())
    }

    /// Returns the value itself, to hand it to whoever must know it.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl<'de> serde::Deserialize<'de> for Secret {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
        String::deserialize(deserializer).map(Secret)
    }
}

/// Replaces what looks like a secret in foreign text: the password of a URL and `password=…` values.
///
/// Over-redaction is accepted; the text is for people.
pub(crate) fn redact(text: &str) -> String {
    let mut spans: Vec<_> = url_passwords(text).chain(values(text)).collect();
    spans.sort_unstable_by_key(|span| (span.start, span.end));
    let mut out = String::with_capacity(text.len());
    let mut done = 0;
    for span in spans {
        // One that begins within another may end behind it.
        if span.start >= done {
            out.push_str(&text[done..span.start]);
            out.push_str("***");
        }
        done = done.max(span.end);
    }
    out.push_str(&text[done..]);
    out
}

/// What a secret is called in connection strings and settings.
const WORDS: [&str; 4] = ["password", "passwd", "secret", "secret_access_key"];

/// Finds the passwords of URLs: from the first colon of what follows `://` to the last `@` before white space, because
/// a password that nobody encoded may hold anything, quotes too.
fn url_passwords(text: &str) -> impl Iterator<Item = Range<usize>> + '_ {
    let mut looked_at = 0;
    text.match_indices("://").filter_map(move |(at, sign)| {
        // A second one among the same characters finds no more than the first.
        if at < looked_at {
            return None;
        }
        let from = at + sign.len();
        looked_at = text[from..].find(char::is_whitespace).map_or(text.len(), |n| from + n);
        let at_sign = from + text[from..looked_at].rfind('@')?;
        let colon = from + text[from..at_sign].find(':')?;
        (colon + 1 < at_sign).then_some(colon + 1..at_sign)
    })
}

/// Finds the values of each `word = value`.
fn values(text: &str) -> impl Iterator<Item = Range<usize>> + '_ {
    let lower = text.to_ascii_lowercase();
    let behind = |word: &str| -> Vec<usize> {
        lower.match_indices(word).map(|(at, _)| at + word.len()).collect()
    };
    WORDS.map(behind).into_iter().flatten().filter_map(|behind| {
        let value = text[behind..].trim_start().strip_prefix('=')?.trim_start();
        let start = text.len() - value.len();
        let length = match value.chars().next()? {
            quote @ ('\'' | '"') => quoted_length(value, quote),
            _ => bare_length(value),
        };
        (length > 0).then_some(start..start + length)
    })
}

/// Returns the length of a value in quotes, in which a backslash escapes them, as for libpq.
fn quoted_length(value: &str, quote: char) -> usize {
    let mut escaped = false;
    let end = value[1..].find(|c| {
        let ends = c == quote && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    });
    end.map_or(value.len(), |end| end + 2)
}

/// Returns the length of a value without quotes: up to white space that no backslash escapes, or to a separator that another
/// `key=` follows. A quote ends nothing: libpq takes it for a part of the value.
fn bare_length(value: &str) -> usize {
    let mut escaped = false;
    let end = value.char_indices().find(|&(at, c)| {
        let ends = match c {
            '&' | ',' | ';' => is_key(&value[at + 1..]),
            _ => c.is_whitespace() && !escaped,
        };
        escaped = c == '\\' && !escaped;
        ends
    });
    end.map_or(value.len(), |(at, _)| at)
}

/// Does a text begin with `key=`?
fn is_key(text: &str) -> bool {
    let behind = text.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '_');
    behind.len() < text.len() && behind.starts_with('=')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn never_shows_itself() {
        assert_eq!(format!("{0} {0:?}", Secret::new("geheim")), "*** ***");
    }

    #[test]
    fn redacts_urls_and_keywords() {
        let check = |input: &str, expected: &str| assert_eq!(redact(input), expected);
        check("postgresql://u:p@ss@h:5432/d?x=1", "postgresql://u:***@h:5432/d?x=1");
        check("host=h password=geheim user=u", "host=h password=*** user=u");
        check("a postgres://u:p@h and b://c:d@e", "a postgres://u:***@h and b://c:***@e");
        check("nothing: to see http://h:80/ here", "nothing: to see http://h:80/ here");
        check("password='a b' and PASSWORD = x&y=z", "password=*** and PASSWORD = ***&y=z");
        check("http://h/ then postgres://u:a/b?c@h/d", "http://h/ then postgres://u:***@h/d");
        check("password=*** password=two", "password=*** password=***");
        check("password authentication failed", "password authentication failed");
    }

    #[test]
    fn a_quote_ends_no_password() {
        let check = |input: &str, expected: &str| assert_eq!(redact(input), expected);
        check("postgresql://postgres:ge'heim@h/d", "postgresql://postgres:***@h/d");
        check("url = \"postgresql://u:g\"e`h'eim@h/d\"", "url = \"postgresql://u:***@h/d\"");
        check(r"password='ge\'heim' user=u", "password=*** user=u");
        check(r"password='geheim\\' user=u", "password=*** user=u");
        check(r#"password="ge\"heim" user=u"#, "password=*** user=u");
        check("password=ge'heim user=u", "password=*** user=u");
        check("password=ge,he;i&m user=u", "password=*** user=u");
        check(r"password=ge\ heim user=u", "password=*** user=u");
        check("Password=geheim;Host=h", "Password=***;Host=h");
        check("postgres://u:password='a b@h/geheim' x", "postgres://u:password=*** x");
    }

    proptest! {
        #[test]
        fn hides_what_a_url_has(before in r"\S{0,10}", behind in r"\S{0,10}") {
            let shown = redact(&format!("cannot reach postgresql://u:{before}geheim{behind}@h/d?a=b now"));
            prop_assert!(shown.starts_with("cannot reach postgresql://u:***"), "{shown}");
            prop_assert!(!shown.contains("geheim"), "{shown}");
        }

        #[test]
        fn hides_what_libpq_takes_for_one_value(before in "[pasword=':@/? \\\\]{0,10}", behind in r"\PC{0,10}") {
            let escaped = |special: &[char], text: &str| {
                let one = |c: char| if special.contains(&c) { format!("\\{c}") } else { c.to_string() };
                text.chars().map(one).collect::<String>()
            };
            let password = format!("{before}geheim{behind}");
            let quoted = format!("host=h password = '{}' user=u", escaped(&['\\', '\''], &password));
            prop_assert!(!redact(&quoted).contains("geheim"), "{quoted}");
            let bare = format!("host=h password=x{} user=u", escaped(&['\\', '\'', ' '], &password));
            prop_assert!(!redact(&bare).contains("geheim"), "{bare}");
        }

        #[test]
        fn never_panics(text in any::<String>(), tail in "[pasword=':@/?&; \\\\]{0,30}") {
            for text in [&text, &tail, &format!("postgresql://{text}{tail}")] {
                drop(redact(text));
            }
        }
    }
}
