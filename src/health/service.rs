//! What the answers about a container or a unit mean.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;

use super::{Check, Inquiry, Outcome, Reading, kind};
use crate::clock::Moment;
use crate::config::{Keeper, Service as Configured};
use crate::service::{Service, State, docker, systemd};
use crate::text;

/// A service that was started again so short a time ago may not have settled.
const SETTLED: Duration = Duration::from_secs(600);

/// Where this user finds the keepers.
#[derive(Clone, Debug)]
pub(crate) struct Surroundings {
    /// What the environment says of Docker.
    pub(crate) docker_host: Option<String>,
    /// Where the user's systemd listens.
    pub(crate) runtime_dir: PathBuf,
}

/// Asks a service's keeper.
pub(crate) fn inquiry(configured: &Configured, at: Surroundings, now: Moment) -> Inquiry {
    let check = Check::new(&kind::SERVICE, &configured.name, &configured.settings);
    let configured = configured.clone();
    Inquiry::single(check, move |check, stop| {
        let name = &configured.called;
        let service = match &configured.keeper {
            Keeper::Docker(socket) => {
                let socket = match socket {
                    Some(socket) => socket.as_path(),
                    None => usual_socket(at.docker_host.as_deref())?,
                };
                docker::container(socket, name, now, check.timeout, stop)?
            }
            Keeper::Systemd { user } => {
                let user = user.then_some(at.runtime_dir.as_path());
                let unit = systemd::unit(name, user, stop).context("systemd could not be asked")?;
                unit.context("systemd answered what is not understood")?
            }
        };
        Ok(reading(check, &service))
    })
}

/// Returns Docker's socket as its own programs find it.
fn usual_socket(docker_host: Option<&str>) -> anyhow::Result<&Path> {
    match docker_host.map(|host| host.strip_prefix("unix://")) {
        None => Ok(Path::new(docker::SOCKET)),
        Some(Some(path)) => Ok(Path::new(path)),
        Some(None) => anyhow::bail!(
            "DOCKER_HOST is not unix://…, and only a socket is asked: set `socket` in [[health.service]]"
        ),
    }
}

fn reading(check: &Check, service: &Service) -> Reading {
    let outcome = match service.state {
        State::Up => Outcome::Ok,
        State::Changing | State::Paused => Outcome::Warning,
        State::Restarting | State::Unhealthy | State::Down | State::Missing => Outcome::Critical,
    };
    let mut message = service.words.clone();
    let restarts = service.restarts.filter(|restarts| *restarts > 0);
    let up_for = service.up_for.and_then(|up_for| chrono::TimeDelta::from_std(up_for).ok());
    if let Some(up_for) = up_for {
        message += &format!(", for {}", text::duration(up_for));
    }
    if let Some(restarts) = restarts {
        message += &format!(", started again {}", text::counted(restarts, "time"));
    }
    #[expect(clippy::cast_precision_loss, reason = "a count for people and graphs")]
    let reading = match service.restarts {
        Some(restarts) => check.judged(restarts as f64, message).at_least(outcome),
        None => Reading::new(outcome, message),
    };
    let unsettled = restarts.is_some() && service.up_for.is_some_and(|up_for| up_for < SETTLED);
    if unsettled { reading.at_least(Outcome::Warning) } else { reading }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::CheckSettings;

    #[test]
    fn dockers_socket_is_where_its_own_programs_find_it() {
        assert_eq!(usual_socket(None).unwrap(), Path::new("/var/run/docker.sock"));
        assert_eq!(usual_socket(Some("unix:///run/x.sock")).unwrap(), Path::new("/run/x.sock"));
        assert!(usual_socket(Some("tcp://1.2.3.4:2375")).is_err());
    }

    #[test]
    fn a_service_is_up_and_has_stayed_up_or_it_is_said() {
        let judge = |state, restarts, minutes: u64, warning| {
            let settings = CheckSettings { warning, ..CheckSettings::default() };
            let check = Check::new(&kind::SERVICE, "web", &settings);
            let up_for = (state == State::Up).then(|| Duration::from_secs(minutes * 60));
            let service = Service { state, words: "said".to_owned(), restarts, up_for };
            reading(&check, &service)
        };
        assert_eq!(judge(State::Up, Some(0), 1, None).outcome, Outcome::Ok);
        let unsettled = judge(State::Up, Some(2), 1, None);
        assert_eq!(unsettled.outcome, Outcome::Warning);
        assert_eq!(unsettled.message, "said, for 1 min 0 s, started again 2 times");
        assert_eq!(judge(State::Up, Some(2), 60, None).outcome, Outcome::Ok);
        assert_eq!(judge(State::Up, Some(6), 60, Some(5.0)).outcome, Outcome::Warning);
        for (state, outcome) in [
            (State::Changing, Outcome::Warning),
            (State::Paused, Outcome::Warning),
            (State::Restarting, Outcome::Critical),
            (State::Unhealthy, Outcome::Critical),
            (State::Down, Outcome::Critical),
            (State::Missing, Outcome::Critical),
        ] {
            assert_eq!(judge(state, None, 0, None).outcome, outcome);
        }
    }
}
