//! What the server's catalogue says of tables: their columns and types, partitions, indexes, and who refers to them.
//!
//! It only reads.

use std::collections::BTreeMap;

use crate::config::TableName;
use crate::db::{Connection, Error, quote_identifier};
use crate::sessions::expired::quote_table;

/// Tables by schema and name, with their columns and the types of these, such as `character varying`.
pub(crate) type Layout = BTreeMap<(String, String), BTreeMap<String, String>>;

/// A table that is there.
#[derive(Clone, Debug)]
pub(crate) struct Relation {
    pub(crate) oid: u32,
    /// With its schema.
    pub(crate) name: TableName,
    pub(crate) columns: BTreeMap<String, String>,
    /// Those that hold rows: itself, or its partitions.
    pub(crate) leaves: Vec<Leaf>,
}

/// A table that holds rows.
#[derive(Clone, Debug)]
pub(crate) struct Leaf {
    pub(crate) oid: u32,
    pub(crate) name: TableName,
    /// On disk, without indexes and TOAST.
    pub(crate) pages: u64,
    /// With TOAST, without indexes.
    pub(crate) bytes: u64,
    /// As the server estimates.
    pub(crate) rows: u64,
    pub(crate) rights: Rights,
    /// Are there rows that row-level security does not let it see?
    pub(crate) hides_rows: bool,
    /// Is it on this server, and not a foreign table?
    pub(crate) is_local: bool,
}

/// What this role may do with the rows of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rights {
    None,
    /// Read and lock them, which is a part of UPDATE.
    Lock,
    /// Delete them as well.
    Delete,
}

/// A foreign key that refers to a table.
#[derive(Clone, Debug)]
pub(crate) struct Reference {
    pub(crate) constraint: String,
    pub(crate) table: TableName,
    pub(crate) columns: Vec<String>,
    pub(crate) action: OnDelete,
    /// As the server estimates.
    pub(crate) rows: u64,
    /// Can the rows that refer be found by an index?
    pub(crate) indexed: bool,
}

/// What a foreign key does when the row goes that it refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnDelete {
    /// NO ACTION or RESTRICT.
    Refuse,
    Cascade,
    /// SET NULL or SET DEFAULT.
    Set,
}

/// Reads the columns of all tables of these names, outside of the system's schemas.
pub(crate) fn layout(connection: &mut Connection, names: &[&str]) -> Result<Layout, Error> {
    let sql = "SELECT n.nspname::text, c.relname::text, a.attname::text, pg_catalog.format_type(a.atttypid, NULL) \
               FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
               JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
               WHERE c.relkind IN ('r', 'p') AND c.relname::text = ANY ($1) \
               AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'";
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let rows = connection.query(sql, &[&names]);
    let mut layout = Layout::new();
    for row in rows.map_err(|e| Error::query("read the tables' columns", e))? {
        let columns = layout.entry((row.get(0), row.get(1))).or_default();
        columns.insert(row.get(2), row.get(3));
    }
    Ok(layout)
}

/// Finds a table as a statement would find it.
pub(crate) fn find(
    connection: &mut Connection,
    table: &TableName,
) -> Result<Option<Relation>, Error> {
    let failed = |e| Error::query(format!("look at the table {table}"), e);
    let sql = "SELECT c.oid, n.nspname::text, c.relname::text FROM pg_catalog.pg_class c \
               JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
               WHERE c.oid = pg_catalog.to_regclass($1) AND c.relkind IN ('r', 'p')";
    let Some(row) = connection.query_opt(sql, &[&quote_table(table)]).map_err(failed)? else {
        return Ok(None);
    };
    let (oid, schema, name): (u32, String, String) = (row.get(0), row.get(1), row.get(2));
    let sql = "SELECT attname::text, pg_catalog.format_type(atttypid, NULL) FROM pg_catalog.pg_attribute \
               WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped";
    let columns = connection.query(sql, &[&oid]).map_err(failed)?;
    let columns = columns.iter().map(|row| (row.get(0), row.get(1))).collect();
    let leaves = leaves(connection, oid).map_err(failed)?;
    let name = TableName { schema: Some(schema), name };
    Ok(Some(Relation { oid, name, columns, leaves }))
}

