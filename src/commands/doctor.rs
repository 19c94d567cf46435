//! `opsctl doctor`: what is wrong with this installation, and what to do about it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::cli::DoctorArgs;
use crate::commands::{Context, Report, Silence, open};
use crate::config::{self, Config, Loaded, Location, Overrides, Recipient, SecretSource};
use crate::db::ServerVersion;
use crate::doctor::database::Wanted;
use crate::doctor::examine::{Asked, Question, examine};
use crate::doctor::files::{Role, look, look_above};
use crate::doctor::probe::{self, Holds, Probe};
use crate::doctor::started::{self, Started};
use crate::doctor::{Area, Grade, Seen, database, host};
use crate::exit::Exit;
use crate::failure;
use crate::health::kind;
use crate::history::{self, Place, Store};
use crate::setup::grants;
use crate::storage::{Key, Shared, local};
use crate::text::counted;

/// How long all of it may take, unless told otherwise.
const LIMIT: Duration = Duration::from_secs(30);
/// Percent of a file system that may be used, and seconds that clocks may differ, where `[health]` says nothing.
const MOST_USED: f64 = 80.0;
const MOST_SKEW: f64 = 2.0;

pub(super) fn run(context: &Context, args: &DoctorArgs) -> anyhow::Result<Report> {
    let loaded = context.read(&args.selection, Overrides::default());
    let mut questions = vec![files(context, &loaded)];
    if let Ok(Loaded { config, .. }) = &loaded {
        questions.extend(config.databases.iter().map(|one| of_database(context, config, one)));
        questions.extend(config.repositories.iter().map(|one| of_repository(context, config, one)));
        questions.extend(config.audits.iter().map(|one| of_archive(context, one)));
        questions.push(space(config));
        questions.push(cron(context, config));
        questions.push(notices(config));
    }
    questions.extend(state(context, &loaded));
    let limit = context.global.timeout.unwrap_or(LIMIT);
    let mut seen = examine(questions, limit, &context.stop);
    context.stop.check()?;
    seen.retain(|seen| !args.skip.contains(&seen.area));
    seen.sort_by_key(|seen| seen.area);
    let bad = seen.iter().filter(|seen| seen.grade == Grade::Bad).count();
    let notes = seen.iter().filter(|seen| seen.grade == Grade::Note).count();
    let mut text: String = seen.iter().map(line).collect();
    let count = |n: usize, noun| counted(u64::try_from(n).unwrap_or(u64::MAX), noun);
    text += &format!("{}, {}\n", count(bad, "finding"), count(notes, "note"));
    let json =
        serde_json::json!({ "well": bad == 0, "findings": bad, "notes": notes, "seen": seen });
    let exit = if bad == 0 { Exit::Done } else { Exit::BadNews };
    Ok(Report { exit, text, json, silence: Silence::Allowed })
}

/// Says for people what was seen.
fn line(seen: &Seen) -> String {
    let Seen { subject, what, why, advice, .. } = seen;
    let mark = match seen.grade {
        Grade::Good => "ok",
        Grade::Note => "note",
        Grade::Bad => "BAD",
    };
    let area = format!("{:?}", seen.area).to_lowercase();
    let area = if subject.is_empty() { area } else { format!("{area} {subject}") };
    let mut text = format!("{mark:<5} {area}: {what}\n");
    if seen.grade != Grade::Good {
        text += &format!("      why: {why}\n      do:  {advice}\n");
    }
    text
}

/// The configuration, and who can read it and what it names.
fn files(context: &Context, loaded: &Result<Loaded, config::Error>) -> Question {
    let mut seen = Vec::new();
    let mut paths: Vec<(PathBuf, Role)> = Vec::new();
    match loaded {
        Ok(Loaded { config, file, .. }) => {
            let source = file.as_ref().map(|file| format!("`{}`", file.display()));
            let source = source.unwrap_or_else(|| "no file, only flags and environment".to_owned());
            seen.push(Seen::good(Area::Configuration, format!("it is valid: {source}")));
            paths.extend(file.iter().map(|file| (file.clone(), Role::Configuration)));
            paths.extend(secrets(config).into_iter().map(|path| (path, Role::Secret)));
        }
        Err(error) => {
            let why = "No command works without it; what depends on it was not looked at.";
            let advice = "Mend the line; `opsctl config example` shows how it should be.";
            let problem = |problem: &config::Problem| {
                Seen::bad(Area::Configuration, problem.to_string(), why, advice)
            };
            seen.extend(error.problems().iter().map(problem));
        }
    }
    let password_file = context.environment.get("PGPASSFILE").map(PathBuf::from);
    let password_file = password_file.or_else(|| Some(context.environment.home()?.join(".pgpass")));
    paths.extend(password_file.map(|path| (path, Role::PasswordFile)));
    Question::new(Area::Configuration, "", move |asked| {
        seen.into_iter().for_each(asked.say);
        for (path, role) in &paths {
            look(path, *role).into_iter().chain(look_above(path)).for_each(asked.say);
        }
    })
}

