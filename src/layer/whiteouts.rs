//! What entries named `.wh.…` do to a tree (OCI image-spec `layer.md#whiteouts`).
//!
//! A whiteout is about lower layers only. Whatever the same layer has of that name stays, whether it comes before or
//! after the mark; a directory that a layer removes and has again shows nothing of the lower ones.

use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::apply::{Unpacking, hostile};
use super::names::{AUFS_PREFIX, OPAQUE_NAME, WHITEOUT_PREFIX};
use super::parents::{Parent, apply};
use super::{LayerError, TarEntry, Whiteouts, place};
use crate::tree::FileKind;

impl Unpacking<'_> {
    /// Takes in the entry `name`, which begins with `.wh.`, of a layer.
    pub(super) fn whiteout(
        &mut self,
        name: &OsStr,
        directory: &Path,
        entry: &TarEntry,
    ) -> Result<(), LayerError> {
        let is_opaque = name == OsStr::from_bytes(OPAQUE_NAME);
        if !is_opaque && name.as_bytes().starts_with(AUFS_PREFIX) {
            return Ok(());
        }
        let parent = self.parents.find(directory, &entry.path)?;
        self.applied.entries += 1;
        if is_opaque {
            return match self.options.whiteouts {
                Whiteouts::Overlay { userxattr } => self.parents.set_opaque(&parent.path, userxattr),
                Whiteouts::Apply | Whiteouts::Literal => self.remove_older(&parent.path),
            };
        }
        let name = OsStr::from_bytes(&name.as_bytes()[WHITEOUT_PREFIX.len()..]);
        if matches!(name.as_bytes(), b"" | b"." | b"..") {
            return Err(hostile(&entry.path, "is a whiteout of no file"));
        }
        let path = parent.path.join(name);
        match self.options.whiteouts {
            Whiteouts::Overlay { userxattr } => self.overlay_whiteout(&parent, name, &path, userxattr),
            Whiteouts::Apply | Whiteouts::Literal if self.parents.is_written(&path) => {
                self.remove_older(&path)
            }
            Whiteouts::Apply | Whiteouts::Literal => {
                self.parents.remove(&path).map_err(|source| apply("remove", &path, source))
            }
        }
    }

    fn overlay_whiteout(
        &mut self,
        parent: &Parent,
        name: &OsStr,
        path: &Path,
        userxattr: bool,
    ) -> Result<(), LayerError> {
        let dir = parent.fd.as_fd();
        let failed = |source| apply("create the whiteout", path, source);
        match place::make_whiteout(dir, name) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // The layer has an entry of that name: a directory must not show what lower ones have in theirs.
                match place::look(dir, name).map_err(failed)? {
                    Some(FileKind::Directory) => self.parents.set_opaque(path, userxattr),
                    _ => Ok(()),
                }
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// Removes what older layers left below `path`, and keeps what this one wrote.
    fn remove_older(&mut self, path: &Path) -> Result<(), LayerError> {
        let is_directory = |path: &Path| match self.root.metadata(path) {
            Ok(found) => Ok(found.kind == FileKind::Directory),
            Err(source) => Err(apply("look at", path, source)),
        };
        let mut pending = Vec::new();
        if is_directory(path)? {
            pending.push(path.to_owned());
        }
        while let Some(directory) = pending.pop() {
            let names = self.root.read_dir(&directory);
            let names = names.map_err(|source| apply("list", &directory, source))?;
            for path in names.into_iter().map(|name| directory.join(name)) {
                if !self.parents.is_written(&path) {
                    self.parents.remove(&path).map_err(|source| apply("remove", &path, source))?;
                } else if is_directory(&path)? {
                    pending.push(path);
                }
            }
        }
        Ok(())
    }
}
