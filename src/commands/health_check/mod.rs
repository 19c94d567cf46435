//! `opsctl health-check`: everything the person on call looks at first, at once.
//!
//! It ends as monitoring plugins do, also when it cannot even begin: then it is unknown, in the form that was asked for.

use std::io::IsTerminal as _;
use std::time::Instant;

use serde_json::json;

use crate::cli::{ExplainArgs, Format, HealthCheckArgs, HealthCheckCommand};
use crate::clock::Moment;
use crate::commands::{Answered, Context, open};
use crate::config::{Config, Overrides};
use crate::exit::{Exit, Failure};
use crate::failure;
use crate::health::format::{self, Report};
use crate::health::kind::Profile;
use crate::health::select::Selection;
use crate::health::{Check, Inquiry, Outcome, kind, network, postgres, steady};
use crate::text::Table;

mod before;
mod incident;
mod machine;
mod operations;
mod past;
mod remember;
mod serve;

use past::Past;

pub(super) fn run(context: &Context, args: &HealthCheckArgs) -> Answered {
    let done = match &args.command {
        None => answer(context, args),
        Some(HealthCheckCommand::List) => list(context, args),
        Some(HealthCheckCommand::Explain(explain)) => explain_kind(context, explain),
        Some(HealthCheckCommand::Incident(options)) => incident::run(context, args, options),
        Some(HealthCheckCommand::Serve(options)) => serve::run(context, args, options),
    };
    done.unwrap_or_else(|error| failed(form(context, args), &error))
}

/// Answers when nothing could be asked: the configuration or the command line is wrong.
pub(super) fn failed(format: Format, error: &anyhow::Error) -> Answered {
    let (message, hint) = failure::log("health-check", error);
    unknown(format, &message, hint.as_deref())
}

/// Says in the wanted form that nothing could be asked.
fn unknown(format: Format, message: &str, hint: Option<&str>) -> Answered {
    let status = Outcome::Unknown.number();
    let stdout = match format {
        // stderr has it.
        Format::Human | Format::Prometheus | Format::Junit => String::new(),
        Format::Nagios => format::nagios_failure(message),
        Format::Json => {
            let document = json!({
                "version": format::VERSION, "command": "health-check", "exit": status, "status": Outcome::Unknown,
                "checks": [], "error": { "message": message, "hint": hint },
            });
            format!("{document:#}\n")
        }
        Format::HealthJson => {
            format!("{:#}\n", json!({ "status": "fail", "output": format!("unknown: {message}") }))
        }
    };
    Answered { status, stdout, error: Some(message.to_owned()) }
}

fn form(context: &Context, args: &HealthCheckArgs) -> Format {
    if context.global.json { Format::Json } else { args.format }
}

fn answer(context: &Context, args: &HealthCheckArgs) -> anyhow::Result<Answered> {
    let config = context.load(&args.selection, Overrides::default())?.config;
    let mut inquiries = selected(context, args, &config, args.profile, context.now)?;
    let before = before::Before::read(context, &mut inquiries);
    let limit = context.global.timeout.unwrap_or(config.health.timeout);
    let began = Instant::now();
    let mut answers = crate::health::run::run(inquiries, limit, &context.stop);
    if let Some(before) = &before {
        for answer in &mut answers {
            steady::hold_back(answer, before.of(&answer.check.name));
        }
    }
    let run = context.run.to_string();
    let report =
        Report::new(answers, run, context.now, began.elapsed().as_secs_f64(), args.profile);
    if context.stop.reason().is_none() {
        remember::note(context, &report, is_whole(args));
    } else {
        // What was not answered because somebody interrupted it is no news, and no figure.
        context.observe(Vec::new());
    }
    let outcome = report.outcome();
    let verbose = context.global.verbose > 0;
    let is_news = before.is_none_or(|before| before.is_news(report.answers()));
    let stdout = match form(context, args) {
        // A mail of cron every few minutes is read by nobody.
        Format::Human if context.global.quiet && !is_news => String::new(),
        Format::Human => format::human(&report, verbose, has_colours(context)),
        Format::Json => format!("{:#}\n", format::json(&report)),
        Format::Nagios => format::nagios(&report, verbose),
        Format::Prometheus => format::prometheus(&report),
        Format::HealthJson => format!("{:#}\n", format::health_json(&report, true)),
        Format::Junit => format::junit(&report),
    };
    Ok(Answered { status: outcome.number(), stdout, error: None })
}

/// Are all checks asked for that are asked for every few minutes?
fn is_whole(args: &HealthCheckArgs) -> bool {
    args.only.is_empty()
        && args.skip.is_empty()
        && args.tag.is_empty()
        && args.selection.database.is_empty()
        && args.profile >= Profile::Full
}

