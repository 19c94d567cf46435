//! The rows of a segment in its storage: written as they come, and read back line by line.
//!
//! Where the storage can append, they are one object, `rows.ndjson.zst`. Elsewhere they are objects of a bounded size whose
//! concatenation is the same, `rows.ndjson.zst.000001` and so on; a single one has the plain name. Encrypted, each of them is an age file
//! by itself, with `.age` at its name's end.

use std::cell::RefCell;
use std::io::{self, BufRead as _, BufReader, Read};
use std::sync::mpsc::{self, SyncSender};
use std::thread::{self, JoinHandle};

use age::stream::StreamReader;
use anyhow::Context as _;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::archive::folder::Folder;
use crate::archive::manifest::{File, hex};
use crate::compression::Encoder;
use crate::encryption::{self, Stream};
use crate::stop::Stop;
use crate::storage::{Overwrite, Writer};

/// The end of an encrypted object's name.
const AGE: &str = ".age";
/// The name of the evidence.
const ROWS: &str = "rows.ndjson.zst";
/// Lines are compressed so many bytes at once, but for a single one that is larger.
const FRAME: usize = 4 << 20;
/// An object that cannot be appended to is full with so many bytes.
const OBJECT: usize = 32 << 20;
/// So much is read at once.
const PIECE: u64 = 4 << 20;

/// The rows of a segment in the making. Nothing is stored before there is a row.
///
/// They are compressed and stored by a thread of their own, while the next ones come.
pub(super) struct Lines {
    raw: Vec<u8>,
    /// Nothing, instead of lines, says that these were all.
    to: SyncSender<Option<Vec<u8>>>,
    packing: JoinHandle<anyhow::Result<Vec<File>>>,
}

impl Lines {
    pub(super) fn new(folder: &Folder, segment: &str) -> anyhow::Result<Lines> {
        let mut packer = Packer {
            folder: folder.clone(),
            segment: segment.to_owned(),
            encoder: Encoder::for_lines().context("failed to set up compression")?,
            to: None,
            stream: None,
            files: Vec::new(),
        };
        let (to, from) = mpsc::sync_channel::<Option<Vec<u8>>>(1);
        let packing = thread::spawn(move || {
            loop {
                match from.recv() {
                    Ok(Some(raw)) => packer.pack(&raw)?,
                    Ok(None) => return packer.end(),
                    // Given up: what was begun is left as it is.
                    Err(_) => return Ok(Vec::new()),
                }
            }
        });
        Ok(Lines { raw: Vec::with_capacity(FRAME), to, packing })
    }

    /// Adds a line, without its line feed. After an error, [`Lines::why`] knows the reason.
    pub(super) fn push(&mut self, line: &[u8]) -> anyhow::Result<()> {
        self.raw.extend_from_slice(line);
        self.raw.push(b'\n');
        if self.raw.len() >= FRAME {
            let full = std::mem::replace(&mut self.raw, Vec::with_capacity(FRAME));
            self.to.send(Some(full)).context("the rows cannot be stored")?;
        }
        Ok(())
    }

    /// Stores the rest, and returns what is stored.
    pub(super) fn end(self) -> anyhow::Result<Vec<File>> {
        if !self.raw.is_empty() {
            self.to.send(Some(self.raw)).ok();
        }
        self.to.send(None).ok();
        joined(self.packing)
    }

    /// Gives up, and returns why nothing more could be stored, if it could not.
    pub(super) fn why(self) -> Option<anyhow::Error> {
        drop(self.to);
        joined(self.packing).err()
    }
}

fn joined(packing: JoinHandle<anyhow::Result<Vec<File>>>) -> anyhow::Result<Vec<File>> {
    packing.join().map_err(|_| anyhow::anyhow!("the thread that stores rows panicked"))?
}

/// Compresses lines and stores them.
struct Packer {
    folder: Folder,
    segment: String,
    encoder: Encoder,
    to: Option<To>,
    /// What encrypts the object, if it is to be.
    stream: Option<Stream>,
    files: Vec<File>,
}

enum To {
    /// One object that grows.
    Joined { writer: Box<dyn Writer>, sha256: Sha256, bytes: u64 },
    /// The object that is filled.
    Objects { pending: Vec<u8> },
}

