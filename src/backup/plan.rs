//! Which rows are copied by which statement: tables, largest first, and large tables in ranges of pages.
//!
//! Pure: what the catalog says goes in, `COPY` statements come out. The rules are pg_dump's own
//! (`dumpTableData`, `makeTableDataInfo`), so that what it would have copied is what is copied.

/// How many bytes of a table (with its TOAST) one task copies: some tenths of a second, so that the workers end together.
const RANGE_BYTES: u64 = 32 << 20;
/// No table is cut into more ranges than this.
const MAX_RANGES: u64 = 100_000;
/// The first server version with TID range scans; before it, every range would read the whole table.
const FIRST_WITH_TID_RANGES: u32 = 14;

/// A table whose rows are dumped, as the catalog describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    /// The number of its TABLE DATA entry.
    pub(crate) dump_id: i32,
    pub(crate) schema: String,
    pub(crate) name: String,
    /// Schema and name, quoted for SQL.
    pub(crate) qualified: String,
    /// The partitioned table through which pg_dump wants the rows restored, quoted for SQL.
    pub(crate) partition_root: Option<String>,
    /// The column list with parentheses, from pg_dump; empty for a table without columns.
    pub(crate) columns: String,
    /// The condition of an extension's configuration table (`pg_extension_config_dump`), such as `WHERE …`.
    pub(crate) filter: Option<String>,
    /// Pages of the table itself.
    pub(crate) pages: u64,
    /// Bytes of the table with its TOAST.
    pub(crate) bytes: u64,
    /// Are its rows found by page and line, as in a heap?
    pub(crate) is_heap: bool,
}

/// Pages `from` up to, not including, `to`; without `to`, up to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pages {
    pub(crate) from: u64,
    pub(crate) to: Option<u64>,
}

/// One COPY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Task {
    /// Index of the table.
    pub(crate) table: usize,
    /// The part of it; `None` is all.
    pub(crate) pages: Option<Pages>,
    /// Bytes of storage that it will read, about.
    pub(crate) bytes: u64,
}

/// Cuts `sources` into tasks, those of the largest tables first.
pub(crate) fn tasks(sources: &[Source], server_major: u32) -> Vec<Task> {
    let mut order: Vec<usize> = (0..sources.len()).collect();
    order.sort_by_key(|&n| std::cmp::Reverse(sources[n].bytes));
    order.into_iter().flat_map(|n| ranges(n, &sources[n], server_major)).collect()
}

fn ranges(table: usize, source: &Source, server_major: u32) -> Vec<Task> {
    let Source { pages, bytes, .. } = *source;
    let can_split =
        source.is_heap && server_major >= FIRST_WITH_TID_RANGES && source.filter.is_none();
    let n_ranges = (bytes / RANGE_BYTES).min(pages).min(MAX_RANGES);
    if !can_split || n_ranges < 2 || source.columns.is_empty() {
        return vec![Task { table, pages: None, bytes }];
    }
    let cut = |n: u64| pages * n / n_ranges;
    // The last range has no end: what the table has grown by is invisible to the snapshot, and so costs
    // nothing, but a wrong size would cost rows.
    let range = |n: u64| Task {
        table,
        pages: Some(Pages { from: cut(n), to: (n + 1 < n_ranges).then(|| cut(n + 1)) }),
        bytes: bytes / n_ranges,
    };
    (0..n_ranges).map(range).collect()
}

/// Returns the statement that copies a task's rows.
pub(crate) fn copy_statement(source: &Source, pages: Option<Pages>) -> String {
    let Source { qualified, columns, .. } = source;
    let list = columns.strip_prefix('(').and_then(|c| c.strip_suffix(')')).unwrap_or("*");
    match (&source.filter, pages) {
        (Some(filter), _) => format!("COPY (SELECT {list} FROM {qualified} {filter}) TO STDOUT"),
        // ONLY, because SELECT includes inheritance children and COPY of a table does not.
        (None, Some(Pages { from, to })) => {
            let end = to.map_or(String::new(), |to| format!(" AND ctid < '({to},0)'"));
            format!(
                "COPY (SELECT {list} FROM ONLY {qualified} WHERE ctid >= '({from},0)'{end}) TO STDOUT"
            )
        }
        (None, None) => format!("COPY {qualified} {columns} TO STDOUT"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn source(pages: u64, bytes: u64) -> Source {
        Source {
            dump_id: 1,
            schema: "s".to_owned(),
            name: "t".to_owned(),
            qualified: "s.t".to_owned(),
            partition_root: None,
            columns: "(a, b)".to_owned(),
            filter: None,
            pages,
            bytes,
            is_heap: true,
        }
    }

    proptest! {
        #[test]
        fn every_page_is_in_exactly_one_range(pages in 0..10_000_000u64, toast in 0..10_000_000u64, major in 13..19u32) {
            let tasks = tasks(&[source(pages, (pages + toast) * 8192)], major);
            let mut next = 0;
            for (n, task) in tasks.iter().enumerate() {
                let Some(range) = task.pages else {
                    prop_assert_eq!(tasks.len(), 1);
                    return Ok(());
                };
                prop_assert_eq!(range.from, next);
                prop_assert_eq!(range.to.is_none(), n + 1 == tasks.len());
                if let Some(to) = range.to {
                    prop_assert!(to > range.from && to < pages);
                    next = to;
                }
            }
        }
    }

    #[test]
    fn only_large_plain_heaps_are_split() {
        let large = source(1_000_000, 8 << 30);
        assert_eq!(tasks(std::slice::from_ref(&large), 15).len(), 256);
        for odd in [
            Source { is_heap: false, ..large.clone() },
            Source { filter: Some("WHERE a".to_owned()), ..large.clone() },
            Source { columns: String::new(), ..large.clone() },
            source(1000, 8 << 20),
        ] {
            let bytes = odd.bytes;
            assert_eq!(tasks(&[odd], 15), [Task { table: 0, pages: None, bytes }]);
        }
        assert_eq!(tasks(&[large], 13).len(), 1);
    }

    #[test]
    fn statements_are_those_of_pg_dump() {
        let check = |source: &Source, pages, expected: &str| {
            assert_eq!(copy_statement(source, pages), expected);
        };
        let plain = source(1, 1);
        check(&plain, None, "COPY s.t (a, b) TO STDOUT");
        check(&Source { columns: String::new(), ..plain.clone() }, None, "COPY s.t  TO STDOUT");
        let filtered = Source { filter: Some("WHERE a > 0".to_owned()), ..plain.clone() };
        check(&filtered, None, "COPY (SELECT a, b FROM s.t WHERE a > 0) TO STDOUT");
        let pages = Pages { from: 5, to: Some(9) };
        check(
            &plain,
            Some(pages),
            "COPY (SELECT a, b FROM ONLY s.t WHERE ctid >= '(5,0)' AND ctid < '(9,0)') TO STDOUT",
        );
        check(
            &plain,
            Some(Pages { to: None, ..pages }),
            "COPY (SELECT a, b FROM ONLY s.t WHERE ctid >= '(5,0)') TO STDOUT",
        );
    }
}
