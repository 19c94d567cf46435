//! The configuration file, and the files with secrets beside it: who can read and who can change them.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::{Area, Seen};

/// What a file is to opsctl.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Says which programs run, and where backups go.
    Configuration,
    /// Holds a secret.
    Secret,
    /// `.pgpass`, which is ignored unless it is for its owner alone.
    PasswordFile,
}

/// Who owns a file, and its mode.
#[derive(Clone, Copy, Debug)]
struct Owned {
    owner: u32,
    mode: u32,
}

/// Looks at a file. One that is not there is the affair of whoever names it, except that a password file need not be.
pub(crate) fn look(path: &Path, role: Role) -> Option<Seen> {
    let found = match path.metadata() {
        Ok(metadata) => Owned { owner: metadata.uid(), mode: metadata.mode() & 0o7777 },
        Err(error) if error.kind() == io::ErrorKind::NotFound && role != Role::Secret => {
            return None;
        }
        Err(error) => {
            let what = format!("`{}` cannot be read: {error}", path.display());
            let why = "What needs it fails, at night as well.";
            let advice = "Let the user who runs opsctl read it (`ls -l` on it and its folders).";
            return Some(Seen::bad(Area::Configuration, what, why, advice));
        }
    };
    Some(judge(path, role, found, rustix::process::geteuid().as_raw()))
}

fn judge(path: &Path, role: Role, found: Owned, user: u32) -> Seen {
    let Owned { owner, mode } = found;
    let shown = path.display();
    let state = format!("`{shown}` has mode {:04o}", mode & 0o777);
    let bad =
        |what: String, why: &str, advice: String| Seen::bad(Area::Configuration, what, why, advice);
    if owner != user && owner != 0 {
        let what = format!("`{shown}` belongs to user {owner}");
        let why = "Who owns it decides what opsctl does with its rights.";
        return bad(what, why, format!("chown {user} '{shown}'"));
    }
    match role {
        Role::Configuration if mode & 0o022 != 0 => {
            let why = "Whoever may write to it decides which programs opsctl runs.";
            bad(state, why, format!("chmod go-w '{shown}'"))
        }
        Role::PasswordFile if mode & 0o077 != 0 => {
            let why = "libpq and opsctl ignore a password file that others may read.";
            bad(state, why, format!("chmod 600 '{shown}'"))
        }
        Role::Secret if mode & 0o007 != 0 => {
            let why = "It holds a secret that every user of this host may read.";
            bad(state, why, format!("chmod 600 '{shown}'"))
        }
        _ => Seen::good(Area::Configuration, state),
    }
}

/// Looks at the folders that lead to a file: whoever may write to one may put another in its place.
pub(crate) fn look_above(path: &Path) -> Option<Seen> {
    let folders = path.parent()?.ancestors();
    let mut open = folders.filter_map(|folder| {
        let metadata = folder.metadata().ok()?;
        let mode = metadata.mode();
        // In a folder with the sticky bit, such as /tmp, only owners rename.
        (mode & 0o002 != 0 && mode & 0o1000 == 0).then(|| PathBuf::from(folder))
    });
    let folder = open.next()?;
    let what = format!("everybody may write to the folder `{}`", folder.display());
    let why = format!("Anybody can put another file in the place of `{}`.", path.display());
    let advice = format!("chmod o-w '{}'", folder.display());
    Some(Seen::bad(Area::Configuration, what, why, advice))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Grade;

    #[test]
    fn who_may_write_or_read_too_much_is_said() {
        let judge = |role, owner, mode| judge(Path::new("/x"), role, Owned { owner, mode }, 1000);
        for (role, owner, mode, grade) in [
            (Role::Configuration, 1000, 0o644, Grade::Good),
            (Role::Configuration, 0, 0o640, Grade::Good),
            (Role::Configuration, 1000, 0o664, Grade::Bad),
            (Role::Configuration, 1001, 0o600, Grade::Bad),
            (Role::Secret, 0, 0o640, Grade::Good),
            (Role::Secret, 1000, 0o644, Grade::Bad),
            (Role::PasswordFile, 1000, 0o600, Grade::Good),
            (Role::PasswordFile, 1000, 0o640, Grade::Bad),
        ] {
            assert_eq!(judge(role, owner, mode).grade, grade, "{role:?} {owner} {mode:o}");
        }
        assert_eq!(judge(Role::PasswordFile, 1000, 0o640).advice, "chmod 600 '/x'");
    }

    #[test]
    fn a_password_file_need_not_be_there_and_a_secret_must() {
        let path = Path::new("/no/such/file");
        assert_eq!(look(path, Role::PasswordFile), None);
        assert_eq!(look(path, Role::Secret).map(|seen| seen.grade), Some(Grade::Bad));
    }
}
