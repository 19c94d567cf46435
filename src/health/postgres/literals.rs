//! Takes the literals out of a statement: they are other people's data. Pure.
//!
//! It knows the words of SQL no further than where a literal or a comment begins and ends (PostgreSQL, "Lexical Structure").
//! A statement that was cut, as `pg_stat_activity` cuts them, has its last literal taken out all the same.

/// Returns the statement on one line, with `?` for each literal and without comments.
pub(crate) fn without_literals(sql: &str) -> String {
    let mut out = String::with_capacity(sql.len());
    let mut rest = sql;
    while let Some(c) = rest.chars().next() {
        let in_word = out.ends_with(is_word);
        let length = if rest.starts_with("--") {
            out.push(' ');
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            out.push(' ');
            comment(rest)
        } else if c == '\'' {
            let escapes = out.ends_with(['e', 'E']) && !before_last(&out).is_some_and(is_word);
            drop_prefix(&mut out);
            out.push('?');
            string(rest, escapes)
        } else if c == '"' {
            let end = identifier(rest);
            out.push_str(&rest[..end]);
            end
        } else if let Some(end) = (c == '$' && !in_word).then(|| dollars(rest)).flatten() {
            out.push('?');
            end
        } else if c.is_ascii_digit() && !in_word && !out.ends_with('$') {
            out.push('?');
            rest.find(|c: char| !(is_word(c) || c == '.')).unwrap_or(rest.len())
        } else {
            out.push(c);
            c.len_utf8()
        };
        rest = &rest[length..];
    }
    out.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || !c.is_ascii()
}

fn before_last(text: &str) -> Option<char> {
    text.chars().rev().nth(1)
}

/// Takes back the letter that says what kind of string begins: `E'…'`, `B'…'`, `X'…'`, `N'…'`, `U&'…'`.
fn drop_prefix(out: &mut String) {
    if out.ends_with("U&") || out.ends_with("u&") {
        out.truncate(out.len() - 2);
    } else if out.ends_with(['e', 'E', 'b', 'B', 'x', 'X', 'n', 'N'])
        && !before_last(out).is_some_and(is_word)
    {
        out.pop();
    }
}

/// Returns where a string ends that begins here.
fn string(text: &str, escapes: bool) -> usize {
    let mut characters = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = characters.next() {
        let is_doubled = c == '\'' && characters.peek().is_some_and(|(_, next)| *next == '\'');
        if is_doubled || c == '\\' && escapes {
            characters.next();
        } else if c == '\'' {
            return at + 1;
        }
    }
    text.len()
}

/// Returns where a quoted name ends that begins here.
fn identifier(text: &str) -> usize {
    text[1..].find('"').map_or(text.len(), |at| at + 2)
}

/// Returns where a comment ends that begins here; they nest.
fn comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest.starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// Returns where a string between dollars ends that begins here; nothing if this is a parameter.
fn dollars(text: &str) -> Option<usize> {
    let end = text[1..].find('$')? + 2;
    let tag = &text[..end];
    let name = &tag[1..end - 1];
    if name.starts_with(|c: char| c.is_ascii_digit()) || !name.chars().all(is_word) {
        return None;
    }
    Some(text[end..].find(tag).map_or(text.len(), |at| end + at + tag.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn literals_go_and_the_rest_stays() {
        for (sql, expected) in [
            (
                "SELECT * FROM t1 WHERE id = 42 AND x = $1",
                "SELECT * FROM t1 WHERE id = ? AND x = $1",
            ),
            (
                "INSERT INTO \"a'b\" VALUES ('it''s', E'a\\'b', 1.5e10, 0xFF)",
                "INSERT INTO \"a'b\" VALUES (?, ?, ?, ?)",
            ),
            ("SELECT U&'\\0041', B'01', n'x', 'a\\' FROM t", "SELECT ?, ?, ?, ? FROM t"),
            ("DO $body$ secret $x$ $body$; SELECT $$a$$, $2", "DO ?; SELECT ?, $2"),
            ("SELECT 1 -- secret\n, 2 /* secret /* more */ */ + 3", "SELECT ? , ? + ?"),
            ("UPDATE users SET password = 'cut o", "UPDATE users SET password = ?"),
            ("SELECT $body$ cut", "SELECT ?"),
            ("\n  SELECT\tä1 ", "SELECT ä1"),
        ] {
            assert_eq!(without_literals(sql), expected, "{sql}");
        }
    }

    proptest! {
        #[test]
        fn no_literal_is_left(before in "[a-z =,(]{0,12} ", secret in "[A-Z]{6}", tag in "[a-z]{0,3}", cut in 0..4_usize) {
            for literal in [format!("'x{secret}'"), format!("E'\\'{secret}'"), format!("${tag}${secret}${tag}$"), format!("/*{secret}*/")] {
                let text = format!("{before}{literal}");
                let text = &text[..text.len() - cut.min(1)];
                prop_assert!(!without_literals(text).contains(&secret), "{}", text);
            }
        }

        #[test]
        fn any_text_is_taken(text in "\\PC{0,60}") {
            without_literals(&text);
        }
    }
}
