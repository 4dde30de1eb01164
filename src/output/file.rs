//! Files that appear when they are complete, and the checks that come before a build.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use tempfile::NamedTempFile;

use super::{Destination, OpenStdout, OutputError};
use crate::space::explain;

/// Blocks of an archive on their way to the file: large, since most of them are parts of layers.
const BUFFER_BYTES: usize = 256 * 1024;

/// Checks that a file can be created at `path`.
pub(super) fn check_file(path: &Path) -> Result<(), OutputError> {
    if path.is_dir() {
        return Err(OutputError::IsDirectory { path: path.to_owned() });
    }
    let directory = directory_of(path);
    match fs::metadata(&directory) {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => return Err(OutputError::NotDirectory { path: directory }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(OutputError::NoDirectory { path: path.to_owned(), directory });
        }
        Err(source) => return Err(OutputError::write(path, source)),
    }
    if fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        // A device or pipe: it is written to as it is.
        return Ok(());
    }
    // The only question that read-only mounts, quotas and permissions all answer.
    NamedTempFile::new_in(&directory).map(drop).map_err(|source| OutputError::write(path, source))
}

/// Creates `path` and its parents, and checks that files can be created in it.
pub(super) fn check_directory(path: &Path) -> Result<(), OutputError> {
    match fs::metadata(path) {
        Ok(metadata) if !metadata.is_dir() => {
            return Err(OutputError::NotDirectory { path: path.to_owned() });
        }
        Ok(_) => {}
        Err(_) => {
            fs::create_dir_all(path).map_err(|source| OutputError::write(path, source))?;
        }
    }
    NamedTempFile::new_in(path).map(drop).map_err(|source| OutputError::write(path, source))
}

/// Returns the directory a file is in, `.` for a bare name.
fn directory_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Writes a whole file through a temporary one beside it.
pub(super) fn write_file(path: &Path, bytes: &[u8]) -> Result<(), OutputError> {
    let mut file = PendingFile::create(path)?;
    file.write_all(bytes).map_err(|source| OutputError::write(path, source))?;
    file.finish()
}

/// Writes a small file of results. One that is there is written to, as it may be a mount; a link to a file is replaced, since a
/// step in place may have planted it; and a pipe must have a reader. Below `/dev` and `/proc` links lead to what this process
/// has open.
pub fn write_result(path: &Path, bytes: &[u8]) -> Result<(), OutputError> {
    let fail = |source| OutputError::write(path, source);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(0o666);
    let is_link = fs::symlink_metadata(path).is_ok_and(|there| there.is_symlink());
    let leads_on = ["/dev", "/proc"].iter().any(|kernels| path.starts_with(kernels))
        || fs::metadata(path).is_ok_and(|there| !there.is_file());
    if is_link && !leads_on {
        return write_file(path, bytes);
    }
    let flags = if leads_on { flags } else { flags | OFlags::NOFOLLOW };
    let mut file = File::from(rustix::fs::open(path, flags, mode).map_err(|errno| fail(errno.into()))?);
    file.write_all(bytes).map_err(|source| fail(explain(path, source)))?;
    close(file).map_err(fail)
}

/// A file under construction; dropped without [`PendingFile::finish`] it leaves nothing behind.
pub(super) struct PendingFile {
    path: PathBuf,
    inner: Inner,
}

enum Inner {
    Temporary(BufWriter<NamedTempFile>),
    /// A device or pipe, which cannot be replaced by a rename.
    Existing(BufWriter<File>),
}

impl PendingFile {
    /// Starts a file that is to appear at `path`.
    pub(super) fn create(path: &Path) -> Result<Self, OutputError> {
        let fail = |source| OutputError::write(path, source);
        let inner = if fs::metadata(path).is_ok_and(|m| !m.is_file() && !m.is_dir()) {
            let file = File::options().write(true).open(path).map_err(fail)?;
            Inner::Existing(BufWriter::with_capacity(BUFFER_BYTES, file))
        } else {
            let file = tempfile::Builder::new()
                .prefix(".kiln-")
                .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
                .tempfile_in(directory_of(path))
                .map_err(fail)?;
            Inner::Temporary(BufWriter::with_capacity(BUFFER_BYTES, file))
        };
        Ok(Self { path: path.to_owned(), inner })
    }

    /// Completes the file and puts it under its name.
    pub(super) fn finish(self) -> Result<(), OutputError> {
        let path = self.path;
        let fail = |source| OutputError::write(&path, source);
        match self.inner {
            Inner::Temporary(file) => {
                let file = file.into_inner().map_err(|error| fail(error.into_error()))?;
                let (file, name) = file.into_parts();
                close(file).map_err(fail)?;
                name.persist(&path).map_err(|error| fail(error.error))?;
            }
            Inner::Existing(file) => {
                let file = file.into_inner().map_err(|error| fail(error.into_error()))?;
                close(file).map_err(fail)?;
            }
        }
        Ok(())
    }
}

