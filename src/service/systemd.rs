//! What systemd says of a unit, asked by `systemctl show`.
//!
//! Source: systemctl(1), org.freedesktop.systemd1(5). Every user may ask.

use std::path::Path;
use std::time::Duration;

use super::{Service, State};
use crate::child::{self, Spec};
use crate::stop::Stop;

const PROPERTIES: &str =
    "LoadState,ActiveState,SubState,Result,NRestarts,ExecMainStatus,ActiveEnterTimestampMonotonic";
/// How much of the answer is read; it has some hundred bytes.
const LIMIT: u64 = 64 * 1024;

/// Asks for a unit, such as `nginx` or `backup.timer`; a user's own, if their runtime directory is named.
pub(crate) fn unit(
    name: &str,
    user: Option<&Path>,
    stop: &Stop,
) -> Result<Option<Service>, child::Error> {
    let mut spec = Spec::new("systemctl");
    if let Some(runtime) = user {
        let runtime = runtime.display().to_string();
        spec = spec.args(["--user"]).envs([("XDG_RUNTIME_DIR".to_owned(), runtime)]);
    }
    let arguments = ["show", "--no-pager", "--property", PROPERTIES, "--", name];
    let output = spec.args(arguments).output(stop, LIMIT)?;
    let uptime = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let uptime = Duration::try_from(uptime).unwrap_or_default();
    Ok(understand(&String::from_utf8_lossy(&output), uptime))
}

/// Understands the properties of a unit; none if they are not such.
fn understand(text: &str, uptime: Duration) -> Option<Service> {
    let property = |name: &str| {
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).unwrap_or("")
    };
    let (active, sub) = (property("ActiveState"), property("SubState"));
    let state = match (property("LoadState"), active, sub) {
        ("", ..) => return None,
        ("not-found", ..) => State::Missing,
        (_, "active" | "reloading" | "refreshing", _) => State::Up,
        (_, "activating", "auto-restart" | "auto-restart-queued") => State::Restarting,
        (_, "activating" | "deactivating" | "maintenance", _) => State::Changing,
        (_, "inactive" | "failed", _) => State::Down,
        _ => return None,
    };
    let mut words = match state {
        State::Missing => "no such unit".to_owned(),
        _ => format!("{active} ({sub})"),
    };
    let (result, status) = (property("Result"), property("ExecMainStatus"));
    if matches!(state, State::Down | State::Restarting) && !matches!(result, "" | "success") {
        words += &format!(", {result}");
        if result == "exit-code" {
            words += &format!(" {status}");
        }
    }
    let entered = property("ActiveEnterTimestampMonotonic").parse::<u64>().ok();
    let entered = entered.filter(|at| *at > 0 && state == State::Up);
    let up_for = entered.and_then(|at| uptime.checked_sub(Duration::from_micros(at)));
    Some(Service { state, words, restarts: property("NRestarts").parse().ok(), up_for })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(text: &str) -> Service {
        understand(&text.replace(' ', "\n"), Duration::from_secs(1000)).unwrap()
    }

    #[test]
    fn each_state_is_understood() {
        let check = |text: &str, expected: State, words: &str| {
            let service = service(text);
            assert_eq!((service.state, service.words.as_str()), (expected, words), "{text}");
            service
        };
        let up = check(
            "NRestarts=2 Result=success LoadState=loaded ActiveState=active SubState=running ActiveEnterTimestampMonotonic=400000000",
            State::Up,
            "active (running)",
        );
        assert_eq!((up.restarts, up.up_for), (Some(2), Some(Duration::from_secs(600))));
        let loaded = |rest: &str| format!("LoadState=loaded {rest}");
        check(
            &loaded(
                "ActiveState=activating SubState=auto-restart Result=exit-code ExecMainStatus=1",
            ),
            State::Restarting,
            "activating (auto-restart), exit-code 1",
        );
        check(
            &loaded("ActiveState=activating SubState=start Result=success"),
            State::Changing,
            "activating (start)",
        );
        check(
            &loaded("ActiveState=failed SubState=failed Result=oom-kill ExecMainStatus=9"),
            State::Down,
            "failed (failed), oom-kill",
        );
        check(
            &loaded("ActiveState=inactive SubState=dead Result=success"),
            State::Down,
            "inactive (dead)",
        );
        // A timer has no restarts.
        let timer =
            check(&loaded("ActiveState=active SubState=waiting"), State::Up, "active (waiting)");
        assert_eq!((timer.restarts, timer.up_for), (None, None));
        check(
            "LoadState=not-found ActiveState=inactive SubState=dead",
            State::Missing,
            "no such unit",
        );
        assert_eq!(understand("nonsense", Duration::ZERO), None);
        assert_eq!(understand("LoadState=loaded\nActiveState=asleep", Duration::ZERO), None);
    }
}
