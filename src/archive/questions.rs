//! The statements by which other programs ask the Parquet files of an archive. Pure.
//!
//! `DuckDB` is given the files by name, which are those of segments and no others. The rest read the folder, as is usual with them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::archive::query_copy::{FOLDER, Record};
use crate::archive::row::Column;

/// The column that the path makes.
const MONTH: &str = "archive_month";

/// What asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    DuckDb,
    Spark,
    Trino,
    Athena,
}

/// A table that can be asked.
pub(crate) struct Asked {
    /// `schema.table` or `table`, as the configuration has it.
    pub(crate) table: String,
    /// Where the folder of the table is: a directory or `s3://bucket/prefix`, without a slash at its end.
    pub(crate) place: String,
    /// What is there of it, in the order of the segments; never empty.
    pub(crate) records: Vec<Record>,
}

impl Engine {
    /// Returns the statements that make tables or views under the names the tables have in PostgreSQL.
    pub(crate) fn statements(self, asked: &[Asked]) -> String {
        let mut sql = String::new();
        for asked in asked {
            for (name, types) in asked.differing() {
                let types: Vec<&str> = types.into_iter().collect();
                writeln!(
                    sql,
                    "-- {name}: {} by segment; cast it where you use it",
                    types.join(" or ")
                )
                .ok();
            }
            sql.push_str(&match self {
                Engine::DuckDb => asked.duckdb(),
                Engine::Spark => asked.spark(),
                Engine::Trino => asked.trino(),
                Engine::Athena => asked.athena(),
            });
        }
        sql
    }
}

impl Asked {
    fn name(&self) -> (&str, &str) {
        self.table.split_once('.').unwrap_or(("public", &self.table))
    }

    /// Returns the columns that are of one type in one segment and of another in another, with their types.
    fn differing(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let mut types: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for column in self.records.iter().flat_map(|record| &record.columns) {
            types.entry(&column.name).or_default().insert(&column.type_name);
        }
        types.retain(|_, types| types.len() > 1);
        types
    }

    fn folder(&self) -> String {
        format!("{}/{FOLDER}", self.place)
    }

    /// Returns the newest segment's columns, in the words of an engine.
    fn columns(&self, quote: char, word: fn(&str) -> String) -> String {
        let columns =
            self.records.last().map(|record| record.columns.as_slice()).unwrap_or_default();
        let column = |c: &Column| format!("  {} {}", quoted(&c.name, quote), word(&c.type_name));
        columns.iter().map(column).collect::<Vec<_>>().join(",\n")
    }

    fn duckdb(&self) -> String {
        let (schema, table) = self.name();
        let (schema, table) = (quoted(schema, '"'), quoted(table, '"'));
        let files = self.records.iter().flat_map(|record| &record.files);
        let files: Vec<String> =
            files.map(|file| literal(&format!("{}/{}", self.place, file.name))).collect();
        format!(
            "CREATE SCHEMA IF NOT EXISTS {schema};\nCREATE VIEW {schema}.{table} AS FROM read_parquet([\n  {}\n], \
             hive_partitioning = true, union_by_name = true);\n",
            files.join(",\n  ")
        )
    }

    fn spark(&self) -> String {
        let table = quoted(self.name().1, '`');
        let folder = literal(&self.folder().replacen("s3://", "s3a://", 1));
        format!("CREATE TEMPORARY VIEW {table} USING parquet OPTIONS (path {folder});\n")
    }

    fn trino(&self) -> String {
        let (schema, table) = self.name();
        format!(
            "CREATE TABLE hive.{}.{} (\n{},\n  {MONTH} varchar\n) WITH (external_location = {}, format = 'PARQUET', \
             partitioned_by = ARRAY['{MONTH}']);\nCALL hive.system.sync_partition_metadata({}, {}, 'ADD');\n",
            quoted(schema, '"'),
            quoted(table, '"'),
            self.columns('"', trino),
            literal(&self.folder()),
            literal(schema),
            literal(table)
        )
    }

    fn athena(&self) -> String {
        let table = quoted(self.name().1, '`');
        format!(
            "CREATE EXTERNAL TABLE {table} (\n{}\n)\nPARTITIONED BY ({MONTH} string)\nSTORED AS PARQUET\nLOCATION {};\nMSCK REPAIR TABLE {table};\n",
            self.columns('`', athena),
            literal(&self.folder())
        )
    }
}

/// The types of Trino's Hive connector.
fn trino(name: &str) -> String {
    let word = match name {
        "int16" => "smallint",
        "int32" => "integer",
        "int64" => "bigint",
        "float" => "real",
        "timestamp(us)" | "timestamp(us, UTC)" => "timestamp(6)",
        "bytes" => "varbinary",
        "text" => "varchar",
        same => same,
    };
    word.to_owned()
}

/// The types of Athena's DDL, which is Hive's.
fn athena(name: &str) -> String {
    let word = match name {
        "int16" => "smallint",
        "int32" => "int",
        "int64" => "bigint",
        "timestamp(us)" | "timestamp(us, UTC)" => "timestamp",
        "bytes" => "binary",
        "text" => "string",
        same => same,
    };
    word.to_owned()
}

fn quoted(name: &str, quote: char) -> String {
    let doubled = name.replace(quote, &format!("{quote}{quote}"));
    format!("{quote}{doubled}{quote}")
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::manifest::File;

    #[test]
    fn every_engine_has_its_statements() {
        let column = |name: &str, type_name: &str| Column {
            name: name.to_owned(),
            type_name: type_name.to_owned(),
        };
        let record = |until: &str, file: &str| Record {
            version: 1,
            manifest_sha256: String::new(),
            rows: 1,
            columns: vec![
                column("id", "int64"),
                column("at", "timestamp(us, UTC)"),
                column("un`til\"", until),
                column("price", "decimal(9,2)"),
                column("raw", "bytes"),
            ],
            files: vec![File {
                name: format!("parquet/{file}"),
                bytes: 1,
                sha256: String::new(),
                version: None,
            }],
        };
        let asked = [Asked {
            table: "audit.logs".to_owned(),
            place: "s3://bucket/it's/audit.logs".to_owned(),
            records: vec![record("text", "a.parquet"), record("date", "b.parquet")],
        }];
        let all: Vec<String> = [Engine::DuckDb, Engine::Spark, Engine::Trino, Engine::Athena]
            .map(|e| e.statements(&asked))
            .into();
        insta::assert_snapshot!(all.join("\n"));
    }
}
