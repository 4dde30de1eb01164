//! What one layer holds: its entries by path, with a digest in place of the content.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::{BufReader, Read};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;

use super::{CompareError, FieldChange, PathChange, Side, Subject};
use crate::layer::{LayerError, TarEntry, TarEntryKind, TarReader};
use crate::oci::{Digest, Layer};
use crate::stream::{auto_decoder, hash_all};

/// A path as bytes, relative, without dots and doubled slashes.
pub(super) type Path = Vec<u8>;

/// What is compared of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    entry: TarEntry,
    /// Of a file's content.
    content: Option<Digest>,
}

/// A layer's entries; marks of removal are entries like all others here.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Listing {
    pub(super) entries: BTreeMap<Path, Listed>,
}

/// The tar of a layer, decompressed.
pub(super) type LayerTar<'a> = TarReader<BufReader<Box<dyn Read + Send + 'a>>>;

/// A layer opened for reading, decompressed.
pub(super) fn open<'a>(subject: &'a Subject, layer: &Layer) -> Result<LayerTar<'a>, CompareError> {
    let digest = layer.digest();
    let reader = subject
        .blobs
        .open(&layer.descriptor)
        .map_err(|source| CompareError::Blob { digest: digest.clone(), source })?;
    let (_, tar) = auto_decoder(reader)
        .map_err(|source| CompareError::Layer { digest, source: LayerError::Archive { source } })?;
    Ok(TarReader::new(tar))
}

/// Lists the entries of a layer whose paths are `wanted`. A path that comes twice is what it is at last.
pub(super) fn list(
    subject: &Subject,
    layer: &Layer,
    wanted: impl Fn(&[u8]) -> bool,
) -> Result<Listing, CompareError> {
    let failed = |source| CompareError::Layer { digest: layer.digest(), source };
    let mut reader = open(subject, layer)?;
    let mut listing = Listing::default();
    let mut buffer = vec![0; 64 * 1024];
    while let Some(mut entry) = reader.next_entry().map_err(failed)? {
        let path = normal(entry.path.as_os_str().as_bytes());
        if path.is_empty() || !wanted(&path) {
            continue;
        }
        let content = match entry.kind {
            TarEntryKind::File => Some(
                hash_all(&mut reader, &mut buffer)
                    .map_err(|source| failed(LayerError::Archive { source }))?
                    .digest,
            ),
            _ => None,
        };
        // Only what it comes to counts, not how it was written.
        entry.path = PathBuf::new();
        entry.data = None;
        listing.entries.insert(path, Listed { entry, content });
    }
    Ok(listing)
}

/// Returns a name without leading, trailing and doubled slashes and without `.`.
pub(super) fn normal(name: &[u8]) -> Path {
    let parts = name.split(|byte| *byte == b'/').filter(|part| !matches!(**part, [] | [b'.']));
    parts.collect::<Vec<_>>().join(&b'/')
}

impl Listed {
    pub(super) fn is_directory(&self) -> bool {
        self.entry.kind == TarEntryKind::Directory
    }

    /// Describes it as fields, in the order that people read them.
    fn fields(&self) -> Vec<(String, String)> {
        let entry = &self.entry;
        let mut fields = Vec::new();
        let mut add = |name: &str, value: String| fields.push((name.to_owned(), value));
        let kind = match &entry.kind {
            TarEntryKind::File => "file",
            TarEntryKind::Directory => "directory",
            TarEntryKind::Symlink { .. } => "symlink",
            TarEntryKind::HardLink { .. } => "hard link",
            TarEntryKind::CharDevice(_) => "character device",
            TarEntryKind::BlockDevice(_) => "block device",
            TarEntryKind::Fifo => "fifo",
        };
        add("type", kind.to_owned());
        match &entry.kind {
            TarEntryKind::Symlink { target } | TarEntryKind::HardLink { target } => {
                add("target", target.display().to_string());
            }
            TarEntryKind::CharDevice(device) | TarEntryKind::BlockDevice(device) => {
                add("device", format!("{}:{}", device.major, device.minor));
            }
            _ => {}
        }
        add("mode", format!("{:04o}", entry.mode));
        add("owner", format!("{}:{}", entry.uid, entry.gid));
        if let Some(content) = &self.content {
            add("size", entry.size_bytes.to_string());
            add("content", content.to_string());
        }
        for (name, value) in &entry.xattrs {
            add(&format!("xattr {}", name.display()), value.escape_ascii().to_string());
        }
        add("mtime", time(entry.mtime.seconds, entry.mtime.nanoseconds));
        fields
    }

    /// Compares two entries at a path; `None` if they are equal.
    pub(super) fn compare(path: &[u8], first: Option<&Self>, second: Option<&Self>) -> Option<PathChange> {
        if first == second {
            return None;
        }
        let of = |listed: Option<&Self>| listed.map(Self::fields).unwrap_or_default();
        let (before, after) = (of(first), of(second));
        let value = |fields: &[(String, String)], name: &str| {
            fields.iter().find(|(other, _)| other == name).map(|(_, value)| value.clone())
        };
        let new = after.iter().filter(|(name, _)| value(&before, name).is_none());
        let changes = before.iter().chain(new).map(|(name, _)| FieldChange {
            name: name.clone(),
            before: value(&before, name),
            after: value(&after, name),
        });
        let side = match (first, second) {
            (Some(_), None) => Side::First,
            (None, _) => Side::Second,
            _ => Side::Both,
        };
        let fields = changes.filter(|change| change.before != change.after).collect();
        let path = PathBuf::from(OsString::from_vec(path.to_vec()));
        Some(PathChange { path, side, fields })
    }
}

fn time(seconds: i64, nanoseconds: u32) -> String {
    let nanoseconds = i32::try_from(nanoseconds).unwrap_or(0);
    match jiff::Timestamp::new(seconds, nanoseconds) {
        Ok(time) => time.to_string(),
        Err(_) => format!("{seconds} seconds since 1970"),
    }
}

/// What an entry's name says to whoever unpacks the layer (OCI image-spec `layer.md#whiteouts`).
pub(super) enum Mark {
    /// Everything older in this directory is hidden.
    Opaque(Path),
    /// This path is removed.
    Removed(Path),
}

/// Reads an entry's name as a mark, if it is one.
pub(super) fn mark(path: &[u8]) -> Option<Mark> {
    let (directory, name) = match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&b""[..], path),
    };
    let hidden = name.strip_prefix(b".wh.")?;
    if hidden == b".wh..opq" {
        return Some(Mark::Opaque(directory.to_vec()));
    }
    Some(Mark::Removed(if directory.is_empty() {
        hidden.to_vec()
    } else {
        [directory, b"/", hidden].concat()
    }))
}

/// Returns a path for messages.
pub(super) fn shown(path: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(path))
}
