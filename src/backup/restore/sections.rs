//! The parts of a restore that are pg_restore's: everything but rows and the content of large objects.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::backup::manifest::TOC;
use crate::child::Spec;
use crate::db::ChildEnvironment;
use crate::db::programs::RestoreProgram;
use crate::stop::Stop;

/// A section of a dump, in the order in which they are restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Section {
    /// Schemas, types, functions, tables.
    PreData,
    /// What is no row: sequences' values, large objects without their content.
    Data,
    /// Indexes, constraints, triggers, views with rows of their own.
    PostData,
}

/// pg_restore, ready to run on one database.
pub(crate) struct Sections {
    program: PathBuf,
    folder: tempfile::TempDir,
    environment: ChildEnvironment,
    /// The database's name as a connection string.
    database: String,
    options: Vec<String>,
}

impl Sections {
    /// Lays out the table of contents.
    pub(crate) fn prepare(
        program: &RestoreProgram,
        toc: &[u8],
        (environment, database): (ChildEnvironment, &str),
        options: Vec<String>,
    ) -> anyhow::Result<Sections> {
        let folder = tempfile::Builder::new().prefix("opsctl-restore-").tempdir()?;
        let mut file =
            OpenOptions::new().write(true).create_new(true).open(folder.path().join(TOC))?;
        file.write_all(toc)?;
        let quoted = database.replace('\\', "\\\\").replace('\'', "\\'");
        let database = format!("dbname='{quoted}'");
        let program = program.pg_restore().to_owned();
        Ok(Sections { program, folder, environment, database, options })
    }

    /// Restores those entries, by their numbers, that are of one section, with `jobs` sessions. The first error ends it.
    pub(crate) fn restore(
        &self,
        section: Section,
        entries: &[i32],
        jobs: usize,
        stop: &Stop,
    ) -> anyhow::Result<()> {
        let list: String = entries.iter().map(|number| format!("{number};\n")).collect();
        let mut file = tempfile::NamedTempFile::new_in(self.folder.path())?;
        file.write_all(list.as_bytes())?;
        let (name, jobs) = match section {
            Section::PreData => ("pre-data", 1),
            Section::Data => ("data", 1),
            Section::PostData => ("post-data", jobs.max(1)),
        };
        let path = |path: &Path| {
            path.to_str().map(str::to_owned).context("the temporary directory has an odd name")
        };
        let mut arguments = vec![
            "--format=directory".to_owned(),
            "--exit-on-error".to_owned(),
            "--no-password".to_owned(),
            format!("--section={name}"),
            format!("--jobs={jobs}"),
            format!("--use-list={}", path(file.path())?),
            format!("--dbname={}", self.database),
        ];
        arguments.extend(self.options.iter().cloned());
        arguments.push(path(self.folder.path())?);
        let spec =
            Spec::new(&self.program).args(arguments).envs(self.environment.variables.clone());
        spec.output(stop, 1 << 20).with_context(|| format!("failed to restore section {name}"))?;
        Ok(())
    }
}
