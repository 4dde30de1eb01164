//! The 512 bytes before each entry, written: ustar, with PAX records for what does not fit.

use std::collections::BTreeMap;

use super::pax;

/// Everything in a tar comes in blocks of this size.
pub(super) const BLOCK_BYTES: usize = 512;

const NAME: usize = 100;
const PREFIX: usize = 155;

/// The largest number of an octal field of eight and of twelve bytes, one of which ends it.
const MAX_SHORT: u64 = 0o777_7777;
const MAX_LONG: u64 = 0o777_7777_7777;

/// One entry's header as values. Names are bytes; a directory's ends in a slash.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header<'a> {
    pub(super) type_flag: u8,
    pub(super) name: &'a [u8],
    pub(super) link: &'a [u8],
    pub(super) mode: u32,
    pub(super) uid: u64,
    pub(super) gid: u64,
    pub(super) size_bytes: u64,
    pub(super) mtime_seconds: i64,
    pub(super) device: Option<(u32, u32)>,
}

impl Header<'_> {
    /// Appends the entry's blocks to `out`: an extended header only if something does not fit into the plain one.
    ///
    /// `records` are further PAX records. Fields that an extended header replaces are zero in the plain one, names
    /// are cut there.
    pub(super) fn write(&self, mut records: BTreeMap<Vec<u8>, Vec<u8>>, out: &mut Vec<u8>) {
        let mut plain = *self;
        let split = split_name(self.name);
        if split.is_none() {
            records.insert(b"path".to_vec(), self.name.to_vec());
        }
        if self.link.len() > NAME {
            records.insert(b"linkpath".to_vec(), self.link.to_vec());
            plain.link = &self.link[..NAME];
        }
        let mut number = |key: &str, value: u64, limit: u64| {
            if value <= limit {
                return value;
            }
            records.insert(key.as_bytes().to_vec(), value.to_string().into_bytes());
            0
        };
        plain.uid = number("uid", self.uid, MAX_SHORT);
        plain.gid = number("gid", self.gid, MAX_SHORT);
        plain.size_bytes = number("size", self.size_bytes, MAX_LONG);
        if u64::try_from(self.mtime_seconds).is_ok_and(|seconds| seconds <= MAX_LONG) {
            plain.mtime_seconds = self.mtime_seconds;
        } else {
            records.insert(b"mtime".to_vec(), self.mtime_seconds.to_string().into_bytes());
            plain.mtime_seconds = 0;
        }
        if !records.is_empty() {
            extended(self.name, &records, out);
        }
        let (prefix, name) = split.unwrap_or((b"", &self.name[..self.name.len().min(NAME)]));
        plain.block(prefix, name, out);
    }

    fn block(&self, prefix: &[u8], name: &[u8], out: &mut Vec<u8>) {
        let mut block = [0u8; BLOCK_BYTES];
        block[..name.len()].copy_from_slice(name);
        octal(&mut block[100..108], u64::from(self.mode));
        octal(&mut block[108..116], self.uid);
        octal(&mut block[116..124], self.gid);
        octal(&mut block[124..136], self.size_bytes);
        octal(&mut block[136..148], u64::try_from(self.mtime_seconds).unwrap_or(0));
        block[156] = self.type_flag;
        block[157..157 + self.link.len()].copy_from_slice(self.link);
        block[257..265].copy_from_slice(b"ustar\x0000");
        let (major, minor) = self.device.unwrap_or((0, 0));
        octal(&mut block[329..337], u64::from(major));
        octal(&mut block[337..345], u64::from(minor));
        block[345..345 + prefix.len()].copy_from_slice(prefix);
        // The sum is taken with its own field as spaces, and has its own form: six digits, zero, space.
        block[148..156].fill(b' ');
        let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
        octal(&mut block[148..155], sum);
        out.extend_from_slice(&block);
    }
}

