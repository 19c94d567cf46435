//! Does anything start what is scheduled, at those times, and in which environment?
//!
//! By crontabs and by the timers of systemd, as `opsctl schedule print` writes them. In Kubernetes neither is expected.

use std::collections::BTreeMap;

use super::crontab::Line;
use super::{Area, Grade, Seen};
use crate::config::{Scheduled, Times};

/// What starts commands on this host, and what is different from here.
#[derive(Clone, Debug)]
pub(crate) struct Started {
    /// Those of this user's crontab and of the system's.
    pub(crate) lines: Vec<Line>,
    /// The timers `opsctl-NAME.timer`, by name: is each enabled?
    pub(crate) timers: BTreeMap<String, bool>,
    /// Does a cron run? Unknown where processes of others are hidden.
    pub(crate) cron_runs: Option<bool>,
    /// Who this is, if the system knows.
    pub(crate) user: Option<User>,
    /// The names and values of the environment here.
    pub(crate) variables: BTreeMap<String, String>,
    /// Where a crontab's line finds a program of that name, by its PATH.
    pub(crate) finds: fn(&str, &str) -> bool,
}

/// A user of the system.
#[derive(Clone, Debug)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) home: String,
}

/// cron's own, where a crontab says nothing (cron(8) of Debian and of cronie).
const CRONS_PATH: &str = "/usr/bin:/bin";
/// What a run listens to, beside those that begin with [`LISTENED_BEGIN`].
const LISTENED: &[&str] = &[
    "DATABASE_URL",
    "XDG_STATE_HOME",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "TMPDIR",
    "TZ",
    "DOCKER_HOST",
];
const LISTENED_BEGIN: &[&str] = &["OPSCTL_", "PG", "AWS_"];

/// Judges what starts the scheduled commands.
pub(crate) fn judge<'a>(
    started: &Started,
    scheduled: impl IntoIterator<Item = &'a Scheduled>,
) -> Vec<Seen> {
    if started.variables.contains_key("KUBERNETES_SERVICE_HOST") {
        return vec![Seen::good(Area::Cron, "in Kubernetes a CronJob starts it")];
    }
    let mut seen = Vec::new();
    let (mut missing, mut found) = (Vec::new(), 0);
    for scheduled in scheduled {
        let name = scheduled.row.key.replace('_', "-");
        let lines: Vec<&Line> =
            started.lines.iter().filter(|line| line.starts(scheduled.command)).collect();
        let timer = started.timers.get(&name);
        if timer == Some(&false) {
            let what = format!("opsctl-{name}.timer is there and not enabled");
            let why = format!("`{}` is not started.", scheduled.command);
            seen.push(bad(what, why, format!("systemctl enable --now opsctl-{name}.timer")));
        }
        if lines.is_empty() && timer.is_none() {
            missing.push(scheduled.command);
            continue;
        }
        found += 1;
        seen.extend(times(scheduled, &lines));
        let starters = lines.len() + usize::from(timer == Some(&true));
        if starters > 1 {
            let places: Vec<&str> = lines.iter().map(|line| line.place.as_str()).collect();
            let what = format!(
                "`{}` is started by {starters} things: {}",
                scheduled.command,
                places.join(", ")
            );
            let why = "If they do the same, the second is refused (exit 11), or does it twice.";
            let advice =
                "Keep one of them, unless each has a --database or --repository of its own.";
            seen.push(Seen::note(Area::Cron, what, why, advice));
        }
    }
    if !missing.is_empty() {
        let what = if found == 0 {
            "nothing on this host starts opsctl".to_owned()
        } else {
            format!("nothing starts `{}`", missing.join("`, `"))
        };
        let why = "What is scheduled and never started is late, and nobody has a backup from it.";
        let advice = "Install what `opsctl schedule print` prints for this user (`crontab -e`), or turn it off in [schedule].";
        seen.push(bad(what, why.to_owned(), advice.to_owned()));
    } else if seen.is_empty() {
        seen.push(Seen::good(Area::Cron, format!("all {found} scheduled commands are started")));
    }
    if started.cron_runs == Some(false) && !started.lines.is_empty() {
        let why = "A crontab that nobody reads starts nothing.".to_owned();
        let what = "there is a crontab, and no cron is running".to_owned();
        seen.push(bad(what, why, "systemctl enable --now cron (or crond)".to_owned()));
    }
    seen.extend(environment(started));
    seen
}

fn bad(what: String, why: String, advice: String) -> Seen {
    Seen::bad(Area::Cron, what, why, advice)
}

