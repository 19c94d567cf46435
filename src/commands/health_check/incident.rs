//! `opsctl health-check incident`: one folder of evidence, within seconds, from whatever still answers; and the same as one file.

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;

use crate::cli::{Format, HealthCheckArgs, IncidentArgs};
use crate::commands::{Answered, Context, open};
use crate::config::Overrides;
use crate::failure;
use crate::health::format::{self, Report};
use crate::health::incident::{self, Event, Piece};
use crate::health::kind::Profile;

/// How long gathering may take, unless told otherwise.
const LIMIT: Duration = Duration::from_secs(20);
/// How far back the timeline looks in the history.
const BEFORE: chrono::TimeDelta = chrono::TimeDelta::hours(24);

const README: &str = "\
Evidence taken by `opsctl health-check incident`. Begin with health-check.txt; go on writing in timeline.md.

  health-check.txt, .json   every check, worst first
  timeline.md               what failed in the day before; yours to go on with
  databases/NAME/*.jsonl    the server's views, one row a line as JSON: jq -c 'select(.state == \"active\")' activity.jsonl
  host/                     what the kernel says, as in /proc
  history.json              what opsctl ran in the day before
  pieces.json               what is here, and why something is not

Literals in queries are `?` unless --with-literals was given; secrets are left out as far as they can be told. Names of users,
tables and hosts are in it: keep it among those who may know them.
";

/// The folder, and what came into it.
struct Bundle {
    dir: PathBuf,
    pieces: Vec<serde_json::Value>,
    missing: usize,
}

pub(super) fn run(
    context: &Context,
    args: &HealthCheckArgs,
    incident: &IncidentArgs,
) -> anyhow::Result<Answered> {
    let config = context.load(&args.selection, Overrides::default())?.config;
    let began = Instant::now();
    let limit = context.global.timeout.unwrap_or(LIMIT);
    let working_directory = std::env::current_dir().unwrap_or_else(|_| "/".into());
    let parent = working_directory.join(incident.out.as_deref().unwrap_or(Path::new(".")));
    let mut bundle = Bundle::begin(&parent.join(format!("opsctl-incident-{}", context.run)))?;

    let inquiries = super::selected(context, args, &config, Profile::Incident, context.now)?;
    let mut databases = Vec::new();
    for database in &config.databases {
        let (target, name) = open::database(context, database)?;
        databases.push((name, target));
    }
    // The checks and the evidence do not wait for each other: what is wrong now may be gone in ten seconds.
    let report = std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let answers =
                crate::health::run::run(inquiries, limit.min(config.health.timeout), &context.stop);
            let (run, seconds) = (context.run.to_string(), began.elapsed().as_secs_f64());
            Report::new(answers, run, context.now, seconds, Profile::Incident)
        });
        let with_literals = incident.with_literals;
        incident::gather(databases, with_literals, limit, &context.stop, |piece| bundle.add(piece));
        asking.join()
    });
    let report = report.map_err(|_| anyhow::anyhow!("the checks broke: please report this"))?;
    bundle.text("health-check.txt", format::human(&report, true, false));
    bundle.text("health-check.json", format!("{:#}\n", format::json(&report)));
    let events = bundle.history(context);
    let run = context.run.to_string();
    bundle.text("timeline.md", incident::timeline(&run, &report.host, context.now, events));
    bundle.text("README", README.to_owned());
    bundle.end(&report)?;

    // The folder is the evidence; a disk that is full now has room for it at best.
    let archive = archive(&bundle.dir).inspect_err(|error| {
        tracing::warn!("there is no archive of the evidence: {}", failure::one_line(error));
    });
    let archive = archive.ok();

    let seconds = began.elapsed().as_secs_f64();
    let (dir, pieces, missing) = (bundle.dir.display(), bundle.pieces.len(), bundle.missing);
    let stdout = if super::form(context, args) == Format::Json {
        let outcome = report.outcome();
        let document = json!({ "dir": bundle.dir, "archive": archive, "pieces": bundle.pieces, "missing": missing, "status": outcome, "seconds": seconds });
        format!("{document:#}\n")
    } else {
        let bad = format::human(&report, false, super::has_colours(context));
        let missing = if missing > 0 {
            format!(", {missing} could not be had (pieces.json says why)")
        } else {
            String::new()
        };
        let archive = archive.map(|path| format!("To pass on: {}\n", path.display()));
        let archive = archive.unwrap_or_default();
        format!(
            "{bad}\n{pieces} pieces of evidence in {dir}{missing}, in {seconds:.1} s\n{archive}"
        )
    };
    Ok(Answered { status: 0, stdout, error: None })
}

impl Bundle {
    /// Makes the folder, which nobody else may look into.
    fn begin(dir: &Path) -> anyhow::Result<Bundle> {
        make(dir).with_context(|| format!("`{}` cannot be made", dir.display()))?;
        Ok(Bundle { dir: dir.to_owned(), pieces: Vec::new(), missing: 0 })
    }

    fn text(&mut self, path: &str, content: String) {
        self.add(Piece { path: path.to_owned(), content: Ok(content) });
    }

    /// Writes a piece down. One that cannot be written is missing; the others may be smaller.
    fn add(&mut self, piece: Piece) {
        let Piece { path, content } = piece;
        let written = content.and_then(|text| {
            let written = write(&self.dir.join(&path), &text);
            written
                .map(|()| text.len())
                .map_err(|error| format!("it could not be written: {error}"))
        });
        match written {
            Ok(bytes) => self.pieces.push(json!({ "path": path, "bytes": bytes })),
            Err(why) => {
                self.missing += 1;
                self.pieces.push(json!({ "path": path, "missing": crate::secret::redact(&why) }));
            }
        }
    }

    /// Keeps what the history says of the day before, and returns what of it went wrong.
    fn history(&mut self, context: &Context) -> Vec<Event> {
        let since = context.now - BEFORE;
        let runs = match context.history.read(|store| store.runs(since, &[])) {
            Ok(runs) => runs,
            Err(error) => {
                let why = Err(failure::one_line(&error.into()));
                self.add(Piece { path: "history.json".to_owned(), content: why });
                return Vec::new();
            }
        };
        let document = serde_json::to_string_pretty(&runs).map_err(|error| error.to_string());
        self.add(Piece { path: "history.json".to_owned(), content: document });
        let is_news =
            |run: &&crate::history::Run| run.exit != Some(0) && run.command != "health-check";
        let event = |run: &crate::history::Run| {
            let why = run
                .error
                .iter()
                .chain(run.databases.iter().filter_map(|part| part.error.as_ref()))
                .next();
            let ended =
                run.exit.map_or("has not ended".to_owned(), |exit| format!("ended with {exit}"));
            let why = why.map(|why| format!(": {why}")).unwrap_or_default();
            Event {
                at: run.ended_at.unwrap_or(run.begun_at),
                what: format!("opsctl {} {ended}{why}", run.command),
            }
        };
        runs.iter().filter(is_news).map(event).collect()
    }

    /// Writes the list of all pieces. Without it nobody knows what is missing.
    fn end(&mut self, report: &Report) -> anyhow::Result<()> {
        let document = json!({
            "version": 1, "opsctl": env!("CARGO_PKG_VERSION"), "run": report.run, "host": report.host, "at": report.at,
            "pieces": self.pieces,
        });
        let path = self.dir.join("pieces.json");
        let written = write(&path, &format!("{document:#}\n"));
        written.with_context(|| format!("`{}` cannot be written", path.display()))
    }
}

/// Packs the folder into a file beside it, which has its name when it is whole.
fn archive(dir: &Path) -> anyhow::Result<PathBuf> {
    let (parent, name) = (dir.parent().context("no parent")?, dir.file_name().context("no name")?);
    let path = PathBuf::from(format!("{}.tar.gz", dir.display()));
    let unfinished = tempfile::Builder::new().prefix(".opsctl-incident-").tempfile_in(parent)?;
    let mut archive = tar::Builder::new(GzEncoder::new(unfinished, Compression::default()));
    archive.append_dir_all(name, dir)?;
    let unfinished = archive.into_inner()?.finish()?;
    unfinished.as_file().sync_all()?;
    unfinished.persist_noclobber(&path)?;
    Ok(path)
}

fn make(dir: &Path) -> std::io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

fn write(path: &Path, text: &str) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        make(folder)?;
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}