/// Fills all but the last byte with zero-padded octal digits; what does not fit is base-256, as GNU tar has it.
fn octal(field: &mut [u8], mut value: u64) {
    let digits = field.len() - 1;
    if value >> (3 * digits) != 0 {
        for byte in field.iter_mut().rev() {
            *byte = u8::try_from(value & 0xff).expect("masked");
            value >>= 8;
        }
        field[0] |= 0x80;
        return;
    }
    for byte in field[..digits].iter_mut().rev() {
        *byte = b'0' + u8::try_from(value & 7).expect("masked");
        value >>= 3;
    }
    field[digits] = 0;
}

/// Splits a name into ustar's prefix and name fields; `None` if it fits in no way.
fn split_name(name: &[u8]) -> Option<(&[u8], &[u8])> {
    if name.len() <= NAME {
        return Some((b"", name));
    }
    // The slash between the two is not stored; one at the end belongs to the name.
    let longest = name.len().min(PREFIX + 1).min(name.len() - 1);
    let slash = name[..longest].iter().rposition(|byte| *byte == b'/').filter(|at| *at > 0)?;
    let (prefix, rest) = (&name[..slash], &name[slash + 1..]);
    (rest.len() <= NAME).then_some((prefix, rest))
}

/// Appends an extended header with `records`, which are in byte order.
fn extended(name: &[u8], records: &BTreeMap<Vec<u8>, Vec<u8>>, out: &mut Vec<u8>) {
    let mut data = Vec::new();
    for (key, value) in records {
        pax::push_record(&mut data, key, value);
    }
    // Tools that do not know PAX unpack it as a file of this name.
    let base = name.strip_suffix(b"/").unwrap_or(name).rsplit(|byte| *byte == b'/').next().unwrap_or(name);
    let mut place = b"PaxHeaders.0/".to_vec();
    place.extend_from_slice(base);
    place.truncate(NAME);
    let header = Header {
        type_flag: b'x',
        name: &place,
        link: b"",
        mode: 0o644,
        uid: 0,
        gid: 0,
        size_bytes: data.len() as u64,
        mtime_seconds: 0,
        device: None,
    };
    header.block(b"", &place, out);
    out.extend_from_slice(&data);
    pad(data.len() as u64, out);
}

/// Appends the zeros between `size_bytes` bytes of content and the next block.
pub(super) fn pad(size_bytes: u64, out: &mut Vec<u8>) {
    out.resize(out.len() + padding(size_bytes), 0);
}

/// Returns how many bytes are between `size_bytes` bytes of content and the next block.
pub(super) fn padding(size_bytes: u64) -> usize {
    let used = usize::try_from(size_bytes % BLOCK_BYTES as u64).expect("below 512");
    (BLOCK_BYTES - used) % BLOCK_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_split_where_both_parts_fit() {
        let component = "c".repeat(60);
        let three = format!("{component}/{component}/{component}");
        assert_eq!(split_name(b"short"), Some((&b""[..], &b"short"[..])));
        let (prefix, name) = split_name(three.as_bytes()).unwrap();
        assert_eq!((prefix.len(), name.len()), (121, 60));
        let directory = format!("{three}/");
        let (prefix, name) = split_name(directory.as_bytes()).unwrap();
        assert_eq!((prefix.len(), name.len(), name.last()), (121, 61, Some(&b'/')));
        assert_eq!(split_name(&[b'x'; 101]), None);
        assert_eq!(split_name(format!("/{}", "x".repeat(100)).as_bytes()), None);
        let deep = "d/".repeat(140);
        assert_eq!(split_name(deep.as_bytes()), None);
        let exact = format!("{}/{}", "p".repeat(155), "n".repeat(100));
        assert!(split_name(exact.as_bytes()).is_some());
    }

    #[test]
    fn numbers_that_do_not_fit_octal_are_base_256() {
        let mut field = [0u8; 8];
        octal(&mut field, 0o777_7777);
        assert_eq!(&field, b"7777777\0");
        octal(&mut field, 0o1000_0000);
        assert_eq!(field, [0x80, 0, 0, 0, 0, 0x20, 0, 0]);
    }
}
