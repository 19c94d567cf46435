//! The parsers of this module as `cargo fuzz` calls them.

use super::parameters::{Parameters, parse_service};
use super::password_file::PasswordFile;

/// Reads `text` as a connection string, a service file and a password file.
pub(crate) fn connection(text: &str) {
    drop(Parameters::parse(text));
    drop(parse_service("service", text, "the service file"));
    drop(PasswordFile::parse(text).find("localhost", 5432, "database", "user"));
}
