//! A report in which everything occurs.

use super::Report;
use crate::config::CheckSettings;
use crate::health::kind::Profile;
use crate::health::{Answer, Check, Limits, Outcome, Reading, Unit, Value, kind};

pub(crate) fn report() -> Report {
    let check = |kind: &str, instance: &str| {
        Check::of_database(kind::find(kind).unwrap(), instance, &CheckSettings::default())
    };
    let answer = |check: Check, reading: Reading| Answer {
        check,
        found: reading.outcome,
        reading,
        seconds: 0.0123,
    };
    let used = check("connections", "a");
    let slots = check("replication-slots", "a");
    let lagging = check("replication-lag", "a");
    let left = Value {
        limits: Limits::below(15.0, 5.0),
        max: Some(100.0),
        ..Value::new(12.5, Unit::Percent)
    };
    let answers = vec![
        answer(
            used.clone(),
            used.judged(85.5, "171 of 200 connections are used")
                .details(["99 of \"x\" <by> a|b".to_owned()]),
        ),
        answer(check("connect", "b"), Reading::new(Outcome::Critical, "failed to reach 'b'")),
        answer(
            check("xid-age", "b"),
            Reading {
                because_of: Some("connect/b".to_owned()),
                ..Reading::new(Outcome::Unknown, "not asked")
            },
        ),
        answer(check("xid-age", "a"), check("xid-age", "a").judged(1.5e8, "well")),
        answer(slots.clone(), slots.judged(1e18, "holds much").more("left", 3.0, Unit::Count)),
        answer(lagging, Reading { value: Some(left), ..Reading::new(Outcome::Ok, "left") }),
    ];
    let at = "2026-11-21T02:15:00Z".parse().unwrap();
    let run = "20261121T021500Z-4f3a9c".to_owned();
    Report { host: "db1".to_owned(), ..Report::new(answers, run, at, 0.25, Profile::Full) }
}
