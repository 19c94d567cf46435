//! One invocation from arguments to exit status; the one place that ends a run.
//!
//! parse → configuration → log → signals and deadline → command → history → report on stdout → ping, metrics, notifications →
//! exit status. Locks are taken by the commands, per database. The meaning of a run's result is the command's; this module only
//! passes it on, so that every run ends in the same way. A command line that is wrong is a run, too: it may be cron's, and
//! nobody sees it otherwise.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use chrono::SubsecRound as _;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tracing::Level;

use crate::cli::{Cli, Format, Global, Guess};
use crate::clock::{Moment, Spent};
use crate::commands::{self, Answered, Context, Outcome, Report, Said, Silence};
use crate::environment::Environment;
use crate::exit::{Exit, Failure};
use crate::failure;
use crate::health::Outcome as HealthOutcome;
use crate::history::History;
use crate::id::RunId;
use crate::log;
use crate::metrics;
use crate::notify::{self, Observation};
use crate::ping::Pings;
use crate::stop::{self, Reason, Stop};
use crate::sync::lock;

/// Runs what the command line asks for.
pub(crate) fn main() -> ExitCode {
    let environment = Environment::capture();
    let status = match Cli::read(std::env::args_os().collect()) {
        Ok(Cli { mut global, command }) => {
            global.json |= command.wants_json();
            let asked = Asked {
                name: command.name().to_owned(),
                remembered: (!command.is_about_opsctl())
                    .then(|| (command.remembered_as().to_owned(), command.is_dry_run())),
                is_told_of: command.is_told_of(),
                global,
            };
            run(asked, environment, |context| commands::dispatch(context, command))
        }
        Err(error) => {
            // Help and version are answers, and go to stdout with status 0.
            let is_answer = !error.use_stderr();
            let arguments: Vec<_> = std::env::args_os().collect();
            let answer = Cli::wants_answer(&arguments);
            let for_people = matches!(answer, None | Some(Format::Human));
            let is_looked_at = is_answer || for_people && std::io::stderr().is_terminal();
            if let Some(guess) = Guess::of(&arguments).filter(|_| !is_looked_at) {
                refuse(guess, environment, &error, answer)
            } else {
                error.print().ok();
                match (is_answer, answer) {
                    (true, _) => Exit::Done.number(),
                    (false, None) => Exit::Usage.number(),
                    (false, Some(_)) => HealthOutcome::Unknown.number(),
                }
            }
        }
    };
    ExitCode::from(status)
}

/// What the command line asks for, apart from the work itself.
struct Asked {
    global: Global,
    /// As it is typed.
    name: String,
    /// What the history calls it, and whether it is a dry run; nothing if it is not worth remembering.
    remembered: Option<(String, bool)>,
    /// Is somebody told how it ended?
    is_told_of: bool,
}

/// Ends a run whose command line is wrong, with one line for the log.
fn refuse(
    guess: Guess,
    environment: Environment,
    error: &clap::Error,
    answer: Option<Format>,
) -> u8 {
    let said = error.to_string();
    let (what, advice) = said.split_once("\n\n").unwrap_or((&said, ""));
    let one_line = |text: &str, between: &str| {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        lines.collect::<Vec<_>>().join(between)
    };
    let what = one_line(what.trim_start_matches("error: "), " ");
    let message = format!("wrong command line: {what}");
    let failure = Failure::new(Exit::Usage, message).hint(one_line(advice, "; "));
    let Guess { global, command } = guess;
    let (name, remembered) = (command.clone(), Some((command, false)));
    let asked = Asked { global, name, remembered, is_told_of: true };
    run(asked, environment, |context| commands::refuse(context, failure, answer))
}

