//! The same connection for a child that speaks libpq: `pg_dump`, `pg_restore`, `psql`.
//!
//! All goes through environment variables, which only the same user can read, and the password not
//! even there: it is in a password file that exists in memory alone, so that nothing is left on a disk
//! however this process ends. Arguments carry nothing.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::Path;

use rustix::fs::{MemfdFlags, Mode, fchmod, memfd_create};

use super::error::Error;
use super::password_file;
use super::target::{ChannelBinding, Host, Session, Target};
use super::tls::{Roots, Version};

/// Where systems keep the certificates they trust, for libpq before version 16.
const SYSTEM_CERTIFICATES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The environment of a child that is to connect to a [`Target`].
///
/// It must live as long as the child: the password file goes with it. Children should be started with
/// `--no-password`, so that a password that is missing is an error and not a question to the terminal.
/// A child that runs as another system user cannot read the password file.
#[derive(Debug)]
pub(crate) struct ChildEnvironment {
    /// The variables, none of which holds a password.
    pub(crate) variables: BTreeMap<String, String>,
    /// The password file; empty if there is no password, so that the child does not find another.
    _passfile: PassFile,
}

#[derive(Debug)]
enum PassFile {
    Memory { _file: File },
    Disk { _file: tempfile::NamedTempFile },
}

impl ChildEnvironment {
    /// Prepares the environment for children that connect to `target`.
    pub(super) fn new(target: &Target) -> Result<ChildEnvironment, Error> {
        let mut variables = BTreeMap::new();
        let mut set = |name: &str, value: String| {
            if !value.is_empty() {
                variables.insert(name.to_owned(), value);
            }
        };
        let list = |value: fn(&Host) -> String| {
            target.hosts.iter().map(value).collect::<Vec<_>>().join(",")
        };
        set("PGHOST", list(|host| host.name.clone()));
        if target.hosts.iter().any(|host| host.address.is_some()) {
            let address = |host: &Host| host.address.map(|a| a.to_string()).unwrap_or_default();
            set("PGHOSTADDR", list(address));
        }
        set("PGPORT", list(|host| host.port.to_string()));
        set("PGUSER", target.user.clone());
        set("PGDATABASE", target.database.clone());
        set("PGOPTIONS", target.options.clone().unwrap_or_default());
        set("PGAPPNAME", target.application_name.clone().unwrap_or_default());
        let seconds = target.connect_timeout.map_or(0, |limit| limit.as_secs());
        set("PGCONNECT_TIMEOUT", seconds.to_string());
        if target.session != Session::Any {
            set("PGTARGETSESSIONATTRS", target.session.name().to_owned());
        }
        if target.random_order {
            set("PGLOADBALANCEHOSTS", "random".to_owned());
        }
        set("PGCHANNELBINDING", channel_binding(target.channel_binding).to_owned());
        // Ours is not encrypted by GSSAPI, so the child's must not try to be either.
        set("PGGSSENCMODE", "disable".to_owned());
        let tls = &target.tls;
        set("PGSSLMODE", tls.mode.name().to_owned());
        match &tls.roots {
            Roots::None => {}
            Roots::File(file) => set("PGSSLROOTCERT", text(file)?),
            Roots::System => {
                let file = SYSTEM_CERTIFICATES.iter().find(|file| Path::new(file).is_file());
                set("PGSSLROOTCERT", (*file.unwrap_or(&"system")).to_owned());
            }
        }
        if let Some((certificate, key)) = &tls.client {
            set("PGSSLCERT", text(certificate)?);
            set("PGSSLKEY", text(key)?);
        } else {
            set("PGSSLCERTMODE", "disable".to_owned());
        }
        if !tls.sni {
            set("PGSSLSNI", "0".to_owned());
        }
        if tls.direct {
            set("PGSSLNEGOTIATION", "direct".to_owned());
        }
        set("PGSSLMINPROTOCOLVERSION", version(tls.versions.0.or(Some(Version::Tls12))).to_owned());
        set("PGSSLMAXPROTOCOLVERSION", version(tls.versions.1).to_owned());
        // libpq looks for its default files below the home directory.
        if let Some(home) = &target.home {
            set("HOME", text(home)?);
        }
        let (name, passfile) = write_passfile(&passwords(target)?)?;
        variables.insert("PGPASSFILE".to_owned(), name);
        Ok(ChildEnvironment { variables, _passfile: passfile })
    }
}

fn channel_binding(binding: ChannelBinding) -> &'static str {
    match binding {
        ChannelBinding::Disable => "disable",
        ChannelBinding::Prefer => "",
        ChannelBinding::Require => "require",
    }
}

fn version(version: Option<Version>) -> &'static str {
    match version {
        None => "",
        Some(Version::Tls12) => "TLSv1.2",
        Some(Version::Tls13) => "TLSv1.3",
    }
}

