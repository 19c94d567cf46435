//! `opsctl schedule print`: what starts opsctl at the times of `[schedule]`, on stdout or as files.
//!
//! It installs nothing: what is printed is read by a person first.

use std::path::Path;

use crate::cli::{ScheduleArgs, ScheduleCommand, ScheduleFormat, SchedulePrintArgs, Selection};
use crate::commands::{Context, Report, Silence};
use crate::commands::{expected, file};
use crate::config::{Loaded, Location, Overrides, Source};
use crate::exit::{Exit, Failure};
use crate::schedule::{self, Crontab, Job, Kubernetes, Printed, Systemd};

/// Where opsctl finds its configuration without being told.
const OWN_CONFIG: &str = "/etc/opsctl/opsctl.toml";
/// Where systemd keeps units that somebody wrote.
const UNITS: &str = "/etc/systemd/system";

pub(super) fn run(context: &Context, args: &ScheduleArgs) -> anyhow::Result<Report> {
    let ScheduleCommand::Print(args) = &args.command;
    args.check().map_err(|message| Failure::new(Exit::Usage, message))?;
    let loaded = context.load(&Selection::default(), Overrides::default())?;
    let files = print(&loaded, args)?;
    let json = serde_json::json!({ "files": files });
    let text = match &args.out {
        Some(dir) => write(dir, &files, args.force)?,
        None if args.format == ScheduleFormat::Systemd => {
            files.iter().map(|file| format!("# {UNITS}/{}\n{}\n", file.name, file.text)).collect()
        }
        None => files.into_iter().map(|file| file.text).collect(),
    };
    let silence = if args.out.is_some() { Silence::Allowed } else { Silence::Refused };
    Ok(Report { exit: Exit::Done, text, json, silence })
}

fn print(loaded: &Loaded, args: &SchedulePrintArgs) -> anyhow::Result<Vec<Printed>> {
    let config = &loaded.config;
    let named = loaded.file.as_deref().filter(|file| *file != Path::new(OWN_CONFIG));
    // In a container the file is mounted where opsctl looks.
    let named =
        named.filter(|_| args.format != ScheduleFormat::Kubernetes).map(line).transpose()?;
    let scheduled = config.schedule.commands.iter().chain(&config.schedule.status);
    let jobs: Vec<Job<'_>> = scheduled
        .map(|scheduled| Job::new(scheduled, expected::timeout(config, scheduled), named))
        .collect();
    if jobs.is_empty() {
        let failure = Failure::new(
            Exit::Configuration,
            "all of [schedule] is off: there is nothing to print",
        );
        return Err(failure.into());
    }
    // Without a word about it, it is relative to wherever the job is started.
    let stated = config.repositories.iter().zip(loaded.repository_sources());
    let stated = stated.filter(|(_, source)| *source != Source::Default);
    let directories = stated.filter_map(|(repository, _)| match &repository.location {
        Location::Directory(path) => Some(path.as_path()),
        Location::S3(_) => None,
    });
    let program = line(&args.program)?;
    let one = |name: &str, text| Ok(vec![Printed { name: name.to_owned(), text }]);
    match args.format {
        ScheduleFormat::Crontab => {
            let bin_dir = args.program.parent().map(line).transpose()?.unwrap_or_default();
            let settings = Crontab { bin_dir, mail_to: args.mail_to.as_deref() };
            one("opsctl.crontab", schedule::crontab(&jobs, settings))
        }
        ScheduleFormat::Systemd => {
            let is_stated = matches!(loaded.source("state_dir"), Source::File { .. });
            let state_dir = Some(&config.state_dir).filter(|_| is_stated);
            let settings = Systemd {
                program,
                user: args.user.as_deref().unwrap_or("opsctl"),
                state_dir: state_dir.map(|dir| line(dir)).transpose()?,
                writable: directories
                    .chain(config.metrics.textfile_dir.as_deref())
                    .map(line)
                    .collect::<anyhow::Result<_>>()?,
            };
            Ok(schedule::systemd(&jobs, &settings))
        }
        ScheduleFormat::Kubernetes => {
            let image = concat!("opsctl:", env!("CARGO_PKG_VERSION"));
            let settings = Kubernetes {
                image: args.image.as_deref().unwrap_or(image),
                namespace: args.namespace.as_deref(),
                secret: args.secret.as_deref().unwrap_or("opsctl"),
                config_map: args.config_map.as_deref().unwrap_or("opsctl"),
                time_zone: args.time_zone.map_or("Etc/UTC", |zone| zone.name()),
                history_lasts: config.history_url.is_some(),
                directories: directories.map(line).collect::<anyhow::Result<_>>()?,
            };
            for directory in &settings.directories {
                tracing::warn!(
                    "the repository at `{directory}` is a directory, and a container has none that lasts"
                );
            }
            one("opsctl.yaml", schedule::kubernetes(&jobs, &settings))
        }
    }
}

/// Returns a path that stands in one line.
fn line(path: &Path) -> anyhow::Result<&str> {
    let text = path.to_str().filter(|text| !text.contains(char::is_control));
    text.ok_or_else(|| {
        let shown = path.as_os_str().as_encoded_bytes().escape_ascii();
        let message = format!("the path `{shown}` cannot stand in a line of text");
        Failure::new(Exit::Configuration, message).into()
    })
}

/// Writes the files into a directory, which must exist: all of them, or none if one is there already.
fn write(dir: &Path, files: &[Printed], force: bool) -> anyhow::Result<String> {
    let there = files.iter().map(|file| dir.join(&file.name)).find(|path| path.exists());
    if let Some(path) = there.filter(|_| !force) {
        let failure = Failure::new(Exit::Failed, format!("`{}` is there already", path.display()));
        return Err(failure.hint("Compare it with what is printed; --force overwrites it.").into());
    }
    let mut text = String::new();
    for printed in files {
        let path = dir.join(&printed.name);
        file::put(&path, printed.text.as_bytes(), file::READABLE)?;
        text += &format!("{}\n", path.display());
    }
    Ok(text)
}