fn run(
    asked: Asked,
    environment: Environment,
    work: impl FnOnce(&Context) -> anyhow::Result<Said>,
) -> u8 {
    let Asked { global, name, remembered, is_told_of } = asked;
    let now = global.now.unwrap_or_else(crate::clock::now);
    let began = std::time::Instant::now();
    let id = RunId::new(now, fastrand::u32(..));
    let bar = progress_bar(&global);
    log::begin(global.log_format, level(&global, &name), &id, &bar);
    let (stop, abort) = (Stop::new(), Stop::new());
    if let Err(error) = watch_signals(&stop, &abort) {
        tracing::warn!("signals are not watched: {error}");
    }
    let (json, quiet) = (global.json, global.quiet);
    let told = remembered.as_ref().filter(|(_, dry_run)| !dry_run);
    let pings = Pings::new(told.map(|(command, _)| command.as_str()), &id, &abort);
    let context = Context {
        environment,
        run: id,
        now,
        stop: stop.clone(),
        abort,
        progress: bar.clone(),
        global,
        history: History::default(),
        overhead: Spent::default(),
        outcomes: std::sync::Mutex::default(),
        metrics: std::sync::OnceLock::new(),
        pings,
        audience: std::sync::OnceLock::new(),
        observed: std::sync::Mutex::default(),
        remembered,
    };
    let result = work(&context);
    bar.finish_and_clear();
    let of_exit = |exit: Exit| {
        stop.reason().filter(|_| exit != Exit::Done).map_or(exit, failure::exit_of_stop)
    };
    // What a monitor is answered has metrics of its own.
    let has_metrics = is_told_of && !matches!(result, Ok(Said::Answer(_)));
    let (status, exit, output, error, said) = match result {
        Ok(Said::Report(report)) => {
            let exit = of_exit(report.exit);
            let output = output(&report, &context, &name, json, quiet);
            (exit.number(), exit, output, None, report.text)
        }
        // It says what it observed, or why it could not.
        Ok(Said::Answer(Answered { status, stdout, error })) => {
            let said =
                error.clone().filter(|_| stdout.is_empty()).unwrap_or_else(|| stdout.clone());
            (status, Exit::Failed, stdout, error, said)
        }
        Err(error) => {
            let (exit, output) = fail(&error, &context, &name, json);
            let exit = of_exit(exit);
            let error = failure::one_line(&error);
            (exit.number(), exit, output, Some(error.clone()), error)
        }
    };
    // Of the same clock as the beginning, which may be a stated one.
    let ended_at = (now + began.elapsed()).trunc_subsecs(6);
    let overhead = &context.overhead;
    overhead.on(|| context.history.end(ended_at, status, error.as_deref()));
    let seconds = began.elapsed().as_secs_f64();
    let observations = observations(&context, is_told_of, exit, error.as_deref());
    let channels = context.audience.get().map(|audience| &audience.notify);
    let news = channels.filter(|notify| !notify.channels.is_empty()).zip(observations);
    let news = news.map(|(notify, observations)| {
        let run = context.run.as_str();
        let settle = || notify::settle(&context.history, notify, &observations, run, ended_at);
        (notify, overhead.on(settle))
    });
    let written = write_report(&output);
    let status = if written || status != 0 { status } else { Exit::Failed.number() };
    // After the report: people wait for that. A run that was told to stop has some seconds for it.
    context.pings.end(status, &said);
    if has_metrics {
        let ends = ends(&context, exit, error.as_deref());
        overhead.on(|| publish_metrics(&context, &ends, ended_at, seconds));
    }
    let milliseconds = overhead.total().as_secs_f64() * 1000.0;
    tracing::debug!("history, locks and metrics took {milliseconds:.1} ms");
    if let Some((notify, unsettled)) = news {
        notify::deliver(&context.history, notify, &unsettled, ended_at, &context.abort);
    }
    status
}

/// Puts the report on stdout; that nobody wants to read it is no failure.
fn write_report(output: &str) -> bool {
    let mut stdout = std::io::stdout();
    match stdout.write_all(output.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            tracing::error!("the report could not be written: {error}");
            false
        }
        _ => true,
    }
}

/// Returns what notifications are made of; nothing if the run is of a kind that nobody is told of.
fn observations(
    context: &Context,
    is_told_of: bool,
    exit: Exit,
    error: Option<&str>,
) -> Option<Vec<Observation>> {
    if let Some(observed) = lock(&context.observed).take() {
        return Some(observed);
    }
    let (command, _) = context.remembered.as_ref().filter(|_| is_told_of)?;
    context.audience.get()?;
    let observed = ends(context, exit, error).into_iter().filter_map(|(database, outcome)| {
        let Outcome { exit, error, .. } = outcome;
        let state = match exit {
            Exit::Done => notify::State::Good,
            // Another one is at work: that says nothing.
            Exit::Locked => return None,
            // Whoever typed it knows already.
            Exit::Usage if std::io::stderr().is_terminal() => return None,
            _ => {
                let ended =
                    || format!("it ended with status {}: {}", exit.number(), exit.meaning());
                notify::State::Bad { what: error.unwrap_or_else(ended) }
            }
        };
        Some(Observation { command: command.clone(), database, subject: String::new(), state })
    });
    Some(observed.collect())
}

