//! Units of systemd: for each job a service that may do little else, and a timer.
//!
//! Who is told of a failure is opsctl's own business, so there is no `OnFailure=`.

use super::{Job, Printed, calendar, comment};

/// What units have to know besides the jobs.
#[derive(Clone, Debug)]
pub(crate) struct Systemd<'a> {
    /// Absolute.
    pub(crate) program: &'a str,
    pub(crate) user: &'a str,
    /// The state directory, if it is not systemd's own `/var/lib/opsctl`.
    pub(crate) state_dir: Option<&'a str>,
    /// Directories that opsctl writes into.
    pub(crate) writable: Vec<&'a str>,
}

/// What each service is kept from. Not `ProtectProc=`: that another user's run is alive is seen by its process, and the work of
/// one that is not is swept. Not `MemoryDenyWriteExecute=`: the throwaway server of a restore test may compile queries.
const SANDBOX: &str = "\
NoNewPrivileges=true
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
ProtectHome=read-only
PrivateTmp=true
PrivateDevices=true
ProtectClock=true
ProtectControlGroups=true
ProtectHostname=true
ProtectKernelLogs=true
ProtectKernelModules=true
ProtectKernelTunables=true
LockPersonality=true
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=true
RestrictRealtime=true
RestrictSUIDSGID=true
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
UMask=0077
";

/// How much longer than opsctl's own deadline systemd waits: it cleans up for ten seconds at most, and then tells monitors and
/// channels, which may be slow.
const PATIENCE: u64 = 120;

/// Prints a service and a timer for each job.
pub(crate) fn systemd(jobs: &[Job<'_>], settings: &Systemd<'_>) -> Vec<Printed> {
    let units = jobs.iter().flat_map(|job| {
        let file = |kind: &str, text| Printed { name: format!("opsctl-{}.{kind}", job.name), text };
        [file("service", service(job, settings)), file("timer", timer(job))]
    });
    units.collect()
}

/// What `StateDirectory=opsctl` makes.
const OWN_STATE: &str = "/var/lib/opsctl";
const HEAD: &str = "# Printed by `opsctl schedule print --format systemd`.\n";

fn service(job: &Job<'_>, settings: &Systemd<'_>) -> String {
    let Systemd { program, user, state_dir, writable } = settings;
    let words = std::iter::once(*program).chain(job.arguments.iter().map(String::as_str));
    let words: Vec<String> = words.map(|word| quoted(word).replace('$', "$$")).collect();
    let mut text =
        format!("{HEAD}{}[Unit]\nDescription=opsctl {}\n", comment(job.about), job.command);
    text += "Wants=network-online.target\nAfter=network-online.target postgresql.service\n\n[Service]\n";
    text += &format!("Type=oneshot\nUser={user}\nExecStart={}\n", words.join(" "));
    text += "# DATABASE_URL, AWS_ACCESS_KEY_ID and the like, if they are not in the configuration; mode 600.\n";
    text += "EnvironmentFile=-/etc/opsctl/environment\n";
    text += &match state_dir {
        Some(dir) => format!("ReadWritePaths=-{}\n", quoted(dir)),
        None => format!(
            "StateDirectory=opsctl\nStateDirectoryMode=0750\nEnvironment=OPSCTL_STATE_DIR={OWN_STATE}\n"
        ),
    };
    // One path, and so without quotes.
    text += &format!("WorkingDirectory={}\n", state_dir.unwrap_or(OWN_STATE).replace('%', "%%"));
    for dir in writable {
        text += &format!("ReadWritePaths=-{}\n", quoted(dir));
    }
    text += "# opsctl ends by itself before that, and ends its children.\n";
    text += &format!("TimeoutStartSec={}\n", job.timeout.as_secs() + PATIENCE);
    text + "TimeoutStopSec=30\nKillMode=mixed\n\n# What it may not do.\n" + SANDBOX
}

fn timer(job: &Job<'_>) -> String {
    let times: String =
        calendar::on_calendar(job.times).iter().map(|at| format!("OnCalendar={at}\n")).collect();
    let Job { name, command, times: cron, .. } = job;
    format!(
        "{HEAD}[Unit]\nDescription=Starts opsctl {command}\n\n[Timer]\n\
         # {cron}, in this host's time zone.\n{times}AccuracySec=1s\n\
         # A time at which the machine was off is made up for.\nPersistent=true\nUnit=opsctl-{name}.service\n\n\
         [Install]\nWantedBy=timers.target\n"
    )
}

/// Quotes a word as systemd.syntax(7) and systemd.unit(5) have it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    let word = word.replace('\\', r"\\").replace('"', "\\\"").replace('%', "%%");
    format!("\"{word}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_a_service_and_a_timer() {
        let settings = Systemd {
            program: "/usr/local/bin/opsctl",
            user: "opsctl",
            state_dir: None,
            writable: vec!["/var/backups/opsctl", "/srv/100% of it"],
        };
        let odd =
            Systemd { state_dir: Some("/srv/state"), writable: Vec::new(), ..settings.clone() };
        crate::schedule::testing::jobs(|jobs| {
            let files = systemd(&jobs[..1], &settings).into_iter().chain(systemd(&jobs[1..], &odd));
            let text: String = files
                .map(|file| format!("--- {}\n{}", file.name, file.text.replace(SANDBOX, "…\n")))
                .collect();
            insta::assert_snapshot!(text);
        });
    }
}
