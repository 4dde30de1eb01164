//! A finished layer written anew with no time after the epoch (`rewrite-timestamp`).
//!
//! Entries keep their order and their names: only who has the whole tree could sort them. Headers, owners, times and
//! sparse files are written as in every layer of kiln's, so that equal layers and epochs make equal bytes on every
//! machine. Contents pass through; nothing is kept but a few blocks.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt as _;

use super::content::Buffered;
use super::header::{BLOCK_BYTES, Header, padding};
use super::{LayerError, LayerOptions, TarEntry, TarEntryKind, TarReader};
use crate::blob::Store;
use crate::oci::Layer;

/// Tells whether a tar has a time after `epoch`, in seconds since 1970; reads it to its end.
pub fn is_newer(tar: impl Read, epoch: i64) -> Result<bool, LayerError> {
    let mut reader = TarReader::new(tar);
    let mut newer = false;
    while let Some(entry) = reader.next_entry()? {
        newer |= is_after(&entry, epoch);
    }
    Ok(newer)
}

/// Writes the layer that `tar` is, decompressed, into `store` as `options` say, its times clamped to their epoch.
pub fn rewrite_layer(tar: impl Read, options: &LayerOptions, store: &Store) -> Result<Layer, LayerError> {
    super::write::write_blob(options, store, None, |out| rewrite_tar(tar, options.tar.epoch, out))
}

/// A time of whole seconds is what a layer has: a fraction after the epoch is after it.
fn is_after(entry: &TarEntry, epoch: i64) -> bool {
    (entry.mtime.seconds, entry.mtime.nanoseconds) > (epoch, 0)
}

fn rewrite_tar(tar: impl Read, epoch: Option<i64>, out: &mut impl Write) -> Result<(), LayerError> {
    let mut reader = TarReader::new(tar);
    let mut out = Buffered::new(out);
    while let Some(entry) = reader.next_entry()? {
        write_header(&entry, epoch, out.space()?);
        let found_bytes = out.pump(&mut reader, entry.size_bytes)?;
        if found_bytes != entry.size_bytes {
            let expected_bytes = entry.size_bytes;
            return Err(LayerError::Changed { path: entry.path, expected_bytes, found_bytes });
        }
        out.space()?.extend_from_slice(&[0; BLOCK_BYTES][..padding(entry.size_bytes)]);
    }
    out.space()?.extend_from_slice(&[0; 2 * BLOCK_BYTES]);
    out.finish()
}

fn write_header(entry: &TarEntry, epoch: Option<i64>, out: &mut Vec<u8>) {
    let mut name = entry.path.as_os_str().as_bytes().to_vec();
    let seconds = entry.mtime.seconds;
    let (mut link, mut device) = (&b""[..], None);
    let type_flag = match &entry.kind {
        TarEntryKind::File => b'0',
        TarEntryKind::Directory => {
            if !name.ends_with(b"/") {
                name.push(b'/');
            }
            b'5'
        }
        TarEntryKind::Symlink { target } => {
            link = target.as_os_str().as_bytes();
            b'2'
        }
        TarEntryKind::HardLink { target } => {
            link = target.as_os_str().as_bytes();
            b'1'
        }
        TarEntryKind::CharDevice(numbers) => {
            device = Some((numbers.major, numbers.minor));
            b'3'
        }
        TarEntryKind::BlockDevice(numbers) => {
            device = Some((numbers.major, numbers.minor));
            b'4'
        }
        TarEntryKind::Fifo => b'6',
    };
    let header = Header {
        type_flag,
        name: &name,
        link,
        mode: entry.mode,
        uid: u64::from(entry.uid),
        gid: u64::from(entry.gid),
        size_bytes: entry.size_bytes,
        mtime_seconds: epoch.map_or(seconds, |epoch| seconds.min(epoch)),
        device,
    };
    let attributes = entry.xattrs.iter();
    let records: BTreeMap<Vec<u8>, Vec<u8>> = attributes
        .map(|(name, value)| ([b"SCHILY.xattr.", name.as_bytes()].concat(), value.clone()))
        .collect();
    header.write(records, out);
}