/// Says which lines run at other times than the schedule says.
fn times(scheduled: &Scheduled, lines: &[&Line]) -> Option<Seen> {
    let differs = |line: &&&Line| {
        // Words such as @daily are cron's own.
        Times::read(&line.times).is_some_and(|times| times.fields() != scheduled.times.fields())
    };
    // Several lines may each have a part of the times.
    let line = lines.iter().find(differs).filter(|_| lines.len() == 1)?;
    let what = format!(
        "{} starts `{}` at `{}`, and [schedule] says `{}`",
        line.place, scheduled.command, line.times, scheduled.times
    );
    let why = "`opsctl status` then calls late what is not, or not late what is.".to_owned();
    let advice = format!(
        "Set `{}` in [schedule] to the times of the crontab, or print it anew.",
        scheduled.row.key
    );
    Some(bad(what, why, advice))
}

/// Says what is different for cron.
fn environment(started: &Started) -> Vec<Seen> {
    let mut seen = Vec::new();
    let is_ours = |line: &&Line| match (&line.user, &started.user) {
        (Some(of_line), Some(user)) => *of_line == user.name,
        _ => true,
    };
    let (ours, others): (Vec<&Line>, Vec<&Line>) = started.lines.iter().partition(is_ours);
    if let Some(line) = others.first() {
        let user = line.user.as_deref().unwrap_or_default();
        let what = format!("{} runs it as user `{user}`", line.place);
        let why = "That user has another HOME, state directory, .pgpass and rights.";
        let advice = format!("Examine it as that user: sudo -u {user} opsctl doctor");
        seen.push(Seen::note(Area::Cron, what, why, advice));
    }
    for line in &ours {
        let path = line.variables.get("PATH").map_or(CRONS_PATH, String::as_str);
        if !(started.finds)(&line.program, path) {
            let what =
                format!("{}: `{}` is not found in cron's PATH ({path})", line.place, line.program);
            let why = "The line fails, and says so only in a mail.".to_owned();
            let advice =
                "Set PATH at the top of the crontab, as `opsctl schedule print --program` does.";
            seen.push(bad(what, why, advice.to_owned()));
        }
        if line.is_cut {
            let what = format!("{}: cron takes `%` for the end of the command", line.place);
            let why = "What stands behind it becomes the input of the program.".to_owned();
            seen.push(bad(what, why, r"Write `\%`.".to_owned()));
        }
    }
    seen.extend(mail(&ours));
    seen.extend(lacking(started, &ours));
    seen
}

/// Says whose mail nobody reads.
fn mail(lines: &[&Line]) -> Option<Seen> {
    let to = |line: &Line| line.variables.get("MAILTO").cloned();
    let advice = "Set MAILTO to somebody who reads it, or let a monitor listen ([ping]).";
    let why = "That a program is not found, or crashes, is said by cron alone.";
    let of = |is: fn(&str) -> bool| lines.iter().find(|line| to(line).is_some_and(|to| is(&to)));
    if let Some(line) = of(is_example) {
        let address = to(line).unwrap_or_default();
        let what = format!("{}: MAILTO is the example `{address}`, whom nobody is", line.place);
        return Some(bad(what, why.to_owned(), advice.to_owned()));
    }
    let line = of(str::is_empty)?;
    let what = format!("{}: MAILTO is empty: what cron has to say is thrown away", line.place);
    Some(Seen::note(Area::Cron, what, why, advice))
}

/// Is one of these addresses from a domain that is set aside for documents (RFC 2606)?
fn is_example(addresses: &str) -> bool {
    let reserved = ["example", "example.com", "example.net", "example.org"];
    addresses.split([',', ' ']).filter_map(|address| address.rsplit_once('@')).any(|(_, domain)| {
        let domain = domain.to_ascii_lowercase();
        reserved.iter().any(|r| domain == *r || domain.ends_with(&format!(".{r}")))
    })
}

