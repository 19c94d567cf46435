//! pg_dump's table of contents: read from a custom-format pipe, written as a directory's `toc.dat`.
//!
//! The format is that of PostgreSQL's `pg_backup_archiver.c` (`WriteHead`, `WriteToc`), archive versions
//! 1.12 to 1.16, that is PostgreSQL 11 to 18. Custom and directory format differ in the header's format
//! byte and in the last field of each entry only, so all else is copied byte for byte: pg_dump remains
//! the authority on what is in a database. Nothing here interprets SQL, except for the column list of a
//! `COPY` statement, which is taken verbatim.

use std::io::{self, Read};

/// Texts longer than this are taken for damage: PostgreSQL's own limit for one value.
const MAX_TEXT: u64 = 1 << 30;

/// The number by which a file says it is in custom format.
const FORMAT_CUSTOM: u8 = 1;
/// The number in a directory's `toc.dat`, which carries the tar format's (`InitArchiveFmt_Directory`).
const FORMAT_DIRECTORY: u8 = 3;

/// Why bytes are not a table of contents that can be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("failed to read the table of contents")]
    Read(#[from] io::Error),
    #[error("the table of contents is damaged: {0}")]
    Damaged(String),
    #[error(
        "archive version {0}.{1} is not supported (1.12 to 1.16 are): opsctl may be too old for this pg_dump"
    )]
    Version(u8, u8),
}

/// The archive's header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Archive version, such as (1, 16).
    pub(crate) version: (u8, u8),
    /// The version of the server that was dumped, as pg_dump wrote it.
    pub(crate) server_version: String,
    /// The version of pg_dump.
    pub(crate) dump_version: String,
    /// How many entries follow.
    pub(crate) entries: u32,
    /// Everything up to and including the format byte.
    lead: Vec<u8>,
    /// The compression field, of one byte or an Int.
    compression: Vec<u8>,
    /// Everything behind it, including the number of entries.
    rest: Vec<u8>,
}

/// One entry, in the archive's encoding.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct Entry {
    /// Its number in the archive, greater than 0.
    pub(crate) dump_id: i32,
    /// Does data of its own belong to it?
    pub(crate) has_data: bool,
    /// The object's oid; for TABLE DATA that of the table the rows come from.
    pub(crate) oid: u32,
    pub(crate) tag: Vec<u8>,
    /// `TABLE`, `TABLE DATA`, `BLOBS`, …
    pub(crate) kind: String,
    pub(crate) definition: Vec<u8>,
    pub(crate) copy_statement: Vec<u8>,
    pub(crate) namespace: Vec<u8>,
    pub(crate) owner: Vec<u8>,
    pub(crate) dependencies: Vec<i32>,
    /// The data's file name without compression suffix; only in a directory's TOC.
    pub(crate) file: Option<String>,
    /// All fields but the last, as they came.
    raw: Vec<u8>,
}

/// Reads a table of contents entry by entry, and not one byte beyond it.
pub(crate) struct Reader<R> {
    input: R,
    header: Header,
    directory: bool,
    offset_size: usize,
    left: u32,
}

impl<R: Read> Reader<R> {
    /// Reads the header. Custom and directory format are accepted.
    pub(crate) fn open(mut input: R) -> Result<Reader<R>, Error> {
        let mut lead = vec![0; 11];
        input.read_exact(&mut lead)?;
        if &lead[..5] != b"PGDMP" {
            return Err(Error::Damaged("it does not begin with PGDMP".to_owned()));
        }
        let version = (lead[5], lead[6]);
        if version.0 != 1 || !(12..=16).contains(&version.1) {
            return Err(Error::Version(version.0, version.1));
        }
        let (int_size, offset_size, format) = (lead[8], usize::from(lead[9]), lead[10]);
        if int_size != 4 || !(1..=16).contains(&offset_size) {
            return Err(Error::Damaged(format!(
                "integers of {int_size} and offsets of {offset_size} bytes"
            )));
        }
        let directory = match format {
            FORMAT_CUSTOM => false,
            FORMAT_DIRECTORY => true,
            other => {
                return Err(Error::Damaged(format!(
                    "format {other} is neither custom nor directory"
                )));
            }
        };
        let mut fields = Fields { input: &mut input, raw: Vec::new() };
        if version.1 >= 15 {
            fields.byte()?;
        } else {
            fields.int()?;
        }
        let compression = std::mem::take(&mut fields.raw);
        for _ in 0..7 {
            fields.int()?;
        }
        fields.text()?;
        let server_version = lossy(fields.text()?);
        let dump_version = lossy(fields.text()?);
        let entries = u32::try_from(fields.int()?);
        let entries =
            entries.map_err(|_| Error::Damaged("a negative number of entries".to_owned()))?;
        let rest = fields.raw;
        let header =
            Header { version, server_version, dump_version, entries, lead, compression, rest };
        Ok(Reader { input, header, directory, offset_size, left: entries })
    }

