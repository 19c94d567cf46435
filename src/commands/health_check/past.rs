//! What is remembered of earlier runs, read by the checks that need it, in their own time.

use std::sync::{Arc, OnceLock};

use anyhow::Context as _;

use crate::clock::Moment;
use crate::commands::Context;
use crate::history::{self, Place, Run, Store};

/// So far back earlier figures are looked at.
const REMEMBERED: chrono::TimeDelta = chrono::TimeDelta::days(14);

/// The history, not opened yet. Clones share what was read.
#[derive(Clone)]
pub(super) struct Past {
    place: Option<Place>,
    since: Moment,
    health_checks: Arc<OnceLock<Result<Vec<Run>, String>>>,
}

impl Past {
    pub(super) fn new(context: &Context, now: Moment) -> Past {
        Past {
            place: context.history.place(),
            since: now - REMEMBERED,
            health_checks: Arc::default(),
        }
    }

    /// Returns the runs of some commands since a moment, oldest first.
    pub(super) fn runs(&self, since: Moment, commands: &[&str]) -> anyhow::Result<Vec<Run>> {
        self.read(|store| store.runs(since, commands))
    }

    fn read(
        &self,
        what: impl FnOnce(&mut Store) -> Result<Vec<Run>, history::Error>,
    ) -> anyhow::Result<Vec<Run>> {
        let read = || -> anyhow::Result<Vec<Run>> {
            let place = self.place.as_ref().context("nobody knows where it is")?;
            let store = Store::open_if_there(place)?;
            Ok(store.map_or(Ok(Vec::new()), |mut store| what(&mut store))?)
        };
        read().context("the history cannot be read")
    }

    /// Returns a figure of earlier runs of this command on this host, one an hour; who asks first reads them for all.
    pub(super) fn figures(&self, name: &str) -> anyhow::Result<Vec<(Moment, f64)>> {
        let read = || {
            let runs = self.read(|store| store.hourly_runs(self.since, "health-check"));
            let mut runs = runs.map_err(|error| format!("{error:#}"))?;
            let host = history::host();
            runs.retain(|run| run.host == host);
            Ok(runs)
        };
        let runs = self.health_checks.get_or_init(read).as_ref();
        let figure = |run: &Run| {
            let mut parts = run.databases.iter();
            let found = parts.find_map(|part| part.figures.get(name))?;
            Some((run.begun_at, found.as_f64()?))
        };
        let runs = runs.map_err(|error| anyhow::anyhow!("{error}"))?;
        Ok(runs.iter().filter_map(figure).collect())
    }
}
