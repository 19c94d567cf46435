//! Where to connect, as whom and how: libpq's parameters, understood.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::child::Spec;
use crate::environment::Environment;
use crate::secret::Secret;
use crate::stop::Stop;

use super::child_environment::ChildEnvironment;
use super::connection::Connection;
use super::error::Error;
use super::parameters::Parameters;
use super::password_file::PasswordFile;
use super::tls;

/// Where the servers of Debian and of upstream put their sockets.
pub(super) const SOCKET_DIRECTORIES: [&str; 2] = ["/var/run/postgresql", "/tmp"];

const DEFAULT_PORT: u16 = 5432;

/// Resolved connection parameters. Cheap to clone; never shows the password.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// The servers to try, in order; never empty.
    pub(super) hosts: Vec<Host>,
    pub(super) database: String,
    pub(super) user: String,
    /// The password that was stated, before any password file.
    password: Option<Secret>,
    password_file: Arc<PasswordFile>,
    pub(super) tls: tls::Settings,
    /// Command-line options for the server process, `PGOPTIONS`.
    pub(super) options: Option<String>,
    /// What the user wants to be called, in place of what the caller is called.
    pub(super) application_name: Option<String>,
    /// How long one attempt may take; `None` is without limit.
    pub(super) connect_timeout: Option<Duration>,
    pub(super) keepalives: Keepalives,
    pub(super) session: Session,
    pub(super) channel_binding: ChannelBinding,
    /// Are the servers tried in random order?
    pub(super) random_order: bool,
    /// The user's home directory.
    pub(super) home: Option<PathBuf>,
}

/// One server to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Host {
    /// A host name, an address or a socket directory; empty if only the address was given.
    pub(super) name: String,
    /// The address, if it need not be looked up.
    pub(super) address: Option<IpAddr>,
    pub(super) port: u16,
}

impl Host {
    /// Is it reached through a Unix socket?
    pub(super) fn is_local(&self) -> bool {
        self.address.is_none() && self.name.starts_with('/')
    }

    /// Returns what a password file calls it.
    pub(super) fn name_in_password_file(&self) -> String {
        if self.name.is_empty() {
            return self.address.map_or_else(|| "localhost".to_owned(), |a| a.to_string());
        }
        if SOCKET_DIRECTORIES.contains(&self.name.as_str()) {
            return "localhost".to_owned();
        }
        self.name.clone()
    }

    /// Returns its name and port as people write them.
    pub(super) fn label(&self) -> String {
        let address = self.address.map(|a| a.to_string());
        let name =
            if self.name.is_empty() { address.unwrap_or_default() } else { self.name.clone() };
        let name = if name.contains(':') { format!("[{name}]") } else { name };
        format!("{name}:{}", self.port)
    }
}

/// How a dead peer is noticed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keepalives {
    pub(super) enabled: bool,
    pub(super) idle: Duration,
    pub(super) interval: Duration,
    pub(super) count: u32,
    pub(super) user_timeout: Option<Duration>,
}

/// libpq's `target_session_attrs`: what kind of server will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Session {
    Any,
    ReadWrite,
    ReadOnly,
    Primary,
    Standby,
    PreferStandby,
}

impl Session {
    const NAMES: [(&'static str, Session); 6] = [
        ("any", Session::Any),
        ("read-write", Session::ReadWrite),
        ("read-only", Session::ReadOnly),
        ("primary", Session::Primary),
        ("standby", Session::Standby),
        ("prefer-standby", Session::PreferStandby),
    ];

    /// Returns its name as libpq has it.
    pub(super) fn name(self) -> &'static str {
        Session::NAMES.iter().find_map(|(name, s)| (*s == self).then_some(*name)).unwrap_or("any")
    }
}

/// libpq's `channel_binding`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChannelBinding {
    Disable,
    Prefer,
    Require,
}

