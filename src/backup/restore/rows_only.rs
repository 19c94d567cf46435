//! Restoring rows alone, with large objects and sequences' values, into a database that has the tables already.
//!
//! One session does it in one transaction, slower than workers would: nothing is seen before it is whole, and nothing
//! remains of a run that ends early. Tables must be empty. Triggers and foreign keys are held back meanwhile, so the
//! rows are those that were dumped, and whether they fit rows of other tables is not checked.

use postgres::Client;

use super::load::{Load, TableLoad};
use super::{Request, Restored, analyze, plan_load, step};
use crate::backup::toc::Entry;
use crate::db::{self, quote_identifier};
use crate::exit::{Exit, Failure};

/// Restores the rows that are chosen. After an error the database is as it was.
pub(crate) fn restore_rows(request: &Request<'_>) -> anyhow::Result<Restored> {
    let load = plan_load(request)?;
    let bytes = load.tables.iter().flat_map(TableLoad::chunks).map(|chunk| chunk.raw_bytes);
    request.progress.set_position(0);
    request.progress.set_length(bytes.sum());
    let mut connection = load.connect(request.stop)?;
    let client = connection.client();
    execute(client, "begin a transaction", "BEGIN")?;
    if let Err(error) = client.batch_execute("SET LOCAL session_replication_role = replica") {
        let error = db::Error::query("hold triggers and foreign keys back", error);
        return Err(anyhow::Error::from(error).context(
            Failure::new(Exit::Database, "the role may not restore rows alone").hint(
                "It takes a superuser, or from PostgreSQL 15 on `GRANT SET ON PARAMETER session_replication_role`.",
            ),
        ));
    }
    let occupied = occupied(&load, client)?;
    if !occupied.is_empty() {
        let message = format!("these would have to be empty: {}", occupied.join(", "));
        let hint =
            "Nothing was changed. Empty them (TRUNCATE), or restore beside them with --create.";
        return Err(Failure::new(Exit::Failed, message).hint(hint).into());
    }
    step(request, "loading rows");
    let rows = load.load_in_transaction(client)?;
    let is_wanted = |e: &&Entry| e.kind == "SEQUENCE SET" && request.chosen.contains(&e.dump_id);
    for entry in request.contents.entries.iter().filter(is_wanted) {
        let what = format!("set sequence {}", String::from_utf8_lossy(&entry.tag));
        execute(client, &what, &String::from_utf8_lossy(&entry.definition))?;
    }
    request.stop.check()?;
    // What was loaded must be there after a crash from now on.
    execute(client, "commit", "SET LOCAL synchronous_commit = on; COMMIT")?;
    step(request, "gathering statistics");
    analyze(request)?;
    Ok(Restored {
        tables: load.tables.len() as u64,
        rows,
        large_objects: load.large_objects.len() as u64,
        pg_restore: None,
    })
}

/// Locks the tables against writers, and returns those that have rows.
fn occupied(load: &Load<'_>, client: &mut Client) -> anyhow::Result<Vec<String>> {
    let mut occupied = Vec::new();
    for table in &load.tables {
        let Some(dumped) = load.detail.tables.get(&table.artifact.name) else { continue };
        // Rows that go through the root of a partitioned table may go into any of its partitions.
        let own = || [&dumped.schema, &dumped.name].map(|name| quote_identifier(name)).join(".");
        let root = dumped.partition_root.clone();
        let name = root.unwrap_or_else(|| format!("ONLY {}", own()));
        let what = format!("lock table {name}");
        execute(client, &what, &format!("LOCK TABLE {name} IN SHARE ROW EXCLUSIVE MODE"))?;
        let row = client.query_one(&format!("SELECT EXISTS (SELECT FROM {name})"), &[]);
        let row = row.map_err(|e| db::Error::query(format!("look into table {name}"), e))?;
        if row.get(0) {
            occupied.push(format!("{}.{}", dumped.schema, dumped.name));
        }
    }
    let what = "look for large objects";
    let sql = "SELECT EXISTS (SELECT FROM pg_catalog.pg_largeobject_metadata WHERE oid = ANY ($1))";
    let known = &load.detail.large_objects;
    let oids = load.large_objects.iter().filter_map(|a| Some(known.get(&a.name)?.oid));
    let oids: Vec<u32> = oids.collect();
    let row = client.query_one(sql, &[&oids]).map_err(|e| db::Error::query(what, e))?;
    if row.get(0) {
        occupied.push("pg_largeobject".to_owned());
    }
    occupied.dedup();
    Ok(occupied)
}

fn execute(client: &mut Client, what: &str, sql: &str) -> Result<(), db::Error> {
    client.batch_execute(sql).map_err(|error| db::Error::query(what, error))
}
