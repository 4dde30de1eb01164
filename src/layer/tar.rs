//! The canonical tar writer: equal changes, equal bytes.
//!
//! * ustar headers; a PAX header only for an entry with a name, link, id, size or time that does not fit, or with
//!   extended attributes. Names are written as the bytes they are, also in PAX records. Never GNU extensions.
//! * Times are whole seconds, rounded down, as all other builders write them: nanoseconds would cost every entry a PAX
//!   header of 1 KiB, and no two clones of a repository would agree on them. No access or change times.
//! * Numeric owners only; no user or group names, which would be those of the machine.
//! * Sparse files are written in full, since not every unpacker knows the sparse forms. Their holes are not read.
//! * Whiteouts have mode 0, owner 0 and time 0.
//!
//! The changes come in order and complete ([`ChangeSet`]); this is checked in debug builds only.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::content::{Buffered, copy_content};
use super::header::{BLOCK_BYTES, Header, padding};
use super::names::{CAPABILITY, OPAQUE_NAME, WHITEOUT_PREFIX};
use super::names::{belongs_to_overlay, is_reserved, portable_capability};
use super::{Change, ChangeSet, LayerError, Node, NodeKind};

/// What a layer's bytes depend on besides the changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TarOptions {
    /// Modification times after this, in seconds since 1970, become this.
    pub epoch: Option<i64>,
}

/// Writes `changes` as a canonical tar.
///
/// Files are opened and read one by one as they are written. One that is shorter or longer than its node says is an
/// error: its header is out already.
pub fn write_tar(changes: ChangeSet, options: &TarOptions, out: &mut impl Write) -> Result<(), LayerError> {
    let mut out = Buffered::new(out);
    let mut last: Option<PathBuf> = None;
    for change in changes {
        let change = change?;
        let path = change.path();
        debug_assert!(
            last.as_deref().is_none_or(|last| last < path || matches!(change, Change::Opaque { .. })),
            "{} comes after {}",
            path.display(),
            last.unwrap_or_default().display()
        );
        if cfg!(debug_assertions) {
            last = Some(path.to_owned());
        }
        match &change {
            Change::Upsert { path, node } => write_node(path, node, options, &mut out)?,
            Change::Remove { path } => {
                let name = path.file_name().unwrap_or_default().as_bytes();
                write_whiteout(path.parent(), &[WHITEOUT_PREFIX, name].concat(), &mut out)?;
            }
            Change::Opaque { path } => write_whiteout(Some(path), OPAQUE_NAME, &mut out)?,
        }
    }
    // Two blocks of zeros are the end (POSIX pax, "ustar Interchange Format").
    out.space()?.extend_from_slice(&[0; 2 * BLOCK_BYTES]);
    out.finish()
}

fn write_whiteout(
    directory: Option<&Path>,
    name: &[u8],
    out: &mut Buffered<'_, impl Write>,
) -> Result<(), LayerError> {
    let mut path = directory.map(|directory| directory.as_os_str().as_bytes().to_vec()).unwrap_or_default();
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    let header = Header {
        type_flag: b'0',
        name: &path,
        link: b"",
        mode: 0,
        uid: 0,
        gid: 0,
        size_bytes: 0,
        mtime_seconds: 0,
        device: None,
    };
    header.write(BTreeMap::new(), out.space()?);
    Ok(())
}

fn write_node(
    path: &Path,
    node: &Node,
    options: &TarOptions,
    out: &mut Buffered<'_, impl Write>,
) -> Result<(), LayerError> {
    if is_reserved(path) {
        return Err(LayerError::Unrepresentable {
            path: path.to_owned(),
            problem: "names that begin with `.wh.` mean a removal in a layer".to_owned(),
        });
    }
    let mut name = path.as_os_str().as_bytes().to_vec();
    let mut header = Header {
        type_flag: b'0',
        name: b"",
        link: b"",
        mode: node.mode & 0o7777,
        uid: u64::from(node.uid),
        gid: u64::from(node.gid),
        size_bytes: 0,
        mtime_seconds: options.epoch.map_or(node.mtime.seconds, |epoch| node.mtime.seconds.min(epoch)),
        device: None,
    };
    match &node.kind {
        NodeKind::File { size_bytes, .. } => header.size_bytes = *size_bytes,
        NodeKind::Directory => {
            header.type_flag = b'5';
            name.push(b'/');
        }
        NodeKind::Symlink { target } => {
            header.type_flag = b'2';
            header.link = target.as_os_str().as_bytes();
            header.mode = 0o777;
        }
        NodeKind::HardLink { target } => {
            header.type_flag = b'1';
            header.link = target.as_os_str().as_bytes();
        }
        NodeKind::CharDevice(device) => {
            header.type_flag = b'3';
            header.device = Some((device.major, device.minor));
        }
        NodeKind::BlockDevice(device) => {
            header.type_flag = b'4';
            header.device = Some((device.major, device.minor));
        }
        NodeKind::Fifo => header.type_flag = b'6',
    }
    header.name = &name;
    header.write(attribute_records(path, node)?, out.space()?);
    if let NodeKind::File { size_bytes, content } = &node.kind {
        copy_content(path, content, *size_bytes, out)?;
        let length = padding(*size_bytes);
        out.space()?.extend_from_slice(&[0; BLOCK_BYTES][..length]);
    }
    Ok(())
}

/// Extended attributes as PAX records; a hard link's are with its first name.
fn attribute_records(path: &Path, node: &Node) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, LayerError> {
    let mut records = BTreeMap::new();
    if matches!(node.kind, NodeKind::HardLink { .. }) {
        return Ok(records);
    }
    for (name, value) in node.xattrs.iter().filter(|(name, _)| !belongs_to_overlay(name)) {
        let name = name.as_bytes();
        if name.contains(&b'=') {
            return Err(LayerError::Unrepresentable {
                path: path.to_owned(),
                problem: format!(
                    "the extended attribute `{}` has a `=` in its name, which no tar can hold",
                    String::from_utf8_lossy(name)
                ),
            });
        }
        let value = if name == CAPABILITY { portable_capability(value) } else { value.clone() };
        records.insert([b"SCHILY.xattr.", name].concat(), value);
    }
    Ok(records)
}