impl Target {
    /// Resolves what is given as libpq would: `url` (a URL or `key=value` text), then the service,
    /// then the `PG*` variables, then defaults.
    pub(crate) fn resolve(
        url: Option<&Secret>,
        environment: &Environment,
    ) -> Result<Target, Error> {
        let account = Account::of_this_process();
        let home = environment.home().or_else(|| account.as_ref().map(|a| a.home.clone()));
        let parameters = Parameters::gather(url.map(Secret::reveal), environment, home.as_deref())?;

        let hosts = hosts(&parameters)?;
        let user = match parameters.non_empty("user") {
            Some(user) => user.to_owned(),
            None => account.map(|account| account.name).or_else(name_by_id).ok_or_else(|| {
                let message = "this system user has no name: state the database user (`PGUSER`)";
                Error::Parameters(message.to_owned())
            })?,
        };
        let database = parameters.non_empty("dbname").unwrap_or(&user).to_owned();
        let password = parameters.non_empty("password").map(Secret::new);
        let password_file = match (&password, parameters.non_empty("passfile"), &home) {
            (None, Some(file), _) => PasswordFile::read(Path::new(file)),
            (None, None, Some(home)) => PasswordFile::read(&home.join(".pgpass")),
            (Some(_), ..) | (None, None, None) => PasswordFile::default(),
        };
        let session = choice(&parameters, "target_session_attrs", &Session::NAMES, Session::Any)?;
        let bindings = [
            ("disable", ChannelBinding::Disable),
            ("prefer", ChannelBinding::Prefer),
            ("require", ChannelBinding::Require),
        ];
        let channel_binding =
            choice(&parameters, "channel_binding", &bindings, ChannelBinding::Prefer)?;
        let orders = [("disable", false), ("random", true)];
        let random_order = choice(&parameters, "load_balance_hosts", &orders, false)?;
        let tls = tls::Settings::resolve(&parameters, home.as_deref())?;
        if !hosts.iter().all(Host::is_local) {
            tls.check_roots()?;
        }
        Ok(Target {
            hosts,
            database,
            user,
            password,
            password_file: Arc::new(password_file),
            tls,
            options: parameters.non_empty("options").map(str::to_owned),
            application_name: parameters.non_empty("application_name").map(str::to_owned),
            connect_timeout: connect_timeout(&parameters)?,
            keepalives: keepalives(&parameters)?,
            session,
            channel_binding,
            random_order,
            home,
        })
    }

    /// Returns the role to connect as.
    pub(crate) fn user(&self) -> &str {
        &self.user
    }

    /// Returns the name of the database.
    pub(crate) fn database_name(&self) -> &str {
        &self.database
    }

    /// Returns the same with another database of the same server.
    pub(crate) fn with_database(&self, name: &str) -> Target {
        Target { database: name.to_owned(), ..self.clone() }
    }

    /// Returns the same for what must not be waited for: connecting may take `limit` at most for each address, and a peer that
    /// does not acknowledge is given up after twice as long.
    pub(crate) fn impatient(&self, limit: Duration) -> Target {
        let connect_timeout = Some(self.connect_timeout.map_or(limit, |stated| stated.min(limit)));
        let keepalives = Keepalives { user_timeout: Some(2 * limit), ..self.keepalives };
        Target { connect_timeout, keepalives, ..self.clone() }
    }

    /// Returns the same with only this server.
    pub(super) fn with_host(&self, host: Host) -> Target {
        Target { hosts: vec![host], session: Session::Any, ..self.clone() }
    }

    /// Says what this is, for messages: "database `ip2a` at db1:5432 as `backup`".
    pub(crate) fn describe(&self) -> String {
        format!("database `{}` at {} as `{}`", self.database, self.host_label(), self.user)
    }

    /// Returns where it is: `db1:5432`, or several, or a socket directory.
    pub(crate) fn host_label(&self) -> String {
        self.hosts.iter().map(Host::label).collect::<Vec<_>>().join(",")
    }

    /// Connects, and keeps `stop` able to interrupt whatever the connection will be doing.
    ///
    /// The session is called `application` unless the user named it (`application_name`, `PGAPPNAME`).
    pub(crate) fn connect(&self, application: &str, stop: &Stop) -> Result<Connection, Error> {
        Connection::open(self, application, stop)
    }

