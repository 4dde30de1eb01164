//! The 512 bytes before each entry, read: V7, ustar, GNU and star headers alike.

use std::path::PathBuf;

use super::header::BLOCK_BYTES;
use super::sparse::Segments;
use crate::tree::Device;

/// One header block that has been found to be one.
pub(super) struct Fields<'a> {
    block: &'a [u8; BLOCK_BYTES],
}

impl<'a> Fields<'a> {
    /// Checks the block's sum.
    pub(super) fn parse(block: &'a [u8; BLOCK_BYTES]) -> Result<Self, String> {
        let fields = Self { block };
        let written = fields.number(148..156, "checksum")?;
        // Some old writers summed signed bytes.
        let outside = || block[..148].iter().chain(&block[156..]);
        let unsigned: i64 = outside().map(|byte| i64::from(*byte)).sum::<i64>() + 8 * 32;
        let signed: i64 = outside().map(|byte| i64::from(byte.cast_signed())).sum::<i64>() + 8 * 32;
        if written == unsigned || written == signed {
            Ok(fields)
        } else {
            Err(format!("header checksum mismatch: expected {unsigned}, found {written}"))
        }
    }

    pub(super) fn type_flag(&self) -> u8 {
        self.block[156]
    }

    /// Returns the name with ustar's or star's prefix; GNU and V7 headers have something else there.
    pub(super) fn name(&self) -> Vec<u8> {
        let name = text(&self.block[..100]);
        let is_ustar = &self.block[257..263] == b"ustar\0";
        let is_star = is_ustar && &self.block[508..512] == b"tar\0";
        let prefix = match (is_ustar, is_star) {
            (true, false) => text(&self.block[345..500]),
            (true, true) => text(&self.block[345..476]),
            (false, _) => b"",
        };
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    }

    pub(super) fn link(&self) -> Vec<u8> {
        text(&self.block[157..257]).to_vec()
    }

    pub(super) fn mode(&self) -> Result<i64, String> {
        self.number(100..108, "mode")
    }

    pub(super) fn uid(&self) -> Result<i64, String> {
        self.number(108..116, "uid")
    }

    pub(super) fn gid(&self) -> Result<i64, String> {
        self.number(116..124, "gid")
    }

    pub(super) fn size_bytes(&self) -> Result<i64, String> {
        self.number(124..136, "size")
    }

    pub(super) fn mtime_seconds(&self) -> Result<i64, String> {
        self.number(136..148, "mtime")
    }

    pub(super) fn device(&self) -> Result<Device, String> {
        let part = |range, what| {
            let value = self.number(range, what)?;
            u32::try_from(value).map_err(|_| format!("impossible {what} {value}"))
        };
        Ok(Device { major: part(329..337, "device major")?, minor: part(337..345, "device minor")? })
    }

    /// The four segments in an old GNU sparse header, the file's length, and whether more segments follow.
    pub(super) fn gnu_sparse(&self) -> Result<(Segments, u64, bool), String> {
        let segments = sparse_segments(&self.block[386..482])?;
        let size = number(&self.block[483..495], "sparse size")?;
        let size = u64::try_from(size).map_err(|_| format!("impossible sparse size {size}"))?;
        Ok((segments, size, self.block[482] != 0))
    }

    fn number(&self, range: std::ops::Range<usize>, what: &str) -> Result<i64, String> {
        number(&self.block[range], what)
    }
}

/// The segments in a block that follows an old GNU sparse header, and whether more follow.
pub(super) fn gnu_sparse_extension(block: &[u8; BLOCK_BYTES]) -> Result<(Segments, bool), String> {
    Ok((sparse_segments(&block[..504])?, block[504] != 0))
}

fn sparse_segments(table: &[u8]) -> Result<Segments, String> {
    let mut segments = Vec::new();
    for entry in table.chunks_exact(24).take_while(|entry| entry[0] != 0) {
        let offset = number(&entry[..12], "sparse offset")?;
        let length = number(&entry[12..], "sparse length")?;
        match (u64::try_from(offset), u64::try_from(length)) {
            (Ok(offset), Ok(length)) => segments.push((offset, length)),
            _ => return Err("negative number in the sparse map".to_owned()),
        }
    }
    Ok(segments)
}

/// Returns the bytes of a field up to its first zero.
fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or(field)
}

/// Reads a number: octal digits between spaces and zeros, or base-256 if the first bit is set. Blank is zero.
fn number(field: &[u8], what: &str) -> Result<i64, String> {
    let bad = || format!("{what} is not a number: `{}`", field.escape_ascii());
    if field[0] & 0x80 != 0 {
        // The second bit is the sign of a number in two's complement.
        let negative = field[0] & 0x40 != 0;
        let mut value: i128 = if negative { -1 } else { 0 };
        for (index, byte) in field.iter().enumerate() {
            let byte = if index == 0 && !negative { byte & 0x7f } else { *byte };
            value = (value << 8) | i128::from(byte);
        }
        return i64::try_from(value).map_err(|_| bad());
    }
    let digits = field.trim_ascii_start();
    let end = digits.iter().position(|byte| matches!(byte, 0 | b' ')).unwrap_or(digits.len());
    let (digits, rest) = digits.split_at(end);
    if !rest.iter().all(|byte| matches!(byte, 0 | b' ')) {
        return Err(bad());
    }
    digits.iter().try_fold(0i64, |value, digit| match digit {
        b'0'..=b'7' => Ok(value << 3 | i64::from(digit - b'0')),
        _ => Err(bad()),
    })
}

/// Turns bytes into a path, whatever they are.
pub(super) fn path_of(bytes: Vec<u8>) -> PathBuf {
    use std::os::unix::ffi::OsStringExt as _;
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_all_forms() {
        for (field, expected) in [
            (&b"0000644\0"[..], 0o644),
            (b"   644 \0", 0o644),
            (b"644\0\0\0\0\0", 0o644),
            (b"77777777", 0o7777_7777),
            (b"\0\0\0\0\0\0\0\0", 0),
            (b"        ", 0),
            (&[0x80, 0, 0, 0, 0, 0x20, 0, 0], 0x0020_0000),
            (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe], -2),
            (&[0x80, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], i64::MAX),
        ] {
            assert_eq!(number(field, "x"), Ok(expected), "{field:?}");
        }
        for field in [&b"00008\0\0\0"[..], b"-1\0\0\0\0\0\0", b"12 34\0\0\0", &[0x81; 12], b"0x12\0\0\0\0"] {
            assert!(number(field, "x").is_err(), "{field:?}");
        }
    }
}