fn text(path: &Path) -> Result<String, Error> {
    let shown = path.display();
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| Error::Parameters(format!("the path `{shown}` is not UTF-8")))
}

/// Returns the lines of the password file: one for each server, good for all its databases, because
/// `pg_dumpall` visits more than one.
fn passwords(target: &Target) -> Result<String, Error> {
    let mut lines = String::new();
    for host in &target.hosts {
        let Some(password) = target.password(host) else { continue };
        // Which socket directory the child takes for "localhost" depends on how it was built.
        let mut names = vec![host.name_in_password_file(), host.name.clone()];
        names.dedup();
        for name in names.iter().filter(|name| !name.is_empty()) {
            let line = password_file::line(name, host.port, &target.user, &password);
            lines.push_str(&line.ok_or_else(|| {
                let message = "a password, host or user name with a line break cannot be handed to \
                               the PostgreSQL client programs";
                Error::Parameters(message.to_owned())
            })?);
        }
    }
    Ok(lines)
}

/// Writes the password file, in memory if the system lets children find it there.
///
/// The descriptor is inherited by every child, and its name means the same file in each. Its mode is
/// 0600 because libpq ignores password files that others may read.
fn write_passfile(lines: &str) -> Result<(String, PassFile), Error> {
    let failed = |e: std::io::Error| {
        Error::Parameters(format!("failed to write a password file for child processes: {e}"))
    };
    if let Ok(memory) = memfd_create("opsctl-passfile", MemfdFlags::empty()) {
        fchmod(&memory, Mode::RUSR | Mode::WUSR).map_err(|e| failed(e.into()))?;
        let mut file = File::from(memory);
        file.write_all(lines.as_bytes()).map_err(failed)?;
        let name = format!("/proc/self/fd/{}", file.as_raw_fd());
        // Without /proc, as in some chroots, there is no name for it.
        if std::fs::read(&name).is_ok_and(|read| read == lines.as_bytes()) {
            return Ok((name, PassFile::Memory { _file: file }));
        }
    }
    let mut file = tempfile::Builder::new().prefix("opsctl-").tempfile().map_err(failed)?;
    file.write_all(lines.as_bytes()).map_err(failed)?;
    Ok((file.path().to_string_lossy().into_owned(), PassFile::Disk { _file: file }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::Environment;
    use crate::secret::Secret;

    fn environment(text: &str) -> ChildEnvironment {
        let variables = Environment::from([("HOME", "/nonexistent")]);
        let target = Target::resolve(Some(&Secret::new(text)), &variables).unwrap();
        target.child_environment().unwrap()
    }

    fn passfile(environment: &ChildEnvironment) -> String {
        std::fs::read_to_string(&environment.variables["PGPASSFILE"]).unwrap()
    }

    #[test]
    fn says_all_but_the_password() {
        let made = environment(
            "host=a,b port=1,2 user=u dbname=d password='ge:h\\\\eim' sslmode=require \
             options='-c x=y' target_session_attrs=primary",
        );
        assert_eq!(passfile(&made), "a:1:*:u:ge\\:h\\\\eim\nb:2:*:u:ge\\:h\\\\eim\n");
        assert!(!format!("{made:?}").contains("eim"));
        let mut variables = made.variables.clone();
        let name = variables.remove("PGPASSFILE").unwrap();
        assert!(name.starts_with("/proc/self/fd/"), "{name}");
        let lines: Vec<_> = variables.iter().map(|(n, v)| format!("{n}={v}")).collect();
        insta::assert_snapshot!(lines.join("\n"), @"
        HOME=/nonexistent
        PGCONNECT_TIMEOUT=10
        PGDATABASE=d
        PGGSSENCMODE=disable
        PGHOST=a,b
        PGOPTIONS=-c x=y
        PGPORT=1,2
        PGSSLCERTMODE=disable
        PGSSLMINPROTOCOLVERSION=TLSv1.2
        PGSSLMODE=require
        PGTARGETSESSIONATTRS=primary
        PGUSER=u
        ");
    }

    #[test]
    fn a_socket_is_localhost_and_no_password_is_an_empty_file() {
        let socket = environment("host=/tmp port=1 user=u password=p");
        assert_eq!(passfile(&socket), "localhost:1:*:u:p\n/tmp:1:*:u:p\n");
        assert_eq!(passfile(&environment("host=h user=u")), "");
        let address = environment("hostaddr=::1 user=u password=p");
        assert_eq!(passfile(&address), "\\:\\:1:5432:*:u:p\n");
        assert_eq!(address.variables.get("PGHOST"), None);
        assert_eq!(address.variables["PGHOSTADDR"], "::1");
    }

    #[test]
    fn refuses_a_password_that_no_file_can_hold() {
        let target = Secret::new("host=h user=u password='a\nb'");
        let target = Target::resolve(Some(&target), &Environment::default()).unwrap();
        assert!(matches!(target.child_environment(), Err(Error::Parameters(_))));
    }
}