    /// Returns what a child needs to connect to the same database; see [`ChildEnvironment`].
    pub(crate) fn child_environment(&self) -> Result<ChildEnvironment, Error> {
        ChildEnvironment::new(self)
    }

    /// Returns the password for `host`, as stated or else from the password file.
    pub(super) fn password(&self, host: &Host) -> Option<Secret> {
        self.password.clone().or_else(|| {
            let name = host.name_in_password_file();
            self.password_file.find(&name, host.port, &self.database, &self.user)
        })
    }
}

/// Reads the lists of hosts, addresses and ports, which must fit each other.
fn hosts(parameters: &Parameters) -> Result<Vec<Host>, Error> {
    let list = |keyword: &str| {
        let text = parameters.non_empty(keyword);
        text.map(|text| text.split(',').map(str::trim).collect::<Vec<_>>()).unwrap_or_default()
    };
    let (names, addresses, ports) = (list("host"), list("hostaddr"), list("port"));
    let count = names.len().max(addresses.len()).max(1);
    if !names.is_empty() && !addresses.is_empty() && names.len() != addresses.len() {
        let (names, addresses) = (names.len(), addresses.len());
        return Err(Error::Parameters(format!(
            "could not match {names} host names to {addresses} hostaddr values"
        )));
    }
    if ports.len() > 1 && ports.len() != count {
        let ports = ports.len();
        return Err(Error::Parameters(format!(
            "could not match {ports} port numbers to {count} hosts"
        )));
    }
    (0..count)
        .map(|n| {
            let port = match ports.get(n).or(ports.first()).copied().unwrap_or_default() {
                "" => DEFAULT_PORT,
                text => text.parse().ok().filter(|port| *port != 0).ok_or_else(|| {
                    let message = "invalid port number in the connection parameters";
                    Error::Parameters(message.to_owned())
                })?,
            };
            let address = match addresses.get(n).copied().unwrap_or_default() {
                "" => None,
                text => Some(text.parse().map_err(|_| {
                    Error::Parameters("`hostaddr` is not a numeric address".to_owned())
                })?),
            };
            let name = names.get(n).copied().unwrap_or_default().to_owned();
            if name.starts_with('@') {
                let message = "sockets in the abstract namespace are not supported";
                return Err(Error::Parameters(message.to_owned()));
            }
            let name =
                if name.is_empty() && address.is_none() { socket_directory(port) } else { name };
            Ok(Host { name, address, port })
        })
        .collect()
}

/// Returns the directory with the socket of a local server: Debian's, unless there is only upstream's.
fn socket_directory(port: u16) -> String {
    let is_there =
        |directory: &&&str| Path::new(**directory).join(format!(".s.PGSQL.{port}")).exists();
    SOCKET_DIRECTORIES.iter().find(is_there).unwrap_or(&SOCKET_DIRECTORIES[0]).to_string()
}

fn choice<T: Copy>(
    parameters: &Parameters,
    keyword: &str,
    choices: &[(&str, T)],
    default: T,
) -> Result<T, Error> {
    let Some(text) = parameters.non_empty(keyword) else { return Ok(default) };
    choices.iter().find_map(|(name, choice)| (*name == text).then_some(*choice)).ok_or_else(|| {
        let message = format!("invalid value for connection parameter `{keyword}`");
        Error::Parameters(message)
    })
}

fn integer(parameters: &Parameters, keyword: &str) -> Result<Option<i64>, Error> {
    let Some(text) = parameters.non_empty(keyword) else { return Ok(None) };
    let parsed = text.trim().parse();
    parsed.map(Some).map_err(|_| {
        Error::Parameters(format!("connection parameter `{keyword}` is not a whole number"))
    })
}

