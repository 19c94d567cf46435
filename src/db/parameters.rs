//! Connection parameters as libpq reads them: a URL or `key=value` text, a service, `PG*` variables.
//!
//! [`Parameters::gather`] merges them in libpq's order of precedence into a table of keywords. What
//! the values mean is the business of [`super::Target`]. A message from here must never quote a value,
//! for it may be a password: `tests::messages_quote_no_value`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::error::Error;
use crate::environment::Environment;

/// What is done with a keyword.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    /// It is honoured.
    Kept,
    /// It changes nothing that matters here.
    Ignored,
    /// Any value but these would promise what cannot be kept.
    Only(&'static [&'static str]),
}

/// libpq's keywords (as of version 18), their environment variables, and what is done with them.
#[rustfmt::skip]
const KEYWORDS: &[(&str, &str, Use)] = &[
    ("application_name", "PGAPPNAME", Use::Kept),
    ("authtype", "", Use::Ignored),
    ("channel_binding", "PGCHANNELBINDING", Use::Kept),
    ("client_encoding", "", Use::Ignored),
    ("connect_timeout", "PGCONNECT_TIMEOUT", Use::Kept),
    ("dbname", "PGDATABASE", Use::Kept),
    ("fallback_application_name", "", Use::Ignored),
    ("gssdelegation", "", Use::Ignored),
    ("gssencmode", "PGGSSENCMODE", Use::Only(&["disable", "prefer"])),
    ("gsslib", "", Use::Ignored),
    ("host", "PGHOST", Use::Kept),
    ("hostaddr", "PGHOSTADDR", Use::Kept),
    ("keepalives", "", Use::Kept),
    ("keepalives_count", "", Use::Kept),
    ("keepalives_idle", "", Use::Kept),
    ("keepalives_interval", "", Use::Kept),
    ("krbsrvname", "", Use::Ignored),
    ("load_balance_hosts", "PGLOADBALANCEHOSTS", Use::Kept),
    ("max_protocol_version", "", Use::Ignored),
    ("min_protocol_version", "PGMINPROTOCOLVERSION", Use::Only(&["3.0"])),
    ("oauth_client_id", "", Use::Ignored),
    ("oauth_client_secret", "", Use::Ignored),
    ("oauth_issuer", "", Use::Ignored),
    ("oauth_scope", "", Use::Ignored),
    ("options", "PGOPTIONS", Use::Kept),
    ("passfile", "PGPASSFILE", Use::Kept),
    ("password", "PGPASSWORD", Use::Kept),
    ("port", "PGPORT", Use::Kept),
    ("replication", "", Use::Only(&["0", "false", "no", "off"])),
    ("require_auth", "PGREQUIREAUTH", Use::Only(&[])),
    ("requirepeer", "PGREQUIREPEER", Use::Only(&[])),
    ("requiressl", "PGREQUIRESSL", Use::Kept),
    ("scram_client_key", "", Use::Only(&[])),
    ("scram_server_key", "", Use::Only(&[])),
    ("service", "PGSERVICE", Use::Kept),
    ("servicefile", "PGSERVICEFILE", Use::Kept),
    ("ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION", Use::Kept),
    ("ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION", Use::Kept),
    ("sslcert", "PGSSLCERT", Use::Kept),
    ("sslcertmode", "PGSSLCERTMODE", Use::Only(&["allow", "disable"])),
    ("sslcompression", "", Use::Ignored),
    ("sslcrl", "PGSSLCRL", Use::Only(&[])),
    ("sslcrldir", "PGSSLCRLDIR", Use::Only(&[])),
    ("sslkey", "PGSSLKEY", Use::Kept),
    ("sslkeylogfile", "", Use::Ignored),
    ("sslmode", "PGSSLMODE", Use::Kept),
    ("sslnegotiation", "PGSSLNEGOTIATION", Use::Kept),
    ("sslpassword", "", Use::Only(&[])),
    ("sslrootcert", "PGSSLROOTCERT", Use::Kept),
    ("sslsni", "PGSSLSNI", Use::Kept),
    ("target_session_attrs", "PGTARGETSESSIONATTRS", Use::Kept),
    ("tcp_user_timeout", "", Use::Kept),
    ("tty", "", Use::Ignored),
    ("user", "PGUSER", Use::Kept),
];

