//! After a step: what became of each file that was noted before it, and how it is made as it was.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::{Content, Found, Known, Offence, Part};
use crate::sandbox::Whose;
use crate::sandbox::look::dress;
use crate::sandbox::volumes::Writers;
use crate::tree::{Metadata, RootDir};

/// How much is compared at once.
const BUFFER_BYTES: usize = 128 << 10;

/// Compares and puts back.
pub(super) struct Settling<'a> {
    pub(super) slash: &'a RootDir,
    /// Where what was planted is moved to.
    pub(super) aside: &'a Path,
    /// What is not looked at.
    pub(super) work: &'a [PathBuf],
}

/// Tells whether it is the same inode, with the same mode and owner.
fn looks_the_same(now: &Metadata, was: &Metadata) -> bool {
    now.same_inode(was) && (now.mode, now.uid, now.gid) == (was.mode, was.uid, was.gid)
}

/// Which of kiln's files they are.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Fixed,
    Names,
    Container,
}

impl Kind {
    fn offence(self, path: &Path) -> Offence {
        let whose = match self {
            Self::Fixed | Self::Names => Whose::Kilns,
            Self::Container => Whose::Containers,
        };
        Offence { path: path.to_path_buf(), whose }
    }
}

/// What became of an entry.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Untouched,
    /// Another mode, owner, attribute or time, and no other content.
    Dressed,
    /// Another inode, other content, or nobody knows.
    Spoilt,
}

