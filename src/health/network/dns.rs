//! `dns`: does a name resolve, and to the addresses that are expected?

use std::net::IpAddr;

use super::no_answer;
use crate::config::health::Dns;
use crate::health::{Check, Inquiry, Outcome, Reading, kind};
use crate::network::{Deadline, dns};

/// Makes the inquiry.
pub(super) fn inquiry(configured: &Dns) -> Option<Inquiry> {
    let Dns { name, settings, host, addresses } = configured.clone();
    let check = Check::new(kind::find("dns")?, &name, &settings);
    Some(Inquiry::single(check, move |check, _| {
        let deadline = Deadline::after(check.timeout);
        Ok(match dns::lookup(&host, &deadline) {
            Ok(found) => judge(check, &host, &found, &addresses, deadline.elapsed().as_secs_f64()),
            Err(error) => no_answer(&error),
        })
    }))
}

/// Judges addresses; none are expected where any will do.
fn judge(check: &Check, host: &str, found: &[IpAddr], expected: &[IpAddr], took: f64) -> Reading {
    let missing = list(expected.iter().filter(|address| !found.contains(address)));
    let others = list(found.iter().filter(|a| !expected.is_empty() && !expected.contains(a)));
    let shown = list(found.iter());
    let reading = |message| check.judged(took, message);
    if !missing.is_empty() {
        return reading(format!("`{host}` is {shown}, and not {missing}"))
            .at_least(Outcome::Critical);
    }
    if !others.is_empty() {
        return reading(format!("`{host}` is {others} as well")).at_least(Outcome::Warning);
    }
    reading(format!("`{host}` is {shown}, after {took:.3} s"))
}

fn list<'a>(addresses: impl Iterator<Item = &'a IpAddr>) -> String {
    addresses.map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::CheckSettings;

    #[test]
    fn expected_addresses_must_be_there_and_others_are_strange() {
        let check = Check::new(kind::find("dns").unwrap(), "db", &CheckSettings::default());
        let [a, b, c] =
            ["192.0.2.1", "192.0.2.2", "2001:db8::1"].map(|a| a.parse::<IpAddr>().unwrap());
        let judge = |found: &[IpAddr], expected: &[IpAddr], took| {
            let reading = judge(&check, "db", found, expected, took);
            (reading.outcome, reading.message)
        };
        assert_eq!(judge(&[a, c], &[], 0.01).0, Outcome::Ok);
        assert_eq!(judge(&[a, c], &[c, a], 0.01).0, Outcome::Ok);
        assert_eq!(judge(&[a], &[a], 1.5).0, Outcome::Warning);
        let more = judge(&[a, b], &[a], 0.01);
        assert_eq!(more, (Outcome::Warning, "`db` is 192.0.2.2 as well".to_owned()));
        let other = judge(&[a], &[b, c], 0.01);
        let said = "`db` is 192.0.2.1, and not 192.0.2.2, 2001:db8::1";
        assert_eq!(other, (Outcome::Critical, said.to_owned()));
    }
}
