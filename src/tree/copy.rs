//! Copying file content and whole trees.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Mode, OFlags, Uid, XattrFlags};
use rustix::io::Errno;

use super::descent::Descent;
use super::holes::next_data;
use super::metadata::look;
use super::modify::{create_dir_at, create_file_at, mknod_at, set_mtime_at, set_owner_at};
use super::xattr::{Xattrs, set_xattr_at, xattrs_at};
use super::{EntryError, FileKind, Metadata, RootDir, Walk};

/// Large enough that system calls cost nothing beside the copying.
const BUFFER_BYTES: usize = 256 * 1024;

/// Copies the first `size` bytes of `from` to the start of the empty file `to`, holes kept, and returns how many
/// there were (fewer when `from` is shorter). Moves the position of `from`.
///
/// The blocks are shared where the file system can (reflink), else copied inside the kernel, else by hand.
pub fn copy_file_data(from: &File, to: &File, size: u64) -> io::Result<u64> {
    let length = from.metadata()?.len();
    if length > 0 && length <= size && rustix::fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(length);
    }
    let mut copier = DataCopier { from, to, in_kernel: true };
    let mut position = 0;
    while position < size {
        let Some(data) = next_data(from, position, size)? else { break };
        let copied = copier.range(data.start, data.end)?;
        position = data.start + copied;
        if copied < data.end - data.start {
            // Shorter than its metadata said.
            return Ok(position);
        }
    }
    // What follows the last data is a hole, as far as the source goes.
    let total = size.min(from.metadata()?.len()).max(position);
    if total > position {
        to.set_len(total)?;
    }
    Ok(total)
}

struct DataCopier<'a> {
    from: &'a File,
    to: &'a File,
    in_kernel: bool,
}

impl DataCopier<'_> {
    /// Copies `start..end` to the same place and returns how many bytes there were.
    fn range(&mut self, start: u64, end: u64) -> io::Result<u64> {
        let mut position = start;
        while self.in_kernel && position < end {
            let (mut source, mut target) = (position, position);
            let want = usize::try_from(end - position).unwrap_or(usize::MAX).min(1 << 30);
            match rustix::fs::copy_file_range(self.from, Some(&mut source), self.to, Some(&mut target), want)
            {
                // Some file systems say 0 where there is something to read.
                Ok(0) => break,
                Ok(copied) => position += copied as u64,
                Err(Errno::INTR) => {}
                Err(error) if refuses_in_kernel_copy(error) => self.in_kernel = false,
                Err(error) => return Err(error.into()),
            }
        }
        if position < end {
            position += self.by_hand(position, end)?;
        }
        Ok(position - start)
    }

    fn by_hand(&self, start: u64, end: u64) -> io::Result<u64> {
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut position = start;
        while position < end {
            let want = usize::try_from(end - position).unwrap_or(usize::MAX).min(BUFFER_BYTES);
            match self.from.read_at(&mut buffer[..want], position) {
                Ok(0) => break,
                Ok(length) => {
                    self.to.write_all_at(&buffer[..length], position)?;
                    position += length as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(position - start)
    }
}

/// Old kernels, other file systems and seccomp profiles refuse `copy_file_range` in their own ways.
fn refuses_in_kernel_copy(error: Errno) -> bool {
    matches!(
        error,
        Errno::XDEV
            | Errno::NOSYS
            | Errno::INVAL
            | Errno::OPNOTSUPP
            | Errno::PERM
            | Errno::TXTBSY
            | Errno::BADF
    )
}

/// Copies what is at `from_path` (a link not followed) to `to_path`, with modes, owners, modification times,
/// extended attributes, hard links within the tree, devices, sockets and holes.
///
/// At `to_path` there must be nothing, or a directory if the source is one: it is then filled and gets the source's
/// metadata. Anything in the way below it is an error.
pub fn copy_tree(
    from: &RootDir,
    from_path: impl AsRef<Path>,
    to: &RootDir,
    to_path: impl AsRef<Path>,
) -> io::Result<()> {
    copy_tree_without(from, from_path, to, to_path, &|_| false)
}

/// The same without the entries that `is_left_out` accepts, by their paths below `from_path`, and all below them.
pub fn copy_tree_without(
    from: &RootDir,
    from_path: impl AsRef<Path>,
    to: &RootDir,
    to_path: impl AsRef<Path>,
    is_left_out: &dyn Fn(&Path) -> bool,
) -> io::Result<()> {
    let (from_dir, from_name) = from.parent(from_path.as_ref())?;
    let (to_dir, to_name) = to.parent(to_path.as_ref())?;
    let metadata = look(&from_dir, from_name)?.metadata;
    let base = RootDirBase { root: to, path: to.resolve(parent_path(to_path.as_ref()))? };
    let mut copier =
        TreeCopier { base, to: Descent::new(&to_dir)?, links: HashMap::new(), top: None, open: Vec::new() };
    let wrap = |error| EntryError::wrap("", error);
    copier.entry(&Source { dir: from_dir.as_fd(), name: from_name, metadata }, to_name).map_err(wrap)?;
    if metadata.kind.is_dir() {
        let mut walk = Walk::new(from, from_path.as_ref())?;
        while let Some(entry) = walk.next() {
            let entry = entry?;
            if is_left_out(&entry.path) {
                walk.skip_subtree();
                continue;
            }
            let depth = entry.path.components().count();
            copier.leave_to(depth).map_err(|error| EntryError::wrap(&entry.path, error))?;
            let name = entry.path.file_name().expect("a walk returns named entries");
            let source = Source { dir: walk.directory(), name, metadata: entry.metadata };
            copier.entry(&source, name).map_err(|error| EntryError::wrap(&entry.path, error))?;
        }
    }
    copier.leave_to(0).map_err(wrap)
}

fn parent_path(path: &Path) -> &Path {
    match path.components().next_back() {
        Some(std::path::Component::Normal(_)) => path.parent().unwrap_or(Path::new("")),
        _ => path,
    }
}

/// The directory all copying happens below, by its path in the root.
struct RootDirBase<'root> {
    root: &'root RootDir,
    path: PathBuf,
}

struct Source<'a> {
    dir: BorrowedFd<'a>,
    name: &'a OsStr,
    metadata: Metadata,
}

