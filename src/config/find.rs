//! Which configuration file applies, and its text. Only a file that nobody named may be absent.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{Overrides, Problem, Source};
use crate::environment::Environment;

/// More than this is not a configuration file.
const MOST: u64 = 1024 * 1024;

/// What of this machine the configuration depends on, beside the environment.
#[derive(Clone, Debug)]
pub(super) struct Host {
    /// The effective user.
    pub(super) uid: u32,
    /// The configuration file that is used when there is no other.
    pub(super) system_file: PathBuf,
}

impl Host {
    /// Describes this process.
    pub(super) fn this() -> Host {
        let uid = rustix::process::geteuid().as_raw();
        Host { uid, system_file: PathBuf::from("/etc/opsctl/opsctl.toml") }
    }
}

/// A configuration file as it was found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) path: PathBuf,
    pub(super) text: String,
    /// Why it must not hold secrets, if so.
    pub(super) exposed: Option<String>,
}

/// Finds the configuration file: `--config`, `$OPSCTL_CONFIG`, `./opsctl.toml`, the system's.
pub(super) fn find(
    overrides: &Overrides,
    environment: &Environment,
    working_directory: &Path,
    host: &Host,
) -> Result<Option<Found>, Problem> {
    let named = match (&overrides.config, environment.get("OPSCTL_CONFIG")) {
        (Some(path), _) => Some((path.clone(), Source::flag("--config"))),
        (None, Some(path)) => Some((PathBuf::from(path), Source::environment("OPSCTL_CONFIG"))),
        (None, None) => None,
    };
    if let Some((path, source)) = named {
        let path = working_directory.join(path);
        return match open(&path, host) {
            Ok((found, _)) => Ok(Some(found)),
            Err(error) => Err(failed(source, &path, &error)),
        };
    }
    let here = working_directory.join("opsctl.toml");
    for path in [&here, &host.system_file] {
        match open(path, host) {
            Ok((_, Trust::Foreign(reason))) if path == &here => {
                let advice = "if it is meant, name it with `--config`";
                return Err(Problem::new(
                    whole(path),
                    format!("not used, because {reason}: {advice}"),
                ));
            }
            Ok((found, _)) => return Ok(Some(found)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // Whoever is here by `sudo -u` from a directory that is closed to them: nobody can mean what cannot be seen.
            Err(error)
                if error.kind() == io::ErrorKind::PermissionDenied
                    && path == &here
                    && here.symlink_metadata().is_err() => {}
            Err(error) => return Err(failed(Source::Default, path, &error)),
        }
    }
    Ok(None)
}

/// Reads a small text file that the configuration names.
pub(super) fn read_text(path: &Path) -> io::Result<String> {
    read(&mut File::open(path)?)
}

/// May a file that merely lies in the working directory decide which programs are run?
enum Trust {
    Ours,
    Foreign(String),
}

fn open(path: &Path, host: &Host) -> io::Result<(Found, Trust)> {
    let mut file = File::open(path)?;
    let metadata = file.metadata()?;
    let (mode, owner) = (metadata.mode() & 0o777, metadata.uid());
    let foreign = (owner != host.uid && owner != 0).then(|| format!("it belongs to user {owner}"));
    let exposed = match &foreign {
        None if mode & 0o077 != 0 => Some(format!("its mode is {mode:04o}: run `chmod 600` on it")),
        None => None,
        Some(reason) => Some(format!("{reason}: run `chown` and `chmod 600` on it")),
    };
    let writable = (mode & 0o002 != 0).then(|| "everybody may write to it".to_owned());
    let trust = foreign.or(writable).map_or(Trust::Ours, Trust::Foreign);
    let text = read(&mut file)?;
    Ok((Found { path: path.to_owned(), text, exposed }, trust))
}

fn read(file: &mut File) -> io::Result<String> {
    let mut text = String::new();
    file.take(MOST + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MOST { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(text) }
}

/// Says that a file could not be read.
pub(super) fn failed(source: Source, path: &Path, error: &io::Error) -> Problem {
    let error = match error.kind() {
        io::ErrorKind::InvalidData => "it is not UTF-8 text".to_owned(),
        _ => error.to_string(),
    };
    Problem::new(source, format!("failed to read `{}`: {error}", path.display()))
}

fn whole(path: &Path) -> Source {
    Source::File { path: path.to_owned(), line: None }
}
