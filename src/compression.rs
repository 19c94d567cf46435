//! Chunks to compressed bytes and back: one gzip member or one zstd frame per chunk.
//!
//! Works on whole chunks in memory, which are small by construction. Stock `gunzip`, `zstd` and
//! `pg_restore` read any concatenation of the results. It does not know what the bytes mean.

use std::fmt;
use std::io::{self, Read};

/// A compression and its level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Codec {
    /// The bytes as they are.
    None,
    /// gzip (RFC 1952) at zlib's levels 1 to 9.
    Gzip(u8),
    /// Zstandard (RFC 8878) at levels 1 to 19, with content checksum: pg_restore checks nothing else.
    Zstd(u8),
}

/// libdeflate's level for each of zlib's, 1 to 9: the fastest whose result is no larger than zlib's.
///
/// The two libraries number differently: libdeflate's 5 is as small as zlib's 6, in less than half the time.
const LIBDEFLATE_LEVELS: [i32; 9] = [1, 2, 3, 4, 5, 5, 6, 7, 8];

/// What a stored chunk is compressed with; the level does not matter for reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    None,
    Gzip,
    Zstd,
}

impl Codec {
    /// Returns the format that this writes.
    pub(crate) fn format(self) -> Format {
        match self {
            Codec::None => Format::None,
            Codec::Gzip(_) => Format::Gzip,
            Codec::Zstd(_) => Format::Zstd,
        }
    }

    /// Returns the level, 0 for none.
    pub(crate) fn level(self) -> u8 {
        match self {
            Codec::None => 0,
            Codec::Gzip(level) | Codec::Zstd(level) => level,
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Codec::None => f.write_str("none"),
            Codec::Gzip(level) => write!(f, "gzip:{level}"),
            Codec::Zstd(level) => write!(f, "zstd:{level}"),
        }
    }
}

impl Format {
    /// Returns the suffix by which pg_restore knows the format (`compress_io.c`).
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Format::None => "",
            Format::Gzip => ".gz",
            Format::Zstd => ".zst",
        }
    }
}

/// Encodes chunk after chunk, reusing its working memory.
pub(crate) struct Encoder {
    state: State,
    buffer: Vec<u8>,
}

enum State {
    None,
    Gzip(libdeflater::Compressor),
    Zstd(zstd::bulk::Compressor<'static>),
}

impl Encoder {
    /// Creates an encoder; levels out of range are clamped.
    pub(crate) fn new(codec: Codec) -> io::Result<Encoder> {
        let state = match codec {
            Codec::None => State::None,
            Codec::Gzip(level) => {
                let level = LIBDEFLATE_LEVELS[usize::from(level.clamp(1, 9)) - 1];
                let level = libdeflater::CompressionLvl::new(level);
                State::Gzip(libdeflater::Compressor::new(level.unwrap_or_default()))
            }
            Codec::Zstd(level) => {
                let mut compressor = zstd::bulk::Compressor::new(i32::from(level.clamp(1, 19)))?;
                compressor.include_checksum(true)?;
                if level == 3 {
                    use zstd::zstd_safe::CParameter::{ChainLog, HashLog};
                    // Half of the level's own tables, so that they fit an ordinary second-level cache: 4 to 10 % less
                    // time, and 1 % smaller or larger, depending on the data (docs/benchmarks.md).
                    compressor.set_parameter(HashLog(16))?;
                    compressor.set_parameter(ChainLog(15))?;
                }
                State::Zstd(compressor)
            }
        };
        Ok(Encoder { state, buffer: Vec::new() })
    }

    /// Creates an encoder of zstd frames for lines that repeat the names of their fields.
    ///
    /// No level has these parameters. With matches from 6 bytes up the names cost less, and it is as small as gzip of the rows without names,
    /// in less time (docs/benchmarks.md).
    pub(crate) fn for_lines() -> io::Result<Encoder> {
        use zstd::zstd_safe::CParameter::{
            ChainLog, HashLog, MinMatch, SearchLog, Strategy, WindowLog,
        };
        let mut compressor = zstd::bulk::Compressor::new(6)?;
        compressor.include_checksum(true)?;
        let lazy = zstd::zstd_safe::Strategy::ZSTD_lazy;
        for parameter in
            [WindowLog(22), ChainLog(18), HashLog(19), SearchLog(3), MinMatch(6), Strategy(lazy)]
        {
            compressor.set_parameter(parameter)?;
        }
        Ok(Encoder { state: State::Zstd(compressor), buffer: Vec::new() })
    }