impl Packer {
    fn pack(&mut self, raw: &[u8]) -> anyhow::Result<()> {
        let frame = self.encoder.encode(raw).context("failed to compress")?;
        if self.to.is_none() {
            let key = self.folder.key(&format!("{}/{}", self.segment, self.name(None)))?;
            self.to = Some(match self.folder.storage.create(&key)? {
                Some(writer) => To::Joined { writer, sha256: Sha256::new(), bytes: 0 },
                None => To::Objects { pending: Vec::new() },
            });
        }
        if let Some(To::Objects { pending }) = &mut self.to
            && !pending.is_empty()
            && pending.len() + frame.len() > OBJECT
        {
            let full = std::mem::take(pending);
            self.store(full, false)?;
        }
        let frame = self.sealed(frame)?;
        self.append(&frame)
    }

    /// Encrypts a frame, if rows are encrypted.
    fn sealed(&mut self, frame: Vec<u8>) -> anyhow::Result<Vec<u8>> {
        let Some(recipients) = &self.folder.recipients else { return Ok(frame) };
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => self.stream.insert(recipients.stream()?),
        };
        Ok(stream.push(&frame)?)
    }

    fn append(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        match &mut self.to {
            None => {}
            Some(To::Joined { writer, sha256, bytes: length }) => {
                writer.append(bytes)?;
                sha256.update(bytes);
                *length += bytes.len() as u64;
            }
            Some(To::Objects { pending }) => pending.extend_from_slice(bytes),
        }
        Ok(())
    }

    fn name(&self, number: Option<usize>) -> String {
        let number = number.map(|number| format!(".{number:06}")).unwrap_or_default();
        let end = if self.folder.recipients.is_some() { AGE } else { "" };
        format!("{ROWS}{number}{end}")
    }

    fn store(&mut self, mut content: Vec<u8>, is_last: bool) -> anyhow::Result<()> {
        if let Some(stream) = self.stream.take() {
            content.extend(stream.end()?);
        }
        let number = self.files.len() + 1;
        let name = self.name((!is_last || number > 1).then_some(number));
        let (bytes, sha256) = (content.len() as u64, hex(&Sha256::digest(&content)));
        let key = self.folder.key(&format!("{}/{name}", self.segment))?;
        self.folder.storage.put(&key, Bytes::from(content), Overwrite::Refuse)?;
        let version = self.folder.storage.head(&key)?.version;
        self.files.push(File { name, bytes, sha256, version });
        Ok(())
    }

    fn end(mut self) -> anyhow::Result<Vec<File>> {
        if let Some(To::Joined { .. }) = self.to
            && let Some(stream) = self.stream.take()
        {
            self.append(&stream.end()?)?;
        }
        match self.to.take() {
            None => {}
            Some(To::Joined { writer, sha256, bytes }) => {
                writer.finish()?;
                let sha256 = hex(&sha256.finalize());
                self.files.push(File { name: self.name(None), bytes, sha256, version: None });
            }
            Some(To::Objects { pending }) => self.store(pending, true)?,
        }
        Ok(self.files)
    }
}

/// What reading the rows of a segment back came to.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// Names of files that are missing, or not those of the manifest.
    pub(super) wrong: Vec<String>,
    /// Were the lines not looked at, because files are missing or of another size?
    pub(super) unread: bool,
    /// Were the lines not looked at, because they are encrypted and no identity fits?
    pub(super) sealed: bool,
    /// What is wrong with the encryption, the compression, or with the end of the last line.
    pub(super) broken: Option<String>,
}

impl Reading {
    /// Fails unless all was read, and was as the manifest has it.
    pub(super) fn whole(&self, segment: &str) -> anyhow::Result<()> {
        anyhow::ensure!(
            !self.sealed,
            "segment {segment} is encrypted, and no identity fits: set `identity_file`"
        );
        let is_whole = self.wrong.is_empty() && self.broken.is_none();
        anyhow::ensure!(is_whole, "segment {segment} is damaged: `archive-audit verify` says how");
        Ok(())
    }
}

