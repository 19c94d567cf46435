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

/// Decodes one stored chunk and passes the bytes on, piece by piece.
///
/// Returns how many there were. The chunk must be whole and nothing may follow it; more than `limit`
/// bytes are an error, so that a damaged or hostile chunk cannot fill the memory.
pub(crate) fn decode(
    format: Format,
    stored: &[u8],
    limit: u64,
    mut sink: impl FnMut(&[u8]),
) -> io::Result<u64> {
    match format {
        Format::None => pump(stored, limit, &mut sink),
        Format::Gzip => {
            let mut decoder = flate2::bufread::GzDecoder::new(stored);
            let length = pump(&mut decoder, limit, &mut sink)?;
            nothing_left(decoder.get_ref()).map(|()| length)
        }
        Format::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(stored)?.single_frame();
            let length = pump(&mut decoder, limit, &mut sink)?;
            nothing_left(decoder.get_ref()).map(|()| length)
        }
    }
}

fn pump(mut input: impl Read, limit: u64, sink: &mut impl FnMut(&[u8])) -> io::Result<u64> {
    let mut buffer = vec![0; 128 * 1024];
    let mut total = 0;
    loop {
        let length = match input.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(length) => length,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        total += length as u64;
        if total > limit {
            return Err(io::Error::other(format!("decompresses to more than {limit} bytes")));
        }
        sink(&buffer[..length]);
    }
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

    fn decoded(codec: Codec, stored: &[u8], limit: u64) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        decode(codec.format(), stored, limit, |bytes| out.extend_from_slice(bytes)).map(|_| out)
    }

    proptest! {
        #[test]
        fn round_trips(chunk in proptest::collection::vec(any::<u8>(), 0..5000), which in 0..4usize) {
            let stored = Encoder::new(CODECS[which]).unwrap().encode(&chunk).unwrap();
            prop_assert_eq!(decoded(CODECS[which], &stored, 5000).unwrap(), chunk);
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
            prop_assert!(decoded(CODECS[which], &stored, 2000).map_or(true, |out| out == chunk && !cut));
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
            stored.push(0);
            assert_eq!(
                decoded(*codec, &stored, 100_000).unwrap_err().to_string(),
                "1 bytes follow its end"
            );
        }
    }
}