/// Where system-wide service files are: Debian's directory, Red Hat's, upstream's.
const SYSTEM_DIRECTORIES: [&str; 3] =
    ["/etc/postgresql-common", "/etc/sysconfig/pgsql", "/usr/local/pgsql/etc"];

/// Keywords with their values. Not printable, because one of them is the password.
#[derive(Default, PartialEq, Eq)]
pub(super) struct Parameters(BTreeMap<&'static str, String>);

impl Parameters {
    /// Merges what is given, most important first: `text`, the service it or `PGSERVICE` names, the
    /// `PG*` variables. Defaults are not filled in.
    pub(super) fn gather(
        text: Option<&str>,
        environment: &Environment,
        home: Option<&Path>,
    ) -> Result<Parameters, Error> {
        let mut parameters = text.map_or_else(|| Ok(Parameters::default()), Parameters::parse)?;
        let service = parameters.get("service").or_else(|| environment.get("PGSERVICE"));
        if let Some(service) = service.filter(|name| !name.is_empty()).map(str::to_owned) {
            parameters.add_service(&service, environment, home)?;
        }
        for (keyword, variable, usage) in KEYWORDS {
            let value = if variable.is_empty() { None } else { environment.get(variable) };
            if let Some(value) = value.filter(|_| !parameters.0.contains_key(keyword)) {
                check_use(keyword, *usage, value, variable)?;
                parameters.0.insert(keyword, value.to_owned());
            }
        }
        // What is left of `requiressl` here came from the environment, where `PGSSLMODE` is newer.
        if parameters.0.remove("requiressl").is_some_and(|value| value.starts_with('1')) {
            parameters.0.entry("sslmode").or_insert_with(|| "require".to_owned());
        }
        Ok(parameters)
    }

    /// Parses a connection string in either of libpq's notations.
    pub(super) fn parse(text: &str) -> Result<Parameters, Error> {
        let url =
            ["postgresql://", "postgres://"].iter().find_map(|scheme| text.strip_prefix(scheme));
        match url {
            Some(rest) => parse_url(rest),
            None => parse_keywords(text),
        }
    }

    /// Returns the value of a keyword; it may be empty, which is not the same as not set.
    pub(super) fn get(&self, keyword: &str) -> Option<&str> {
        self.0.get(keyword).map(String::as_str)
    }

    /// Returns the value of a keyword unless it is empty.
    pub(super) fn non_empty(&self, keyword: &str) -> Option<&str> {
        self.get(keyword).filter(|value| !value.is_empty())
    }

    /// Sets a keyword as the source called `origin` has it; the last one wins.
    fn set(&mut self, name: &str, value: String, origin: &str) -> Result<(), Error> {
        let known = KEYWORDS.iter().find(|(keyword, ..)| *keyword == name);
        let Some((keyword, _, usage)) = known else {
            return Err(Error::Parameters(format!(
                "unknown connection parameter {} in {origin}",
                shown(name)
            )));
        };
        check_use(keyword, *usage, &value, origin)?;
        match *keyword {
            "requiressl" => {
                let mode = if value.starts_with('1') { "require" } else { "prefer" };
                self.0.insert("sslmode", mode.to_owned());
            }
            keyword => drop(self.0.insert(keyword, value)),
        }
        Ok(())
    }

    /// Fills in what the service `name` says and nothing else has said before.
    fn add_service(
        &mut self,
        name: &str,
        environment: &Environment,
        home: Option<&Path>,
    ) -> Result<(), Error> {
        let stated = self.non_empty("servicefile").or_else(|| environment.get("PGSERVICEFILE"));
        let mut files = Vec::new();
        match (stated, home) {
            (Some(file), _) => {
                let file = PathBuf::from(file);
                if !file.is_file() {
                    let file = file.display();
                    return Err(Error::Parameters(format!("service file `{file}` not found")));
                }
                files.push(file);
            }
            (None, Some(home)) => files.push(home.join(".pg_service.conf")),
            (None, None) => {}
        }
        match environment.get("PGSYSCONFDIR") {
            Some(directory) => files.push(Path::new(directory).join("pg_service.conf")),
            None => files
                .extend(SYSTEM_DIRECTORIES.map(|place| Path::new(place).join("pg_service.conf"))),
        }
        for file in &files {
            let text = match std::fs::read_to_string(file) {
                Ok(text) => text,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                Err(e) => {
                    let file = file.display();
                    let message = format!("failed to read service file `{file}`: {e}");
                    return Err(Error::Parameters(message));
                }
            };
            let origin = format!("service file `{}`", file.display());
            if let Some(service) = parse_service(name, &text, &origin)? {
                for (keyword, value) in service.0 {
                    self.0.entry(keyword).or_insert(value);
                }
                return Ok(());
            }
        }
        let searched = files.iter().map(|f| format!("`{}`", f.display())).collect::<Vec<_>>();
        Err(Error::Parameters(format!(
            "definition of service {} not found in {}",
            shown(name),
            searched.join(", ")
        )))
    }
}

/// Finds `[name]` in the text of a service file.
pub(super) fn parse_service(
    name: &str,
    text: &str,
    origin: &str,
) -> Result<Option<Parameters>, Error> {
    let mut found: Option<Parameters> = None;
    for (number, line) in text.lines().enumerate() {
        let origin = format!("{origin}, line {}", number + 1);
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if line.starts_with('[') {
            if found.is_some() {
                break;
            }
            if line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) == Some(name) {
                found = Some(Parameters::default());
            }
            continue;
        }
        let Some(parameters) = &mut found else { continue };
        if line.starts_with("ldap") && line.contains("://") {
            return Err(Error::Parameters(format!("LDAP is not supported in {origin}")));
        }
        let (keyword, value) = line
            .split_once('=')
            .ok_or_else(|| Error::Parameters(format!("syntax error in {origin}")))?;
        if matches!(keyword, "service" | "servicefile") {
            return Err(Error::Parameters(format!("nested services are not allowed in {origin}")));
        }
        // The first line about a keyword counts, unlike in a connection string.
        if parameters.get(keyword).is_none() {
            parameters.set(keyword, value.to_owned(), &origin)?;
        }
    }
    Ok(found)
}