/// Returns what became of each database: what comes before any of them, or between two, befalls those that the run did not
/// come to.
fn ends(context: &Context, exit: Exit, error: Option<&str>) -> BTreeMap<String, Outcome> {
    let outcomes = lock(&context.outcomes);
    let mut ends = BTreeMap::new();
    if let Some(audience) =
        context.audience.get().filter(|_| exit != Exit::Done || outcomes.is_empty())
    {
        let figures = BTreeMap::new();
        let outcome = Outcome { exit, figures, error: error.map(str::to_owned) };
        ends.extend(audience.databases.iter().map(|name| (name.clone(), outcome.clone())));
    }
    ends.extend(outcomes.iter().map(|(name, outcome)| (name.clone(), outcome.clone())));
    ends
}

/// Tells Prometheus what became of each database. That it cannot be told changes nothing.
fn publish_metrics(
    context: &Context,
    ends: &BTreeMap<String, Outcome>,
    ended_at: Moment,
    seconds: f64,
) {
    let (Some((command, false)), Some(settings)) = (&context.remembered, context.metrics.get())
    else {
        return;
    };
    // A run that was refused, because another is at work, leaves the word to that one.
    let outcomes = ends.iter().filter(|(_, outcome)| outcome.exit != Exit::Locked);
    let outcomes = outcomes.map(|(database, outcome)| {
        let (exit, figures) = (outcome.exit.number(), &outcome.figures);
        metrics::Outcome { command, database, exit, ended_at, seconds, figures }
    });
    let (dir, gateway) = (settings.textfile_dir.as_deref(), settings.pushgateway.as_ref());
    metrics::publish(dir, gateway, &outcomes.collect::<Vec<_>>(), &context.abort);
}

/// Returns what a report puts on stdout.
fn output(report: &Report, context: &Context, command: &str, json: bool, quiet: bool) -> String {
    if json {
        let mut document = serde_json::json!({ "command": command, "run": context.run, "exit": report.exit.number() });
        if let (Some(document), Some(fields)) = (document.as_object_mut(), report.json.as_object())
        {
            document.extend(fields.clone());
        }
        return format!("{document:#}\n");
    }
    let silent = quiet && report.exit == Exit::Done && report.silence == Silence::Allowed;
    if silent { String::new() } else { report.text.clone() }
}

/// Says on stderr why a run failed, and returns what it puts on stdout.
fn fail(error: &anyhow::Error, context: &Context, command: &str, json: bool) -> (Exit, String) {
    let exit = context.stop.reason().map_or_else(|| failure::exit(error), failure::exit_of_stop);
    let (message, hint) = failure::log(command, error);
    if !json {
        return (exit, String::new());
    }
    let document = serde_json::json!({
        "command": command, "run": context.run, "exit": exit.number(),
        "error": { "message": message, "hint": hint },
    });
    (exit, format!("{document:#}\n"))
}

fn level(global: &Global, name: &str) -> Level {
    // The first one of `health-check` is about its report.
    let of_report = u8::from(name == "health-check");
    match (global.quiet, global.verbose.saturating_sub(of_report)) {
        (true, _) => Level::WARN,
        (false, 0) => Level::INFO,
        (false, 1) => Level::DEBUG,
        (false, _) => Level::TRACE,
    }
}

/// Makes the bar: hidden unless somebody looks at stderr.
fn progress_bar(global: &Global) -> ProgressBar {
    let watched = std::io::stderr().is_terminal() && !global.quiet;
    let bar = ProgressBar::with_draw_target(
        None,
        if watched { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() },
    );
    let style = "{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    ProgressStyle::with_template(style)
        .map_or(bar.clone(), |style| bar.with_style(style.progress_chars("=> ")))
}

/// Turns SIGINT, SIGTERM and SIGHUP into the wish to stop. A second one, or the end of the grace period,
/// cuts the cleaning up short as well.
fn watch_signals(stop: &Stop, abort: &Stop) -> std::io::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    let (watch, abort) = (stop.clone(), abort.clone());
    std::thread::spawn(move || {
        for signal in &mut signals {
            if watch.reason().is_some() {
                abort.request(Reason::Signal(signal));
            } else {
                tracing::warn!("signal {signal}: stopping");
                stop::end(&watch, &abort, Reason::Signal(signal));
            }
        }
    });
    Ok(())
}