fn leaves(connection: &mut Connection, oid: u32) -> Result<Vec<Leaf>, postgres::Error> {
    let sql = "WITH RECURSIVE parts(oid) AS (SELECT $1::oid UNION \
                   SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN parts p ON p.oid = i.inhparent) \
               SELECT c.oid, n.nspname::text, c.relname::text, \
                   pg_catalog.pg_relation_size(c.oid) / pg_catalog.current_setting('block_size')::int8, \
                   pg_catalog.pg_table_size(c.oid), greatest(c.reltuples, 0)::int8, \
                   pg_catalog.has_table_privilege(c.oid, 'DELETE'), c.relkind <> 'f', \
                   pg_catalog.has_table_privilege(c.oid, 'SELECT') AND pg_catalog.has_table_privilege(c.oid, 'UPDATE'), \
                   pg_catalog.row_security_active(c.oid) \
               FROM parts JOIN pg_catalog.pg_class c USING (oid) \
               JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
               WHERE c.relkind IN ('r', 'f') ORDER BY c.oid";
    let rows = connection.query(sql, &[&oid])?;
    let leaf = |row: &postgres::Row| Leaf {
        oid: row.get(0),
        name: TableName { schema: Some(row.get(1)), name: row.get(2) },
        pages: super::unsigned(row.get(3)),
        bytes: super::unsigned(row.get(4)),
        rows: super::unsigned(row.get(5)),
        rights: match (row.get(6), row.get(8)) {
            (_, false) => Rights::None,
            (false, true) => Rights::Lock,
            (true, true) => Rights::Delete,
        },
        is_local: row.get(7),
        hides_rows: row.get(9),
    };
    Ok(rows.iter().map(leaf).collect())
}

/// Lists the foreign keys that refer to a table.
pub(crate) fn references(connection: &mut Connection, oid: u32) -> Result<Vec<Reference>, Error> {
    // Those of partitions are copies of their parents'.
    let sql = "SELECT k.conname::text, n.nspname::text, c.relname::text, k.confdeltype::text, \
                   ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY u(num, ord) \
                       JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = u.num ORDER BY u.ord), \
                   (WITH RECURSIVE parts(oid) AS (SELECT c.oid UNION \
                        SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN parts p ON p.oid = i.inhparent) \
                    SELECT coalesce(sum(greatest(r.reltuples, 0)), 0)::int8 FROM parts JOIN pg_catalog.pg_class r USING (oid) \
                    WHERE r.relkind = 'r'), \
                   EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisvalid \
                       AND i.indpred IS NULL AND i.indkey[0] = k.conkey[1]) \
               FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class c ON c.oid = k.conrelid \
               JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
               WHERE k.contype = 'f' AND k.confrelid = $1 AND k.conparentid = 0 ORDER BY 1";
    let rows = connection.query(sql, &[&oid]);
    let rows = rows.map_err(|e| Error::query("read the foreign keys", e))?;
    let reference = |row: &postgres::Row| Reference {
        constraint: row.get(0),
        table: TableName { schema: Some(row.get(1)), name: row.get(2) },
        action: match row.get::<_, String>(3).as_str() {
            "c" => OnDelete::Cascade,
            "n" | "d" => OnDelete::Set,
            _ => OnDelete::Refuse,
        },
        columns: row.get(4),
        rows: super::unsigned(row.get(5)),
        indexed: row.get(6),
    };
    Ok(rows.iter().map(reference).collect())
}

/// Returns the columns of a table's primary key, in its order; none if there is none.
pub(crate) fn primary_key(connection: &mut Connection, oid: u32) -> Result<Vec<String>, Error> {
    let sql = "SELECT a.attname::text FROM pg_catalog.pg_index i \
               CROSS JOIN LATERAL unnest(i.indkey[0:i.indnkeyatts - 1]) WITH ORDINALITY AS u(num, ord) \
               JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = u.num \
               WHERE i.indrelid = $1 AND i.indisprimary ORDER BY u.ord";
    let rows = connection.query(sql, &[&oid]);
    let rows = rows.map_err(|e| Error::query("look for the primary key", e))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Can rows be found, in order, by an index on this column?
pub(crate) fn has_index(
    connection: &mut Connection,
    oid: u32,
    column: &str,
) -> Result<bool, Error> {
    let sql = "SELECT EXISTS (SELECT FROM pg_catalog.pg_index i \
               JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid JOIN pg_catalog.pg_am m ON m.oid = c.relam \
               JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] \
               WHERE i.indrelid = $1 AND i.indisvalid AND i.indpred IS NULL AND m.amname = 'btree' \
               AND a.attname::text = $2)";
    let row = connection.query_one(sql, &[&oid, &column]);
    Ok(row.map_err(|e| Error::query(format!("look for an index on `{column}`"), e))?.get(0))
}

/// Returns the type to cast to for values of a column of this type: the catalogue's word for some means a length of 1.
pub(crate) fn castable(kind: &str) -> &str {
    match kind {
        "character" => "bpchar",
        "bit" => "varbit",
        other => other,
    }
}

/// Writes the statement that makes the index that is missing.
pub(crate) fn create_index(table: &TableName, column: &str) -> String {
    format!("CREATE INDEX CONCURRENTLY ON {} ({})", quote_table(table), quote_identifier(column))
}
