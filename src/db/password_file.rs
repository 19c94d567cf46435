//! The password file, `.pgpass`, as libpq reads it.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::secret::Secret;

/// The lines of a password file.
#[derive(Clone, Debug, Default)]
pub(super) struct PasswordFile(Vec<Secret>);

impl PasswordFile {
    /// Reads `path`. Like libpq it only warns about a file that others may read, and then ignores it.
    pub(super) fn read(path: &Path) -> PasswordFile {
        let shown = path.display();
        let Ok(metadata) = std::fs::metadata(path) else { return PasswordFile::default() };
        if !metadata.is_file() {
            tracing::warn!("password file `{shown}` is not a plain file; it is ignored");
            return PasswordFile::default();
        }
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            tracing::warn!(
                "password file `{shown}` has mode {mode:04o} and is ignored; `chmod 0600 {shown}` makes it count"
            );
            return PasswordFile::default();
        }
        match std::fs::read(path) {
            Ok(bytes) => PasswordFile::parse(&String::from_utf8_lossy(&bytes)),
            Err(e) => {
                tracing::warn!("password file `{shown}` cannot be read and is ignored: {e}");
                PasswordFile::default()
            }
        }
    }

    pub(super) fn parse(text: &str) -> PasswordFile {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        PasswordFile(lines.map(Secret::new).collect())
    }

    /// Returns the password of the first line that matches.
    pub(super) fn find(&self, host: &str, port: u16, database: &str, user: &str) -> Option<Secret> {
        let port = port.to_string();
        self.0.iter().find_map(|line| {
            let mut rest = line.reveal();
            for wanted in [host, &port, database, user] {
                rest = after_field(rest, wanted)?;
            }
            Some(Secret::new(unescaped_field(rest)))
        })
    }
}

/// Writes one line of a password file, for every database; `None` if the password cannot be written.
pub(super) fn line(host: &str, port: u16, user: &str, password: &Secret) -> Option<String> {
    let escape = |field: &str| field.replace('\\', r"\\").replace(':', r"\:");
    let fields = [escape(host), port.to_string(), "*".to_owned(), escape(user)];
    let line = format!("{}:{}\n", fields.join(":"), escape(password.reveal()));
    // A line is all that the format has: there is no way to write a line break in a field.
    (line.matches(['\n', '\r']).count() == 1).then_some(line)
}

/// Returns what follows the first field of `line` if that field is `*` or `wanted`.
fn after_field<'a>(line: &'a str, wanted: &str) -> Option<&'a str> {
    if let Some(rest) = line.strip_prefix("*:") {
        return Some(rest);
    }
    let mut wanted = wanted.chars();
    let mut chars = line.char_indices();
    while let Some((at, c)) = chars.next() {
        let c = match c {
            ':' => return wanted.next().is_none().then(|| &line[at + 1..]),
            '\\' => chars.next()?.1,
            c => c,
        };
        if wanted.next() != Some(c) {
            return None;
        }
    }
    None
}

fn unescaped_field(text: &str) -> String {
    let mut field = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next_if(|c| *c != ':') {
        field.push(if c == '\\' { chars.next().unwrap_or(c) } else { c });
    }
    field
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn find(text: &str, host: &str, port: u16, database: &str, user: &str) -> Option<String> {
        let found = PasswordFile::parse(text).find(host, port, database, user);
        found.map(|password| password.reveal().to_owned())
    }

    #[test]
    fn finds_the_first_match() {
        let text = "# comment\n\nlocalhost:5432:db:ann:one\n*:5433:*:ann:two\n*:*:*:ann:three\n";
        assert_eq!(find(text, "localhost", 5432, "db", "ann").as_deref(), Some("one"));
        assert_eq!(find(text, "localhost", 5433, "db", "ann").as_deref(), Some("two"));
        assert_eq!(find(text, "elsewhere", 1, "x", "ann").as_deref(), Some("three"));
        assert_eq!(find(text, "localhost", 5432, "db", "bob"), None);
    }

    #[test]
    fn understands_escapes() {
        let text = r"\:\:1:5432:a\\b:u\:v:p\:w\\d:rest";
        assert_eq!(find(text, "::1", 5432, r"a\b", "u:v").as_deref(), Some(r"p:w\d"));
        assert_eq!(find("h:1:d:u:", "h", 1, "d", "u").as_deref(), Some(""));
        assert_eq!(find("h:1:d:u", "h", 1, "d", "u"), None);
        // A star is only a wildcard when it stands alone.
        assert_eq!(find("*h:1:d:u:p", "xh", 1, "d", "u"), None);
        assert_eq!(find("h*:1:d:u:p", "h*", 1, "d", "u").as_deref(), Some("p"));
    }

    #[test]
    fn ignores_a_file_that_others_may_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file.as_file(), b"*:*:*:*:pw\n").unwrap();
        let read = || PasswordFile::read(file.path()).find("h", 1, "d", "u").is_some();
        assert!(read());
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(!read());
        assert!(PasswordFile::read(Path::new("/dev/null")).0.is_empty());
        assert!(PasswordFile::read(Path::new("/nonexistent")).0.is_empty());
    }

    #[test]
    fn does_not_show_itself() {
        assert!(!format!("{:?}", PasswordFile::parse("*:*:*:*:geheim")).contains("geheim"));
    }

    proptest! {
        #[test]
        fn what_is_written_is_found(host in "[^\0\r\n]{1,8}", user in "[^\0\r\n]{1,8}", password in "[^\0\r\n]{1,8}") {
            let line = line(&host, 5432, &user, &Secret::new(password.clone())).unwrap();
            // A host that begins with `#` would read as a comment; there is none.
            prop_assume!(!host.starts_with('#'));
            prop_assert_eq!(find(&line, &host, 5432, "any", &user), Some(password));
        }
    }
}
