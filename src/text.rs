//! Figures and tables as people read them. Not for machines: those have `--json`.

/// Returns a number of bytes such as `1.4 GiB`.
pub(crate) fn bytes(n: u64) -> String {
    indicatif::BinaryBytes(n).to_string()
}

/// Returns a number with thousands separated, such as `1,234,567`.
pub(crate) fn count(n: u64) -> String {
    indicatif::HumanCount(n).to_string()
}

/// Returns a number and its noun, such as `1 table` or `2 tables`.
pub(crate) fn counted(n: u64, noun: &str) -> String {
    format!("{} {noun}{}", count(n), if n == 1 { "" } else { "s" })
}

/// Returns how long something is ago, such as `3 h 20 min`; what lies ahead is `0 s`.
pub(crate) fn duration(time: chrono::TimeDelta) -> String {
    let seconds = time.num_seconds().max(0);
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// Keeps to one line, and to the order in which it is written, whatever a name holds: in SQL a line feed would end the comment.
pub(crate) fn plain(text: &str) -> String {
    let visible = |c: char| match c {
        '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => ' ',
        c if c.is_control() => ' ',
        c => c,
    };
    text.chars().map(visible).collect()
}

/// Columns that line up.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Begins a table with its head.
    pub(crate) fn new(head: &[&str]) -> Table {
        Table { rows: vec![head.iter().map(|cell| (*cell).to_owned()).collect()] }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |n: usize| {
            self.rows.iter().filter_map(|r| r.get(n)).map(|c| c.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in &self.rows {
            let cells = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}"));
            writeln!(f, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_readable_and_columns_line_up() {
        assert_eq!(
            (bytes(1_503_238_553), counted(1, "row"), counted(1234, "row")),
            ("1.40 GiB".to_owned(), "1 row".to_owned(), "1,234 rows".to_owned())
        );
        let ago = |seconds| duration(chrono::TimeDelta::seconds(seconds));
        assert_eq!(
            [ago(-5), ago(59), ago(61), ago(7260), ago(90_000)],
            ["0 s", "59 s", "1 min 1 s", "2 h 1 min", "1 d 1 h"]
        );
        let mut table = Table::new(&["ID", "SIZE"]);
        table.row(["long id".to_owned(), "1".to_owned()]);
        assert_eq!(table.to_string(), "ID       SIZE\nlong id  1\n");
    }
}
