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
    let mut out = String::with_capacity(text.len());
    let mut done = 0;
    while let Some(span) = next_secret(text, done) {
        out.push_str(&text[done..span.start]);
        out.push_str("***");
        done = span.end;
    }
    out.push_str(&text[done..]);
    out
}

/// Finds the first span at or behind `from` that holds a secret.
fn next_secret(text: &str, from: usize) -> Option<Range<usize>> {
    let url =
        text[from..].match_indices("://").find_map(|(at, _)| url_password(text, from + at + 3));
    let word =
        WORDS.iter().filter_map(|word| value_of(text, from, word)).min_by_key(|span| span.start);
    [url, word].into_iter().flatten().min_by_key(|span| span.start)
}

/// What a secret is called in connection strings and settings.
const WORDS: [&str; 4] = ["password", "passwd", "secret", "secret_access_key"];

/// Finds the password of a URL whose authority begins at `from`: from the first colon to the last `@`,
/// because a password that nobody encoded may hold anything.
fn url_password(text: &str, from: usize) -> Option<Range<usize>> {
    let is_end = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`');
    let end = text[from..].find(is_end).map_or(text.len(), |n| from + n);
    let at_sign = from + text[from..end].rfind('@')?;
    let colon = from + text[from..at_sign].find(':')?;
    (colon + 1 < at_sign && &text[colon + 1..at_sign] != "***").then_some(colon + 1..at_sign)
}

/// Finds the value of the first `word = value` behind `from`; the value may be quoted.
fn value_of(text: &str, from: usize, word: &str) -> Option<Range<usize>> {
    let lower = text.to_ascii_lowercase();
    lower[from..].match_indices(word).find_map(|(at, _)| {
        let behind = from + at + word.len();
        let rest = text[behind..].trim_start();
        let value = rest.strip_prefix('=')?.trim_start();
        let start = text.len() - value.len();
        let end = match value.chars().next()? {
            quote @ ('\'' | '"') => value[1..].find(quote).map_or(text.len(), |n| start + n + 2),
            _ => value
                .find(|c: char| {
                    c.is_whitespace() || matches!(c, '&' | ',' | ';' | '"' | '\'' | '`')
                })
                .map_or(text.len(), |n| start + n),
        };
        (end > start && &text[start..end] != "***").then_some(start..end)
    })
}

#[cfg(test)]
mod tests {
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
        check("password='a b' and PASSWORD = x&y", "password=*** and PASSWORD = ***&y");
        check("http://h/ then postgres://u:a/b?c@h/d", "http://h/ then postgres://u:***@h/d");
        check("password=*** password=two", "password=*** password=***");
        check("password authentication failed", "password authentication failed");
    }
}