    /// Encodes one chunk.
    pub(crate) fn encode(&mut self, chunk: &[u8]) -> io::Result<Vec<u8>> {
        let bound = match &mut self.state {
            State::None => return Ok(chunk.to_vec()),
            State::Gzip(compressor) => compressor.gzip_compress_bound(chunk.len()),
            State::Zstd(_) => zstd::zstd_safe::compress_bound(chunk.len()),
        };
        // A single enormous row must not keep its buffer for the rest of the run.
        if self.buffer.len() < bound || self.buffer.len() / 4 > bound.max(1 << 20) {
            self.buffer = vec![0; bound];
        }
        let length = match &mut self.state {
            State::None => 0,
            State::Gzip(compressor) => {
                compressor.gzip_compress(chunk, &mut self.buffer).map_err(io::Error::other)?
            }
            State::Zstd(compressor) => {
                compressor.compress_to_buffer(chunk, self.buffer.as_mut_slice())?
            }
        };
        Ok(self.buffer[..length].to_vec())
    }
}

/// Up to this size a gzip chunk is decoded at once, by libdeflate, into memory that is there before it is known good.
const AT_ONCE: u64 = 64 << 20;

/// Decodes one stored chunk, of which it is known that it has `length` bytes.
///
/// The chunk must be whole and nothing may follow it. A damaged or hostile chunk takes no more memory than `length`, or
/// [`AT_ONCE`] if that is less than what it really has.
pub(crate) fn decode(format: Format, stored: &[u8], length: u64) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    let found = match format {
        Format::None => pump(stored, length, &mut out)?,
        Format::Gzip => {
            if let Some(out) = gunzip_at_once(stored, length) {
                return Ok(out);
            }
            // It can be larger, and it can say what is wrong.
            let mut decoder = flate2::bufread::GzDecoder::new(stored);
            let found = pump(&mut decoder, length, &mut out)?;
            nothing_left(decoder.get_ref()).map(|()| found)?
        }
        Format::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(stored)?.single_frame();
            let found = pump(&mut decoder, length, &mut out)?;
            nothing_left(decoder.get_ref()).map(|()| found)?
        }
    };
    if found == length {
        return Ok(out);
    }
    let what = format!("{found} bytes come out where the manifest says {length}");
    Err(io::Error::other(what))
}

/// Decodes a gzip member if it is as it should be: half the time of the decoder that can also do without all of it.
fn gunzip_at_once(stored: &[u8], length: u64) -> Option<Vec<u8>> {
    let size = usize::try_from(length).ok().filter(|_| length <= AT_ONCE)?;
    // A member ends with its length (RFC 1952, section 2.3.1): then nothing follows it.
    let says = u32::from_le_bytes(*stored.last_chunk()?);
    let mut out = vec![0; size];
    let found = libdeflater::Decompressor::new().gzip_decompress(stored, &mut out).ok()?;
    (found == size && u64::from(says) == length).then_some(out)
}

/// Reads all of `input` into `out`; returns how much that was.
fn pump(input: impl Read, limit: u64, out: &mut Vec<u8>) -> io::Result<u64> {
    out.reserve_exact(usize::try_from(limit.min(AT_ONCE)).unwrap_or(0));
    let found = input.take(limit.saturating_add(1)).read_to_end(out)? as u64;
    if found > limit {
        return Err(io::Error::other(format!("decompresses to more than {limit} bytes")));
    }
    Ok(found)
}

fn nothing_left(rest: &[u8]) -> io::Result<()> {
    if rest.is_empty() {
        return Ok(());
    }
    Err(io::Error::other(format!("{} bytes follow its end", rest.len())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CODECS: [Codec; 4] = [Codec::None, Codec::Gzip(6), Codec::Gzip(1), Codec::Zstd(3)];

    fn decoded(codec: Codec, stored: &[u8], length: u64) -> io::Result<Vec<u8>> {
        decode(codec.format(), stored, length)
    }

    proptest! {
        #[test]
        fn round_trips(chunk in proptest::collection::vec(any::<u8>(), 0..5000), which in 0..4usize) {
            let stored = Encoder::new(CODECS[which]).unwrap().encode(&chunk).unwrap();
            prop_assert_eq!(decoded(CODECS[which], &stored, chunk.len() as u64).unwrap(), chunk);
        }

        #[test]
        fn notices_a_flipped_bit_or_a_cut(
            chunk in proptest::collection::vec(any::<u8>(), 1..2000),
            which in 1..4usize, at in any::<prop::sample::Index>(), bit in 0..8u8, cut in any::<bool>(),
        ) {
            let mut stored = Encoder::new(CODECS[which]).unwrap().encode(&chunk).unwrap();
            let at = at.index(stored.len());
            if cut { stored.truncate(at) } else { stored[at] ^= 1 << bit }
            // Some header bits (the operating system in gzip) mean nothing: then the content is right.
            let length = chunk.len() as u64;
            prop_assert!(decoded(CODECS[which], &stored, length).map_or(true, |out| out == chunk && !cut));
        }

        #[test]
        fn arbitrary_bytes_never_panic(stored in proptest::collection::vec(any::<u8>(), 0..500), which in 0..4usize) {
            drop(decoded(CODECS[which], &stored, 100));
        }
    }

    #[test]
    fn refuses_more_than_the_limit_and_anything_behind_the_end() {
        for codec in &CODECS[1..] {
            let mut stored = Encoder::new(*codec).unwrap().encode(&vec![7; 100_000]).unwrap();
            let error = decoded(*codec, &stored, 99_999).unwrap_err();
            assert_eq!(error.to_string(), "decompresses to more than 99999 bytes");
            let error = decoded(*codec, &stored, 100_001).unwrap_err();
            let expected = "100000 bytes come out where the manifest says 100001";
            assert_eq!(error.to_string(), expected);
            stored.push(0);
            assert_eq!(
                decoded(*codec, &stored, 100_000).unwrap_err().to_string(),
                "1 bytes follow its end"
            );
        }
    }
}
