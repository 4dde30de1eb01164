//! Sparse files in tars: GNU's old form and the three PAX ones.

use super::pax::parse_decimal;

/// Where a sparse file has data, as (offset, length): in order, apart, and not empty.
pub(super) type Segments = Vec<(u64, u64)>;

/// A map is kept in memory; a file with more holes than this is an attack or a disk image to be packed another way.
pub(super) const SEGMENT_LIMIT: usize = 1 << 18;

/// Checks a map against the file's length and the number of bytes that are in the archive.
pub(super) fn check(segments: Segments, size_bytes: u64, stored_bytes: u64) -> Result<Segments, String> {
    if segments.len() > SEGMENT_LIMIT {
        return Err(format!("sparse file of more than {SEGMENT_LIMIT} parts"));
    }
    let mut end = 0u64;
    let mut stored = 0u64;
    for (offset, length) in &segments {
        let part_end = offset.checked_add(*length).filter(|end| *end <= size_bytes);
        let Some(part_end) = part_end.filter(|_| *offset >= end) else {
            return Err(format!("sparse map with an impossible part of {length} bytes at {offset}"));
        };
        end = part_end;
        stored += length;
    }
    if stored != stored_bytes {
        return Err(format!("sparse map of {stored} bytes of data where {stored_bytes} are stored"));
    }
    Ok(segments.into_iter().filter(|(_, length)| *length > 0).collect())
}

/// Reads the map of PAX form 0.1: `offset,length,offset,length`.
pub(super) fn parse_list(text: &[u8]) -> Result<Segments, String> {
    if text.is_empty() {
        return Ok(Segments::new());
    }
    let numbers: Option<Vec<u64>> = text.split(|byte| *byte == b',').map(parse_decimal).collect();
    match numbers {
        Some(numbers) if numbers.len() % 2 == 0 => {
            Ok(numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
        }
        _ => Err("sparse map that is not a list of pairs".to_owned()),
    }
}

/// Returns how many lines a map of PAX form 1.0 has, by its first.
pub(super) fn lines_of(text: &[u8]) -> Result<usize, String> {
    let first = text.split(|byte| *byte == b'\n').next().and_then(parse_decimal);
    let count = first.and_then(|count| usize::try_from(count).ok()).filter(|count| *count <= SEGMENT_LIMIT);
    count.map(|count| 1 + 2 * count).ok_or_else(|| format!("sparse file of more than {SEGMENT_LIMIT} parts"))
}

/// Reads the map of PAX form 1.0: lines with the number of parts, then offset and length of each. It is in front of the
/// data and grows block by block; `None` asks for one more.
pub(super) fn parse_lines(text: &[u8]) -> Result<Option<Segments>, String> {
    let mut lines = text.split_inclusive(|byte| *byte == b'\n');
    let mut next = || match lines.next().and_then(|line| line.strip_suffix(b"\n")) {
        None => Ok(None),
        Some(line) => match parse_decimal(line) {
            Some(number) => Ok(Some(number)),
            None => Err("sparse map with a line that is not a number".to_owned()),
        },
    };
    let Some(count) = next()? else { return Ok(None) };
    if count > SEGMENT_LIMIT as u64 {
        return Err(format!("sparse file of {count} parts"));
    }
    let mut segments = Segments::new();
    for _ in 0..count {
        let (Some(offset), Some(length)) = (next()?, next()?) else { return Ok(None) };
        segments.push((offset, length));
    }
    Ok(Some(segments))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_checked() {
        assert_eq!(check(vec![(0, 5), (10, 0), (10, 5), (20, 0)], 20, 10), Ok(vec![(0, 5), (10, 5)]));
        assert!(check(vec![(0, 5), (4, 5)], 20, 10).is_err(), "overlap");
        assert!(check(vec![(10, 5), (0, 5)], 20, 10).is_err(), "order");
        assert!(check(vec![(16, 5)], 20, 5).is_err(), "behind the end");
        assert!(check(vec![(u64::MAX, 5)], 20, 5).is_err(), "overflow");
        assert!(check(vec![(0, 5)], 20, 6).is_err(), "stored bytes left over");
    }

    #[test]
    fn maps_are_parsed() {
        assert_eq!(parse_list(b"0,5,10,5"), Ok(vec![(0, 5), (10, 5)]));
        assert_eq!(parse_list(b""), Ok(vec![]));
        assert!(parse_list(b"0,5,10").is_err() && parse_list(b"a,b").is_err());
        assert_eq!(parse_lines(b"2\n0\n5\n10\n5\n\0\0"), Ok(Some(vec![(0, 5), (10, 5)])));
        assert_eq!(parse_lines(b"2\n0\n5\n1"), Ok(None));
        assert!(parse_lines(b"x\n").is_err() && parse_lines(b"999999999\n").is_err());
    }
}