/// Unlike libpq, a connection attempt has a limit unless it was asked not to have one.
fn connect_timeout(parameters: &Parameters) -> Result<Option<Duration>, Error> {
    Ok(match integer(parameters, "connect_timeout")? {
        None => Some(Duration::from_secs(10)),
        Some(..=0) => None,
        // libpq takes less than two seconds for a mistake.
        Some(seconds) => Some(Duration::from_secs(seconds.max(2).unsigned_abs())),
    })
}

/// A dead peer is noticed within two minutes, where the system's own defaults take more than two hours.
fn keepalives(parameters: &Parameters) -> Result<Keepalives, Error> {
    let positive = |keyword, default: u64| {
        let value = integer(parameters, keyword)?;
        Ok::<_, Error>(value.filter(|v| *v > 0).map_or(default, i64::unsigned_abs))
    };
    let user_timeout = positive("tcp_user_timeout", 0)?;
    Ok(Keepalives {
        enabled: integer(parameters, "keepalives")? != Some(0),
        idle: Duration::from_secs(positive("keepalives_idle", 60)?),
        interval: Duration::from_secs(positive("keepalives_interval", 10)?),
        count: u32::try_from(positive("keepalives_count", 6)?).unwrap_or(u32::MAX),
        user_timeout: (user_timeout > 0).then(|| Duration::from_millis(user_timeout)),
    })
}

/// The system's idea of who runs this process.
struct Account {
    name: String,
    home: PathBuf,
}

impl Account {
    fn of_this_process() -> Option<Account> {
        let passwd = std::fs::read_to_string("/etc/passwd").ok()?;
        Account::find(&passwd, rustix::process::geteuid().as_raw())
    }

    fn find(passwd: &str, uid: u32) -> Option<Account> {
        passwd.lines().find_map(|line| {
            let fields = line.split(':').collect::<Vec<_>>();
            let matches = fields.get(2)?.parse() == Ok(uid);
            let account = || {
                Some(Account { name: (*fields.first()?).to_owned(), home: fields.get(5)?.into() })
            };
            if matches { account() } else { None }
        })
    }
}

