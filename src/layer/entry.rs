//! One entry out of its header and the extensions before it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

use super::fields::{Fields, path_of};
use super::pax;
use super::sparse::{self, Segments};
use super::{TarEntry, TarEntryKind};
use crate::tree::{Device, Timestamp};

/// Real ones hold a time or an owner.
const GLOBAL_LIMIT_BYTES: usize = 16 * 1024;

const XATTR_PREFIX: &[u8] = b"SCHILY.xattr.";

/// What came before an entry's own header.
#[derive(Debug, Default)]
pub(super) struct Extensions {
    pub(super) long_name: Option<Vec<u8>>,
    pub(super) long_link: Option<Vec<u8>>,
    /// The last record of a key counts; an empty value takes a global one back.
    records: BTreeMap<Vec<u8>, Vec<u8>>,
    /// PAX sparse form 0.0 repeats its keys, so order and number matter.
    sparse_offsets: Vec<u64>,
    sparse_lengths: Vec<u64>,
}

/// Adds the records of a global header to those of earlier ones.
pub(super) fn merge_globals(globals: &mut Vec<(Vec<u8>, Vec<u8>)>, data: &[u8]) -> Result<(), String> {
    for (key, value) in pax::records(data)? {
        globals.retain(|(known, _)| known != key);
        // Comments (git's commit id) and the like are of no use here and would only pile up.
        if is_known(key) && !value.is_empty() {
            globals.push((key.to_vec(), value.to_vec()));
        }
    }
    // They are looked at for every entry, so they must be few; each header is limited, their sum would not be.
    if globals.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() > GLOBAL_LIMIT_BYTES {
        return Err(format!("global extended headers of more than {GLOBAL_LIMIT_BYTES} bytes"));
    }
    Ok(())
}

fn is_known(key: &[u8]) -> bool {
    matches!(key, b"path" | b"linkpath" | b"size" | b"uid" | b"gid" | b"mtime")
        || key.starts_with(XATTR_PREFIX)
}

impl Extensions {
    pub(super) fn is_empty(&self) -> bool {
        self.long_name.is_none() && self.long_link.is_none() && self.records.is_empty()
    }

    /// Takes in an extended header.
    pub(super) fn add_pax(&mut self, data: &[u8]) -> Result<(), String> {
        for (key, value) in pax::records(data)? {
            let list = match key {
                b"GNU.sparse.offset" => &mut self.sparse_offsets,
                b"GNU.sparse.numbytes" => &mut self.sparse_lengths,
                _ => {
                    self.records.insert(key.to_vec(), value.to_vec());
                    continue;
                }
            };
            list.push(pax::parse_decimal(value).ok_or("sparse map with a part that is not a number")?);
        }
        Ok(())
    }

