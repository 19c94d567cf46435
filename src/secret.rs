//! Values that must not be shown: passwords, keys, tokens.
//!
//! A [`Secret`] prints as `***` whatever formatting is asked for; only [`Secret::reveal`] gives the
//! value, so that a search for `reveal` finds every place where a secret goes. [`redact`] is the
//! second line of defence, for text that came from elsewhere (a server's message, a child's stderr).

use std::fmt;

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
    let mut rest = text;
    while let Some(at) = next_secret(rest) {
        out.push_str(&rest[..at.start]);
        out.push_str("***");
        rest = &rest[at.end..];
    }
    out.push_str(rest);
    out
}

/// Finds the first span that holds a secret.
fn next_secret(text: &str) -> Option<std::ops::Range<usize>> {
    let url = text.find("://").and_then(|scheme| {
        let authority = scheme + 3;
        let end = text[authority..]
            .find(|c: char| c.is_whitespace() || matches!(c, '/' | '?' | '"' | '\'' | '`'))
            .map_or(text.len(), |n| authority + n);
        let at_sign = authority + text[authority..end].rfind('@')?;
        let colon = authority + text[authority..at_sign].find(':')?;
        (&text[colon + 1..at_sign] != "***").then_some(colon + 1..at_sign)
    });
    let lower = text.to_ascii_lowercase();
    let key = ["password=", "password =", "secret="]
        .iter()
        .filter_map(|key| {
            let start = lower.find(key)? + key.len();
            let end = text[start..]
                .find(|c: char| c.is_whitespace() || matches!(c, '&' | ',' | '"' | '`'))
                .map_or(text.len(), |n| start + n);
            (end > start && &text[start..end] != "***").then_some(start..end)
        })
        .min_by_key(|range| range.start);
    match (url, key) {
        (Some(a), Some(b)) => Some(if a.start <= b.start { a } else { b }),
        (a, b) => a.or(b),
    }
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
    }
}