fn has_colours(context: &Context) -> bool {
    let variable = |name: &str| context.environment.get(name);
    std::io::stdout().is_terminal()
        && variable("NO_COLOR").is_none()
        && variable("TERM") != Some("dumb")
}

/// Returns the inquiries for all checks that are wanted, to be asked now.
fn selected(
    context: &Context,
    args: &HealthCheckArgs,
    config: &Config,
    profile: Profile,
    now: Moment,
) -> anyhow::Result<Vec<Inquiry>> {
    let mut inquiries = inquiries(context, config, now)?;
    for inquiry in &mut inquiries {
        let skipped = |check: &Check| {
            let named = |name: &String| *name == check.name || name == check.kind.name;
            config.health.skip.iter().any(named)
        };
        inquiry.checks.retain(|check| !skipped(check));
    }
    let selection = Selection {
        only: args.only.clone(),
        skip: args.skip.clone(),
        tags: args.tag.clone(),
        profile,
    };
    selection.apply(inquiries).map_err(|message| {
        Failure::new(Exit::Usage, message)
            .hint("`opsctl health-check list` has their names.")
            .into()
    })
}

/// Returns the inquiries for everything that is configured.
fn inquiries(context: &Context, config: &Config, now: Moment) -> anyhow::Result<Vec<Inquiry>> {
    let mut inquiries = Vec::new();
    let mut databases = Vec::new();
    for database in &config.databases {
        let (target, name) = open::database(context, database)?;
        inquiries.push(postgres::inquiry(&target, &name, &config.health, now));
        let certificate = postgres::certificate::inquiry(&target, &name, &config.health, now);
        inquiries.extend(certificate);
        databases.push(name);
    }
    inquiries.extend(network::inquiries(&config.health, &context.environment, now));
    let past = Past::new(context, now);
    inquiries.extend(machine::inquiries(context, config, &past, now));
    inquiries.extend(operations::inquiries(config, &databases, &past, now));
    Ok(inquiries)
}

fn list(context: &Context, args: &HealthCheckArgs) -> anyhow::Result<Answered> {
    let config = context.load(&args.selection, Overrides::default())?.config;
    let inquiries = selected(context, args, &config, args.profile, context.now)?;
    let checks: Vec<&Check> = inquiries.iter().flat_map(|inquiry| &inquiry.checks).collect();
    let mut table = Table::new(&[
        "CHECK", "PROFILE", "TAGS", "WARNING", "CRITICAL", "UNIT", "TIMEOUT", "NEEDS",
    ]);
    let limit = |limit: Option<f64>| limit.map_or("-".to_owned(), |limit| limit.to_string());
    for check in &checks {
        table.row([
            check.name.clone(),
            check.kind.profile.name().to_owned(),
            check.tags.join(","),
            limit(check.limits.warning),
            limit(check.limits.critical),
            format!("{} {}", check.limits.bad.name(), check.kind.unit.name()),
            format!("{} s", check.timeout.as_secs_f64()),
            check.kind.privilege.to_owned(),
        ]);
    }
    let entry = |check: &&Check| {
        json!({
            "name": check.name, "kind": check.kind.name, "profile": check.kind.profile.name(), "tags": check.tags,
            "unit": check.kind.unit.name(), "bad": check.limits.bad.name(),
            "warning": check.limits.warning, "critical": check.limits.critical,
            "timeout_seconds": check.timeout.as_secs_f64(), "for": check.runs, "retries": check.retries,
            "needs": check.kind.privilege,
        })
    };
    let document = json!({ "checks": checks.iter().map(entry).collect::<Vec<_>>() });
    let is_json = form(context, args) == Format::Json;
    let stdout = if is_json { format!("{document:#}\n") } else { table.to_string() };
    Ok(Answered { status: 0, stdout, error: None })
}

fn explain_kind(context: &Context, args: &ExplainArgs) -> anyhow::Result<Answered> {
    let name = args.name.split('/').next().unwrap_or_default();
    let found = kind::find(name);
    let Some((kind, text)) = found.and_then(|kind| Some((kind, kind::explain(kind)?))) else {
        let names: Vec<_> = kind::all().map(|kind| kind.name).collect();
        let failure = Failure::new(Exit::Usage, format!("`{name}` is no kind of check"));
        return Err(failure.hint(format!("There are: {}.", names.join(", "))).into());
    };
    let stdout = if context.global.json {
        format!("{:#}\n", json!({ "kind": kind.name, "needs": kind.privilege, "text": text }))
    } else {
        format!("{}\n\n{text}\n\nNeeds: {}.\n", kind.name, kind.privilege)
    };
    Ok(Answered { status: 0, stdout, error: None })
}
