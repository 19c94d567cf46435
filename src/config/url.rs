//! What a connection string gives away: whether it holds a password, and how it looks without.
//!
//! Nothing is parsed here that connecting would need; when in doubt there is a password.

use crate::secret::redact;

/// Checks that `text` is a PostgreSQL URL or a `key=value` string. The message never quotes it.
pub(super) fn check(text: &str) -> Result<(), String> {
    let expected = "is neither a URL like postgresql://user@host/database nor `key=value` pairs";
    match text.split_once("://") {
        Some(("postgresql" | "postgres", _)) => Ok(()),
        Some((scheme, _)) => match scheme.split_once('+') {
            Some(("postgresql" | "postgres", driver)) if !driver.contains(char::is_whitespace) => {
                Err(format!("names a driver: leave out `+{driver}`"))
            }
            _ if is_pairs(text) => Ok(()),
            _ => Err(expected.to_owned()),
        },
        None if is_pairs(text) => Ok(()),
        None => Err(expected.to_owned()),
    }
}

fn is_pairs(text: &str) -> bool {
    let key = text.split_once('=').map(|(key, _)| key.trim()).unwrap_or_default();
    !key.is_empty() && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
}

/// Tells whether `text` holds a password.
pub(crate) fn has_password(text: &str) -> bool {
    password_in_authority(text).is_some_and(|span| !span.is_empty())
        || password_value(text, 0).is_some()
}

/// Shows `text` without its passwords.
pub(crate) fn without_password(text: &str) -> String {
    let mut shown = text.to_owned();
    if let Some(span) = password_in_authority(&shown) {
        shown.replace_range(span, "***");
    }
    let mut from = 0;
    while let Some(span) = password_value(&shown, from) {
        from = span.start + 3;
        shown.replace_range(span, "***");
    }
    redact(&shown)
}

/// Finds what stands between the first `:` and the last `@` of a URL, so that a password with an
/// unescaped `/`, `?` or `@` is found as a whole; now and then that hides more than the password.
fn password_in_authority(text: &str) -> Option<std::ops::Range<usize>> {
    let start = text.find("://")? + 3;
    let at_sign = start + text[start..].rfind('@')?;
    let colon = start + text[start..at_sign].find(':')?;
    Some(colon + 1..at_sign)
}

/// Finds the value of the next `password=` (also `sslpassword=` and what looks like a slip of the pen, such as
/// `passwd=`, but not `passfile=`) from `from` on, quoted or not.
fn password_value(text: &str, from: usize) -> Option<std::ops::Range<usize>> {
    let lower = text.to_ascii_lowercase();
    let mut at = from;
    loop {
        at += lower.get(at..)?.find("pass")? + "pass".len();
        let ending =
            lower[at..].bytes().take_while(|b| b.is_ascii_alphabetic() || *b == b'_').count();
        let is_file = &lower[at..at + ending] == "file";
        at += ending;
        let rest = text[at..].trim_start();
        if is_file {
            continue;
        }
        let Some(value) = rest.strip_prefix('=').map(str::trim_start) else { continue };
        let start = text.len() - value.len();
        let length = match value.strip_prefix('\'') {
            Some(quoted) => {
                let mut escaped = false;
                let end = quoted.find(|c| {
                    let ends = c == '\'' && !escaped;
                    escaped = c == '\\' && !escaped;
                    ends
                });
                end.map_or(value.len(), |end| end + 2)
            }
            None => value.find(|c: char| c.is_whitespace() || c == '&').unwrap_or(value.len()),
        };
        if length > 0 {
            let end = start + length;
            // Words that belong to no key are the rest of a password that should have been quoted.
            let strays = if text.contains("://") { 0 } else { stray_length(&text[end..]) };
            return Some(start..end + strays);
        }
    }
}

/// Returns how much of `text` comes before the next `key=`.
fn stray_length(text: &str) -> usize {
    let before = text.split_once('=').map_or(text, |(before, _)| {
        let before = before.trim_end();
        before.trim_end_matches(|c: char| c.is_ascii_alphanumeric() || c == '_')
    });
    before.trim_end().len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn finds_and_hides_passwords() {
        let check = |text: &str, shown: &str| {
            assert_eq!(without_password(text), shown);
            assert_eq!(has_password(text), text != shown, "{text}");
        };
        check("postgresql://u@h:5432/d", "postgresql://u@h:5432/d");
        check("postgresql://h:5432/d?x=a@b", "postgresql://h:***@b");
        check("postgresql://u:p@h/d", "postgresql://u:***@h/d");
        check("postgresql://u:p/w@x@h/d?a=b", "postgresql://u:***@h/d?a=b");
        check("postgresql://u:p?w@h/d", "postgresql://u:***@h/d");
        check("postgresql://h/d?password=geheim&a=b", "postgresql://h/d?password=***&a=b");
        check("host=h password=geheim user=u", "host=h password=*** user=u");
        check(r"host=h password = 'ge \' heim' user=u", "host=h password = *** user=u");
        check("host=h passfile=/x dbname=password", "host=h passfile=/x dbname=password");
        check("sslpassword=a password=b", "sslpassword=*** password=***");
        check("password=a b c user=u", "password=*** user=u");
        check("password='a' b", "password=***");
        check("postgresql://h/d?passwort=a&Passwd=b", "postgresql://h/d?passwort=***&Passwd=***");
    }

    #[test]
    fn takes_urls_and_pairs() {
        for text in ["postgresql:///d", "postgres://h", "host=/tmp dbname=d", "service = x"] {
            check(text).unwrap();
        }
        for text in ["mysql://h", "ip2a", "postgresql+asyncpg://u:p@h/d", "=x", "/etc/passwd"] {
            check(text).unwrap_err();
        }
        assert_eq!(
            check("postgresql+asyncpg://u:p@h/d").unwrap_err(),
            "names a driver: leave out `+asyncpg`"
        );
    }

    proptest! {
        #[test]
        fn never_panics(text in any::<String>(), tail in "[pasword=':@/?& \\\\]{0,30}") {
            for text in [&text, &tail, &format!("postgresql://{text}{tail}")] {
                let _ignored = (check(text), has_password(text), without_password(text));
            }
        }
    }
}
