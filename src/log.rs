//! The log on stderr: for a person on a terminal, a line per event elsewhere, JSON for collectors.
//!
//! Every line goes through [`redact`] as the last guard against secrets in foreign text, and leaves the
//! progress bar intact.

use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal as _};

use indicatif::ProgressBar;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;

use crate::id::RunId;
use crate::secret::redact;

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// For people: short and coloured on a terminal, with time stamp, level and run id elsewhere.
    Human,
    /// One JSON object per line.
    Json,
}

/// Starts the log of this run.
pub(crate) fn begin(format: LogFormat, level: Level, run: &RunId, bar: &ProgressBar) {
    let terminal = io::stderr().is_terminal();
    let lines = Lines { run: run.clone(), style: (format, terminal) };
    // Libraries speak only when something is wrong; their trouble reaches us as errors anyway.
    let filter = tracing_subscriber::filter::Targets::new()
        .with_target("opsctl", level)
        .with_default(if level >= Level::TRACE { Level::DEBUG } else { Level::ERROR });
    let layer =
        tracing_subscriber::fmt::layer().event_format(lines).with_writer(Stderr(bar.clone()));
    let subscriber = tracing_subscriber::registry().with(filter).with(layer);
    // A second run in one process (there is none but in tests) keeps the first one's log.
    tracing::subscriber::set_global_default(subscriber).ok();
}

struct Lines {
    run: RunId,
    style: (LogFormat, bool),
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let message = redact(&fields.text());
        let level = *event.metadata().level();
        let now = crate::clock::now();
        match self.style {
            (LogFormat::Json, _) => {
                let line = serde_json::json!({
                    "at": now, "level": level.as_str().to_lowercase(), "run": self.run.as_str(), "message": message,
                });
                writeln!(writer, "{line}")
            }
            (LogFormat::Human, true) => {
                let (colour, word) = match level {
                    Level::ERROR => ("31;1", "error: "),
                    Level::WARN => ("33", "warning: "),
                    Level::INFO => ("0", ""),
                    Level::DEBUG | Level::TRACE => ("2", ""),
                };
                writeln!(writer, "{} \x1b[{colour}m{word}{message}\x1b[0m", now.format("%H:%M:%S"))
            }
            (LogFormat::Human, false) => {
                let time = now.format("%Y-%m-%dT%H:%M:%S%.3fZ");
                writeln!(writer, "{time} {:5} {} {message}", level.as_str(), self.run)
            }
        }
    }
}

/// The message and the fields of an event.
#[derive(Default)]
struct Fields {
    message: String,
    others: String,
}

impl Fields {
    fn text(self) -> String {
        self.message + &self.others
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a String cannot fail.
        if field.name() == "message" {
            write!(self.message, "{value:?}").ok();
        } else {
            write!(self.others, " {}={value:?}", field.name()).ok();
        }
    }
}

/// Writes lines above the progress bar.
#[derive(Clone)]
struct Stderr(ProgressBar);

impl io::Write for Stderr {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.suspend(|| io::Write::write_all(&mut io::stderr(), line)).map(|()| line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::Write::flush(&mut io::stderr())
    }
}

impl MakeWriter<'_> for Stderr {
    type Writer = Stderr;

    fn make_writer(&self) -> Stderr {
        self.clone()
    }
}