    /// Returns the header.
    pub(crate) fn header(&self) -> &Header {
        &self.header
    }

    /// Reads the next entry; `None` behind the last.
    pub(crate) fn next_entry(&mut self) -> Result<Option<Entry>, Error> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        let minor = self.header.version.1;
        let mut fields = Fields { input: &mut self.input, raw: Vec::new() };
        let mut entry =
            Entry { dump_id: fields.int()?, has_data: fields.int()? != 0, ..Entry::default() };
        fields.text()?;
        entry.oid = number(fields.text()?.as_deref())?;
        entry.tag = fields.text()?.unwrap_or_default();
        entry.kind = lossy(fields.text()?);
        fields.int()?;
        entry.definition = fields.text()?.unwrap_or_default();
        fields.text()?;
        entry.copy_statement = fields.text()?.unwrap_or_default();
        entry.namespace = fields.text()?.unwrap_or_default();
        fields.text()?;
        if minor >= 14 {
            fields.text()?;
        }
        if minor >= 16 {
            fields.int()?;
        }
        entry.owner = fields.text()?.unwrap_or_default();
        fields.text()?;
        while let Some(text) = fields.text()? {
            entry.dependencies.push(number(Some(&text))?);
        }
        entry.raw = std::mem::take(&mut fields.raw);
        if self.directory {
            entry.file = fields.text()?.map(|f| String::from_utf8_lossy(&f).into_owned());
        } else {
            fields.byte()?;
            fields.exact(self.offset_size)?;
        }
        if entry.dump_id <= 0 {
            return Err(Error::Damaged(format!("an entry has the number {}", entry.dump_id)));
        }
        Ok(Some(entry))
    }

    /// Gives the input back, which stands right behind the last byte that was read.
    pub(crate) fn into_input(self) -> R {
        self.input
    }
}

impl Header {
    /// Returns the header of a directory's `toc.dat` whose files are compressed by `format`.
    ///
    /// The compression field decides nothing but the order in which `pg_restore -j` starts the tables
    /// (it looks for the files by suffix), yet it must be right for that.
    pub(crate) fn to_directory(&self, format: crate::compression::Format) -> Vec<u8> {
        use crate::compression::Format;
        let mut out = self.lead.clone();
        if let Some(last) = out.last_mut() {
            *last = FORMAT_DIRECTORY;
        }
        if self.version.1 >= 15 {
            out.push(match format {
                Format::None => 0,
                Format::Gzip => 1,
                Format::Zstd => 3,
            });
        } else {
            let level: u8 = if format == Format::None { 0 } else { 6 };
            out.extend([0, level, 0, 0, 0]);
        }
        out.extend(&self.rest);
        out
    }

    /// Is the compression field of a directory's TOC the one that `format` asks for?
    #[cfg(test)]
    fn compression(&self) -> &[u8] {
        &self.compression
    }
}

impl Entry {
    /// Returns the entry as a directory's `toc.dat` has it, with its file's name (empty: no data).
    pub(crate) fn to_directory(&self, file: &str) -> Vec<u8> {
        let mut out = self.raw.clone();
        put_text(&mut out, Some(file.as_bytes()));
        out
    }

    /// Returns the name of the entry's data file in a directory, without compression suffix.
    pub(crate) fn file_name(&self, version: (u8, u8)) -> Result<String, Error> {
        match self.kind.as_str() {
            "TABLE DATA" => Ok(format!("{}.dat", self.dump_id)),
            "BLOBS" if version.1 >= 16 => Ok(format!("blobs_{}.toc", self.dump_id)),
            "BLOBS" => Ok("blobs.toc".to_owned()),
            kind => Err(Error::Damaged(format!(
                "data in an entry of kind `{kind}`, which opsctl does not know"
            ))),
        }
    }

    /// Returns the partitioned table through which the rows must be restored, if pg_dump says so.
    pub(crate) fn partition_root(&self) -> Option<String> {
        let name = self.definition.strip_prefix(VIA_ROOT)?;
        Some(String::from_utf8_lossy(name).trim_end().to_owned())
    }