impl Settling<'_> {
    /// Makes one sort of files as they were, which are as `now` tells, and adds what there was to `found`.
    pub(super) fn settle(
        &self,
        kind: Kind,
        Part { known, copy, .. }: &mut Part,
        now: &BTreeMap<PathBuf, Metadata>,
        found: &mut Found,
    ) -> io::Result<()> {
        let mut writers = Writers::default();
        let new = now.iter().filter(|(path, _)| !known.contains_key(*path) && !self.work.contains(path));
        let mut planted: Vec<PathBuf> = Vec::new();
        for (path, metadata) in new {
            let is_planted = match kind {
                // A new directory is in nobody's way, and may be another kiln's: programs are looked for in those there are.
                Kind::Fixed => {
                    !metadata.kind.is_dir() && path.parent().is_some_and(|parent| known.contains_key(parent))
                }
                Kind::Names => true,
                // What is below goes with it. A file that the job writes is one that a step gave another name: what the job makes
                // meanwhile is in the stage.
                Kind::Container => !planted.last().is_some_and(|last| path.starts_with(last)),
            };
            planted.extend(is_planted.then(|| path.clone()));
        }
        let mut gone = Vec::new();
        for (path, known) in known.iter_mut() {
            let fate = match self.fate(path, known, now.get(path), copy) {
                // It went with a directory that it was in.
                Err(error) if error.kind() == io::ErrorKind::NotFound => Fate::Spoilt,
                other => other?,
            };
            let settled = match (&fate, &known.content) {
                (Fate::Untouched, _) => {
                    if let Some(now) = now.get(path).filter(|now| !now.kind.is_dir()) {
                        known.metadata = *now;
                    }
                    continue;
                }
                // What it holds by now is found out before the next step.
                (Fate::Spoilt, _)
                    if matches!(kind, Kind::Container)
                        && now.get(path).is_some_and(|now| looks_the_same(now, &known.metadata))
                        && now.get(path).map_or(Ok(false), |now| writers.write(now))? =>
                {
                    continue;
                }
                (Fate::Dressed, _) => {
                    found.put_back.push(path.clone());
                    dress(self.slash, path, &known.metadata, &known.xattrs)
                }
                (Fate::Spoilt, Content::Large) => {
                    found.offences.push(kind.offence(path));
                    found.problems.push(format!("`{}`: it is too large to be kept", path.display()));
                    gone.push(path.clone());
                    if now.contains_key(path) { self.put_aside(path) } else { Ok(()) }
                }
                (Fate::Spoilt, Content::Unknown) => {
                    found.dropped.push(path.clone());
                    gone.push(path.clone());
                    self.slash.remove_all(path)
                }
                (Fate::Spoilt, _) => {
                    found.offences.push(kind.offence(path));
                    self.make_anew(path, known, copy)
                }
            };
            let settled = settled.and_then(|()| self.slash.metadata(path));
            match settled {
                Ok(metadata) => known.metadata = metadata,
                Err(_) if gone.last() == Some(path) => {}
                Err(error) => found.problems.push(format!("`{}`: {error}", path.display())),
            }
        }
        for path in planted {
            if let Err(error) = self.put_aside(&path) {
                found.problems.push(format!("`{}`: {error}", path.display()));
            }
            found.offences.push(kind.offence(&path));
        }
        known.retain(|path, _| !gone.contains(path));
        Ok(())
    }

    fn fate(&self, path: &Path, known: &Known, now: Option<&Metadata>, copy: &File) -> io::Result<Fate> {
        let Some(now) = now else { return Ok(Fate::Spoilt) };
        let was = &known.metadata;
        if now.kind != was.kind || (!now.same_inode(was) && !self.is_moved(path)) {
            return Ok(Fate::Spoilt);
        }
        // A change of an attribute, too, is one of the entry's own time.
        if was.is_untouched(now) {
            return Ok(Fate::Untouched);
        }
        let same_look = (now.mode, now.uid, now.gid) == (was.mode, was.uid, was.gid)
            && (matches!(known.content, Content::Unknown) || self.slash.xattrs(path)? == known.xattrs);
        // kiln itself has work going on in some directories, and what is in the others is looked at for itself.
        if was.kind.is_dir() && same_look {
            return Ok(Fate::Untouched);
        }
        let same = match &known.content {
            Content::None => true,
            Content::Unknown => false,
            Content::Link(target) => self.slash.read_link(path)? == *target,
            Content::Large => now.size_bytes == was.size_bytes && now.mtime == was.mtime,
            Content::Copy(start) => {
                now.size_bytes == was.size_bytes && {
                    let file = self.slash.open_nofollow(path)?;
                    same_bytes(file, copy, *start, was.size_bytes)?
                }
            }
        };
        Ok(match same {
            true if self.is_moved(path) && same_look && now.mtime == was.mtime => Fate::Untouched,
            true => Fate::Dressed,
            false => Fate::Spoilt,
        })
    }

    /// Tells whether an entry is moved out of a step's way and back, and so may be another inode after it.
    fn is_moved(&self, path: &Path) -> bool {
        path.components().nth(1) != self.aside.components().nth(1)
    }

    fn make_anew(&self, path: &Path, known: &Known, copy: &File) -> io::Result<()> {
        if self.slash.exists(path)? {
            // kiln has made it again, for what it moves there.
            if self.aside.starts_with(path) && self.slash.metadata(path)?.kind.is_dir() {
                return dress(self.slash, path, &known.metadata, &known.xattrs);
            }
            self.put_aside(path)?;
        }
        match &known.content {
            Content::Link(target) => self.slash.symlink(target, path)?,
            Content::Copy(start) => {
                let directory = path.parent().unwrap_or(Path::new("/"));
                self.slash.create_dir_all(directory, 0o755, &mut |_| {})?;
                let mut file = self.slash.create_file(path, 0o600)?;
                write_part(copy, *start, known.metadata.size_bytes, &mut file)?;
            }
            Content::None if known.metadata.kind.is_dir() => self.slash.create_dir(path, 0o700)?,
            Content::None | Content::Unknown | Content::Large => {
                self.slash.mknod(path, known.metadata.kind, known.metadata.mode)?;
            }
        }
        dress(self.slash, path, &known.metadata, &known.xattrs)
    }

    /// Moves an entry to where nothing looks for it; it may be somebody else's after all.
    fn put_aside(&self, path: &Path) -> io::Result<()> {
        self.slash.create_dir_all(self.aside, 0o700, &mut |_| {})?;
        for number in 0..u32::MAX {
            let to = self.aside.join(number.to_string());
            if !self.slash.exists(&to)? {
                return match self.slash.rename(path, to) {
                    // It went with a directory that it was in.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                    other => other,
                };
            }
        }
        Err(io::ErrorKind::StorageFull.into())
    }
}

fn same_bytes(mut file: File, copy: &File, start: u64, size_bytes: u64) -> io::Result<bool> {
    let (mut now, mut then) = (vec![0; BUFFER_BYTES], vec![0; BUFFER_BYTES]);
    let mut position = 0;
    loop {
        let length = file.read(&mut now)?;
        if length == 0 || position + length as u64 > size_bytes {
            return Ok(length == 0 && position == size_bytes);
        }
        copy.read_exact_at(&mut then[..length], start + position)?;
        if now[..length] != then[..length] {
            return Ok(false);
        }
        position += length as u64;
    }
}

fn write_part(copy: &File, start: u64, size_bytes: u64, to: &mut File) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut position = 0;
    while position < size_bytes {
        let part = usize::try_from(size_bytes - position).unwrap_or(usize::MAX).min(BUFFER_BYTES);
        copy.read_exact_at(&mut buffer[..part], start + position)?;
        to.write_all(&buffer[..part])?;
        position += part as u64;
    }
    Ok(())
}
