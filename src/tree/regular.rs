//! Opening the files that kiln keeps, if they still are files.
//!
//! A step without namespaces, or whoever else can write to a store, can put a FIFO, a device, a link or a directory into the
//! place of any of them: opened as a file it would have kiln wait for ever, or work somewhere else. What is in the
//! state directory, in a store, in a cache or in a layout is opened by these and in no other way (the test `floors`
//! enforces it), or below a [`RootDir`](super::RootDir).

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::metadata::Metadata;
use super::{FileKind, RootDir};

/// Nothing of kiln's that is read whole is larger; a hostile sparse file must not fill the memory.
const READ_LIMIT_BYTES: u64 = 64 << 20;

/// Something else stands where a file is expected.
#[derive(Debug, thiserror::Error)]
#[error("expected a regular file, found a {found}")]
pub struct NotRegular {
    /// What it is.
    pub found: FileKind,
}

impl NotRegular {
    /// Tells whether that is what an error says.
    pub fn is(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|inner| inner.is::<Self>())
    }
}

impl From<NotRegular> for io::Error {
    fn from(problem: NotRegular) -> Self {
        Self::new(io::ErrorKind::InvalidData, problem)
    }
}

/// Opens the file at `path` for reading; [`NotRegular`] if something else is there, a link included.
pub fn open(path: &Path) -> io::Result<File> {
    open_as(File::options().read(true), path, OFlags::NOFOLLOW)
}

/// The same in what others have made, who may have put links there.
pub fn open_follow(path: &Path) -> io::Result<File> {
    open_as(File::options().read(true), path, OFlags::empty())
}

/// Opens the file at `path` for reading and writing, and makes it if it is missing.
pub fn open_or_create(path: &Path) -> io::Result<File> {
    open_as(File::options().read(true).write(true).create(true).truncate(false), path, OFlags::NOFOLLOW)
}

/// An error unless there is a directory at `path`, which is no link: what is in it is kiln's to remove.
pub fn check_directory(path: &Path) -> io::Result<()> {
    let found = std::fs::symlink_metadata(path)?.file_type();
    if found.is_dir() {
        return Ok(());
    }
    let found = if found.is_symlink() { "a symbolic link" } else { "something else" };
    Err(io::Error::new(io::ErrorKind::InvalidData, format!("expected a directory, found {found}")))
}

/// Makes the file at `path`; there must be nothing.
pub fn create_new(path: &Path) -> io::Result<File> {
    // Whatever is there is not opened.
    File::create_new(path)
}

/// Reads the file at `path` whole: 64 MiB at most.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    read_whole(open(path)?)
}

/// The same in what others have made, who may have put links there.
pub fn read_follow(path: &Path) -> io::Result<Vec<u8>> {
    read_whole(open_follow(path)?)
}

/// Reads the text at `path` whole: 64 MiB at most.
pub fn read_to_string(path: &Path) -> io::Result<String> {
    String::from_utf8(read(path)?).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Puts a file with `content` at `path` in one step, whatever but a directory is there.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(path.parent().unwrap_or(Path::new("/")))?;
    file.write_all(content)?;
    file.persist(path)?;
    Ok(())
}

/// Removes what is at `path`, which should be a file, whatever it is.
pub fn remove(path: &Path) -> io::Result<()> {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => RootDir::open(parent)?.remove_all(name),
        _ => Err(Errno::ISDIR.into()),
    }
}

/// Removes what is at `path` if it is neither a file nor nothing. Of kilns that do so at once one may take what the other has
/// just made.
pub fn make_way(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.is_file() => remove(path),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn read_whole(file: File) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    let length = file.take(READ_LIMIT_BYTES + 1).read_to_end(&mut content)?;
    if length as u64 > READ_LIMIT_BYTES {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(content)
}

fn open_as(options: &mut OpenOptions, path: &Path, more: OFlags) -> io::Result<File> {
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY | more).bits().cast_signed();
    let file = match options.custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) => {
            // Sockets, links, and directories and devices that are to be written to are not opened at all.
            let found = RootDir::open(path.parent().unwrap_or(Path::new("/")))
                .and_then(|parent| parent.metadata(path.file_name().unwrap_or_default()));
            return Err(match found {
                Ok(Metadata { kind, .. }) if kind != FileKind::File => match kind {
                    FileKind::Symlink if !more.contains(OFlags::NOFOLLOW) => error,
                    found => NotRegular { found }.into(),
                },
                _ => error,
            });
        }
    };
    match Metadata::of(&file)?.kind {
        FileKind::File => Ok(file),
        found => Err(NotRegular { found }.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_are_opened() {
        let directory = tempfile::tempdir().unwrap();
        let root = RootDir::open(directory.path()).unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::write(at("file"), "content").unwrap();
        root.mknod("fifo", FileKind::Fifo, 0o600).unwrap();
        root.mknod("socket", FileKind::Socket, 0o600).unwrap();
        std::fs::create_dir(at("directory")).unwrap();
        std::os::unix::fs::symlink("file", at("link")).unwrap();
        std::os::unix::fs::symlink("fifo", at("link to a fifo")).unwrap();
        assert_eq!(read(&at("file")).unwrap(), b"content");
        assert_eq!(read_follow(&at("link")).unwrap(), b"content");
        assert!(NotRegular::is(&open_follow(&at("link to a fifo")).unwrap_err()));
        for name in ["fifo", "socket", "directory", "link", "link to a fifo"] {
            for opened in [open(&at(name)), open_or_create(&at(name))] {
                let error = opened.unwrap_err();
                assert!(NotRegular::is(&error), "{name}: {error}");
            }
            if name != "directory" {
                replace(&at(name), b"new").unwrap();
                assert_eq!(read_to_string(&at(name)).unwrap(), "new");
            }
            make_way(&at(name)).unwrap();
            assert_eq!(at(name).exists(), name != "directory");
            remove(&at(name)).unwrap();
            assert_eq!(open(&at(name)).unwrap_err().kind(), io::ErrorKind::NotFound);
        }
        assert_eq!(read(&at("file")).unwrap(), b"content", "no link was followed");
        assert!(open_or_create(&at("new")).is_ok());
        assert!(create_new(&at("new")).is_err());
        std::os::unix::fs::symlink(".", at("link")).unwrap();
        assert!(check_directory(&at("link")).is_err() && check_directory(&at("file")).is_err());
        check_directory(directory.path()).unwrap();
    }
}
