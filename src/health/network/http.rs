//! `http`: does an address answer as it should, and soon enough?

use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;

use super::no_http;
use crate::config::health::{Given, Http};
use crate::environment::Environment;
use crate::health::{Check, Inquiry, Outcome, Reading, Unit, kind};
use crate::http::{self, Method, Request, Response};
use crate::secret::Secret;
use crate::stop::Stop;

/// Makes the inquiry.
pub(super) fn inquiry(configured: &Http, environment: &Environment) -> Option<Inquiry> {
    let wanted = configured.clone();
    let url = wanted.url.known(environment);
    let headers = wanted.headers.as_ref().map(|headers| headers.known(environment));
    let check = Check::new(kind::find("http")?, &wanted.name, &wanted.settings);
    Some(Inquiry::single(check, move |check, stop| {
        let url = url.read()?;
        let headers = headers.as_ref().map(Given::read).transpose()?;
        let headers = parse_headers(headers.as_ref().map_or("", Secret::reveal))?;
        ask(check, &wanted, &url, &headers, stop)
    }))
}

/// Reads `Name: value` lines; an error shows no value.
fn parse_headers(text: &str) -> anyhow::Result<Vec<(&str, &str)>> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let parsed = lines.map(|line| {
        let (name, value) = line.split_once(':')?;
        Some((name.trim(), value.trim())).filter(|(name, _)| !name.is_empty())
    });
    parsed.collect::<Option<Vec<_>>>().context("a line of the headers is not like `Name: value`")
}

/// Asks as often as it is configured, one after the other, and ends at the first answer that is not as expected.
fn ask(
    check: &Check,
    wanted: &Http,
    url: &Secret,
    headers: &[(&str, &str)],
    stop: &Stop,
) -> anyhow::Result<Reading> {
    let start = Instant::now();
    let mut times = Vec::new();
    for _ in 0..wanted.tries {
        let timeout = check.timeout.saturating_sub(start.elapsed()).max(Duration::from_millis(1));
        let before = Instant::now();
        let method = if wanted.head { Method::HEAD } else { Method::GET };
        let body = Bytes::new();
        let answer = http::send(&Request { method, url, headers, body, timeout, stop });
        let took = before.elapsed().as_secs_f64();
        times.push(took);
        match answer {
            Ok(answer) => {
                if let Err(complaint) = is_as_expected(&answer, wanted) {
                    return Ok(check.judged(took, complaint).at_least(Outcome::Critical));
                }
            }
            Err(http::Error::Stopped(stopped)) => return Err(stopped.into()),
            Err(error) => return Ok(no_http(&error)),
        }
    }
    Ok(judge(check, wanted.expect_status, times))
}

/// Compares an answer with what is expected, and says the first difference.
fn is_as_expected(answer: &Response, wanted: &Http) -> Result<(), String> {
    if u32::from(answer.status) != wanted.expect_status {
        let elsewhere = answer.header("location").filter(|_| (300..400).contains(&answer.status));
        let elsewhere = elsewhere.map(|_| ", which is a redirection that is not followed");
        return Err(format!(
            "it answered with status {}{}, and not {}",
            answer.status,
            elsewhere.unwrap_or_default(),
            wanted.expect_status
        ));
    }
    if let Some(text) = &wanted.expect_body
        && memchr::memmem::find(&answer.body, text.as_bytes()).is_none()
    {
        return Err(format!("the answer does not contain `{text}`"));
    }
    if wanted.expect_json.is_empty() {
        return Ok(());
    }
    let document: serde_json::Value =
        serde_json::from_slice(&answer.body).map_err(|_| "the answer is not JSON".to_owned())?;
    wanted.expect_json.iter().try_for_each(|condition| condition.holds(&document))
}

/// Judges how long the answers took, by the time within which 95 of 100 came.
fn judge(check: &Check, status: u32, mut times: Vec<f64>) -> Reading {
    times.sort_by(f64::total_cmp);
    let [median, most, nearly_all] = [50, 95, 99].map(|percent| percentile(&times, percent));
    let message = match times.len() {
        1 => format!("status {status} after {most:.3} s"),
        n => format!("status {status}, {n} times, 95 % within {most:.3} s"),
    };
    let reading = check.judged(most, message);
    reading.more("p50", median, Unit::Seconds).more("p99", nearly_all, Unit::Seconds)
}

/// Returns the smallest of sorted numbers that so many percent of them do not exceed (the nearest rank).
fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn percentiles_are_those_of_the_nearest_rank() {
        let of = |most: i32| {
            let sorted: Vec<f64> = (1..=most).map(f64::from).collect();
            [1, 50, 95, 99, 100].map(|percent| percentile(&sorted, percent).to_string())
        };
        assert_eq!(of(100), ["1", "50", "95", "99", "100"]);
        assert_eq!(of(10), ["1", "5", "10", "10", "10"]);
        assert_eq!(of(1), ["1", "1", "1", "1", "1"]);
        assert!(percentile(&[], 50).is_nan());
    }

    #[test]
    fn headers_are_lines_and_an_error_shows_none() {
        let text = "Authorization: Bearer a:b\n\n  X-Empty:\n";
        let expected = [("Authorization", "Bearer a:b"), ("X-Empty", "")];
        assert_eq!(parse_headers(text).unwrap(), expected);
        for text in ["geheim", ": geheim"] {
            assert!(!parse_headers(text).unwrap_err().to_string().contains("geheim"));
        }
    }

    proptest! {
        #[test]
        fn so_many_are_not_slower(mut times in prop::collection::vec(0.0..10.0_f64, 1..50), percent in 1usize..=100) {
            times.sort_by(f64::total_cmp);
            let limit = percentile(&times, percent);
            let within = times.iter().filter(|time| **time <= limit).count();
            prop_assert!(within * 100 >= times.len() * percent && times.contains(&limit));
        }
    }
}