/// Reads all files, compares them with the manifest, and gives every whole line to `take`, which may end the reading.
///
/// Whatever is wrong with the content is in the answer; an error is the storage's, or that of `take`.
pub(super) fn read(
    folder: &Folder,
    segment: &str,
    files: &[File],
    stop: &Stop,
    mut take: impl FnMut(&[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<Reading> {
    let mut reading = Reading::default();
    for file in files {
        let object = folder.storage.head(&folder.key(&format!("{segment}/{}", file.name))?);
        match object {
            Ok(object) if object.size == file.bytes => {}
            Ok(_) | Err(crate::storage::Error::NotFound { .. }) => {
                reading.wrong.push(file.name.clone());
            }
            Err(error) => return Err(error.into()),
        }
    }
    reading.unread = !reading.wrong.is_empty();
    if reading.unread || files.is_empty() {
        return Ok(reading);
    }
    let stored = RefCell::new(Stored {
        folder,
        segment,
        files,
        stop,
        n: 0,
        offset: 0,
        sha256: Sha256::new(),
        wrong: Vec::new(),
        piece: Bytes::new(),
        failure: None,
    });
    let is_encrypted = files.iter().any(|file| file.name.ends_with(AGE));
    let mut plain = Plain { stored: &stored, is_encrypted, n: 0, current: None, sealed: false };
    let broken = lines(&mut plain, &mut take)?;
    (reading.sealed, reading.broken) = (plain.sealed, broken.filter(|_| !plain.sealed));
    // The rest counts for the files' hashes, wherever the compression broke.
    let mut stored = stored.into_inner();
    if stored.failure.is_none() {
        io::copy(&mut stored, &mut io::sink()).ok();
    }
    if let Some(failure) = stored.failure {
        return Err(failure);
    }
    reading.wrong = stored.wrong;
    Ok(reading)
}

/// Decompresses and splits; returns what is wrong with the content.
fn lines(
    plain: &mut Plain<'_, '_>,
    take: &mut impl FnMut(&[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<Option<String>> {
    let decoder = match zstd::stream::read::Decoder::new(plain) {
        Ok(decoder) => decoder,
        Err(error) => return Ok(Some(error.to_string())),
    };
    let mut decoder = BufReader::with_capacity(1 << 16, decoder);
    let mut line = Vec::new();
    loop {
        line.clear();
        match decoder.read_until(b'\n', &mut line) {
            Ok(0) => return Ok(None),
            Ok(_) => match line.strip_suffix(b"\n") {
                Some(line) => take(line)?,
                None => return Ok(Some("the last line has no end".to_owned())),
            },
            Err(error) => return Ok(Some(error.to_string())),
        }
    }
}

/// The files one behind the other, hashed on the way.
struct Stored<'s> {
    folder: &'s Folder,
    segment: &'s str,
    files: &'s [File],
    stop: &'s Stop,
    n: usize,
    offset: u64,
    sha256: Sha256,
    wrong: Vec<String>,
    piece: Bytes,
    /// What the storage said, which an I/O error would hide.
    failure: Option<anyhow::Error>,
}

impl Stored<'_> {
    /// Was all of a file read, or more?
    fn is_at_end_of(&self, n: usize) -> bool {
        let is_read = self.files.get(n).is_none_or(|file| self.offset == file.bytes);
        self.n > n || self.n == n && self.piece.is_empty() && is_read
    }

    /// Fetches the next piece; it is empty at the end.
    fn fetch(&mut self) -> anyhow::Result<()> {
        while let Some(file) = self.files.get(self.n) {
            self.stop.check()?;
            if self.offset < file.bytes {
                let key = self.folder.key(&format!("{}/{}", self.segment, file.name))?;
                let length = PIECE.min(file.bytes - self.offset);
                self.piece = self.folder.storage.get_range(&key, self.offset, length)?;
                self.sha256.update(&self.piece);
                self.offset += length;
                return Ok(());
            }
            let found = std::mem::take(&mut self.sha256).finalize();
            if hex(&found) != file.sha256 {
                self.wrong.push(file.name.clone());
            }
            (self.n, self.offset) = (self.n + 1, 0);
        }
        Ok(())
    }
}

impl Read for Stored<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if self.piece.is_empty()
            && let Err(error) = self.fetch()
        {
            self.failure = Some(error);
            return Err(io::Error::other("the storage failed"));
        }
        let length = to.len().min(self.piece.len());
        to[..length].copy_from_slice(&self.piece.split_to(length));
        Ok(length)
    }
}

/// What is in the files, decrypted if they are encrypted.
struct Plain<'r, 's> {
    stored: &'r RefCell<Stored<'s>>,
    is_encrypted: bool,
    /// The file that comes next, and what is left of the one before.
    n: usize,
    current: Option<StreamReader<OneFile<'r, 's>>>,
    /// Does no identity fit?
    sealed: bool,
}

impl Read for Plain<'_, '_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if !self.is_encrypted {
            return self.stored.borrow_mut().read(to);
        }
        loop {
            if let Some(current) = &mut self.current {
                let length = current.read(to)?;
                if length > 0 || to.is_empty() {
                    return Ok(length);
                }
            }
            let (folder, n_files) = {
                let stored = self.stored.borrow();
                (stored.folder, stored.files.len())
            };
            if self.n == n_files {
                return Ok(0);
            }
            let file = OneFile { stored: self.stored, n: self.n };
            let opened = match &folder.identities {
                Some(identities) => identities.reader(file),
                None => Err(encryption::Error::NoIdentity),
            };
            self.sealed = matches!(opened, Err(encryption::Error::NoIdentity));
            self.current = Some(opened.map_err(io::Error::other)?);
            self.n += 1;
        }
    }
}

