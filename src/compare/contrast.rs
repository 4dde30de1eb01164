//! The contents of one path in two layers, side by side, as far as a person or a rule wants to see them.

use std::io::{self, Read};

use super::listing::{LayerTar, normal, open, shown};
use super::{CompareError, Subject};
use crate::layer::{LayerError, TarEntryKind};
use crate::oci::Layer;

/// Enough of a file to tell what it is, and the whole of most that are text.
const HEAD_BYTES: usize = 256 * 1024;

/// Shown around the first difference: a line or two.
const BEFORE_BYTES: usize = 160;
const AFTER_BYTES: usize = 160;

/// Two contents that differ.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contrast {
    /// Where the first difference is, in bytes; a content that ends earlier differs at its end.
    pub offset: u64,
    /// Beginnings of the two.
    pub heads: [Vec<u8>; 2],
    /// What is around the first difference.
    pub around: [Vec<u8>; 2],
    /// How many bytes of `around` are before it.
    pub before: usize,
}

/// Reads a path's content in a layer of each image; `None` if it is no file in both, or the same.
pub fn contrast(
    path: &std::path::Path,
    first: (&Subject, &Layer),
    second: (&Subject, &Layer),
) -> Result<Option<Contrast>, CompareError> {
    let (Some(mut a), Some(mut b)) = (find(path, first)?, find(path, second)?) else { return Ok(None) };
    let failed = |layer: &Layer, source| {
        let source = LayerError::Archive { source };
        CompareError::Layer { digest: layer.digest(), source }
    };
    let mut found = Contrast::default();
    // What was the same just now: the beginning of what is shown.
    let mut tail: Vec<u8> = Vec::new();
    loop {
        let one = fill(&mut a).map_err(|source| failed(first.1, source))?;
        let other = fill(&mut b).map_err(|source| failed(second.1, source))?;
        for (head, block) in found.heads.iter_mut().zip([&one, &other]) {
            let room = HEAD_BYTES.saturating_sub(head.len()).min(block.len());
            head.extend_from_slice(&block[..room]);
        }
        let same = one.iter().zip(&other).take_while(|(a, b)| a == b).count();
        if same == one.len() && same == other.len() {
            if same == 0 {
                return Ok(None);
            }
            found.offset += same as u64;
            tail = one[one.len().saturating_sub(BEFORE_BYTES)..].to_vec();
            continue;
        }
        found.offset += same as u64;
        tail.extend_from_slice(&one[..same]);
        let tail = tail.split_off(tail.len().saturating_sub(BEFORE_BYTES));
        found.before = tail.len();
        found.around = [&one, &other].map(|block| {
            let end = block.len().min(same + AFTER_BYTES);
            [&tail[..], &block[same..end]].concat()
        });
        return Ok(Some(found));
    }
}

/// Reads a block, full unless the content ends.
fn fill(content: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut block = Vec::with_capacity(HEAD_BYTES);
    content.take(HEAD_BYTES as u64).read_to_end(&mut block)?;
    Ok(block)
}

/// Opens a layer at a path's content.
fn find<'a>(
    path: &std::path::Path,
    (subject, layer): (&'a Subject, &Layer),
) -> Result<Option<LayerTar<'a>>, CompareError> {
    let mut reader = open(subject, layer)?;
    loop {
        let entry = reader.next_entry();
        let entry = entry.map_err(|source| CompareError::Layer { digest: layer.digest(), source })?;
        let Some(entry) = entry else { return Ok(None) };
        let name = std::os::unix::ffi::OsStrExt::as_bytes(entry.path.as_os_str());
        if shown(&normal(name)) == path {
            return Ok((entry.kind == TarEntryKind::File).then_some(reader));
        }
    }
}
