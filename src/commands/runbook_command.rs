//! `opsctl runbook`: the pages on stdout, or as files.

use std::path::Path;

use anyhow::Context as _;
use serde_json::json;

use crate::cli::runbook::{RunbookArgs, RunbookCommand};
use crate::commands::{Report, Silence, file};
use crate::exit::{Exit, Failure};
use crate::runbook::{PAGES, Page};
use crate::text::Table;

pub(super) fn run(args: &RunbookArgs) -> anyhow::Result<Report> {
    let (text, json) = match &args.command {
        RunbookCommand::List => list(),
        RunbookCommand::Show { page } => show(page)?,
        RunbookCommand::Render { out, force } => render(out, *force)?,
    };
    Ok(Report { exit: Exit::Done, text, json, silence: Silence::Refused })
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

fn show(wanted: &str) -> anyhow::Result<(String, serde_json::Value)> {
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
    Ok((text.to_owned(), json!({ "page": page.name, "text": text })))
}

/// Writes the pages; one that somebody changed is not replaced unasked.
fn render(out: &Path, force: bool) -> anyhow::Result<(String, serde_json::Value)> {
    let paths: Vec<_> =
        PAGES.iter().map(|p| (out.join(format!("{}.md", p.name)), p.text)).collect();
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
    let text = format!("{} pages are in {}\n", paths.len(), out.display());
    Ok((text, json!({ "out": out, "pages": paths.len() })))
}
