//! `[[health.tls]]`, `[[health.dns]]`, `[[health.tcp]]`: what is asked of other machines by name and port.

use std::net::IpAddr;
use std::path::PathBuf;

use super::{CheckSettings, Reader};
use crate::config::value::quote;
use crate::health::kind;

/// One of `[[health.tls]]`.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    pub(crate) name: String,
    pub(crate) settings: CheckSettings,
    pub(crate) host: String,
    pub(crate) port: u16,
    /// The name that must stand in the certificate.
    pub(crate) server_name: String,
    /// Is PostgreSQL to be asked for TLS first?
    pub(crate) postgres: bool,
    /// The authorities that are trusted, in place of the system's.
    pub(crate) ca_file: Option<PathBuf>,
}

/// One of `[[health.dns]]`.
#[derive(Clone, Debug)]
pub(crate) struct Dns {
    pub(crate) name: String,
    pub(crate) settings: CheckSettings,
    pub(crate) host: String,
    /// What it must resolve to; empty if any address will do.
    pub(crate) addresses: Vec<IpAddr>,
}

/// One of `[[health.tcp]]`.
#[derive(Clone, Debug)]
pub(crate) struct Tcp {
    pub(crate) name: String,
    pub(crate) settings: CheckSettings,
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Tls {
    pub(super) fn read(keys: &mut Reader<'_>, name: String, line: usize) -> Option<Tls> {
        let host = host(keys, line, "tls");
        let starttls = keys.section.parsed("starttls", |text| match text {
            "postgres" => Ok(()),
            _ => Err(format!("{} is not postgres", quote(text))),
        });
        let postgres = keys.take("starttls", starttls, |()| "postgres".to_owned()).is_some();
        let port = port(keys).unwrap_or(if postgres { 5432 } else { 443 });
        let server_name = keys.text("server_name");
        let ca_file = keys.section.path("ca_file");
        let ca_file = keys.take("ca_file", ca_file, |path| path.display().to_string());
        let settings = keys.settings(kind::find("tls")?);
        let host = host?;
        let server_name = server_name.unwrap_or_else(|| host.clone());
        Some(Tls { name, settings, host, port, server_name, postgres, ca_file })
    }
}

impl Dns {
    pub(super) fn read(keys: &mut Reader<'_>, name: String, line: usize) -> Option<Dns> {
        let host = host(keys, line, "dns");
        let addresses = keys.section.strings("addresses", |text| match text.parse::<IpAddr>() {
            Ok(address) => Ok(address.to_string()),
            Err(_) => Err(format!("{} is not an IP address", quote(text))),
        });
        let addresses = keys.take("addresses", addresses, |list| list.join(", "));
        let addresses = addresses.iter().flatten().filter_map(|text| text.parse().ok()).collect();
        let settings = keys.settings(kind::find("dns")?);
        Some(Dns { name, settings, host: host?, addresses })
    }
}

impl Tcp {
    pub(super) fn read(keys: &mut Reader<'_>, name: String, line: usize) -> Option<Tcp> {
        let host = host(keys, line, "tcp");
        let port = port(keys);
        if keys.section.line_of("port").is_none() {
            keys.problem(line, "[[health.tcp]] needs `port`");
        }
        let settings = keys.settings(kind::find("tcp")?);
        Some(Tcp { name, settings, host: host?, port: port? })
    }
}

fn host(keys: &mut Reader<'_>, line: usize, kind: &str) -> Option<String> {
    if keys.section.line_of("host").is_none() {
        keys.problem(line, &format!("[[health.{kind}]] needs `host`"));
    }
    let host = keys.section.parsed("host", |text| {
        let is_name =
            !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || "/@[]".contains(c));
        if is_name {
            Ok(text.to_owned())
        } else {
            Err(format!("{} is not the name or address of a host", quote(text)))
        }
    });
    keys.take("host", host, Clone::clone)
}

fn port(keys: &mut Reader<'_>) -> Option<u16> {
    keys.number("port", 1..=65535).and_then(|port| u16::try_from(port).ok())
}
