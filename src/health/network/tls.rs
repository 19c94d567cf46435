//! `tls`: are the certificates that a server shows good, and for how long yet?

use std::sync::Arc;

use super::no_answer;
use crate::certificate::{self, Rules, Trust};
use crate::clock::Moment;
use crate::config::health::Tls;
use crate::health::{Check, Inquiry, Outcome, Reading, kind};
use crate::network::tls::{Question, Seen, look};
use crate::network::{Deadline, Error};

/// Makes the inquiry.
pub(super) fn inquiry(configured: &Tls, now: Moment) -> Option<Inquiry> {
    let tls = configured.clone();
    let check = Check::new(kind::find("tls")?, &tls.name, &tls.settings);
    Some(Inquiry::single(check, move |check, _| {
        Ok(match ask(&tls, now, &Deadline::after(check.timeout)) {
            Ok(seen) => judge(check, &seen, now),
            Err(error) => no_answer(&error),
        })
    }))
}

fn ask(tls: &Tls, now: Moment, deadline: &Deadline) -> Result<Seen, Error> {
    let trusted = match &tls.ca_file {
        Some(file) => certificate::of_file(file),
        None => certificate::of_the_system(),
    };
    let rules = if tls.postgres { Rules::Libpq } else { Rules::Web };
    let question = Question {
        host: &tls.host,
        port: tls.port,
        name: &tls.server_name,
        postgres: tls.postgres,
        trust: Some(Arc::new(Trust::new(rules, trusted.map_err(Error::Settings)?))),
        verify_name: true,
    };
    look(&question, now, deadline)
}

/// Judges what was seen: the days until the first certificate of the chain expires, and what makes clients refuse it
/// already.
pub(crate) fn judge(check: &Check, seen: &Seen, now: Moment) -> Reading {
    let Seen { subject, issuer, expires, first_to_expire, .. } = seen;
    #[expect(clippy::cast_precision_loss, reason = "a hundred years are 3e9 seconds")]
    let days = (*expires - now).num_seconds() as f64 / 86_400.0;
    let whose = if first_to_expire == subject {
        format!("the certificate of `{subject}`")
    } else {
        format!("the certificate of `{first_to_expire}`, which that of `{subject}` needs,")
    };
    let date = expires.format("%Y-%m-%d");
    let mut bad = Vec::new();
    if days < 0.0 {
        bad.push(format!("{whose} expired {:.1} days ago, on {date}", -days));
    }
    if let Some(begins) = seen.not_before {
        bad.push(format!(
            "the certificates are valid from {} on",
            begins.format("%Y-%m-%d %H:%M UTC")
        ));
    }
    if let Some(why) = &seen.untrusted {
        bad.push(format!("the certificate of `{subject}` is not trusted: {why}"));
    }
    if let Some(names) = &seen.wrong_name {
        bad.push(format!("the certificate is for another name: {names}"));
    }
    let reading = if bad.is_empty() {
        check.judged(days, format!("{whose} expires in {days:.0} days, on {date}"))
    } else {
        check.judged(days, bad.join("; ")).at_least(Outcome::Critical)
    };
    reading.details([format!("issued by `{issuer}`")])
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;
    use crate::config::CheckSettings;

    #[test]
    fn thirty_and_seven_days_and_what_clients_refuse() {
        let now: Moment = "2026-11-25T12:00:00Z".parse().unwrap();
        let check = Check::new(kind::find("tls").unwrap(), "www", &CheckSettings::default());
        let good = Seen {
            subject: "www".to_owned(),
            issuer: "R3".to_owned(),
            expires: now + TimeDelta::days(31),
            first_to_expire: "www".to_owned(),
            not_before: None,
            untrusted: None,
            wrong_name: None,
        };
        let judge = |seen: &Seen| {
            let reading = judge(&check, seen, now);
            (reading.outcome, reading.message)
        };
        let said = "the certificate of `www` expires in 31 days, on 2026-12-26";
        assert_eq!(judge(&good), (Outcome::Ok, said.to_owned()));
        let in_days = |days| Seen { expires: now + TimeDelta::days(days), ..good.clone() };
        assert_eq!(judge(&in_days(29)).0, Outcome::Warning);
        assert_eq!(judge(&in_days(6)).0, Outcome::Critical);
        let said = "the certificate of `www` expired 2.0 days ago, on 2026-11-23";
        assert_eq!(judge(&in_days(-2)), (Outcome::Critical, said.to_owned()));
        let of_the_authority = Seen { first_to_expire: "R3".to_owned(), ..in_days(20) };
        let said =
            "the certificate of `R3`, which that of `www` needs, expires in 20 days, on 2026-12-15";
        assert_eq!(judge(&of_the_authority), (Outcome::Warning, said.to_owned()));
        let untrusted = Seen { untrusted: Some("it signed itself".to_owned()), ..good.clone() };
        let wrong = Seen { wrong_name: Some("mail".to_owned()), ..good.clone() };
        let early = Seen { not_before: Some(now + TimeDelta::hours(1)), ..good.clone() };
        for seen in [untrusted, wrong, early] {
            assert_eq!(judge(&seen).0, Outcome::Critical, "{seen:?}");
        }
    }
}
