//! What is wrong with an installation, before it shows at night: what each part of it says of itself, and what to do.
//!
//! `examine.rs` asks all parts at once and waits for none too long. The other files have a part each: what is looked at, and
//! what it means. Nothing is repaired, and whatever is written to try a right is taken away again. How the system that is
//! looked after feels is not asked here: that is `health/`.

pub(crate) mod crontab;
pub(crate) mod database;
pub(crate) mod examine;
pub(crate) mod files;
pub(crate) mod host;
mod locked;
pub(crate) mod probe;
pub(crate) mod started;

/// A part of an installation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Area {
    /// The file, who may read it, and the secrets that it names.
    Configuration,
    /// Whether each database can be reached, and what its role may do; the server's clock.
    Database,
    /// The PostgreSQL programs of the server's major version.
    Programs,
    /// Whether each repository can be written, listed, read and cleaned.
    Repository,
    /// Locks and the history.
    State,
    /// Room on the file systems that are written to.
    Space,
    /// What cron, or systemd, starts, and in which environment.
    Cron,
    /// Who notices when nothing runs.
    Notices,
}

/// How good it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Grade {
    Good,
    /// It works, and something is better known.
    Note,
    Bad,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Seen {
    pub(crate) area: Area,
    /// Which database or repository; empty if there is only one of it.
    pub(crate) subject: String,
    pub(crate) grade: Grade,
    pub(crate) what: String,
    /// Why it matters; empty if it is good.
    pub(crate) why: String,
    /// What to do about it; empty if it is good.
    pub(crate) advice: String,
}

impl Seen {
    fn new(area: Area, grade: Grade, what: impl AsRef<str>) -> Seen {
        let what = crate::secret::redact(what.as_ref());
        let what = crate::text::plain(&what).trim().to_owned();
        let (subject, why, advice) = Default::default();
        Seen { area, subject, grade, what, why, advice }
    }

    /// Says what is as it should be.
    pub(crate) fn good(area: Area, what: impl AsRef<str>) -> Seen {
        Seen::new(area, Grade::Good, what)
    }

    /// Says what is not, why that matters, and what to do.
    pub(crate) fn bad(
        area: Area,
        what: impl AsRef<str>,
        why: impl Into<String>,
        advice: impl Into<String>,
    ) -> Seen {
        Seen { why: why.into(), advice: advice.into(), ..Seen::new(area, Grade::Bad, what) }
    }

    /// Says what may be meant so.
    pub(crate) fn note(
        area: Area,
        what: impl AsRef<str>,
        why: impl Into<String>,
        advice: impl Into<String>,
    ) -> Seen {
        Seen { grade: Grade::Note, ..Seen::bad(area, what, why, advice) }
    }

    /// Says of which database or repository it is.
    pub(crate) fn of(self, subject: &str) -> Seen {
        Seen { subject: subject.to_owned(), ..self }
    }
}