/// Refuses values that ask for something this program cannot do, where going on would be less safe.
fn check_use(keyword: &str, usage: Use, value: &str, origin: &str) -> Result<(), Error> {
    match usage {
        Use::Only(accepted) if !value.is_empty() && !accepted.contains(&value) => {
            let instead = match accepted {
                [] => "leave it out".to_owned(),
                accepted => format!("it can only be `{}`", accepted.join("` or `")),
            };
            Err(Error::Parameters(format!(
                "connection parameter `{keyword}` in {origin} is not supported: {instead}"
            )))
        }
        _ => Ok(()),
    }
}

/// Shows a name in a message if it looks like a name; a slip may have put a password there.
fn shown(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if !name.is_empty() && name.len() <= 40 && name.chars().all(plain) {
        format!("`{name}`")
    } else {
        "with an unusual name".to_owned()
    }
}

/// Parses `keyword = value 'quoted value' …`, as libpq's `conninfo_parse` does.
fn parse_keywords(text: &str) -> Result<Parameters, Error> {
    const ORIGIN: &str = "the connection string";
    let malformed = |what: &str| Error::Parameters(format!("{what} in {ORIGIN}"));
    let mut parameters = Parameters::default();
    let mut chars = text.chars().peekable();
    let space = |c: &char| c.is_ascii_whitespace() || *c == '\x0b';
    loop {
        while chars.next_if(space).is_some() {}
        if chars.peek().is_none() {
            return Ok(parameters);
        }
        let mut keyword = String::new();
        while let Some(c) = chars.next_if(|c| *c != '=' && !space(c)) {
            keyword.push(c);
        }
        while chars.next_if(space).is_some() {}
        if chars.next() != Some('=') {
            let hint = "; it is neither a postgresql:// URL nor `keyword=value` pairs";
            return Err(Error::Parameters(format!("missing `=` in {ORIGIN}{hint}")));
        }
        while chars.next_if(space).is_some() {}
        let mut value = String::new();
        if chars.next_if_eq(&'\'').is_some() {
            loop {
                match chars.next() {
                    Some('\'') => break,
                    Some('\\') => value.extend(chars.next()),
                    Some(c) => value.push(c),
                    None => return Err(malformed("unterminated quoted string")),
                }
            }
        } else {
            while let Some(c) = chars.next_if(|c| !space(c)) {
                value.extend(if c == '\\' { chars.next() } else { Some(c) });
            }
        }
        parameters.set(&keyword, value, ORIGIN)?;
    }
}