    /// Puts global records where the entry has none of its own.
    pub(super) fn set_globals(&mut self, globals: &[(Vec<u8>, Vec<u8>)]) {
        for (key, value) in globals {
            self.records.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }

    fn record(&self, key: &str) -> Option<&[u8]> {
        self.records.get(key.as_bytes()).map(Vec::as_slice).filter(|value| !value.is_empty())
    }

    fn number(&self, key: &str) -> Result<Option<u64>, String> {
        self.record(key)
            .map(|value| {
                pax::parse_decimal(value)
                    .ok_or_else(|| format!("`{key}` is not a number: `{}`", value.escape_ascii()))
            })
            .transpose()
    }

    /// Returns the entry, not sparse yet, and how many bytes of content follow in the archive.
    pub(super) fn resolve(&self, fields: &Fields<'_>) -> Result<(TarEntry, u64), String> {
        let name = self.name(fields);
        if name.contains(&0) {
            return Err(format!("name with a zero byte: `{}`", name.escape_ascii()));
        }
        let (kind, has_content) = self.kind(fields, &name)?;
        let size_bytes = match self.number("size")? {
            Some(size) => i64::try_from(size).map_err(|_| format!("impossible size {size}"))?,
            None => fields.size_bytes()?,
        };
        let size_bytes = u64::try_from(size_bytes).map_err(|_| format!("impossible size {size_bytes}"))?;
        // Only files have content; other types have had all sorts of sizes written into their headers. GNU's directories
        // of incremental dumps (`D`) are the exception: a list of names follows them.
        let stored_bytes = if has_content || fields.type_flag() == b'D' { size_bytes } else { 0 };
        let entry = TarEntry {
            path: path_of(name),
            kind,
            mode: u32::try_from(fields.mode()? & 0o7777).expect("masked"),
            uid: self.id("uid", fields.uid())?,
            gid: self.id("gid", fields.gid())?,
            mtime: self.mtime(fields)?,
            xattrs: self.xattrs(),
            size_bytes: if has_content { size_bytes } else { 0 },
            data: None,
        };
        Ok((entry, stored_bytes))
    }

    fn name(&self, fields: &Fields<'_>) -> Vec<u8> {
        let record = self.record("GNU.sparse.name").or_else(|| self.record("path"));
        record.or(self.long_name.as_deref()).map_or_else(|| fields.name(), <[u8]>::to_vec)
    }

    fn kind(&self, fields: &Fields<'_>, name: &[u8]) -> Result<(TarEntryKind, bool), String> {
        let target = || {
            let target = self.record("linkpath").or(self.long_link.as_deref());
            let target = target.map_or_else(|| fields.link(), <[u8]>::to_vec);
            match target {
                target if target.is_empty() => Err("link without a target".to_owned()),
                target if target.contains(&0) => Err("link target with a zero byte".to_owned()),
                target => Ok(path_of(target)),
            }
        };
        Ok(match fields.type_flag() {
            // V7 has no type for directories.
            0 if name.ends_with(b"/") => (TarEntryKind::Directory, false),
            b'0' | 0 | b'7' | b'S' => (TarEntryKind::File, true),
            b'1' => (TarEntryKind::HardLink { target: target()? }, false),
            b'2' => (TarEntryKind::Symlink { target: target()? }, false),
            b'3' => (TarEntryKind::CharDevice(self.device(fields)?), false),
            b'4' => (TarEntryKind::BlockDevice(self.device(fields)?), false),
            b'5' | b'D' => (TarEntryKind::Directory, false),
            b'6' => (TarEntryKind::Fifo, false),
            b'M' => return Err("part of a file of an archive in several volumes".to_owned()),
            other => return Err(format!("unknown entry type `{}`", other.escape_ascii())),
        })
    }

    fn device(&self, fields: &Fields<'_>) -> Result<Device, String> {
        let part = |key: &str| {
            self.number(key)?
                .map(|number| u32::try_from(number).map_err(|_| format!("impossible `{key}` {number}")))
                .transpose()
        };
        match (part("SCHILY.devmajor")?, part("SCHILY.devminor")?) {
            (Some(major), Some(minor)) => Ok(Device { major, minor }),
            _ => fields.device(),
        }
    }

    fn id(&self, key: &str, field: Result<i64, String>) -> Result<u32, String> {
        let id = match self.number(key)? {
            Some(id) => i128::from(id),
            None => i128::from(field?),
        };
        // The largest is the kernel's word for "no change".
        match u32::try_from(id) {
            Ok(id) if id != u32::MAX => Ok(id),
            _ => Err(format!("impossible {key} {id}")),
        }
    }

    fn mtime(&self, fields: &Fields<'_>) -> Result<Timestamp, String> {
        let Some(text) = self.record("mtime") else {
            return Ok(Timestamp { seconds: fields.mtime_seconds()?, nanoseconds: 0 });
        };
        let (seconds, nanoseconds) = pax::parse_time(text)
            .ok_or_else(|| format!("`mtime` is not a time: `{}`", text.escape_ascii()))?;
        Ok(Timestamp { seconds, nanoseconds })
    }

    fn xattrs(&self) -> BTreeMap<OsString, Vec<u8>> {
        let named = |(key, value): (&Vec<u8>, &Vec<u8>)| {
            let name =
                key.strip_prefix(XATTR_PREFIX).filter(|name| !name.is_empty() && !name.contains(&0))?;
            Some((OsString::from_vec(name.to_vec()), value.clone()))
        };
        self.records.iter().filter_map(named).collect()
    }

    /// Returns the map and the length of a sparse file in a PAX form; no map where it is in front of the data.
    pub(super) fn sparse(&self) -> Result<Option<(Option<Segments>, u64)>, String> {
        if let Some(major) = self.number("GNU.sparse.major")? {
            let minor = self.number("GNU.sparse.minor")?.unwrap_or(0);
            if (major, minor) != (1, 0) {
                return Err(format!("unknown sparse form {major}.{minor}"));
            }
            let size = self.number("GNU.sparse.realsize")?.ok_or("sparse file without a size")?;
            return Ok(Some((None, size)));
        }
        let Some(size) = self.number("GNU.sparse.size")? else { return Ok(None) };
        let segments = match self.record("GNU.sparse.map") {
            Some(map) => sparse::parse_list(map)?,
            None if self.sparse_offsets.len() == self.sparse_lengths.len() => {
                let offsets = self.sparse_offsets.iter().copied();
                offsets.zip(self.sparse_lengths.iter().copied()).collect()
            }
            None => return Err("sparse map with a part that has no length".to_owned()),
        };
        Ok(Some((Some(segments), size)))
    }
}