/// Returns the files that have secrets of the configuration.
fn secrets(config: &Config) -> Vec<PathBuf> {
    let channels = config.notify.channels.iter().filter_map(|channel| match &channel.to {
        Recipient::Webhook(source) | Recipient::Slack(source) => Some(source),
        Recipient::Email(email) => email.login.as_ref().map(|(_, password)| password),
    });
    let sources = config.history_url.iter().chain(channels);
    let stated = sources.filter_map(|source| match source {
        SecretSource::File(path) => Some(path.clone()),
        SecretSource::Stated(_) => None,
    });
    let keys = config.repositories.iter().filter_map(|repository| repository.identity_file.clone());
    let of_audits = config.audits.iter().flat_map(|audit| {
        let identity = audit.identity_file.clone();
        std::iter::once(audit.signing_key.clone()).chain(identity)
    });
    stated.chain(keys).chain(of_audits).collect()
}

/// Can it be reached, what may the role do, and are there programs for it?
fn of_database(context: &Context, config: &Config, database: &config::Database) -> Question {
    let opened = open::database(context, database);
    let name = opened.as_ref().map_or_else(|_| String::new(), |(_, name)| name.clone());
    let (environment, bin_dir) = (context.environment.clone(), database.bin_dir.clone());
    let tests = |scheduled: &config::Scheduled| scheduled.command.contains("--restore-test");
    let tests_restores = config.schedule.commands.iter().any(tests);
    let maintains = config.schedule.commands.iter().any(|s| s.command.starts_with("db-maintain"));
    let grants = grants::on_tables(&config.sessions, &config.audits);
    let wanted: Vec<Wanted> = grants
        .iter()
        .filter(|grant| grant.is_in(&name))
        .map(|grant| Wanted {
            schema: grant.table.schema.clone(),
            table: grant.table.name.clone(),
            rights: grant.rights,
            owner: grant.owner,
        })
        .collect();
    let skew = kind::find("clock-skew").and_then(|kind| config.health.of_kind(kind).warning);
    Question::new(Area::Database, &name, move |asked| {
        let rights = opened.and_then(|(target, _)| {
            let mut connection = target.connect("opsctl doctor", asked.stop)?;
            let rights = database::rights(&mut connection)?;
            let tables = database::tables(&mut connection, &rights.role, &wanted, maintains)?;
            Ok((rights, tables))
        });
        match rights {
            Ok((rights, tables)) => {
                tables.into_iter().for_each(asked.say);
                database::judge(&rights, skew.unwrap_or(MOST_SKEW)).into_iter().for_each(asked.say);
                let (version, bin_dir) = (ServerVersion(rights.version), bin_dir.as_deref());
                let programs =
                    database::programs(version, bin_dir, &environment, tests_restores, asked.stop);
                programs.into_iter().for_each(asked.say);
                if tests_restores {
                    let place = std::env::temp_dir();
                    (asked.say)(host::space("a restore test", &place, 100.0, rights.size));
                }
            }
            Err(error) => {
                let advice =
                    failure::hint(&error).unwrap_or_else(|| "Try it with `psql`.".to_owned());
                let why = "Nothing can be done with a database that is not reached.";
                (asked.say)(Seen::bad(Area::Database, failure::one_line(&error), why, advice));
                let what = "which version they must have is not known";
                let advice = "Let the database be reached, and ask again.";
                (asked.say)(Seen::note(Area::Programs, what, "The server did not say.", advice));
            }
        }
    })
}

/// Can it be written, listed, read and cleaned?
fn of_repository(context: &Context, config: &Config, repository: &config::Repository) -> Question {
    let (run, now, repository) = (context.run.clone(), context.now, repository.clone());
    let alone = config.repositories.len() == 1;
    let subject = if alone { String::new() } else { repository.name.clone() };
    Question::new(Area::Repository, &subject, move |asked| {
        let open = |stop: &_| Ok(open::repository_until(stop, &repository)?.storage);
        let key = format!("opsctl-doctor-{run}");
        try_location(&repository.location, (Holds::WhatIsTidied, key), now, &open, asked);
    })
}

/// The same of where audit rows are archived, but that nothing has to be cleaned there.
fn of_archive(context: &Context, audit: &config::AuditTable) -> Question {
    let (now, location) = (context.now, audit.location.clone());
    Question::new(Area::Repository, &format!("audit {}", audit.table), move |asked| {
        let open = |stop: &_| open::storage_until(stop, &location);
        let key = "opsctl-doctor".to_owned();
        try_location(&location, (Holds::Evidence, key), now, &open, asked);
    })
}

fn try_location(
    location: &Location,
    what: (Holds, String),
    now: crate::clock::Moment,
    open: &dyn Fn(&crate::stop::Stop) -> anyhow::Result<Shared>,
    asked: &Asked<'_>,
) {
    let (lock_days, made) = match location {
        Location::S3(settings) => (settings.object_lock.map(|lock| lock.days), Made::default()),
        Location::Directory(path) => (None, Made::below(path)),
    };
    try_storage(Area::Repository, what, now, lock_days, open, asked);
    drop(made);
}