/// Parses what follows `postgresql://`, as libpq's `conninfo_uri_parse_options` does.
///
/// One thing is stricter: an `@` in the host or the path must be written `%40`, because in practice
/// it comes from a password that was not encoded, whose tail would then be shown as a host name.
fn parse_url(rest: &str) -> Result<Parameters, Error> {
    const ORIGIN: &str = "the connection URL";
    let malformed = |what: &str| Error::Parameters(format!("{what} in {ORIGIN}"));
    let not_encoded =
        || malformed("misplaced `@` (user name and password must be percent-encoded)");
    let mut parameters = Parameters::default();
    let mut rest = rest;
    if let Some(at) = rest.find(['@', '/']).filter(|at| rest[*at..].starts_with('@')) {
        let (user, password) = match rest[..at].split_once(':') {
            Some((user, password)) => (user, Some(password)),
            None => (&rest[..at], None),
        };
        for (keyword, value) in [("user", Some(user)), ("password", password)] {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                parameters.set(keyword, decode(value, ORIGIN)?, ORIGIN)?;
            }
        }
        rest = &rest[at + 1..];
    }
    let (location, query) =
        rest.split_once('?').map_or((rest, None), |(location, query)| (location, Some(query)));
    let (authority, path) =
        location.split_once('/').map_or((location, None), |(a, path)| (a, Some(path)));
    if location.contains('@') {
        return Err(not_encoded());
    }
    let (mut hosts, mut ports) = (Vec::new(), Vec::new());
    for element in authority.split(',') {
        let (host, port) = if let Some(inner) = element.strip_prefix('[') {
            let (host, after) = inner
                .split_once(']')
                .filter(|(host, _)| !host.is_empty())
                .ok_or_else(|| malformed("malformed IPv6 address"))?;
            match after.strip_prefix(':') {
                Some(port) => (host, port),
                None if after.is_empty() => (host, ""),
                None => return Err(malformed("unexpected text after an IPv6 address")),
            }
        } else {
            element.split_once(':').unwrap_or((element, ""))
        };
        if !port.bytes().all(|b| b.is_ascii_digit()) {
            return Err(malformed("a port is not a number (is the password percent-encoded?)"));
        }
        hosts.push(host);
        ports.push(port);
    }
    for (keyword, list) in [("host", hosts.join(",")), ("port", ports.join(","))] {
        // A list of nothing but commas still says how many hosts there are.
        if !list.is_empty() {
            parameters.set(keyword, decode(&list, ORIGIN)?, ORIGIN)?;
        }
    }
    if let Some(database) = path.filter(|path| !path.is_empty()) {
        parameters.set("dbname", decode(database, ORIGIN)?, ORIGIN)?;
    }
    for pair in query.into_iter().flat_map(|query| query.split('&')).filter(|p| !p.is_empty()) {
        let (keyword, value) =
            pair.split_once('=').ok_or_else(|| malformed("a query parameter without `=`"))?;
        if value.contains('=') {
            return Err(malformed("a query parameter with more than one `=`"));
        }
        let (keyword, value) = (decode(keyword, ORIGIN)?, decode(value, ORIGIN)?);
        // For those who come from JDBC; libpq has it too.
        if keyword == "ssl" && value == "true" {
            parameters.set("sslmode", "require".to_owned(), ORIGIN)?;
        } else {
            parameters.set(&keyword, value, ORIGIN)?;
        }
    }
    Ok(parameters)
}