/// One of the files.
struct OneFile<'r, 's> {
    stored: &'r RefCell<Stored<'s>>,
    n: usize,
}

impl Read for OneFile<'_, '_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let mut stored = self.stored.borrow_mut();
        if stored.is_at_end_of(self.n) { Ok(0) } else { stored.read(to) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::encryption::Recipients;
    use crate::storage::Shared;
    use crate::storage::memory::Memory;

    #[test]
    fn what_is_too_large_for_one_object_is_several_and_encrypted_so_is_each() {
        let key = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p".to_owned();
        let folder = Folder::new(Arc::new(Memory::without_writers()), "t");
        let written = folder.encrypted(Recipients::parse(&[key]).unwrap(), None);
        let mut lines = Lines::new(&written, "s").unwrap();
        let mut random = fastrand::Rng::with_seed(7);
        let mut line = || std::iter::repeat_with(|| random.alphanumeric()).take(1 << 20).collect();
        let sent: Vec<String> = (0..50).map(|_| line()).collect();
        for line in &sent {
            lines.push(line.as_bytes()).unwrap();
        }
        let files = lines.end().unwrap();
        let names: Vec<&str> = files.iter().map(|file| file.name.as_str()).collect();
        assert_eq!(names, ["rows.ndjson.zst.000001.age", "rows.ndjson.zst.000002.age"]);
        let mut come_back = Vec::new();
        let reading = read(&written, "s", &files, &Stop::new(), |line| {
            come_back.push(String::from_utf8(line.to_vec())?);
            Ok(())
        });
        reading.unwrap().whole("s").unwrap();
        assert!(come_back == sent);
        // Who has no key sees that the files are there, and no line.
        let mut folder = written.clone();
        folder.identities = None;
        let nothing = read(&folder, "s", &files, &Stop::new(), |_| anyhow::bail!("a line"));
        let nothing = nothing.unwrap();
        assert!(nothing.sealed && nothing.wrong.is_empty() && nothing.broken.is_none());
        nothing.whole("s").unwrap_err();
        let mut other = files.clone();
        other[1].sha256 = "00".repeat(32);
        let wrong = read(&folder, "s", &other, &Stop::new(), |_| Ok(())).unwrap();
        assert_eq!(wrong.wrong, [files[1].name.as_str()]);
    }

    #[test]
    fn what_is_too_large_for_one_object_is_several_whose_concatenation_is_the_same() {
        let storage: Shared = Arc::new(Memory::without_writers());
        let folder = Folder::new(storage, "t");
        let mut random = fastrand::Rng::with_seed(7);
        let mut line = || std::iter::repeat_with(|| random.alphanumeric()).take(1 << 20).collect();
        let sent: Vec<String> = (0..50).map(|_| line()).collect();
        let mut lines = Lines::new(&folder, "s").unwrap();
        for line in &sent {
            lines.push(line.as_bytes()).unwrap();
        }
        let files = lines.end().unwrap();
        let names: Vec<&str> = files.iter().map(|file| file.name.as_str()).collect();
        assert_eq!(names, ["rows.ndjson.zst.000001", "rows.ndjson.zst.000002"]);
        assert!(files.iter().all(|file| file.bytes <= OBJECT as u64));
        let mut come_back = Vec::new();
        let reading = read(&folder, "s", &files, &Stop::new(), |line| {
            come_back.push(String::from_utf8(line.to_vec())?);
            Ok(())
        });
        let reading = reading.unwrap();
        assert!(come_back == sent && reading.wrong.is_empty() && reading.broken.is_none());
        // In another order they are not what was archived.
        let swapped: Vec<File> = files.into_iter().rev().collect();
        let mut first = None;
        read(&folder, "s", &swapped, &Stop::new(), |line| {
            first.get_or_insert(line == sent[0].as_bytes());
            Ok(())
        })
        .unwrap();
        assert_eq!(first, Some(false));
    }
}
