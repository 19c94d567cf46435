//! For how long an archive must be kept, and who says so. It never shortens anything: nothing of an archive is ever removed here.
//!
//! The numbers are what the texts say or, where a text counts from something that a row does not show, enough for it. They are no
//! legal advice: whoever is responsible for compliance decides, and `retention_days` lengthens them.

use chrono::{DateTime, TimeDelta};

use crate::archive::window::Window;
use crate::clock::Moment;
use crate::config::{AuditRetention, RetentionPreset};

/// What a text demands.
struct Demand {
    /// How long the archive is to be kept, from the end of a window on.
    days: u32,
    /// How long rows are to be at hand at once; an archive that has to be thawed first is not.
    hot_days: u32,
    source: &'static str,
}

/// Returns what a preset stands for.
fn demand(preset: RetentionPreset) -> Demand {
    match preset {
        RetentionPreset::PciDss => Demand {
            days: 366,
            hot_days: 92,
            source: "PCI DSS v4.0, 10.5.1: 12 months, the last three of them available at once",
        },
        RetentionPreset::Hipaa => Demand {
            days: 2192,
            hot_days: 0,
            source: "45 CFR 164.316(b)(2)(i): 6 years, for documentation of actions; for logs it is common practice",
        },
        RetentionPreset::Sox => Demand {
            days: 2557,
            hot_days: 0,
            source: "17 CFR 210.2-06: 7 years, for records of the audit by an accountant; for logs it is common practice",
        },
        // A report is filed within 90 days after a fiscal year: at most 456 days after the row.
        RetentionPreset::Lmrda => Demand {
            days: 1827 + 456,
            hot_days: 0,
            source: "29 U.S.C. 436: 5 years after the report was filed that the records belong to",
        },
        RetentionPreset::Policy => {
            Demand { days: 0, hot_days: 0, source: "the organisation's own policy" }
        }
    }
}

/// Until when the archive of a window must be kept.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Kept {
    pub(crate) until: Moment,
    /// Until when rows must be at hand at once.
    #[serde(skip)]
    pub(crate) hot_until: Moment,
    /// Who says so.
    pub(crate) source: String,
}

/// Returns until when the archive of a window must be kept.
pub(crate) fn kept(retention: AuditRetention, window: Window) -> Kept {
    let Demand { days, hot_days, source } = demand(retention.preset);
    let after = |days: u32| {
        let moment = window.to.checked_add_signed(TimeDelta::days(days.into()));
        moment.unwrap_or(DateTime::<chrono::Utc>::MAX_UTC)
    };
    let word = retention.preset.word();
    let source = if retention.days > days && days > 0 {
        format!("{word}: {source}; lengthened to {} days", retention.days)
    } else {
        format!("{word}: {source}")
    };
    Kept { until: after(days.max(retention.days)), hot_until: after(hot_days), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_lengthen_a_preset_and_never_shorten_it() {
        let moment = |text: &str| format!("{text}T00:00:00Z").parse::<Moment>().unwrap();
        let window = Window { from: moment("2024-03-01"), to: moment("2024-04-01") };
        for preset in RetentionPreset::ALL {
            let kept = |days| kept(AuditRetention { preset, days }, window);
            assert!(kept(1).until >= kept(0).until, "{preset:?}");
            assert_eq!(kept(5000).until, window.to + TimeDelta::days(5000), "{preset:?}");
            assert!(kept(0).source.starts_with(preset.word()));
        }
        let kept = kept(AuditRetention { preset: RetentionPreset::Sox, days: 0 }, window);
        assert_eq!(kept.until, moment("2031-04-02"));
    }
}
