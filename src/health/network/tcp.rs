//! `tcp`: does a port answer, and how soon?

use super::no_answer;
use crate::config::health::Tcp;
use crate::health::{Check, Inquiry, kind};
use crate::network::{Deadline, tcp};

/// Makes the inquiry.
pub(super) fn inquiry(configured: &Tcp) -> Option<Inquiry> {
    let Tcp { name, settings, host, port } = configured.clone();
    let check = Check::new(kind::find("tcp")?, &name, &settings);
    Some(Inquiry::single(check, move |check, _| {
        Ok(match tcp::connect(&host, port, &Deadline::after(check.timeout)) {
            Ok(connected) => {
                let took = connected.took.as_secs_f64();
                check.judged(took, format!("{} answered after {took:.3} s", connected.address))
            }
            Err(error) => no_answer(&error),
        })
    }))
}