fn try_storage(
    area: Area,
    (holds, key): (Holds, String),
    now: crate::clock::Moment,
    lock_days: Option<u32>,
    open: &dyn Fn(&crate::stop::Stop) -> anyhow::Result<Shared>,
    asked: &Asked<'_>,
) {
    if let Some(key) = Key::new(key) {
        probe::storage(&Probe { area, holds, key, lock_days, now, open }, asked);
    }
}

/// The folders that were not there before a probe: one that another user examined must not be theirs.
#[derive(Default)]
struct Made(Vec<PathBuf>);

impl Made {
    fn below(path: &Path) -> Made {
        Made(path.ancestors().take_while(|folder| !folder.exists()).map(Path::to_owned).collect())
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for folder in &self.0 {
            // Only if it is empty.
            std::fs::remove_dir(folder).ok();
        }
    }
}

/// Can locks be taken here, and can the history be read?
fn state(context: &Context, loaded: &Result<Loaded, config::Error>) -> Option<Question> {
    let dir = match loaded {
        Ok(loaded) => loaded.config.state_dir.clone(),
        Err(_) => match context.history.place()? {
            Place::Directory(dir) => dir,
            Place::Server(_) => return None,
        },
    };
    let (run, now, place) = (context.run.clone(), context.now, context.history.place());
    Some(Question::new(Area::State, "", move |asked| {
        let open = |_: &_| Ok(Arc::new(local::Local::open(dir.clone())) as Shared);
        let made = Made::below(&dir);
        let key = format!("opsctl-doctor-{run}");
        try_storage(Area::State, (Holds::WhatIsTidied, key), now, None, &open, asked);
        drop(made);
        let read = |place: &Place| -> Result<_, history::Error> {
            // Not by way of the run's own: that one sets aside what is broken.
            Store::open_if_there(place)?.map_or(Ok(()), |mut store| store.runs(now, &[]).map(drop))
        };
        if let Some(Err(error)) = place.as_ref().map(read) {
            let what = format!("the history cannot be read: {}", error.in_full());
            let why = "`opsctl status` knows nothing without it, and nobody is told of anything.";
            let advice = "Look at the state directory, or at the server of `history.url`.";
            (asked.say)(Seen::bad(Area::State, what, why, advice));
        }
    }))
}

/// Is there room where something is written?
fn space(config: &Config) -> Question {
    let most = config.health.of_kind(&kind::DISK).warning.unwrap_or(MOST_USED);
    let mut places = vec![("state".to_owned(), config.state_dir.clone())];
    places.extend(config.repositories.iter().filter_map(|repository| match &repository.location {
        Location::Directory(path) => {
            Some((format!("repository `{}`", repository.name), path.clone()))
        }
        Location::S3(_) => None,
    }));
    Question::new(Area::Space, "", move |asked| {
        for (what, path) in &places {
            (asked.say)(host::space(what, path, most, 0));
        }
    })
}

/// What is started, by whom, and in which environment?
fn cron(context: &Context, config: &Config) -> Question {
    let schedule = config.schedule.clone();
    let variables: BTreeMap<String, String> = context.environment.variables().clone();
    let home = context.environment.home();
    Question::new(Area::Cron, "", move |asked| {
        let (lines, trouble) = host::crontab_lines(asked.stop);
        trouble.into_iter().for_each(asked.say);
        let started = Started {
            lines,
            timers: host::timers(home.as_deref()),
            cron_runs: host::cron_runs(),
            user: host::user(),
            variables,
            finds: host::finds,
        };
        let scheduled = schedule.commands.iter().chain(&schedule.status);
        started::judge(&started, scheduled).into_iter().for_each(asked.say);
    })
}

/// Who would notice that nothing runs any more?
fn notices(config: &Config) -> Question {
    let has_ping = config.ping.url.is_some() || !config.ping.commands.is_empty();
    let channels = config.notify.channels.len();
    Question::new(Area::Notices, "", move |asked| {
        (asked.say)(if has_ping {
            Seen::good(Area::Notices, "a monitor is told of runs ([ping])")
        } else {
            let what = "no monitor is told of runs: [ping] is empty";
            let why = "When this host is down or cron is off, nothing on it can say so.";
            let advice = "Let healthchecks.io or its like listen: [ping] in docs/configuration.md.";
            Seen::note(Area::Notices, what, why, advice)
        });
        (asked.say)(if channels > 0 {
            let channels = counted(u64::try_from(channels).unwrap_or(0), "channel");
            let advice = "`opsctl notify test` tries them";
            Seen::good(Area::Notices, format!("failures are told to {channels}; {advice}"))
        } else {
            let what = "nobody is told of failures: [notify] has no channel";
            let why = "A failure is then seen only in cron's mail, or by who looks.";
            let advice = "Add a channel: docs/notifications.md.";
            Seen::note(Area::Notices, what, why, advice)
        });
    })
}
