//! Decompression by content.
//!
//! A stream is decoded to its very end: further members or frames are part of it, anything else behind the last one
//! is an error, and so is an end in the middle.

use std::io::{self, BufRead, BufReader, Read};

use rustix::io::Errno;

use crate::threads;

/// A compression format, told by a stream's first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    /// None that is known.
    Plain,
    /// RFC 1952.
    Gzip,
    /// bzip2.
    Bzip2,
    /// xz.
    Xz,
    /// RFC 8878.
    Zstd,
}

/// Enough to tell every format: bzip2's ten bytes are the longest.
const MAGIC_BYTES: usize = 10;

/// Large enough that reads of a file or a socket do not count.
const BUFFER_BYTES: usize = 128 * 1024;

/// What a hostile xz header can make us allocate; `xz -9` needs 65 MiB.
const XZ_MEMORY_LIMIT_BYTES: u64 = 256 << 20;

/// The window of `zstd --ultra -22`, 128 MiB, the most that the format asks decoders to support.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

impl Codec {
    /// Tells the format from the first ten bytes, or fewer if there are no more.
    pub fn detect(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, 8, ..] => Self::Gzip,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            // A skippable frame, as `pzstd` and signing tools put first.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [b'B', b'Z', b'h', b'1'..=b'9', magic @ ..]
                if magic.starts_with(&[0x31, 0x41, 0x59, 0x26, 0x53, 0x59])
                    || magic.starts_with(&[0x17, 0x72, 0x45, 0x38, 0x50, 0x90]) =>
            {
                Self::Bzip2
            }
            _ => Self::Plain,
        }
    }
}

/// Decodes `input`, which is in the format `codec`, to its very end: what follows the last stream is an error.
pub fn decoder<'a>(codec: Codec, input: impl Read + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
    buffered_decoder(codec, BufReader::with_capacity(BUFFER_BYTES, input))
}

/// Decodes `input` in whichever format its first bytes tell.
pub fn auto_decoder<'a>(input: impl Read + Send + 'a) -> io::Result<(Codec, Box<dyn Read + Send + 'a>)> {
    let mut input = input;
    let mut start = Vec::with_capacity(MAGIC_BYTES);
    (&mut input).take(MAGIC_BYTES as u64).read_to_end(&mut start)?;
    let codec = Codec::detect(&start);
    Ok((codec, decoder(codec, io::Cursor::new(start).chain(input))?))
}

fn buffered_decoder<'a>(
    codec: Codec,
    input: impl BufRead + Send + 'a,
) -> io::Result<Box<dyn Read + Send + 'a>> {
    Ok(match codec {
        Codec::Plain => Box::new(input),
        Codec::Gzip => Box::new(in_memory(|| flate2::bufread::MultiGzDecoder::new(input))?),
        Codec::Bzip2 => Box::new(in_memory(|| bzip2::bufread::MultiBzDecoder::new(input))?),
        Codec::Xz => {
            let stream = liblzma::stream::Stream::new_stream_decoder(
                XZ_MEMORY_LIMIT_BYTES,
                liblzma::stream::CONCATENATED,
            )?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(input, stream))
        }
        Codec::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            Box::new(decoder)
        }
    })
}

/// Makes a decoder that panics where there is no memory for it.
fn in_memory<T>(make: impl FnOnce() -> T) -> io::Result<T> {
    Ok(threads::refusable("memory for decompression", Errno::NOMEM, make)?)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const TEXT: &[u8] = b"some text that is long enough to be worth compressing, compressing, compressing";

    fn encode(codec: Codec, data: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        match codec {
            Codec::Plain => out.extend_from_slice(data),
            Codec::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(&mut out, flate2::Compression::fast());
                encoder.write_all(data).unwrap();
                encoder.finish().unwrap();
            }
            Codec::Bzip2 => {
                let mut encoder = bzip2::write::BzEncoder::new(&mut out, bzip2::Compression::fast());
                encoder.write_all(data).unwrap();
                encoder.finish().unwrap();
            }
            Codec::Xz => {
                let mut encoder = liblzma::write::XzEncoder::new(&mut out, 1);
                encoder.write_all(data).unwrap();
                encoder.finish().unwrap();
            }
            Codec::Zstd => out = zstd::encode_all(data, 1).unwrap(),
        }
        out
    }

    fn decode(input: &[u8]) -> io::Result<(Codec, Vec<u8>)> {
        let (codec, mut reader) = auto_decoder(input)?;
        let mut out = Vec::new();
        reader.read_to_end(&mut out)?;
        Ok((codec, out))
    }

    const ALL: [Codec; 5] = [Codec::Plain, Codec::Gzip, Codec::Bzip2, Codec::Xz, Codec::Zstd];

    #[test]
    fn every_format_is_told_and_decoded() {
        for codec in ALL {
            assert_eq!(decode(&encode(codec, TEXT)).unwrap(), (codec, TEXT.to_vec()));
            assert_eq!(decode(&encode(codec, b"")).unwrap(), (codec, Vec::new()), "{codec:?}, empty");
        }
    }

    #[test]
    fn several_members_are_one_stream() {
        for codec in ALL {
            let twice = [encode(codec, TEXT), encode(codec, TEXT)].concat();
            assert_eq!(decode(&twice).unwrap(), (codec, TEXT.repeat(2)), "{codec:?}");
        }
    }

    #[test]
    fn a_cut_stream_is_an_error_at_every_length() {
        for codec in &ALL[1..] {
            let whole = encode(*codec, TEXT);
            for length in MAGIC_BYTES..whole.len() {
                let result = decoder(*codec, &whole[..length]).unwrap().read_to_end(&mut Vec::new());
                assert!(result.is_err(), "{codec:?} cut to {length} of {}", whole.len());
            }
        }
    }

    #[test]
    fn what_follows_the_last_member_is_an_error() {
        for codec in &ALL[1..] {
            for tail in [&b"garbage that is long enough"[..], b"g"] {
                let input = [&encode(*codec, TEXT)[..], tail].concat();
                assert!(decode(&input).is_err(), "{codec:?} followed by {tail:?}");
            }
        }
    }

    #[test]
    fn a_flipped_bit_is_an_error() {
        for codec in [Codec::Gzip, Codec::Bzip2, Codec::Xz] {
            let mut input = encode(codec, TEXT);
            let middle = input.len() / 2;
            input[middle] ^= 0x10;
            assert!(decode(&input).is_err(), "{codec:?}");
        }
    }

    #[test]
    fn plain_text_that_looks_a_little_like_bzip2_stays_plain() {
        assert_eq!(Codec::detect(b"BZh9 is the beginning"), Codec::Plain);
        assert_eq!(Codec::detect(b""), Codec::Plain);
        assert_eq!(Codec::detect(&[0x1f, 0x8b]), Codec::Plain);
    }
}
