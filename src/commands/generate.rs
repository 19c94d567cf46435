//! `opsctl generate`: man pages as files, completions on stdout. It knows nothing of their texts, which are the command line's.

use std::path::Path;

use anyhow::Context as _;
use serde_json::json;

use crate::cli::Cli;
use crate::cli::generate::{GenerateArgs, GenerateCommand, Shell};
use crate::commands::{Report, Silence, file};
use crate::config;
use crate::exit::Exit;
use crate::manual;

pub(super) fn run(args: &GenerateArgs) -> anyhow::Result<Report> {
    match &args.command {
        GenerateCommand::Man { out } => pages(out),
        GenerateCommand::Completions { shell } => completions(*shell),
    }
}

fn pages(out: &Path) -> anyhow::Result<Report> {
    std::fs::create_dir_all(out).with_context(|| format!("failed to make `{}`", out.display()))?;
    let mut pages = manual::commands(Cli::definition())?;
    pages.push(manual::configuration(config::EXAMPLE)?);
    for page in &pages {
        file::put(&out.join(&page.name), page.text.as_bytes(), file::READABLE)?;
    }
    let text = format!("{} man pages are in {}\n", pages.len(), out.display());
    let json = json!({ "out": out, "pages": pages.len() });
    Ok(Report { exit: Exit::Done, text, json, silence: Silence::Allowed })
}

fn completions(shell: Shell) -> anyhow::Result<Report> {
    let shell = match shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::definition(), "opsctl", &mut text);
    let text = String::from_utf8(text)?;
    let json = json!({ "text": text });
    Ok(Report { exit: Exit::Done, text, json, silence: Silence::Refused })
}
