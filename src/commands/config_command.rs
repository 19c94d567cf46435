//! `opsctl config`: check it, show it, or print an example. It connects to nothing.

use std::fmt::Write as _;

use crate::cli::{ConfigArgs, ConfigCommand};
use crate::commands::{Context, Report, Silence};
use crate::config::{self, Overrides};
use crate::exit::Exit;
use crate::text::counted;

pub(super) fn run(context: &Context, args: &ConfigArgs) -> anyhow::Result<Report> {
    match args.command {
        ConfigCommand::Example => {
            let json = serde_json::json!({ "example": config::EXAMPLE });
            Ok(Report {
                exit: Exit::Done,
                text: config::EXAMPLE.to_owned(),
                json,
                silence: Silence::Refused,
            })
        }
        ConfigCommand::Check => Ok(check(context, args)),
        ConfigCommand::Show => show(context, args),
    }
}

fn check(context: &Context, args: &ConfigArgs) -> Report {
    let loaded = match context.read(&args.selection, Overrides::default()) {
        Ok(loaded) => loaded,
        Err(error) => return not_valid(error.problems()),
    };
    let unreadable = loaded.config.unreadable_secrets();
    if !unreadable.is_empty() {
        return not_valid(&unreadable);
    }
    let file = loaded.file.as_ref().map(|f| f.display().to_string());
    let (databases, repositories) =
        (loaded.config.databases.len(), loaded.config.repositories.len());
    let source = file.as_deref().unwrap_or("no file, only flags and environment");
    let text = format!(
        "configuration is valid ({source}): {databases} database(s), {repositories} repository(ies)\n"
    );
    let json =
        serde_json::json!({ "file": file, "databases": databases, "repositories": repositories });
    Report { exit: Exit::Done, text, json, silence: Silence::Allowed }
}

fn not_valid(problems: &[config::Problem]) -> Report {
    let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
    let n = counted(problems.len() as u64, "problem");
    tracing::error!("the configuration is not valid: {n}");
    let json = serde_json::json!({ "problems": problems });
    let text = problems.join("\n") + "\n";
    Report { exit: Exit::Configuration, text, json, silence: Silence::Refused }
}

fn show(context: &Context, args: &ConfigArgs) -> anyhow::Result<Report> {
    let loaded = context.load(&args.selection, Overrides::default())?;
    let settings = config::show(&loaded);
    let width = |f: fn(&config::Shown) -> &str| {
        settings.iter().map(|s| f(s).chars().count()).max().unwrap_or(0)
    };
    let (key, value) = (width(|s| &s.key), width(|s| &s.value).min(60));
    let mut text = String::new();
    for setting in &settings {
        writeln!(text, "{:key$}  {:value$}  {}", setting.key, setting.value, setting.source)?;
    }
    let json = serde_json::json!({ "settings": settings });
    Ok(Report { exit: Exit::Done, text, json, silence: Silence::Refused })
}
