//! `archive-audit query`: a question is put to the Parquet files, by `DuckDB`, or the statements for other engines are printed.
//!
//! The files are taken from the records of the segments; they are not verified here. Those in a bucket are fetched first, with opsctl's own
//! access, so that `DuckDB` needs neither an extension nor a key.

use anyhow::Context as _;
use bytes::Bytes;
use serde_json::Value;

use super::report::Part;
use crate::archive::duckdb;
use crate::archive::folder::Folder;
use crate::archive::query_copy;
use crate::archive::questions::{Asked, Engine};
use crate::archive::window::Window;
use crate::cli::archive_audit::{ArchiveQueryArgs, QueryEngine};
use crate::commands::{Context, open};
use crate::config::{AuditTable, Location};
use crate::exit::{Exit, Failure};
use crate::storage::local::Local;
use crate::storage::{Key, Overwrite, Storage as _};

pub(super) fn query(
    context: &Context,
    database: &str,
    audits: &[&AuditTable],
    args: &ArchiveQueryArgs,
) -> anyhow::Result<Part> {
    let mut tables = tables(context, audits, args)?;
    if tables.is_empty() {
        let message = format!("there is nothing to ask of {database}");
        return Err(Failure::new(Exit::BadNews, message).into());
    }
    let Some(sql) = &args.sql else {
        let engine = match args.r#for {
            QueryEngine::Duckdb => Engine::DuckDb,
            QueryEngine::Spark => Engine::Spark,
            QueryEngine::Trino => Engine::Trino,
            QueryEngine::Athena => Engine::Athena,
        };
        let asked: Vec<Asked> = tables.into_iter().map(|(_, asked)| asked).collect();
        let text = engine.statements(&asked);
        let json = serde_json::json!({ "statements": text });
        return Ok(Part::answer(database, text, json));
    };
    let dir = tempfile::tempdir().context("failed to make a temporary directory")?;
    for (folder, asked) in tables.iter_mut().filter(|(_, asked)| asked.place.starts_with("s3://")) {
        fetch(context, folder, asked, &dir)?;
    }
    let asked: Vec<Asked> = tables.into_iter().map(|(_, asked)| asked).collect();
    let (text, answer) = ask(context, &asked, sql, &dir)?;
    Ok(Part::answer(database, text, serde_json::json!({ "rows": answer })))
}

/// Looks what is there of each table, in the time that is asked of.
fn tables(
    context: &Context,
    audits: &[&AuditTable],
    args: &ArchiveQueryArgs,
) -> anyhow::Result<Vec<(Folder, Asked)>> {
    let mut tables = Vec::new();
    for audit in audits {
        let storage = open::storage(context, &audit.location)
            .with_context(|| format!("the archive of {} cannot be used", audit.table))?;
        let folder = Folder::new(storage, &audit.table.to_string());
        let wanted = |window: Window| {
            args.from.is_none_or(|from| window.to > from)
                && args.to.is_none_or(|to| window.from < to)
        };
        let records = query_copy::records(&folder, wanted)?;
        if records.is_empty() {
            tracing::warn!("{}: nothing of that time is there as Parquet", audit.table);
            continue;
        }
        let place = match &audit.location {
            Location::Directory(path) => path.display().to_string(),
            Location::S3(s3) => match s3.prefix.as_str() {
                "" => format!("s3://{}", s3.bucket),
                prefix => format!("s3://{}/{}", s3.bucket, prefix.trim_end_matches('/')),
            },
        };
        let place = format!("{place}/{}", folder.name());
        tables.push((folder, Asked { table: audit.table.to_string(), place, records }));
    }
    Ok(tables)
}

/// Fetches the files from a bucket.
fn fetch(
    context: &Context,
    folder: &Folder,
    asked: &mut Asked,
    dir: &tempfile::TempDir,
) -> anyhow::Result<()> {
    for file in asked.records.iter().flat_map(|record| &record.files) {
        context.stop.check()?;
        context.progress.set_message(file.name.clone());
        let rows = folder.storage.get(&folder.key(&file.name)?, file.bytes)?;
        store(dir, &format!("{}/{}", folder.name(), file.name), rows)?;
    }
    asked.place = dir.path().join(folder.name()).display().to_string();
    Ok(())
}

/// Writes a file to the temporary directory.
fn store(dir: &tempfile::TempDir, name: &str, content: Bytes) -> anyhow::Result<()> {
    let key = Key::new(name).with_context(|| format!("`{name}` cannot be the name of a file"))?;
    Ok(Local::open(dir.path().to_owned()).put(&key, content, Overwrite::Refuse)?)
}

/// Puts the question; returns the answer as CSV, and as JSON if that is wanted.
fn ask(
    context: &Context,
    asked: &[Asked],
    sql: &str,
    dir: &tempfile::TempDir,
) -> anyhow::Result<(String, Value)> {
    let as_json = context.global.json;
    let format = if as_json { "FORMAT json, ARRAY true" } else { "FORMAT csv, HEADER true" };
    let schemas: Vec<&str> = asked
        .iter()
        .map(|asked| asked.table.split_once('.').map_or("public", |(schema, _)| schema))
        .collect();
    let script = format!(
        "SET TimeZone = 'UTC';\n{}SET search_path = '{}';\nCOPY (\n{}\n) TO '/dev/stdout' ({format});\n",
        Engine::DuckDb.statements(asked),
        schemas.join(",").replace('\'', "''"),
        sql.trim().trim_end_matches(';')
    );
    // In a file, because arguments can be seen by others.
    store(dir, "question.sql", Bytes::from(script))?;
    let path = dir.path().join("question.sql").display().to_string();
    let inherited = ["PATH", "HOME", "PYTHONPATH", "TMPDIR"];
    let inherited = inherited
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), context.environment.get(name)?.to_owned())));
    let inherited: Vec<(String, String)> = inherited.collect();
    let answer = duckdb::run(&path, &inherited, &context.stop).map_err(|error| {
        let is_missing = matches!(error, duckdb::Error::Missing);
        let error = anyhow::Error::from(error);
        if is_missing {
            let failure = Failure::new(Exit::Failed, error.to_string());
            let hint = "Install it (`pip install duckdb`), or leave the question out: then the statements are printed for where it is.";
            return failure.hint(hint).into();
        }
        error
    })?;
    let text = String::from_utf8(answer).context("the answer is not in UTF-8")?;
    let json = if as_json {
        serde_json::from_str(&text).context("the answer is no JSON")?
    } else {
        Value::Null
    };
    Ok((text, json))
}
