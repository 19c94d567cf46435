//! The options of `opsctl cleanup-sessions`, and which of them go together.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::{Selection, parse_duration};
use crate::clock::Moment;

/// Delete expired sessions and tokens, and unlock accounts whose lock has lapsed
///
/// What that is stands in `[[sessions.rule]]` and `[[sessions.unlock]]`; `detect` proposes it. The server's clock alone counts.
/// Rows go in short transactions, those that somebody has locked are passed over, and nothing is vacuumed. A rule that is not
/// sure to mean its table refuses, and the others go on.
#[derive(Args, Debug)]
#[command(after_help = CLEANUP_SESSIONS_EXITS)]
pub(crate) struct CleanupSessionsArgs {
    #[command(subcommand)]
    pub(crate) command: Option<CleanupSessionsCommand>,
    #[command(flatten)]
    pub(crate) selection: Selection,
    /// Only this rule or unlock (repeatable)
    #[arg(long, value_name = "RULE")]
    pub(crate) only: Vec<String>,
    /// Go on where more of a table is expired than `max_percent` says, as the first time it may be
    #[arg(long)]
    pub(crate) first_run: bool,
    /// Say what would be done, and do nothing
    #[arg(long, global = true)]
    pub(crate) dry_run: bool,
}

impl CleanupSessionsArgs {
    /// Returns the command as it is typed.
    pub(super) fn name(&self) -> &'static str {
        match &self.command {
            None => "cleanup-sessions",
            Some(CleanupSessionsCommand::Detect) => "cleanup-sessions detect",
            Some(CleanupSessionsCommand::Revoke(_)) => "cleanup-sessions revoke",
            Some(CleanupSessionsCommand::Lock(_)) => "cleanup-sessions lock",
        }
    }
}

/// What else can be done about sessions.
#[derive(Debug, Subcommand)]
pub(crate) enum CleanupSessionsCommand {
    /// Look for the tables of frameworks that are known, and print a configuration to review
    #[command(after_help = DETECT_EXITS)]
    Detect,
    /// End sessions in an incident: all conditions that are given must hold
    #[command(after_help = REVOKE_EXITS)]
    Revoke(RevokeArgs),
    /// Lock accounts in an incident; their sessions are another matter: `revoke`
    #[command(after_help = REVOKE_EXITS)]
    Lock(LockArgs),
}

/// Whose sessions, and what else becomes of them.
#[derive(Args, Debug)]
#[command(
    override_usage = "opsctl cleanup-sessions revoke [OPTIONS] <--user <ID>...|--all|--since <TIME>|--ip <CIDR>>"
)]
#[group(id = "whose", required = true, multiple = true, args = ["user", "all", "since", "ip"])]
pub(crate) struct RevokeArgs {
    /// Of these accounts
    #[arg(long, value_name = "ID", num_args = 1..)]
    pub(crate) user: Vec<String>,
    /// Of everybody
    #[arg(long, conflicts_with_all = ["user", "since", "ip"])]
    pub(crate) all: bool,
    /// Begun since this moment, such as 2026-11-21T02:00:00Z, or within this time by the server's clock, such as 2h
    #[arg(long, value_name = "TIME", value_parser = parse_since)]
    pub(crate) since: Option<Since>,
    /// From this address or network, such as 192.0.2.0/24
    #[arg(long, value_name = "CIDR", value_parser = parse_network)]
    pub(crate) ip: Option<String>,
    /// Make the same accounts choose a new password as well
    #[arg(long)]
    pub(crate) force_password_reset: bool,
    /// Do not ask; end with status 1 unless it is about so many sessions
    #[arg(long, value_name = "N")]
    pub(crate) yes: Option<u64>,
}

/// Which accounts, and for how long.
#[derive(Args, Debug)]
pub(crate) struct LockArgs {
    /// These accounts
    #[arg(long, value_name = "ID", num_args = 1.., required = true)]
    pub(crate) user: Vec<String>,
    /// For how long, where the column is a time
    #[arg(long = "for", value_name = "TIME", default_value = "1d", value_parser = parse_duration)]
    pub(crate) time: Duration,
    /// Do not ask; end with status 1 unless so many accounts are named
    #[arg(long, value_name = "N")]
    pub(crate) yes: Option<u64>,
}

/// A moment, or how long it is ago.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Since {
    Moment(Moment),
    Ago(Duration),
}

const CLEANUP_SESSIONS_EXITS: &str = "\
Exit statuses: 0 what is expired is gone, but for rows that somebody has locked; 1 failed, or a rule refused or \
failed, or replicas stayed behind, or a trigger keeps all; 10 configuration, or it does not fit the tables; \
11 another one is at work on the database; 12 database; 14 the deadline passed and there is more to do: the next run goes on; \
130, 143 interrupted. \
After any of them what is deleted is whole, and what is not is untouched.";

const DETECT_EXITS: &str = "\
Exit statuses: 0 looked; 1 failed; 10 configuration; 12 database; 130, 143 interrupted.";

const REVOKE_EXITS: &str = "\
Exit statuses: 0 done; 1 failed, also where only a part could be done, which the report then says; not confirmed, \
or another number than --yes says; 2 nobody to ask: --yes is missing; \
10 configuration, or it does not fit the tables; 12 database; 14 deadline; 130, 143 interrupted.";

fn parse_since(text: &str) -> Result<Since, String> {
    if let Ok(moment) = text.parse() {
        return Ok(Since::Moment(moment));
    }
    let wrong =
        |_| format!("`{text}` is not a time like 2h, nor a moment like 2026-11-21T02:00:00Z");
    parse_duration(text).map(Since::Ago).map_err(wrong)
}

fn parse_network(text: &str) -> Result<String, String> {
    let (address, bits) = text.split_once('/').map_or((text, None), |(a, bits)| (a, Some(bits)));
    let address: Option<std::net::IpAddr> = address.parse().ok();
    let most = if address.is_some_and(|address| address.is_ipv6()) { 128 } else { 32 };
    let fits = bits.is_none_or(|bits| bits.parse::<u8>().is_ok_and(|bits| bits <= most));
    let network = address.filter(|_| fits).map(|address| match (address, bits) {
        // An address of IPv4 within IPv6 is that of IPv4, as those of the sessions are.
        (std::net::IpAddr::V6(v6), None) if v6.to_ipv4_mapped().is_some() => {
            address.to_canonical().to_string()
        }
        _ => text.to_owned(),
    });
    network.ok_or_else(|| format!("`{text}` is not an address or a network like 192.0.2.0/24"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_and_moments_are_read() {
        for right in ["192.0.2.1", "192.0.2.0/24", "2001:db8::/32", "::1"] {
            parse_network(right).unwrap();
        }
        assert_eq!(parse_network("::ffff:192.0.2.1").unwrap(), "192.0.2.1");
        for wrong in ["", "192.0.2.0/33", "192.0.2", "host", "2001:db8::/129", "192.0.2.0/"] {
            parse_network(wrong).unwrap_err();
        }
        assert!(matches!(parse_since("2h"), Ok(Since::Ago(_))));
        assert!(matches!(parse_since("2026-11-21T02:00:00+01:00"), Ok(Since::Moment(_))));
        parse_since("yesterday").unwrap_err();
    }
}
