//! Client programs that fit the server: `pg_dump`, `pg_dumpall` and `pg_restore` of one major version.
//!
//! A `pg_dump` that is older than the server refuses to work, and one that is newer writes dumps that the
//! server's own `pg_restore` may not read; so dumping wants exactly the server's major version. Nothing
//! is guessed from a path: every candidate is asked with `--version`.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::error::{Error, one_line};
use crate::child::{self, Spec};
use crate::environment::Environment;
use crate::stop::Stop;

const DEBIAN: &str = "/usr/lib/postgresql";
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";
const NAMES: [&str; 3] = ["pg_dump", "pg_dumpall", "pg_restore"];

/// A `pg_restore` with its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RestoreProgram {
    path: PathBuf,
    version: String,
}

impl RestoreProgram {
    /// Returns the path of `pg_restore`.
    pub(crate) fn pg_restore(&self) -> &Path {
        &self.path
    }

    /// Returns its version, such as `15.18`.
    pub(crate) fn version(&self) -> String {
        self.version.clone()
    }
}

/// The three programs of one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClientPrograms {
    dump: PathBuf,
    dump_all: PathBuf,
    version: String,
}

impl ClientPrograms {
    /// Finds the programs of exactly `major`: in `bin_dir` and nowhere else if it is given, else where
    /// the packages of the usual systems put them, then along `PATH`.
    pub(crate) fn find(
        major: u32,
        bin_dir: Option<&Path>,
        environment: &Environment,
        stop: &Stop,
    ) -> Result<ClientPrograms, Error> {
        let mut seen = Vec::new();
        for directory in directories(major, bin_dir, environment, stop)? {
            match all_of(&directory, stop)? {
                Found::Nothing => {}
                Found::Problem(problem) => {
                    seen.push(format!("in `{}` {problem}", directory.display()));
                }
                Found::Version(version) if major_of(&version) == Some(major) => {
                    let [dump, dump_all, _] = NAMES.map(|name| directory.join(name));
                    return Ok(ClientPrograms { dump, dump_all, version });
                }
                Found::Version(version) => {
                    seen.push(format!("`{}` has version {version}", directory.display()));
                }
            }
        }
        let wanted = format!("pg_dump, pg_dumpall and pg_restore of version {major}");
        Err(missing(&wanted, major, bin_dir, &seen))
    }

    /// Finds a `pg_restore` that reads the dumps of `at_least` and all versions before, in the same
    /// places. The oldest one that will do is taken, for it has changed the least.
    pub(crate) fn find_restore(
        at_least: u32,
        bin_dir: Option<&Path>,
        environment: &Environment,
        stop: &Stop,
    ) -> Result<RestoreProgram, Error> {
        let (mut seen, mut best) = (Vec::new(), None::<(u32, RestoreProgram)>);
        for directory in directories(at_least, bin_dir, environment, stop)? {
            let path = directory.join("pg_restore");
            match version_of(&path, stop)? {
                Found::Nothing => {}
                Found::Problem(problem) => {
                    seen.push(format!("in `{}` {problem}", directory.display()));
                }
                Found::Version(version) => {
                    seen.push(format!("`{}` has version {version}", directory.display()));
                    let major = major_of(&version).unwrap_or_default();
                    let is_better = best.as_ref().is_none_or(|(other, _)| major < *other);
                    if major >= at_least && is_better {
                        best = Some((major, RestoreProgram { path, version }));
                    }
                }
            }
        }
        let wanted = format!("pg_restore of version {at_least} or later");
        best.map(|(_, program)| program).ok_or_else(|| missing(&wanted, at_least, bin_dir, &seen))
    }

    /// Returns the path of `pg_dump`.
    pub(crate) fn pg_dump(&self) -> &Path {
        &self.dump
    }

    /// Returns the path of `pg_dumpall`.
    pub(crate) fn pg_dumpall(&self) -> &Path {
        &self.dump_all
    }

    /// Returns the path of `pg_amcheck`, which is not always installed.
    pub(crate) fn pg_amcheck(&self) -> PathBuf {
        self.dump.with_file_name("pg_amcheck")
    }

    /// Returns the version of all three, such as `15.18`.
    pub(crate) fn version(&self) -> String {
        self.version.clone()
    }
}

