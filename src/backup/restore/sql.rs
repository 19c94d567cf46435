//! Just enough of SQL's lexical rules to handle what pg_dump and pg_dumpall write, and nothing that a person
//! writes: literals with doubled quotes, backslashes only behind an `E`, quoted names. Pure.

/// Cuts a script into its statements, without their semicolons; comments and psql's commands are left out.
pub(crate) fn statements(script: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut current = String::new();
    let mut rest = script;
    while let Some(next) = rest.chars().next() {
        if current.trim().is_empty() && (rest.starts_with("--") || next == '\\') {
            rest = rest.split_once('\n').map_or("", |(_, rest)| rest);
            continue;
        }
        let length = match next {
            '\'' => literal_length(rest, '\'', current.ends_with('E')),
            '"' => literal_length(rest, '"', false),
            other => other.len_utf8(),
        };
        if next == ';' {
            found.push(std::mem::take(&mut current).trim().to_owned());
        } else {
            current.push_str(&rest[..length]);
        }
        rest = &rest[length..];
    }
    found
}

/// Reads the name that a text begins with, and returns it without quotes, and what follows.
pub(crate) fn identifier(text: &str) -> Option<(String, &str)> {
    if !text.starts_with('"') {
        let is_part = |c: char| c.is_alphanumeric() || "_$".contains(c);
        let end = text.find(|c| !is_part(c)).unwrap_or(text.len());
        return (end > 0).then(|| (text[..end].to_owned(), &text[end..]));
    }
    let mut end = 0;
    while text[end..].starts_with('"') {
        end += literal_length(&text[end..], '"', false);
    }
    let name = text[..end].strip_prefix('"')?.strip_suffix('"')?;
    Some((name.replace("\"\"", "\""), &text[end..]))
}

/// Puts `new` in the place of `old` wherever SQL says `DATABASE old` outside of a literal; both are quoted for SQL.
pub(crate) fn rename_database(sql: &str, old: &str, new: &str) -> String {
    let word = format!("DATABASE {old}");
    let mut out = String::with_capacity(sql.len());
    let mut rest = sql;
    while let Some(next) = rest.chars().next() {
        let length = match next {
            '\'' => literal_length(rest, '\'', out.ends_with('E')),
            _ if rest.starts_with(&word) => {
                let ends = rest[word.len()..].chars().next();
                if ends.is_none_or(|c| !c.is_alphanumeric() && !"_$".contains(c)) {
                    out.push_str("DATABASE ");
                    out.push_str(new);
                    rest = &rest[word.len()..];
                    continue;
                }
                next.len_utf8()
            }
            '"' => literal_length(rest, '"', false),
            other => other.len_utf8(),
        };
        out.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    out
}

/// Returns the length of the literal at the beginning of `text`, with its quotes.
fn literal_length(text: &str, quote: char, backslashes: bool) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' if backslashes => escaped = true,
            // A doubled quote ends one literal and begins the next, which comes to the same.
            _ if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::quote_identifier;
    use proptest::prelude::*;

    /// Pieces of which pg_dump's statements are made, in which nothing ends a statement.
    fn piece() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a-zA-Z_ü(),.= \n]{1,8}",
            "[^'\\\\]{0,8}".prop_map(|text| format!("'{}'", text.replace('\'', "''"))),
            "[^\0]{0,8}".prop_map(|name| quote_identifier(&name)),
            "[^'\\\\]{0,4}".prop_map(|text| format!(" E'\\\\{text}\\''")),
        ]
    }

    proptest! {
        #[test]
        fn a_script_falls_apart_into_the_statements_it_was_made_of(
            statements in proptest::collection::vec(
                proptest::collection::vec(piece(), 1..6).prop_map(|pieces| format!("ALTER {}x", pieces.concat())), 0..6,
            ),
        ) {
            let script: String = statements.iter().map(|s| format!("{s};\n-- a; comment\n\n")).collect();
            prop_assert_eq!(super::statements(&script), statements);
        }

        #[test]
        fn a_quoted_name_is_read_as_it_was(name in "[^\0]{1,12}", rest in "( [^\"]{0,8})?") {
            let text = quote_identifier(&name) + &rest;
            prop_assert_eq!(identifier(&text), Some((name, rest.as_str())));
        }

        #[test]
        fn renaming_changes_names_and_not_literals(old in "[^\0]{1,6}", literal in "[^'\\\\]{0,6}") {
            let (old, literal) = (quote_identifier(&old), literal.replace('\'', "''"));
            let sql = |name: &str| format!("ALTER DATABASE {name} SET a TO 'DATABASE {}{literal}';", "old");
            prop_assert_eq!(rename_database(&sql(&old), &old, "\"new\""), sql("\"new\""));
        }
    }

    #[test]
    fn statements_end_at_semicolons_outside_of_literals() {
        let script = "-- a; b\n\\restrict x;y\n\nCREATE ROLE \"a;b\";\nCOMMENT ON ROLE x IS E'it\\'s; ''so''';\n\\unrestrict";
        let expected = ["CREATE ROLE \"a;b\"", "COMMENT ON ROLE x IS E'it\\'s; ''so'''"];
        assert_eq!(statements(script), expected);
    }

    #[test]
    fn names_end_where_they_end() {
        let read = |text: &str| identifier(text).map(|(name, rest)| (name, rest.to_owned()));
        assert_eq!(read("app WITH"), Some(("app".to_owned(), " WITH".to_owned())));
        assert_eq!(read("\"a \"\"b\" X"), Some(("a \"b".to_owned(), " X".to_owned())));
        assert_eq!(read("ALL"), Some(("ALL".to_owned(), String::new())));
        assert_eq!(read(" x"), None);
        assert_eq!(read("\"open"), None);
    }

    #[test]
    fn only_the_name_of_the_database_is_replaced() {
        let check = |sql: &str, old: &str, expected: &str| {
            assert_eq!(rename_database(sql, old, "\"new db\""), expected);
        };
        check(
            "ALTER DATABASE ip2a SET search_path TO 'a', 'DATABASE ip2a';\n",
            "ip2a",
            "ALTER DATABASE \"new db\" SET search_path TO 'a', 'DATABASE ip2a';\n",
        );
        check(
            "ALTER ROLE \"DATABASE ip2a\" IN DATABASE ip2a SET x TO E'\\'DATABASE ip2a';GRANT CONNECT ON DATABASE ip2a TO r;",
            "ip2a",
            "ALTER ROLE \"DATABASE ip2a\" IN DATABASE \"new db\" SET x TO E'\\'DATABASE ip2a';GRANT CONNECT ON DATABASE \"new db\" TO r;",
        );
        check(
            "ALTER DATABASE ip2a_old SET a TO 'b'",
            "ip2a",
            "ALTER DATABASE ip2a_old SET a TO 'b'",
        );
        check(
            "COMMENT ON DATABASE \"o\"\"d\" IS 'ü'",
            "\"o\"\"d\"",
            "COMMENT ON DATABASE \"new db\" IS 'ü'",
        );
    }
}