/// Asks the system's directory (LDAP and the like) for the name of a user who is not in `/etc/passwd`.
fn name_by_id() -> Option<String> {
    let output = Spec::new("id").args(["-un"]).output(&Stop::new(), 1000).ok()?;
    let name = String::from_utf8(output).ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve<const N: usize>(url: &str, variables: [(&str, &str); N]) -> Result<Target, Error> {
        Target::resolve(Some(&Secret::new(url)), &Environment::from(variables))
    }

    fn describe<const N: usize>(url: &str, variables: [(&str, &str); N]) -> String {
        match resolve(url, variables) {
            Ok(target) => target.describe(),
            Err(e) => format!("error: {e}"),
        }
    }

    #[test]
    fn resolves_hosts_ports_and_names() {
        let user = Account::of_this_process().unwrap().name;
        let local = format!("database `{user}` at /var/run/postgresql:5432 as `{user}`");
        assert_eq!(describe("", []), local);
        assert_eq!(
            describe("", [("PGUSER", "u"), ("PGHOST", "h"), ("PGPORT", "6000")]),
            "database `u` at h:6000 as `u`"
        );
        let cases = [
            ("postgresql://u@h/d", "database `d` at h:5432 as `u`"),
            ("postgresql://u@[::1]:1/d", "database `d` at [::1]:1 as `u`"),
            ("postgresql://u@a,b:2/d", "database `d` at a:5432,b:2 as `u`"),
            ("user=u host=a,b port=7", "database `u` at a:7,b:7 as `u`"),
            ("user=u hostaddr=10.0.0.1", "database `u` at 10.0.0.1:5432 as `u`"),
            ("user=u host=x hostaddr=10.0.0.1", "database `u` at x:5432 as `u`"),
            ("user=u host=/tmp", "database `u` at /tmp:5432 as `u`"),
            ("user=u host=", "database `u` at /var/run/postgresql:5432 as `u`"),
            ("user=u host=a,b port=1,2,3", "error: could not match 3 port numbers to 2 hosts"),
            (
                "host=a,b hostaddr=1.2.3.4",
                "error: could not match 2 host names to 1 hostaddr values",
            ),
            ("port=0", "error: invalid port number in the connection parameters"),
            ("port=70000", "error: invalid port number in the connection parameters"),
            ("hostaddr=db1", "error: `hostaddr` is not a numeric address"),
            (
                "connect_timeout=x",
                "error: connection parameter `connect_timeout` is not a whole number",
            ),
            (
                "host=h sslmode=never",
                "error: invalid value `never` for connection parameter `sslmode`",
            ),
            (
                "host=h sslmode=require sslrootcert=system",
                "error: weak sslmode `require` may not be used with `sslrootcert=system` (use `verify-full`)",
            ),
            (
                "host=h sslmode=verify-ca",
                "error: sslmode `verify-ca` needs a root certificate: set `sslrootcert` to a file or to `system`",
            ),
            ("host=@x", "error: sockets in the abstract namespace are not supported"),
        ];
        for (text, expected) in cases {
            assert_eq!(describe(text, [("HOME", "/nonexistent")]), expected, "{text}");
        }
    }

    #[test]
    fn timeouts_follow_libpq_but_have_a_default() {
        let timeout = |text: &str| resolve(text, []).unwrap().connect_timeout.map(|d| d.as_secs());
        assert_eq!(timeout(""), Some(10));
        assert_eq!(timeout("connect_timeout=0"), None);
        assert_eq!(timeout("connect_timeout=1"), Some(2));
        assert_eq!(timeout("connect_timeout=33"), Some(33));
    }

    #[test]
    fn sslrootcert_system_means_verify_full() {
        let target = resolve("host=h sslrootcert=system", []).unwrap();
        assert_eq!(target.tls.mode, tls::Mode::VerifyFull);
        assert_eq!(resolve("host=h", []).unwrap().tls.mode, tls::Mode::Prefer);
    }

    #[test]
    fn passwords_are_looked_up_for_each_database_and_never_shown() {
        let home = tempfile::tempdir().unwrap();
        let mut options = std::fs::OpenOptions::new();
        std::os::unix::fs::OpenOptionsExt::mode(options.write(true).create_new(true), 0o600);
        let mut file = options.open(home.path().join(".pgpass")).unwrap();
        let text = "localhost:5432:one:u:geheim1\n*:5432:two:u:geheim2\nh:*:*:u:geheim3\n";
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        let home = home.path().to_str().unwrap();
        let password = |target: &Target| {
            target.password(&target.hosts[0]).map(|password| password.reveal().to_owned())
        };
        let target =
            resolve("user=u dbname=one host=/var/run/postgresql", [("HOME", home)]).unwrap();
        assert_eq!(password(&target).as_deref(), Some("geheim1"));
        assert_eq!(password(&target.with_database("two")).as_deref(), Some("geheim2"));
        assert_eq!(password(&target.with_database("three")), None);
        assert!(!format!("{target:?} {}", target.describe()).contains("geheim"));
        let stated = resolve("user=u host=h password=geheim4", [("HOME", home)]).unwrap();
        assert_eq!(password(&stated).as_deref(), Some("geheim4"));
        assert!(!format!("{stated:?} {}", stated.describe()).contains("geheim"));
        let variable =
            resolve("user=u host=h", [("HOME", home), ("PGPASSWORD", "geheim5")]).unwrap();
        assert_eq!(password(&variable).as_deref(), Some("geheim5"));
        assert!(!format!("{variable:?}").contains("geheim"));
        let by_file = resolve("user=u host=h", [("HOME", home)]).unwrap();
        assert_eq!(password(&by_file).as_deref(), Some("geheim3"));
    }

    #[test]
    fn finds_the_account_in_passwd() {
        let passwd = "root:x:0:0:root:/home/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n";
        let account = Account::find(passwd, 1000).unwrap();
        assert_eq!((account.name.as_str(), account.home.to_str()), ("ann", Some("/home/ann")));
        assert!(Account::find(passwd, 5).is_none());
    }
}