    /// Returns the column list of the COPY statement with its parentheses; empty for no columns.
    ///
    /// The statement is `COPY <name> <columns> FROM stdin;` and the name may be that of a partition
    /// root; the columns are right for the table itself (`dumpTableData`).
    pub(crate) fn columns(&self) -> Result<&str, Error> {
        let damaged =
            || Error::Damaged(format!("entry {} has an odd COPY statement", self.dump_id));
        let statement = std::str::from_utf8(&self.copy_statement).map_err(|_| damaged())?;
        let body = statement.strip_prefix("COPY ").and_then(|s| s.strip_suffix(" FROM stdin;\n"));
        let mut rest = body.ok_or_else(damaged)?;
        // Skip the qualified name: quoted parts may contain anything, doubled quotes included.
        let mut quoted = false;
        let end = rest.find(|c| {
            quoted ^= c == '"';
            c == ' ' && !quoted
        });
        rest = end.map_or("", |end| &rest[end + 1..]);
        (rest.is_empty() || (rest.starts_with('(') && rest.ends_with(')')))
            .then_some(rest)
            .ok_or_else(damaged)
    }
}

/// What pg_dump writes as the definition of a table's data that must go through its partition root.
const VIA_ROOT: &[u8] = b"-- load via partition root ";

/// Primitive fields (`ReadInt`, `ReadStr`), with a copy of every byte read.
struct Fields<R> {
    input: R,
    raw: Vec<u8>,
}

impl<R: Read> Fields<R> {
    fn exact(&mut self, length: usize) -> Result<&[u8], Error> {
        let start = self.raw.len();
        let read = (&mut self.input).take(length as u64).read_to_end(&mut self.raw)?;
        if read < length {
            return Err(Error::Damaged("it ends early".to_owned()));
        }
        Ok(&self.raw[start..])
    }

    fn byte(&mut self) -> Result<u8, Error> {
        Ok(self.exact(1)?[0])
    }

    /// A sign byte, then four bytes of the absolute value, least significant first.
    fn int(&mut self) -> Result<i32, Error> {
        let bytes = self.exact(5)?;
        let value = i64::from(u32::from_le_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]));
        let value = if bytes[0] == 0 { value } else { -value };
        i32::try_from(value).map_err(|_| Error::Damaged(format!("the number {value}")))
    }

    /// An Int length, then the bytes; a negative length is NULL.
    fn text(&mut self) -> Result<Option<Vec<u8>>, Error> {
        let length = self.int()?;
        let Ok(length) = usize::try_from(length) else { return Ok(None) };
        if length as u64 > MAX_TEXT {
            return Err(Error::Damaged(format!("a text of {length} bytes")));
        }
        Ok(Some(self.exact(length)?.to_vec()))
    }
}

fn put_text(out: &mut Vec<u8>, text: Option<&[u8]>) {
    let length = text.map_or(1, |t| u32::try_from(t.len()).unwrap_or(u32::MAX));
    out.push(u8::from(text.is_none()));
    out.extend(length.to_le_bytes());
    out.extend(text.unwrap_or_default());
}

fn lossy(text: Option<Vec<u8>>) -> String {
    String::from_utf8_lossy(&text.unwrap_or_default()).into_owned()
}

