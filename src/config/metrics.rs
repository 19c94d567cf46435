//! `[metrics]`: where the metrics of each run go. Nothing is written here.

use std::path::PathBuf;

use super::resolve::Merge;
use super::section::{At, Document, Section, absolute};
use super::{file, value};
use crate::secret::Secret;

/// Where metrics go; to both places, if both are there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics {
    /// Where `node_exporter` looks for files.
    pub(crate) textfile_dir: Option<PathBuf>,
    /// The base URL of a Pushgateway, with user and password if it wants them.
    pub(crate) pushgateway: Option<Secret>,
}

/// What the file says.
#[derive(Clone, Debug, Default)]
pub(super) struct MetricsEntry {
    pub(super) textfile_dir: Option<At<PathBuf>>,
    pub(super) pushgateway: Option<At<Secret>>,
    pub(super) pushgateway_file: Option<At<PathBuf>>,
}

impl MetricsEntry {
    /// Reads the section, if there is one.
    pub(super) fn read(document: &Document<'_>, top: &Section<'_>) -> MetricsEntry {
        let Some(table) = top.table("metrics") else { return MetricsEntry::default() };
        let title = "metrics".to_owned();
        let section = Section::open(document, title, table.value, "metrics", file::KEYS);
        let both = (section.line_of("pushgateway"), section.line_of("pushgateway_file"));
        if let (Some(_), Some(line)) = both {
            let complaint = "`pushgateway` is there as well: keep one of them";
            section.complain("pushgateway_file", line, complaint);
        }
        MetricsEntry {
            textfile_dir: section.path("textfile_dir"),
            pushgateway: section.parsed("pushgateway", value::parse_base),
            pushgateway_file: section.path("pushgateway_file"),
        }
    }
}

impl Merge<'_> {
    /// Puts together where metrics go.
    pub(super) fn metrics(&mut self) -> Metrics {
        let entry = &self.file.metrics;
        let names = ["metrics.textfile_dir", "", "OPSCTL_TEXTFILE_DIR"];
        let working_directory = self.working_directory;
        let parse = |text: &str| absolute(text, working_directory);
        let textfile_dir = self.setting(names, None, parse, entry.textfile_dir.as_ref());
        let names = ["metrics.pushgateway", "OPSCTL_PUSHGATEWAY"];
        let (url, file) = (entry.pushgateway.as_ref(), entry.pushgateway_file.as_ref());
        let pushgateway = self.secret_url(names, url, file, value::parse_base);
        Metrics { textfile_dir, pushgateway }
    }
}
