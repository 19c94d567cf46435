//! A directory as a storage: one file for each object, written beside its place and renamed into it.
//!
//! A reader sees a whole file or none, and after a power cut too: file and directories are synced.
//! Nothing is overwritten, two writers of one key included. Files are for their owner only. Symbolic
//! links below the root are refused: what a listing cannot see must not be written either. It does
//! not look after other users of the directory, and not after the age of its leftovers.

use std::fs::{DirBuilder, DirEntry, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rustix::fs::{CWD, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::clock::Moment;
use crate::storage::{Error, Key, Object, Overwrite, Result, Storage, Writer};

/// How often a folder is made anew when another process removes it, empty, before a file is in it.
const FOLDER_ATTEMPTS: u32 = 20;

/// How much of an object's name its temporary name keeps, so that it fits the usual limit of 255.
const TEMPORARY_STEM: usize = 200;

/// A directory.
#[derive(Clone, Debug)]
pub(crate) struct Local {
    root: PathBuf,
}

impl Local {
    /// Takes a directory as a storage. It is created by the first write, not here.
    pub(crate) fn open(root: PathBuf) -> Local {
        Local { root }
    }

    /// Returns whether a key is the name of an object in the making, or what a killed run left of one.
    pub(crate) fn is_temporary(key: &Key) -> bool {
        let name = key.as_str().rsplit('/').next().unwrap_or_default();
        name.starts_with('.') && Path::new(name).extension().is_some_and(|e| e == "tmp")
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.root.join(key.as_str())
    }

    fn error(&self, action: String, error: io::Error) -> Error {
        let (place, raw) = (self.place(), Errno::from_io_error(&error));
        match raw {
            Some(Errno::NOSPC | Errno::DQUOT) => {
                Error::Full { action, place, source: Some(error.into()) }
            }
            Some(Errno::ACCESS | Errno::PERM | Errno::ROFS) => {
                Error::Denied { action, place, source: Some(error.into()) }
            }
            _ => Error::Failed { action, place, source: error.into() },
        }
    }

    fn not_found(&self, key: &Key) -> Error {
        Error::NotFound { key: key.to_string(), place: self.place() }
    }

    fn exists(&self, key: &Key) -> Error {
        Error::Exists { key: key.to_string(), place: self.place() }
    }

    /// Refuses a root that can never be: a file, or something below a file. Listing it as empty would hide a typing
    /// error behind "no backups".
    fn check_root(&self) -> io::Result<()> {
        match self.root.metadata() {
            Ok(metadata) if !metadata.is_dir() => Err(ErrorKind::NotADirectory.into()),
            Err(error) if error.kind() == ErrorKind::NotADirectory => Err(error),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Refuses a path that leads through a symbolic link.
    fn check_folders(&self, path: &str) -> io::Result<()> {
        for (at, _) in path.match_indices('/') {
            let folder = self.root.join(&path[..at]);
            match folder.symlink_metadata() {
                Ok(metadata) if metadata.is_symlink() => {
                    let text = format!("`{}` is a symbolic link", folder.display());
                    return Err(io::Error::other(text));
                }
                Ok(_) => {}
                Err(error) if is_absent(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Returns what the file of a key is; a folder is no object.
    fn metadata(&self, key: &Key, action: &str) -> Result<Metadata> {
        let found =
            self.check_folders(key.as_str()).and_then(|()| self.path(key).symlink_metadata());
        match found {
            Ok(metadata) if metadata.is_file() => Ok(metadata),
            Ok(metadata) if metadata.is_dir() => Err(self.not_found(key)),
            Ok(_) => {
                let error =
                    io::Error::other(format!("`{}` is not a file", self.path(key).display()));
                Err(self.error(format!("{action} `{key}`"), error))
            }
            Err(error) if is_absent(&error) => Err(self.not_found(key)),
            Err(error) => Err(self.error(format!("{action} `{key}`"), error)),
        }
    }

    /// Begins a file beside the place of `key`.
    fn begin(&self, key: &Key, overwrite: Overwrite) -> Result<Temporary> {
        if overwrite == Overwrite::Refuse && self.path(key).symlink_metadata().is_ok() {
            return Err(self.exists(key));
        }
        let begun =
            self.check_folders(key.as_str()).and_then(|()| Temporary::open(&self.path(key)));
        begun.map_err(|error| self.error(format!("create `{key}`"), error))
    }

    /// Makes a finished file durable and visible.
    fn publish(
        &self,
        key: &Key,
        temporary: Temporary,
        size: u64,
        overwrite: Overwrite,
    ) -> Result<()> {
        let action = || format!("write `{key}`");
        let written = temporary.file.metadata().map_err(|e| self.error(action(), e))?.len();
        if written != size {
            let what = format!("{written} bytes are there of {size} written");
            return Err(Error::Corrupt { action: action(), place: self.place(), what });
        }
        temporary.file.sync_all().map_err(|e| self.error(action(), e))?;
        match temporary.publish(&self.path(key), overwrite) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(self.exists(key)),
            Err(error) => Err(self.error(action(), error)),
        }
    }

    /// Calls `visit` for every file below `folder`, which is relative to the root.
    fn walk(&self, folder: &str, visit: &mut dyn FnMut(Key, &Metadata)) -> io::Result<()> {
        for entry in entries(&self.root.join(folder))? {
            let Some((name, metadata)) = self.look(folder, &entry)? else { continue };
            if metadata.is_dir() {
                self.walk(&format!("{name}/"), visit)?;
            } else if let Some(key) = Key::new(name) {
                visit(key, &metadata);
            }
        }
        Ok(())
    }

    /// Returns whether there is a file somewhere below `folder`.
    fn has_files(&self, folder: &str) -> io::Result<bool> {
        for entry in entries(&self.root.join(folder))? {
            let Some((name, metadata)) = self.look(folder, &entry)? else { continue };
            if metadata.is_file() || self.has_files(&format!("{name}/"))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns the path of an entry relative to the root, if it is a file or folder that can be ours.
    fn look(&self, folder: &str, entry: &DirEntry) -> io::Result<Option<(String, Metadata)>> {
        let name = entry.file_name();
        // A file system's own folder, which only root may read.
        if folder.is_empty() && name == "lost+found" {
            return Ok(None);
        }
        let metadata = match entry.metadata() {
            Err(error) if is_absent(&error) => return Ok(None),
            other => other?,
        };
        let path = format!("{folder}{}", name.to_string_lossy());
        if Key::new(path.as_str()).is_none() || !(metadata.is_file() || metadata.is_dir()) {
            tracing::warn!(path = %self.root.join(path).display(), "not ours, ignored");
            return Ok(None);
        }
        Ok(Some((path, metadata)))
    }
}

impl Storage for Local {
    fn place(&self) -> String {
        format!("directory `{}`", self.root.display())
    }

    fn put(&self, key: &Key, content: Bytes, overwrite: Overwrite) -> Result<()> {
        let mut temporary = self.begin(key, overwrite)?;
        let written = temporary.file.write_all(&content);
        written.map_err(|error| self.error(format!("write `{key}`"), error))?;
        self.publish(key, temporary, content.len() as u64, overwrite)
    }

    fn create(&self, key: &Key) -> Result<Option<Box<dyn Writer>>> {
        let temporary = self.begin(key, Overwrite::Refuse)?;
        Ok(Some(Box::new(LocalWriter {
            local: self.clone(),
            key: key.clone(),
            temporary,
            size: 0,
        })))
    }

    fn head(&self, key: &Key) -> Result<Object> {
        Ok(object(key.clone(), &self.metadata(key, "look at")?))
    }

    fn get_range(&self, key: &Key, offset: u64, length: u64) -> Result<Bytes> {
        if length == 0 {
            return Ok(Bytes::new());
        }
        let size = self.metadata(key, "read")?.len();
        let short =
            |what| Error::Corrupt { action: format!("read `{key}`"), place: self.place(), what };
        let end = offset.checked_add(length).filter(|end| *end <= size);
        let (Some(_), Ok(capacity)) = (end, usize::try_from(length)) else {
            return Err(short(format!("{length} bytes from {offset} asked of {size}")));
        };
        let read = || {
            let mut options = OpenOptions::new();
            let flags = OFlags::NOFOLLOW.bits().cast_signed();
            let file = options.read(true).custom_flags(flags).open(self.path(key))?;
            let mut content = vec![0; capacity];
            file.read_exact_at(&mut content, offset)?;
            Ok(Bytes::from(content))
        };
        read().map_err(|error: io::Error| match error.kind() {
            ErrorKind::UnexpectedEof => {
                short(format!("it ends before {length} bytes from {offset}"))
            }
            ErrorKind::NotFound => self.not_found(key),
            _ => self.error(format!("read `{key}`"), error),
        })
    }

    fn list(&self, prefix: &str) -> Result<Vec<Object>> {
        let mut objects = Vec::new();
        let folder = prefix.rfind('/').map_or("", |at| &prefix[..=at]);
        if folder.is_empty() || Key::new(folder.trim_end_matches('/')).is_some() {
            let mut visit = |key: Key, metadata: &Metadata| {
                if key.as_str().starts_with(prefix) {
                    objects.push(object(key, metadata));
                }
            };
            let walked = self
                .check_root()
                .and_then(|()| self.check_folders(folder))
                .and_then(|()| self.walk(folder, &mut visit));
            walked.map_err(|error| self.error(format!("list `{prefix}`"), error))?;
        }
        objects.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(objects)
    }

    fn list_folders(&self, prefix: &str) -> Result<Vec<String>> {
        let list = || {
            let mut folders = Vec::new();
            self.check_root()?;
            self.check_folders(prefix)?;
            for entry in entries(&self.root.join(prefix))? {
                let Some((path, metadata)) = self.look(prefix, &entry)? else { continue };
                if metadata.is_dir() && self.has_files(&format!("{path}/"))? {
                    folders.push(path[prefix.len()..].to_owned());
                }
            }
            folders.sort();
            Ok(folders)
        };
        list().map_err(|error| self.error(format!("list `{prefix}`"), error))
    }

    fn remove(&self, key: &Key) -> Result<()> {
        let path = self.path(key);
        let remove = || {
            self.check_folders(key.as_str())?;
            match std::fs::remove_file(&path) {
                Ok(()) => {}
                Err(error) if is_absent(&error) => return Ok(()),
                // A folder is no object.
                Err(_) if path.symlink_metadata().is_ok_and(|m| m.is_dir()) => return Ok(()),
                Err(error) => return Err(error),
            }
            // Durable before the next removal, because the order of removals means something.
            let mut left = path.parent();
            while let Some(folder) = left.filter(|folder| *folder != self.root) {
                match std::fs::remove_dir(folder) {
                    Ok(()) => left = folder.parent(),
                    Err(error) if is_absent(&error) => left = folder.parent(),
                    Err(_) => break,
                }
            }
            left.map_or(Ok(()), sync_folder)
        };
        remove().map_err(|error| self.error(format!("remove `{key}`"), error))
    }

    fn free_bytes(&self) -> Result<Option<u64>> {
        let there = self.root.ancestors().find(|path| path.exists()).unwrap_or(&self.root);
        let figures = rustix::fs::statvfs(there);
        let figures = figures.map_err(|e| self.error("ask for free space".to_owned(), e.into()))?;
        Ok(Some(figures.f_bavail.saturating_mul(figures.f_frsize)))
    }
}

/// A file in the making as an object whose size is not known yet.
struct LocalWriter {
    local: Local,
    key: Key,
    temporary: Temporary,
    size: u64,
}

impl Writer for LocalWriter {
    fn append(&mut self, content: &[u8]) -> Result<()> {
        let written = self.temporary.file.write_all(content);
        written.map_err(|error| self.local.error(format!("write `{}`", self.key), error))?;
        self.size += content.len() as u64;
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<()> {
        let LocalWriter { local, key, temporary, size } = *self;
        local.publish(&key, temporary, size, Overwrite::Refuse)
    }
}

/// A file with a temporary name, removed when it is dropped.
struct Temporary {
    path: PathBuf,
    file: File,
    is_published: bool,
}

impl Temporary {
    /// Creates a file beside `path`, and the folders above it as far as they are missing.
    fn open(path: &Path) -> io::Result<Temporary> {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(ErrorKind::InvalidInput.into());
        };
        let name = name.to_string_lossy();
        let stem = &name[..name.len().min(TEMPORARY_STEM)];
        let mut attempt = 0;
        loop {
            attempt += 1;
            let path = folder.join(format!(".{stem}.{:08x}.tmp", fastrand::u32(..)));
            let made = create_folders(folder).and_then(|()| {
                OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)
            });
            match made {
                Ok(file) => return Ok(Temporary { path, file, is_published: false }),
                Err(error)
                    if attempt < FOLDER_ATTEMPTS
                        && matches!(
                            error.kind(),
                            ErrorKind::NotFound | ErrorKind::AlreadyExists
                        ) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Gives the file its name for good, and makes that durable.
    fn publish(mut self, path: &Path, overwrite: Overwrite) -> io::Result<()> {
        match overwrite {
            Overwrite::Allow => std::fs::rename(&self.path, path)?,
            Overwrite::Refuse => rename_to_new(&self.path, path)?,
        }
        self.is_published = true;
        let synced = path.parent().map_or(Ok(()), sync_folder);
        if synced.is_err() && overwrite == Overwrite::Refuse {
            drop(std::fs::remove_file(path));
        }
        synced
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.is_published {
            drop(std::fs::remove_file(&self.path));
        }
    }
}

/// Renames a file to a name that must not exist.
fn rename_to_new(from: &Path, to: &Path) -> io::Result<()> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // What file systems answer that do not know the flag, NFS for one.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => link_to_new(from, to),
        other => other.map_err(Into::into),
    }
}

/// Renames by a second name, which is never put over an existing one, and the removal of the first.
fn link_to_new(from: &Path, to: &Path) -> io::Result<()> {
    match std::fs::hard_link(from, to) {
        Ok(()) => {}
        // NFS may send a request twice, and then refuse what it has just done.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            if from.metadata()?.nlink() != 2 {
                return Err(error);
            }
        }
        // Neither way is there (FAT, some network file systems): two writers at the same moment are
        // not kept apart then, but what has been there before is still not overwritten.
        Err(error)
            if matches!(
                Errno::from_io_error(&error),
                Some(Errno::PERM | Errno::NOTSUP | Errno::NOSYS)
            ) =>
        {
            if to.symlink_metadata().is_ok() {
                return Err(ErrorKind::AlreadyExists.into());
            }
            return std::fs::rename(from, to);
        }
        Err(error) => return Err(error),
    }
    std::fs::remove_file(from)
}

/// Creates `folder` and what is missing above it, each made durable in its parent.
fn create_folders(folder: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) => folder.parent().map_or(Ok(()), sync_folder),
        Err(error) if error.kind() == ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let Some(parent) = folder.parent() else { return Err(error) };
            create_folders(parent)?;
            match DirBuilder::new().mode(0o700).create(folder) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
                Err(error) => Err(error),
                Ok(()) => sync_folder(parent),
            }
        }
        Err(error) => Err(error),
    }
}

/// Makes the names in a folder durable.
fn sync_folder(folder: &Path) -> io::Result<()> {
    match File::open(folder).and_then(|file| file.sync_all()) {
        // Removed meanwhile by another process, with nothing in it; or a file system without the operation.
        Err(error) if is_absent(&error) || error.kind() == ErrorKind::InvalidInput => Ok(()),
        other => other,
    }
}

/// Reads a folder; one that is not there has nothing in it.
fn entries(folder: &Path) -> io::Result<Vec<DirEntry>> {
    match std::fs::read_dir(folder) {
        Ok(entries) => entries.collect(),
        Err(error) if is_absent(&error) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Is this the error of a path that leads nowhere?
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

fn object(key: Key, metadata: &Metadata) -> Object {
    let modified_at =
        Moment::from_timestamp(metadata.mtime(), metadata.mtime_nsec().try_into().unwrap_or(0));
    Object {
        key,
        size: metadata.len(),
        modified_at: modified_at.unwrap_or_default(),
        md5: None,
        locked_until: None,
        version: None,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::storage::suite;

    fn key(path: &str) -> Key {
        Key::new(path).unwrap()
    }

    fn storage() -> suite::Guarded<Local> {
        let folder = tempfile::tempdir().unwrap();
        let local = Local::open(folder.path().join("not/yet"));
        suite::Guarded::new(local, folder)
    }

    suite::conformance!(super::storage());

    #[test]
    fn a_root_that_is_a_file_or_below_one_is_not_empty_but_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::OpenOptions::new().write(true).create_new(true).open(&file).unwrap();
        for root in [file.clone(), file.join("below")] {
            let storage = Local::open(root);
            assert!(storage.list("").is_err());
            assert!(storage.list_folders("").is_err());
        }
    }

    #[test]
    fn opening_creates_nothing() {
        let storage = storage();
        assert!(!storage.root.exists());
        assert!(storage.free_bytes().unwrap().unwrap() > 0);
        assert!(!storage.root.exists());
    }

    #[test]
    fn files_and_folders_are_for_the_owner_only() {
        let storage = storage();
        storage.put(&key("a/b/c"), Bytes::from_static(b"x"), Overwrite::Refuse).unwrap();
        let mode =
            |path: &str| storage.root.join(path).metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(""), mode("a"), mode("a/b"), mode("a/b/c")), (0o700, 0o700, 0o700, 0o600));
    }

    #[test]
    fn removing_the_last_object_removes_its_folders_but_not_the_root() {
        let storage = storage();
        storage.put(&key("a/b/c"), Bytes::new(), Overwrite::Refuse).unwrap();
        storage.put(&key("a/d"), Bytes::new(), Overwrite::Refuse).unwrap();
        storage.remove(&key("a/b/c")).unwrap();
        assert!(!storage.root.join("a/b").exists() && storage.root.join("a").exists());
        storage.remove(&key("a/d")).unwrap();
        assert!(!storage.root.join("a").exists() && storage.root.exists());
    }

    #[test]
    fn leftovers_are_listed_and_recognised() {
        let storage = storage();
        let mut writer = storage.create(&key("a/b")).unwrap().unwrap();
        writer.append(b"half").unwrap();
        let listed = storage.list("a/").unwrap();
        assert_eq!(listed.len(), 1);
        assert!(Local::is_temporary(&listed[0].key), "{}", listed[0].key);
        assert!(!Local::is_temporary(&key("a/b")));
        assert!(!Local::is_temporary(&key("a/b.tmp")));
        storage.remove(&listed[0].key).unwrap();
        assert_eq!(storage.list("").unwrap(), []);
        drop(writer);
    }

    #[test]
    fn a_temporary_name_fits_whatever_the_name() {
        let storage = storage();
        let key = key(&"n".repeat(255));
        storage.put(&key, Bytes::from_static(b"x"), Overwrite::Refuse).unwrap();
        assert_eq!(storage.list("").unwrap()[0].key, key);
    }

    #[test]
    fn an_error_leaves_no_temporary_file() {
        let storage = storage();
        storage.put(&key("a/b"), Bytes::from_static(b"x"), Overwrite::Refuse).unwrap();
        let mut writer = storage.create(&key("a/c")).unwrap().unwrap();
        writer.append(b"late").unwrap();
        storage.put(&key("a/c"), Bytes::from_static(b"first"), Overwrite::Refuse).unwrap();
        assert!(matches!(writer.finish(), Err(Error::Exists { .. })));
        let names: Vec<_> =
            storage.list("").unwrap().into_iter().map(|o| o.key.to_string()).collect();
        assert_eq!(names, ["a/b", "a/c"]);
        assert_eq!(storage.get(&key("a/c"), 100).unwrap(), "first");
    }

    #[test]
    fn a_second_name_serves_where_rename_cannot_refuse() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let make = |name: &str| {
            drop(OpenOptions::new().write(true).create_new(true).open(path(name)).unwrap());
        };
        make("old");
        make("temporary");
        let error = link_to_new(&path("temporary"), &path("old")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        link_to_new(&path("temporary"), &path("new")).unwrap();
        assert!(path("new").exists() && !path("temporary").exists());
    }

    #[test]
    fn links_are_neither_listed_nor_followed() {
        let storage = storage();
        let elsewhere = tempfile::tempdir().unwrap();
        storage.put(&key("a/b"), Bytes::new(), Overwrite::Refuse).unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), storage.root.join("link")).unwrap();
        std::os::unix::fs::symlink(storage.root.join("a/b"), storage.root.join("a/c")).unwrap();
        assert_eq!(storage.list("").unwrap().len(), 1);
        assert_eq!(storage.list_folders("").unwrap(), ["a"]);
        assert!(matches!(storage.head(&key("a/c")), Err(Error::Failed { .. })));
        assert!(matches!(storage.get_range(&key("a/c"), 0, 1), Err(Error::Failed { .. })));
        let put = storage.put(&key("link/x"), Bytes::new(), Overwrite::Refuse);
        assert!(matches!(put, Err(Error::Failed { .. })));
        assert_eq!(elsewhere.path().read_dir().unwrap().count(), 0);
        assert!(storage.list("link/").is_err() && storage.list_folders("link/").is_err());
    }

    #[test]
    fn foreign_names_are_ignored() {
        let storage = storage();
        storage.put(&key("a"), Bytes::new(), Overwrite::Refuse).unwrap();
        drop(
            OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(storage.root.join("o d d"))
                .unwrap(),
        );
        assert_eq!(storage.list("").unwrap().len(), 1);
    }

    #[test]
    fn a_folder_removed_under_the_hands_is_made_again() {
        let storage = storage();
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let storage = &storage;
                scope.spawn(move || {
                    for n in 0..50 {
                        let key = key(&format!("folder/{writer}-{n}"));
                        storage.put(&key, Bytes::from_static(b"x"), Overwrite::Refuse).unwrap();
                        storage.remove(&key).unwrap();
                    }
                });
            }
        });
        assert_eq!(storage.list("").unwrap(), []);
    }

    #[test]
    fn a_full_disk_is_told_from_other_failures() {
        // A disk that is full at once; the file is opened as a writer's would be.
        let local = Local::open(PathBuf::from("/dev"));
        let mut file = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let error = file.write_all(b"x").unwrap_err();
        assert!(matches!(local.error("write".to_owned(), error), Error::Full { .. }));
        let error = io::Error::from_raw_os_error(Errno::ROFS.raw_os_error());
        assert!(matches!(local.error("write".to_owned(), error), Error::Denied { .. }));
    }
}