/// Decodes percent-encoded text.
fn decode(text: &str, origin: &str) -> Result<String, Error> {
    let malformed = |what: &str| Error::Parameters(format!("{what} in {origin}"));
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        if *first != b'%' {
            bytes.push(*first);
            rest = tail;
            continue;
        }
        let digit = |at: usize| tail.get(at).and_then(|b| char::from(*b).to_digit(16));
        let byte = digit(0).zip(digit(1)).and_then(|(a, b)| u8::try_from(a * 16 + b).ok());
        match byte {
            Some(0) => return Err(malformed("forbidden value %00")),
            Some(byte) => bytes.push(byte),
            None => return Err(malformed("`%` without two hexadecimal digits")),
        }
        rest = &tail[2..];
    }
    String::from_utf8(bytes).map_err(|_| malformed("text that is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn show(result: Result<Parameters, Error>) -> String {
        match result {
            Ok(p) => p.0.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(" | "),
            Err(e) => format!("error: {e}"),
        }
    }

    #[test]
    fn parses_urls_as_libpq_does() {
        let cases = [
            ("postgresql://", ""),
            ("postgresql://localhost", "host=localhost"),
            ("postgres://localhost:5433", "host=localhost | port=5433"),
            ("postgresql://localhost/mydb", "dbname=mydb | host=localhost"),
            ("postgresql://user@localhost", "host=localhost | user=user"),
            (
                "postgresql://user:se%40cr%3Aet@localhost",
                "host=localhost | password=se@cr:et | user=user",
            ),
            ("postgresql://u:a:b?c@h/d", "dbname=d | host=h | password=a:b?c | user=u"),
            ("postgresql://:pw@h", "host=h | password=pw"),
            (
                "postgresql://other@localhost/otherdb?connect_timeout=10&application_name=a%20b",
                "application_name=a b | connect_timeout=10 | dbname=otherdb | host=localhost | user=other",
            ),
            (
                "postgresql://host1:123,host2:456/somedb?target_session_attrs=any",
                "dbname=somedb | host=host1,host2 | port=123,456 | target_session_attrs=any",
            ),
            ("postgresql://a,b:2/", "host=a,b | port=,2"),
            (
                "postgresql:///mydb?host=localhost&port=5433",
                "dbname=mydb | host=localhost | port=5433",
            ),
            ("postgresql://[2001:db8::1234]/database", "dbname=database | host=2001:db8::1234"),
            ("postgresql://[::1]:5,h/x", "dbname=x | host=::1,h | port=5,"),
            (
                "postgresql:///dbname?host=/var/lib/postgresql",
                "dbname=dbname | host=/var/lib/postgresql",
            ),
            (
                "postgresql://%2Fvar%2Flib%2Fpostgresql/dbname",
                "dbname=dbname | host=/var/lib/postgresql",
            ),
            ("postgresql://h?ssl=true", "host=h | sslmode=require"),
            ("postgresql://h?requiressl=1", "host=h | sslmode=require"),
            ("postgresql://h/?user=x&user=y", "host=h | user=y"),
            ("postgresql://[::1", "error: malformed IPv6 address in the connection URL"),
            ("postgresql://[]", "error: malformed IPv6 address in the connection URL"),
            (
                "postgresql://[::1]x",
                "error: unexpected text after an IPv6 address in the connection URL",
            ),
            ("postgresql://h?x=1", "error: unknown connection parameter `x` in the connection URL"),
            ("postgresql://h?user", "error: a query parameter without `=` in the connection URL"),
            (
                "postgresql://h?user=a=b",
                "error: a query parameter with more than one `=` in the connection URL",
            ),
            (
                "postgresql://u%zz@h",
                "error: `%` without two hexadecimal digits in the connection URL",
            ),
            ("postgresql://u%00@h", "error: forbidden value %00 in the connection URL"),
            ("postgresql://u%ff@h", "error: text that is not UTF-8 in the connection URL"),
            ("postgresql://h%4", "error: `%` without two hexadecimal digits in the connection URL"),
        ];
        for (url, expected) in cases {
            assert_eq!(show(Parameters::parse(url)), expected, "{url}");
        }
    }

    #[test]
    fn parses_keywords_as_libpq_does() {
        let cases = [
            ("", ""),
            ("host=h port = 5433\tdbname=d", "dbname=d | host=h | port=5433"),
            (r"user='a b' password='it\'s \\ok'", r"password=it's \ok | user=a b"),
            (r"user=a\ b password=x\'y", "password=x'y | user=a b"),
            ("user='' host=h", "host=h | user="),
            ("user= ", "user="),
            ("host=a host=b", "host=b"),
            ("sslcompression=1 krbsrvname=x", "krbsrvname=x | sslcompression=1"),
            ("user='a", "error: unterminated quoted string in the connection string"),
            (
                "ip2a",
                "error: missing `=` in the connection string; it is neither a postgresql:// URL nor `keyword=value` pairs",
            ),
            ("hots=h", "error: unknown connection parameter `hots` in the connection string"),
            (
                "sslcrl=/x",
                "error: connection parameter `sslcrl` in the connection string is not supported: leave it out",
            ),
            (
                "gssencmode=require",
                "error: connection parameter `gssencmode` in the connection string is not supported: it can only be `disable` or `prefer`",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(show(Parameters::parse(text)), expected, "{text}");
        }
    }

    #[test]
    fn messages_quote_no_value() {
        for text in [
            "password=geh eim",
            "password=x geh/eim=1",
            "postgresql://u:geh@eim@h/d",
            "postgresql://u:geh/eim@h/d",
            "postgresql://u:12/eim@h/d",
            "postgers://u:geheim@h/d",
            "postgresql://u:%zzeim@h",
            "password='geheim",
            "sslpassword=geheim",
        ] {
            let Err(error) = Parameters::parse(text) else { panic!("accepted {text}") };
            assert!(!format!("{error} {error:?}").contains("eim"), "{error}");
        }
    }

    #[test]
    fn a_service_counts_before_the_environment_and_after_the_string() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join(".pg_service.conf");
        let text = "# comment\n[other]\nhost=no\n\n[main]\nhost=from-service\nport=1\nport=2\n\
                    user=service-user\n[main]\ndbname=never\n";
        std::io::Write::write_all(
            &mut std::fs::OpenOptions::new().write(true).create_new(true).open(file).unwrap(),
            text.as_bytes(),
        )
        .unwrap();
        let home = Some(directory.path());
        let environment =
            Environment::from([("PGSERVICE", "main"), ("PGUSER", "env"), ("PGDATABASE", "env")]);
        assert_eq!(
            show(Parameters::gather(Some("host=from-string"), &environment, home)),
            "dbname=env | host=from-string | port=1 | service=main | user=service-user"
        );
        let missing = show(Parameters::gather(Some("service=none"), &Environment::default(), home));
        assert!(
            missing.starts_with("error: definition of service `none` not found in `/"),
            "{missing}"
        );
        let nowhere = Environment::from([("PGSERVICE", "main"), ("PGSERVICEFILE", "/nonexistent")]);
        assert_eq!(
            show(Parameters::gather(None, &nowhere, home)),
            "error: service file `/nonexistent` not found"
        );
    }

    #[test]
    fn refuses_broken_service_files() {
        let parse = |text| match parse_service("s", text, "file") {
            Ok(found) => show(Ok(found.unwrap_or_default())),
            Err(e) => show(Err(e)),
        };
        assert_eq!(parse("nonsense before\n[s]\nhost=h"), "host=h");
        assert_eq!(parse("[s]\nnonsense"), "error: syntax error in file, line 2");
        assert_eq!(parse("[s]\nx=1"), "error: unknown connection parameter `x` in file, line 2");
        assert_eq!(
            parse("[s]\nservice=t"),
            "error: nested services are not allowed in file, line 2"
        );
        assert_eq!(parse("[s]\nldap://x/y"), "error: LDAP is not supported in file, line 2");
    }

    #[test]
    fn requiressl_from_the_environment_is_sslmode() {
        let environment = Environment::from([("PGREQUIRESSL", "1")]);
        assert_eq!(show(Parameters::gather(None, &environment, None)), "sslmode=require");
        let both = Environment::from([("PGREQUIRESSL", "1"), ("PGSSLMODE", "verify-full")]);
        assert!(show(Parameters::gather(None, &both, None)).contains("sslmode=verify-full"));
    }

    fn quote(value: &str) -> String {
        format!("'{}'", value.replace('\\', r"\\").replace('\'', r"\'"))
    }

    fn percent_encode(value: &str) -> String {
        value.bytes().fold(String::new(), |text, b| format!("{text}%{b:02X}"))
    }

    proptest! {
        #[test]
        fn quoting_round_trips(user in "[^\0]{0,20}", password in "[^\0]{0,20}") {
            let text = format!("user={} password = {} ", quote(&user), quote(&password));
            let parsed = Parameters::parse(&text).unwrap();
            prop_assert_eq!(parsed.get("user"), Some(user.as_str()));
            prop_assert_eq!(parsed.get("password"), Some(password.as_str()));
        }

        #[test]
        fn percent_encoding_round_trips(user in "[^\0]{1,20}", password in "[^\0]{1,20}") {
            let url = format!("postgres://{}:{}@h", percent_encode(&user), percent_encode(&password));
            let parsed = Parameters::parse(&url).unwrap();
            prop_assert_eq!(parsed.get("user"), Some(user.as_str()));
            prop_assert_eq!(parsed.get("password"), Some(password.as_str()));
        }

        #[test]
        fn nothing_makes_it_panic(text in "(postgres://)?[a-z@:/?&=%\\[\\]', \\\\]{0,40}") {
            drop(Parameters::parse(&text));
        }
    }
}
