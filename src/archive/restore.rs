//! Segments back into a table: loaded, read back and compared in one transaction, so that the table has all of their rows or none.
//!
//! The table gets the columns and types of the archived one, and no key, index or default. One that is there must be empty and have
//! just these columns; triggers and rules of it may refuse rows, but what they change is noticed.

use std::io::{BufRead as _, Write as _};

use twox_hash::XxHash3_128;

use crate::archive::folder::Folder;
use crate::archive::line::Shape;
use crate::archive::manifest::Manifest;
use crate::archive::row::{Column, Row};
use crate::archive::source::{Keys, Source, quote};
use crate::archive::verify::{self, Finding};
use crate::config::TableName;
use crate::db::{Connection, Error, Target};
use crate::exit::{Exit, Failure};
use crate::stop::Stop;

/// Loads segments of one table, the names of which come with their manifests. Returns how many rows there are, or what is wrong with
/// a segment; then nothing is loaded. With `dry_run` all is done but the commit.
pub(crate) fn restore(
    target: &Target,
    folder: &Folder,
    segments: &[(&str, &Manifest)],
    (to, dry_run): (&TableName, bool),
    stop: &Stop,
) -> anyhow::Result<Result<u64, Finding>> {
    let Some((_, manifest)) = segments.first() else { return Ok(Ok(0)) };
    let columns = &manifest.columns;
    if let Some((name, _)) = segments.iter().find(|(_, other)| other.columns != *columns) {
        let message =
            format!("segment {name} has other columns than the first one: restore it by itself");
        return Err(Failure::new(Exit::Usage, message).into());
    }
    let mut connection = target.connect("opsctl archive-audit", stop)?;
    let begin = format!("BEGIN; {}", Source::set_settings("SET LOCAL"));
    let failed = |what: &str, error| Error::query(what.to_owned(), error).or_stopped(stop);
    connection.batch_execute(&begin).map_err(|e| failed("begin", e))?;
    let table = make(&mut connection, to, columns, stop)?;
    let names: Vec<String> = columns.iter().map(|column| quote(&column.name)).collect();
    let names = names.join(", ");

    let what = format!("load rows into {to}");
    let mut archived = Keys::default();
    let copy = format!("COPY {table} ({names}) FROM STDIN");
    let mut writer = connection.copy_in(copy.as_str()).map_err(|e| failed(&what, e))?;
    let mut text = Vec::new();
    for (name, manifest) in segments {
        let findings = verify::rows_seen(folder, name, manifest, stop, |line, row| {
            archived.add(XxHash3_128::oneshot(line));
            text.clear();
            row.write(&mut text);
            Ok(writer.write_all(&text).map_err(|e| Error::copy(&*what, e).or_stopped(stop))?)
        })?;
        if let Some(finding) = findings.into_iter().next() {
            // Without its end the COPY fails, and the transaction with it.
            return Ok(Err(finding));
        }
    }
    writer.finish().map_err(|e| failed(&what, e))?;

    let what = format!("read the rows of {to} back");
    let (shape, mut found) = (Shape::of(columns), Keys::default());
    let copy = format!("COPY (SELECT {names} FROM {table}) TO STDOUT");
    let mut reader = connection.copy_out(copy.as_str()).map_err(|e| failed(&what, e))?;
    let (mut row, mut line) = (Row::default(), Vec::new());
    loop {
        text.clear();
        let length = reader.read_until(b'\n', &mut text);
        if length.map_err(|e| Error::copy(&*what, e).or_stopped(stop))? == 0 {
            break;
        }
        row.read(&text)?;
        line.clear();
        shape.write(&row, &mut line)?;
        found.add(XxHash3_128::oneshot(&line));
    }
    drop(reader);
    if found != archived {
        let message = format!(
            "the rows of {to} are not those of the archive ({} of {} came back, or they changed): nothing is restored",
            found.rows, archived.rows
        );
        return Err(Failure::new(Exit::BadNews, message)
            .hint("Does a trigger change them? Restore into a new table.")
            .into());
    }
    // What is deferred to the commit may fail, too.
    let end = if dry_run { "SET CONSTRAINTS ALL IMMEDIATE; ROLLBACK" } else { "COMMIT" };
    connection.batch_execute(end).map_err(|e| failed("end the transaction", e))?;
    Ok(Ok(found.rows))
}

/// Makes the table, or makes sure that it can take the rows; returns its name for SQL. Nobody else writes to it from then on.
fn make(
    connection: &mut Connection,
    to: &TableName,
    columns: &[Column],
    stop: &Stop,
) -> anyhow::Result<String> {
    let failed = |error| Error::query(format!("make the table {to}"), error).or_stopped(stop);
    let table = match &to.schema {
        Some(schema) => format!("{}.{}", quote(schema), quote(&to.name)),
        None => format!("public.{}", quote(&to.name)),
    };
    let refuse = |what: &str| {
        let failure = Failure::new(Exit::Usage, format!("{to} {what}"));
        anyhow::Error::from(failure.hint("Name a table that is not there: it is made."))
    };
    let sql = "SELECT oid, relkind::text FROM pg_class WHERE oid = to_regclass($1)";
    let Some(is_there) = connection.query_opt(sql, &[&table]).map_err(failed)? else {
        let columns: Vec<String> =
            columns.iter().map(|c| format!("{} {}", quote(&c.name), c.type_name)).collect();
        let create = format!("CREATE TABLE {table} ({})", columns.join(", "));
        connection.batch_execute(&create).map_err(failed)?;
        return Ok(table);
    };
    let (oid, kind): (u32, &str) = (is_there.get(0), is_there.get(1));
    if !["r", "p"].contains(&kind) {
        return Err(refuse("is no table"));
    }
    let lock = format!("LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE");
    connection.batch_execute(&lock).map_err(failed)?;
    let sql = "SELECT attname::text, format_type(atttypid, atttypmod) FROM pg_attribute \
               WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped";
    let rows = connection.query(sql, &[&oid]).map_err(failed)?;
    let mut found: Vec<(String, String)> =
        rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let mut wanted: Vec<(String, String)> =
        columns.iter().map(|c| (c.name.clone(), c.type_name.clone())).collect();
    found.sort();
    wanted.sort();
    if found != wanted {
        return Err(refuse("has other columns or types than the archived table"));
    }
    let sql = format!("SELECT EXISTS (SELECT FROM {table})");
    if connection.query_one(&sql, &[]).map_err(failed)?.get(0) {
        return Err(refuse("has rows"));
    }
    Ok(table)
}