/// Finds the directory with the server programs of exactly `major`, in the same places as [`ClientPrograms::find`].
pub(crate) fn find_server(
    major: u32,
    bin_dir: Option<&Path>,
    environment: &Environment,
    stop: &Stop,
) -> Result<PathBuf, Error> {
    for directory in directories(major, bin_dir, environment, stop)? {
        if is_program(&directory.join("initdb"))
            && let Found::Version(version) = version_of(&directory.join("postgres"), stop)?
            && major_of(&version) == Some(major)
        {
            return Ok(directory);
        }
    }
    let place = bin_dir.map(|dir| format!(" in `{}`", dir.display())).unwrap_or_default();
    Err(Error::Programs(format!(
        "found no PostgreSQL server of version {major}{place}; install it (`apt-get install postgresql-{major}`, \
         `dnf install postgresql{major}-server`) or say where it is (`bin_dir`)"
    )))
}

/// What a directory has to offer.
enum Found {
    Nothing,
    Problem(String),
    Version(String),
}

fn missing(wanted: &str, major: u32, bin_dir: Option<&Path>, seen: &[String]) -> Error {
    let place = bin_dir.map(|dir| format!(" in `{}`", dir.display())).unwrap_or_default();
    let seen = if seen.is_empty() { "there are none at all".to_owned() } else { seen.join(", ") };
    Error::Programs(format!(
        "found no {wanted}{place}: {seen}; install them (`apt-get install postgresql-client-{major}`, \
         `dnf install postgresql{major}`) or say where they are (`bin_dir`)"
    ))
}

/// Lists where to look, best first.
fn directories(
    major: u32,
    bin_dir: Option<&Path>,
    environment: &Environment,
    stop: &Stop,
) -> Result<Vec<PathBuf>, Error> {
    if let Some(directory) = bin_dir {
        return Ok(vec![directory.to_owned()]);
    }
    let mut places = vec![
        Path::new(DEBIAN).join(major.to_string()).join("bin"),
        PathBuf::from(format!("/usr/pgsql-{major}/bin")),
        PathBuf::from("/usr/local/pgsql/bin"),
    ];
    let path = environment.get("PATH").unwrap_or(DEFAULT_PATH);
    let path = path.split(':').filter(|place| place.starts_with('/')).map(PathBuf::from);
    let path = path.collect::<Vec<_>>();
    if let Some(program) = path.iter().map(|place| place.join("pg_config")).find(|p| is_program(p))
    {
        match Spec::new(program).args(["--bindir"]).output(stop, 4096) {
            Ok(output) => places.extend(String::from_utf8(output).map(|dir| dir.trim().into())),
            Err(child::Error::Stopped(_)) => return Err(Error::Stopped),
            Err(e) => tracing::debug!("pg_config is of no use: {}", one_line(&e)),
        }
    }
    places.extend(path);
    // Last: their names say that they are of other versions, which is for the error message.
    let others = std::fs::read_dir(DEBIAN).into_iter().flatten().flatten();
    places.extend(others.map(|entry| entry.path().join("bin")).collect::<BTreeSet<_>>());
    let mut seen = BTreeSet::new();
    places.retain(|place| {
        // The same directory under another name, `/bin` for `/usr/bin`, is not asked twice.
        let real = std::fs::canonicalize(place);
        real.is_ok_and(|real| seen.insert(real))
    });
    Ok(places)
}

/// Asks the three programs of a directory, which must agree.
fn all_of(directory: &Path, stop: &Stop) -> Result<Found, Error> {
    let mut versions = Vec::new();
    let found = std::thread::scope(|scope| {
        let ask = |name| scope.spawn(move || version_of(&directory.join(name), stop));
        NAMES.map(ask).map(|thread| thread.join().unwrap_or(Err(Error::Stopped)))
    });
    for (name, found) in NAMES.iter().zip(found) {
        match found? {
            Found::Version(version) => versions.push(version),
            Found::Nothing if versions.is_empty() => return Ok(Found::Nothing),
            Found::Nothing => return Ok(Found::Problem(format!("{name} is missing"))),
            problem @ Found::Problem(_) => return Ok(problem),
        }
    }
    versions.dedup();
    match versions.as_slice() {
        [one] => Ok(Found::Version(one.clone())),
        several => Ok(Found::Problem(format!("the versions differ ({})", several.join(", ")))),
    }
}

