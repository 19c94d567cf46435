//! `opsctl runbook`: the pages on stdout, or as files, with who is called. They are there also without a configuration.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Context as _;
use serde_json::json;

use crate::cli::runbook::{RunbookArgs, RunbookCommand};
use crate::commands::{Context, Report, Silence, file};
use crate::config::{self, Contacts, Overrides};
use crate::exit::{Exit, Failure};
use crate::runbook::{PAGES, Page, fill};
use crate::text::Table;

pub(super) fn run(context: &Context, args: &RunbookArgs) -> anyhow::Result<Report> {
    let (text, json) = match &args.command {
        RunbookCommand::List => list(),
        RunbookCommand::Show { page } => show(page, &contacts(context))?,
        RunbookCommand::Render { out, force } => render(out, *force, &contacts(context))?,
    };
    Ok(Report { exit: Exit::Done, text, json, silence: Silence::Refused })
}

/// Returns who is called, as far as that is known: a page is worth more than a configuration that is right.
fn contacts(context: &Context) -> Contacts {
    let config = context.global.config.clone();
    let overrides = Overrides { config, ..Overrides::default() };
    let working_directory = std::env::current_dir().unwrap_or_else(|_| "/".into());
    config::contacts(&overrides, &context.environment, &working_directory).unwrap_or_else(|error| {
        let problems: Vec<_> = error.problems().iter().map(ToString::to_string).collect();
        tracing::warn!("it is not known who is called: {}", problems.join("; "));
        Contacts::new()
    })
}

fn list() -> (String, serde_json::Value) {
    let mut table = Table::new(&["PAGE", "ABOUT"]);
    for page in PAGES {
        table.row([page.name.to_owned(), page.title().to_owned()]);
    }
    let pages: Vec<_> =
        PAGES.iter().map(|p| json!({ "page": p.name, "title": p.title() })).collect();
    (table.to_string(), json!({ "pages": pages }))
}

fn show(wanted: &str, contacts: &Contacts) -> anyhow::Result<(String, serde_json::Value)> {
    let (name, part) = wanted.split_once('#').map_or((wanted, None), |(n, part)| (n, Some(part)));
    let missing = |what: String, hint: String| Failure::new(Exit::Usage, what).hint(hint);
    let page = Page::find(name).ok_or_else(|| {
        missing(
            format!("there is no page `{name}`"),
            "`opsctl runbook list` has their names.".to_owned(),
        )
    })?;
    let text = match part {
        None => page.text,
        Some(part) => page.part(part).ok_or_else(|| {
            let hint = format!("`opsctl runbook show {}` has all of it.", page.name);
            missing(format!("`{}` has no part `{part}`", page.name), hint)
        })?,
    };
    let (text, missing) = fill(text, contacts);
    let json = json!({ "page": page.name, "text": text, "contacts_missing": missing });
    Ok((text, json))
}

/// Writes the pages; one that somebody changed is not replaced unasked.
fn render(
    out: &Path,
    force: bool,
    contacts: &Contacts,
) -> anyhow::Result<(String, serde_json::Value)> {
    let mut missing = BTreeSet::new();
    let mut paths = Vec::new();
    for page in PAGES {
        let (text, unknown) = fill(page.text, contacts);
        missing.extend(unknown);
        paths.push((out.join(format!("{}.md", page.name)), text));
    }
    let differs =
        |path: &Path, text: &str| std::fs::read(path).is_ok_and(|is| is != text.as_bytes());
    if let Some((path, _)) = paths.iter().find(|(path, text)| !force && differs(path, text)) {
        let message = format!("`{}` is there, and is another one", path.display());
        return Err(Failure::new(Exit::Usage, message).hint("--force replaces it.").into());
    }
    std::fs::create_dir_all(out).with_context(|| format!("failed to make `{}`", out.display()))?;
    for (path, text) in &paths {
        file::put(path, text.as_bytes(), file::READABLE)?;
    }
    let mut text = format!("{} pages are in {}\n", paths.len(), out.display());
    if !missing.is_empty() {
        let names: Vec<&str> = missing.iter().map(String::as_str).collect();
        text += &format!(
            "[contacts] of the configuration lacks {}: the pages say so where they are needed\n",
            names.join(", ")
        );
    }
    Ok((text, json!({ "out": out, "pages": paths.len(), "contacts_missing": missing })))
}
