//! Services that somebody else keeps running: containers of Docker and units of systemd, as their keeper tells of them.
//!
//! Both are only asked, never told to do anything. Whether an answer is good is decided elsewhere (`health/`).

pub(crate) mod docker;
pub(crate) mod systemd;

use std::time::Duration;

/// How a service is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Service {
    pub(crate) state: State,
    /// What its keeper says, in its own words, such as `exited (137), out of memory`.
    pub(crate) words: String,
    /// How often its keeper started it again since it was made or last started by hand.
    pub(crate) restarts: Option<u64>,
    /// For how long it has been up.
    pub(crate) up_for: Option<Duration>,
}

/// Where a service is, as far as it matters to those who need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Up,
    /// It comes up, or goes down in good order.
    Changing,
    /// It ended, and its keeper starts it again.
    Restarting,
    /// It is up, and its own check says that it does not work.
    Unhealthy,
    Paused,
    Down,
    /// Its keeper knows none of that name.
    Missing,
}