struct TreeCopier<'root> {
    base: RootDirBase<'root>,
    to: Descent,
    /// Where the first name of an inode with several was copied to, in the target root.
    links: HashMap<(u64, u64), PathBuf>,
    /// The outermost directory copied to; to meet it as a source would never end.
    top: Option<Metadata>,
    /// The metadata of the directories we are in, set when they are complete.
    open: Vec<(Metadata, Xattrs)>,
}

impl TreeCopier<'_> {
    /// Copies one entry into the current target directory; a directory becomes the current one.
    fn entry(&mut self, source: &Source<'_>, name: &OsStr) -> io::Result<()> {
        let metadata = &source.metadata;
        if metadata.nlink > 1 && !metadata.kind.is_dir() {
            let identity = (metadata.dev, metadata.ino);
            if let Some(first) = self.links.get(&identity) {
                let (dir, first_name) = self.base.root.parent(first)?;
                let flags = rustix::fs::AtFlags::empty();
                return Ok(rustix::fs::linkat(dir, first_name, self.to.current(), name, flags)?);
            }
            self.links.insert(identity, self.base.path.join(self.to.path()).join(name));
        }
        let xattrs = xattrs_at(source.dir, source.name)?;
        match metadata.kind {
            FileKind::Directory => self.directory(metadata, xattrs, name),
            FileKind::File => self.file(source, &xattrs, name),
            FileKind::Symlink => {
                let target = rustix::fs::readlinkat(source.dir, source.name, Vec::new())?;
                rustix::fs::symlinkat(target, self.to.current(), name)?;
                self.dress(metadata, &xattrs, name)
            }
            kind => {
                mknod_at(self.to.current(), name, kind, metadata.mode)?;
                self.dress(metadata, &xattrs, name)
            }
        }
    }

    fn directory(&mut self, metadata: &Metadata, xattrs: Xattrs, name: &OsStr) -> io::Result<()> {
        match create_dir_at(self.to.current(), name, 0o700) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            result => result?,
        }
        self.to.enter(name)?;
        let made = Metadata::of(self.to.current())?;
        if self.top.get_or_insert(made).same_inode(metadata) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "cannot copy a directory into itself"));
        }
        self.open.push((*metadata, xattrs));
        Ok(())
    }

    fn file(&self, source: &Source<'_>, xattrs: &Xattrs, name: &OsStr) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let from: File = rustix::fs::openat(source.dir, source.name, flags, Mode::empty())?.into();
        let to = create_file_at(self.to.current(), name, 0o600)?;
        let metadata = &source.metadata;
        copy_file_data(&from, &to, metadata.size_bytes)?;
        rustix::fs::fchown(&to, Some(Uid::from_raw(metadata.uid)), Some(Gid::from_raw(metadata.gid)))?;
        for (key, value) in xattrs {
            rustix::fs::fsetxattr(&to, key.as_os_str(), value, XattrFlags::empty())?;
        }
        // After the owner, whose change clears setuid, and after the access control list, which has a say in the mode.
        rustix::fs::fchmod(&to, Mode::from_raw_mode(metadata.mode))?;
        set_mtime_at(self.to.current(), name, metadata.mtime)
    }

    /// Gives what was created under `name` its owner, mode, attributes and time.
    fn dress(&self, metadata: &Metadata, xattrs: &Xattrs, name: &OsStr) -> io::Result<()> {
        let dir = self.to.current();
        set_owner_at(dir, name, metadata.uid, metadata.gid)?;
        for (key, value) in xattrs {
            set_xattr_at(dir, name, key, value)?;
        }
        if metadata.kind != FileKind::Symlink {
            let mode = Mode::from_raw_mode(metadata.mode);
            rustix::fs::chmodat(dir, name, mode, rustix::fs::AtFlags::empty())?;
        }
        set_mtime_at(dir, name, metadata.mtime)
    }

    /// Completes directories until `depth` are open.
    fn leave_to(&mut self, depth: usize) -> io::Result<()> {
        while self.open.len() > depth {
            let (metadata, xattrs) = self.open.pop().expect("is not empty");
            // From inside: where others write, too, a link may have taken its name.
            self.dress(&metadata, &xattrs, OsStr::new("."))?;
            self.to.leave()?.expect("a level for each open directory");
        }
        Ok(())
    }
}