/// Parses a number that the format writes as decimal text; NULL is 0.
fn number<N: std::str::FromStr + Default>(text: Option<&[u8]>) -> Result<N, Error> {
    let Some(text) = text else { return Ok(N::default()) };
    let text = String::from_utf8_lossy(text);
    text.parse()
        .map_err(|_| Error::Damaged(format!("`{}` where a number belongs", text.escape_debug())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compression::Format;
    use proptest::prelude::*;

    fn put_int(out: &mut Vec<u8>, value: i32) {
        out.push(u8::from(value < 0));
        out.extend(value.unsigned_abs().to_le_bytes());
    }

    /// Writes a custom-format TOC as `WriteHead` and `WriteToc` do.
    fn archive(minor: u8, entries: &[Entry]) -> Vec<u8> {
        let mut out = b"PGDMP".to_vec();
        out.extend([1, minor, 0, 4, 8, FORMAT_CUSTOM]);
        if minor >= 15 {
            out.push(0);
        } else {
            put_int(&mut out, 0);
        }
        for value in [1, 2, 3, 4, 5, 126, 0] {
            put_int(&mut out, value);
        }
        for text in ["db", "17.11", "17.11 (Debian)"] {
            put_text(&mut out, Some(text.as_bytes()));
        }
        put_int(&mut out, i32::try_from(entries.len()).unwrap());
        for e in entries {
            put_int(&mut out, e.dump_id);
            put_int(&mut out, i32::from(e.has_data));
            put_text(&mut out, Some(b"0"));
            put_text(&mut out, Some(e.oid.to_string().as_bytes()));
            put_text(&mut out, Some(&e.tag));
            put_text(&mut out, Some(e.kind.as_bytes()));
            put_int(&mut out, 3);
            put_text(&mut out, Some(&e.definition));
            put_text(&mut out, None);
            put_text(&mut out, Some(&e.copy_statement));
            put_text(&mut out, Some(&e.namespace));
            put_text(&mut out, None);
            if minor >= 14 {
                put_text(&mut out, Some(b"heap"));
            }
            if minor >= 16 {
                put_int(&mut out, 114);
            }
            put_text(&mut out, Some(&e.owner));
            put_text(&mut out, Some(b"false"));
            for d in &e.dependencies {
                put_text(&mut out, Some(d.to_string().as_bytes()));
            }
            put_text(&mut out, None);
            out.extend([if e.has_data { 1 } else { 3 }, 0, 0, 0, 0, 0, 0, 0, 0]);
        }
        out
    }

    fn read(bytes: &[u8]) -> Result<(Header, Vec<Entry>, usize), Error> {
        let mut reader = Reader::open(bytes)?;
        let mut entries = Vec::new();
        while let Some(entry) = reader.next_entry()? {
            entries.push(entry);
        }
        Ok((reader.header().clone(), entries, reader.into_input().len()))
    }

    fn entry() -> impl Strategy<Value = Entry> {
        let text = || proptest::collection::vec(any::<u8>(), 0..20);
        (
            1..i32::MAX,
            any::<bool>(),
            any::<u32>(),
            text(),
            text(),
            text(),
            proptest::collection::vec(1..1000, 0..4),
        )
            .prop_map(
                |(dump_id, has_data, oid, tag, definition, namespace, dependencies)| Entry {
                    dump_id,
                    has_data,
                    oid,
                    tag,
                    definition,
                    namespace,
                    dependencies,
                    kind: "TABLE DATA".to_owned(),
                    ..Entry::default()
                },
            )
    }

    proptest! {
        #[test]
        fn a_custom_toc_becomes_a_directory_toc(
            minor in 12..=16u8, entries in proptest::collection::vec(entry(), 0..8), tail in 0..50usize,
        ) {
            let mut bytes = archive(minor, &entries);
            bytes.extend(vec![9; tail]);
            let (header, custom, left) = read(&bytes).unwrap();
            prop_assert_eq!(left, tail);
            let mut toc = header.to_directory(Format::Gzip);
            for entry in &custom {
                let file = if entry.has_data { entry.file_name(header.version).unwrap() } else { String::new() };
                toc.extend(entry.to_directory(&file));
            }
            let (again, directory, left) = read(&toc).unwrap();
            prop_assert_eq!(left, 0);
            prop_assert_eq!(&again.rest, &header.rest);
            prop_assert_eq!(again.compression(), if minor >= 15 { &[1][..] } else { &[0, 6, 0, 0, 0] });
            for ((given, custom), mut directory) in entries.iter().zip(custom).zip(directory) {
                let file = directory.file.take().unwrap();
                prop_assert_eq!(file.is_empty(), !given.has_data);
                prop_assert_eq!(&directory, &custom);
                prop_assert_eq!(Entry { raw: Vec::new(), ..directory }, given.clone());
            }
        }

        #[test]
        fn damage_is_an_error_and_never_a_panic(
            minor in 12..=16u8, entries in proptest::collection::vec(entry(), 1..4),
            at in any::<prop::sample::Index>(), byte in any::<u8>(),
        ) {
            let mut bytes = archive(minor, &entries);
            let cut = at.index(bytes.len());
            prop_assert!(read(&bytes[..cut]).is_err());
            bytes[cut] = byte;
            drop(read(&bytes));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            drop(read(&bytes));
            let mut begun = b"PGDMP\x01\x10\x00\x04\x08\x01".to_vec();
            begun.extend(bytes);
            drop(read(&begun));
        }
    }

    #[test]
    fn finds_the_columns_behind_any_name() {
        let check = |statement: &str, expected: Option<&str>| {
            let entry = Entry { copy_statement: statement.into(), ..Entry::default() };
            assert_eq!(entry.columns().ok(), expected, "{statement}");
        };
        check("COPY public.t (a, b) FROM stdin;\n", Some("(a, b)"));
        check("COPY public.\"odd (name\"\" FROM\" (\"x y\") FROM stdin;\n", Some("(\"x y\")"));
        check("COPY public.zero  FROM stdin;\n", Some(""));
        check("COPY public.zero FROM stdin;\n", Some(""));
        check("INSERT", None);
    }

    #[test]
    fn refuses_a_future_version() {
        let error = read(&archive(17, &[])).unwrap_err().to_string();
        assert!(error.starts_with("archive version 1.17 is not supported"), "{error}");
    }
}