/// Says which variables that opsctl listens to are set here and not for cron. Their values may be secrets.
fn lacking(started: &Started, lines: &[&Line]) -> Vec<Seen> {
    let listened = |name: &&String| {
        LISTENED.contains(&name.as_str()) || LISTENED_BEGIN.iter().any(|b| name.starts_with(b))
    };
    let lacks = |name: &&String| {
        let covered = |line: &&Line| {
            line.variables.contains_key(*name)
                || name.as_str() == "OPSCTL_CONFIG" && line.has("--config")
                || name.as_str() == "OPSCTL_STATE_DIR" && line.has("--state-dir")
        };
        lines.is_empty() || !lines.iter().all(covered)
    };
    let names: Vec<&str> =
        started.variables.keys().filter(listened).filter(lacks).map(String::as_str).collect();
    let mut seen = Vec::new();
    if !names.is_empty() {
        let what = format!("set here, and not for what cron starts: {}", names.join(", "));
        let why = "opsctl listens to them: at night it would do something else than now.";
        let advice =
            "Put them into the configuration file, or into the crontab if they are no secrets.";
        let grade = if lines.is_empty() { Grade::Note } else { Grade::Bad };
        seen.push(Seen { grade, ..Seen::bad(Area::Cron, what, why, advice) });
    }
    let (home, user) = (started.variables.get("HOME"), &started.user);
    if let (Some(home), Some(user)) = (home, user)
        && *home != user.home
        && !lines.iter().any(|line| line.variables.contains_key("HOME"))
    {
        let what = format!("HOME is `{home}` here, and `{}` for cron", user.home);
        let why = ".pgpass and the state directory lie below it.";
        let advice = "Examine it with cron's HOME, such as by `su -` or `sudo -i`.";
        seen.push(Seen::note(Area::Cron, what, why, advice));
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::crontab::lines;

    const PATH: &str = "PATH=/usr/local/bin\n";

    fn started(crontab: &str) -> Started {
        Started {
            lines: lines("crontab", crontab, false),
            cron_runs: Some(true),
            finds: |program, path| program == "opsctl" && path.contains("/usr/local/bin"),
            timers: BTreeMap::new(),
            user: None,
            variables: BTreeMap::new(),
        }
    }

    /// Judges an example that is scheduled as `backup` at `0 2 * * *`.
    fn bad(started: &Started) -> Vec<String> {
        let seen = judge(started, [&Scheduled::example()]);
        seen.into_iter().filter(|seen| seen.grade == Grade::Bad).map(|seen| seen.what).collect()
    }

    #[test]
    fn what_is_started_as_scheduled_is_good() {
        let command = Scheduled::example().command;
        let good = started(&format!("{PATH}0 2 * * * opsctl {command} --quiet\n"));
        assert_eq!(bad(&good), Vec::<String>::new());
        let name = Scheduled::example().row.key.replace('_', "-");
        let timer = |enabled| Started { timers: [(name.clone(), enabled)].into(), ..started("") };
        assert_eq!(bad(&timer(true)), Vec::<String>::new());
        assert_eq!(bad(&timer(false)).len(), 1);
        let pod = [("KUBERNETES_SERVICE_HOST".to_owned(), "10.0.0.1".to_owned())].into();
        assert_eq!(bad(&Started { variables: pod, ..started("") }), Vec::<String>::new());
    }

    #[test]
    fn what_is_not_started_or_otherwise_is_said() {
        let command = Scheduled::example().command;
        assert_eq!(bad(&started("")), ["nothing on this host starts opsctl"]);
        let line = |times: &str, head: &str| started(&format!("{head}{times} opsctl {command}\n"));
        assert!(bad(&line("0 3 * * *", PATH))[0].contains("[schedule] says `0 2 * * *`"));
        assert!(bad(&line("0 2 * * *", ""))[0].contains("is not found in cron's PATH"));
        let idle = Started { cron_runs: Some(false), ..line("0 2 * * *", PATH) };
        assert_eq!(bad(&idle), ["there is a crontab, and no cron is running"]);
    }

    #[test]
    fn mail_that_nobody_reads_is_said() {
        let command = Scheduled::example().command;
        let to = |address: &str| {
            started(&format!("{PATH}MAILTO={address}\n0 2 * * * opsctl {command}\n"))
        };
        for address in ["ops@example.com", "ann@here.org,ops@db.Example.NET", "x@a.example"] {
            assert!(bad(&to(address))[0].contains("whom nobody is"), "{address}");
        }
        for address in ["root", "ann@ourexample.com", ""] {
            assert_eq!(bad(&to(address)), Vec::<String>::new(), "{address}");
        }
    }

    #[test]
    fn variables_that_cron_lacks_are_named_without_their_values() {
        let command = Scheduled::example().command;
        let variables =
            [("DATABASE_URL", "postgresql://u:geheim@h/"), ("PGPORT", "1"), ("EDITOR", "vi")];
        let variables: BTreeMap<_, _> =
            variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let crontab = format!("{PATH}PGPORT=1\n0 2 * * * opsctl {command}\n");
        let lacking = Started { variables: variables.clone(), ..started(&crontab) };
        assert_eq!(bad(&lacking), ["set here, and not for what cron starts: DATABASE_URL"]);
        // Without a crontab it is not known what somebody will write.
        let none = Started { variables, ..started("") };
        assert_eq!(bad(&none), ["nothing on this host starts opsctl"]);
    }
}