fn version_of(program: &Path, stop: &Stop) -> Result<Found, Error> {
    if !is_program(program) {
        return Ok(Found::Nothing);
    }
    let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    match Spec::new(program).args(["--version"]).output(stop, 4096) {
        Err(child::Error::Stopped(_)) => Err(Error::Stopped),
        Err(e) => Ok(Found::Problem(format!("{name} does not work: {}", one_line(&e)))),
        Ok(output) => Ok(match parse_version(&String::from_utf8_lossy(&output)) {
            Some(version) => Found::Version(version),
            None => Found::Problem(format!("{name} does not say its version")),
        }),
    }
}

/// Is it there, executable, and itself?
///
/// Debian's wrapper in `/usr/bin` takes a version that depends on local clusters and on the
/// environment: what it says now need not be what it runs later.
fn is_program(path: &Path) -> bool {
    let Ok(real) = std::fs::canonicalize(path) else { return false };
    let executable = std::fs::metadata(&real)
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0);
    executable && real.file_name().is_none_or(|name| name != "pg_wrapper")
}

/// Reads `pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`.
fn parse_version(output: &str) -> Option<String> {
    let (_, rest) = output.split_once("(PostgreSQL) ")?;
    rest.split_whitespace().next().filter(|version| major_of(version).is_some()).map(str::to_owned)
}

fn major_of(version: &str) -> Option<u32> {
    let digits = version.find(|c: char| !c.is_ascii_digit()).unwrap_or(version.len());
    version[..digits].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::testing;

    #[test]
    fn reads_versions() {
        let cases = [
            ("pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n", Some(("15.18", 15))),
            ("pg_restore (PostgreSQL) 19devel\n", Some(("19devel", 19))),
            ("pg_dump (PostgreSQL) 18beta1", Some(("18beta1", 18))),
            ("pg_dump (EnterpriseDB) 15", None),
            ("", None),
        ];
        for (output, expected) in cases {
            let version = parse_version(output);
            let found = version.as_deref().map(|v| (v, major_of(v).unwrap()));
            assert_eq!(found, expected, "{output}");
        }
    }

    #[test]
    fn finds_the_programs_of_the_server() {
        let (major, environment, stop) = (testing::major(), Environment::default(), Stop::new());
        let programs = ClientPrograms::find(major, None, &environment, &stop).unwrap();
        assert_eq!(major_of(&programs.version()), Some(major));
        for path in [programs.pg_dump(), programs.pg_dumpall()] {
            assert!(path.is_file(), "{}", path.display());
        }
        let there = programs.pg_dump().parent();
        assert_eq!(ClientPrograms::find(major, there, &environment, &stop).unwrap(), programs);
        let older = ClientPrograms::find_restore(9, there, &environment, &stop).unwrap();
        assert_eq!(older, RestoreProgram { path: older.path.clone(), version: programs.version });
    }

    #[test]
    fn says_what_was_found_and_what_to_install() {
        let (environment, stop) = (Environment::default(), Stop::new());
        let there = testing::bin_dir();
        let found = ClientPrograms::find(99, Some(&there), &environment, &stop);
        let error = found.unwrap_err().to_string();
        assert!(
            error.starts_with("found no pg_dump, pg_dumpall and pg_restore of version 99 in `/")
        );
        assert!(error.contains(&format!("has version {}", testing::major())), "{error}");
        assert!(error.contains("apt-get install postgresql-client-99"), "{error}");
        let restore = ClientPrograms::find_restore(99, None, &environment, &stop).unwrap_err();
        assert!(restore.to_string().starts_with("found no pg_restore of version 99 or later: "));

        let empty = tempfile::tempdir().unwrap();
        let found = ClientPrograms::find(15, Some(empty.path()), &environment, &stop);
        assert!(found.unwrap_err().to_string().contains("there are none at all"));
        std::os::unix::fs::symlink(there.join("pg_dump"), empty.path().join("pg_dump")).unwrap();
        let found = ClientPrograms::find(15, Some(empty.path()), &environment, &stop);
        assert!(found.unwrap_err().to_string().contains("pg_dumpall is missing"));
    }

    #[test]
    fn a_broken_program_is_named() {
        let directory = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/bin/false", directory.path().join("pg_dump")).unwrap();
        let found =
            ClientPrograms::find(15, Some(directory.path()), &Environment::default(), &Stop::new());
        let error = found.unwrap_err().to_string();
        assert!(error.contains("pg_dump does not work: `pg_dump` ended with status 1"), "{error}");
    }
}