/// Closes a file that was written. Network file systems, and some quotas, say only then what they could not take.
fn close(file: File) -> io::Result<()> {
    Ok(nix::unistd::close(file)?)
}

impl Write for PendingFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match &mut self.inner {
            Inner::Temporary(file) => file.write(bytes),
            Inner::Existing(file) => file.write(bytes),
        };
        written.map_err(|error| explain(&self.path, error))
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.inner {
            Inner::Temporary(file) => file.flush(),
            Inner::Existing(file) => file.flush(),
        }
    }
}

/// An archive's destination while it is written.
pub(super) enum Sink {
    /// A file.
    File(PendingFile),
    /// Standard output.
    Stdout(BufWriter<Box<dyn Write + Send>>),
}

impl Sink {
    /// Opens the destination.
    pub(super) fn open(destination: &Destination, stdout: &OpenStdout) -> Result<Self, OutputError> {
        Ok(match destination {
            Destination::File(path) => Self::File(PendingFile::create(path)?),
            Destination::Stdout => Self::Stdout(BufWriter::with_capacity(BUFFER_BYTES, stdout())),
        })
    }

    /// Completes what was written.
    pub(super) fn finish(self) -> Result<(), OutputError> {
        match self {
            Self::File(file) => file.finish(),
            Self::Stdout(mut stdout) => stdout.flush().map_err(|source| OutputError::Stdout { source }),
        }
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.write(bytes),
            Self::Stdout(stdout) => stdout.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::File(file) => file.flush(),
            Self::Stdout(stdout) => stdout.flush(),
        }
    }
}

impl Destination {
    /// Checks what can be checked before there is anything to write.
    pub(super) fn check(&self) -> Result<(), OutputError> {
        match self {
            Self::File(path) => check_file(path),
            Self::Stdout => Ok(()),
        }
    }

    /// Returns the place for people.
    pub(super) fn display(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Stdout => "stdout".to_owned(),
        }
    }

    /// Wraps a failed write.
    pub(super) fn write_error(&self, source: io::Error) -> OutputError {
        match self {
            Self::File(path) => OutputError::write(path, source),
            Self::Stdout => OutputError::Stdout { source },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unfinished_file_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.tar");
        let mut file = PendingFile::create(&path).unwrap();
        file.write_all(b"half").unwrap();
        drop(file);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn results_go_to_the_file_that_is_there_and_never_through_a_link_to_one() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let (iid, other, link, null) = (at("iid"), at("other"), at("link"), at("null"));
        fs::write(&iid, "longer than before").unwrap();
        let same = fs::File::open(&iid).unwrap();
        write_result(&iid, b"new").unwrap();
        assert_eq!(io::read_to_string(same).unwrap(), "new");
        fs::write(&other, "the job's").unwrap();
        std::os::unix::fs::symlink(&other, &link).unwrap();
        write_result(&link, b"new").unwrap();
        assert_eq!(
            (fs::read(&other).unwrap(), fs::read(&link).unwrap()),
            (b"the job's".to_vec(), b"new".to_vec())
        );
        std::os::unix::fs::symlink("/dev/null", &null).unwrap();
        write_result(&null, b"new").unwrap();
        assert!(fs::symlink_metadata(&null).unwrap().is_symlink());
        let fifo = at("fifo");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, Mode::RWXU).unwrap();
        assert!(write_result(&fifo, b"new").is_err());
        // What standard output is, a file too.
        let log = fs::File::create(at("log")).unwrap();
        let open = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&log));
        write_result(Path::new(&open), b"new").unwrap();
        assert_eq!(fs::read(at("log")).unwrap(), b"new");
    }

    #[test]
    fn a_finished_file_replaces_the_old_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.tar");
        fs::write(&path, "old").unwrap();
        write_file(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o644);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn devices_are_written_to() {
        check_file(Path::new("/dev/null")).unwrap();
        write_file(Path::new("/dev/null"), b"x").unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
    }

    #[test]
    fn bad_places_are_named_before_the_build() {
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("no/a.tar");
        assert!(matches!(check_file(&missing), Err(OutputError::NoDirectory { .. })));
        assert!(matches!(check_file(directory.path()), Err(OutputError::IsDirectory { .. })));
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(matches!(check_file(&file.join("x")), Err(OutputError::NotDirectory { .. })));
        assert!(matches!(check_directory(&file), Err(OutputError::NotDirectory { .. })));
        check_directory(&directory.path().join("a/b")).unwrap();
        check_file(&directory.path().join("new.tar")).unwrap();
    }
}
