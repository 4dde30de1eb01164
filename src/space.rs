//! Full file systems: which one it is, where it is mounted, and what is left on it.
//!
//! "No space left on device" helps nobody who has five of them. Whoever writes passes the system's answer through
//! [`explain`] with the path it was about; the command line finds it again among the causes, whatever was being done.

use std::error::Error;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

/// What the user can do about it.
pub const HINT: &str = "free some space there, remove what nothing needs with `kiln prune`, or choose a place on another \
                        file system: `--root` for kiln's own files, `TMPDIR` for temporary ones, an output's `dest`";

/// A write that found its file system, or the user's share of it, full.
#[derive(Debug, thiserror::Error)]
#[error(
    "no space left on `{}` (file system mounted at `{}`, {free_bytes} bytes free{})",
    path.display(), mount.display(), limit.text()
)]
pub struct NoSpace {
    /// What was being written.
    path: PathBuf,
    /// Where its file system is mounted.
    mount: PathBuf,
    /// What an ordinary user could still write.
    free_bytes: u64,
    limit: Limit,
    /// What knows more, the name of one of many entries for one.
    #[source]
    source: Option<Box<dyn Error + Send + Sync>>,
}

/// What ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Limit {
    Bytes,
    Inodes,
    Quota,
}

impl Limit {
    fn text(self) -> &'static str {
        match self {
            Self::Bytes => "",
            Self::Inodes => ", no inodes",
            Self::Quota => ", the user's quota is used up",
        }
    }
}

/// Says which file system is full, if that is what `error`, about `path`, is; every other error stays as it is.
pub fn explain(path: &Path, error: io::Error) -> io::Error {
    let kind = error.kind();
    if !matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) || find(&error).is_some() {
        return error;
    }
    // `/dev/full`, for one, is on no file system.
    if std::fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir()) {
        return error;
    }
    let mount = mount_of(path);
    let found = rustix::fs::statvfs(&mount).ok();
    let free_bytes = found.as_ref().map_or(0, |found| found.f_bavail.saturating_mul(found.f_frsize));
    let has_no_inodes = found.is_some_and(|found| found.f_files > 0 && found.f_favail == 0);
    let limit = match kind {
        io::ErrorKind::QuotaExceeded => Limit::Quota,
        _ if has_no_inodes => Limit::Inodes,
        _ => Limit::Bytes,
    };
    let source = error.into_inner();
    io::Error::new(kind, NoSpace { path: path.to_owned(), mount, free_bytes, limit, source })
}

/// Finds a full file system among an error and its causes.
pub fn find<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a NoSpace> {
    causes(error).find_map(|cause| match cause.downcast_ref::<io::Error>() {
        // Such an error gives the causes of what it holds, but not that itself.
        Some(error) => error.get_ref()?.downcast_ref(),
        None => cause.downcast_ref(),
    })
}

/// Tells whether a full file system is among the causes of an error, be it known which or not.
pub fn is_full(error: &(dyn Error + 'static)) -> bool {
    let codes = [Errno::NOSPC, Errno::DQUOT].map(|code| Some(code.raw_os_error()));
    find(error).is_some()
        || causes(error).any(|cause| {
            cause.downcast_ref::<io::Error>().is_some_and(|error| codes.contains(&error.raw_os_error()))
        })
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}

/// Finds where the file system of `path` is mounted; of what is not there, that of the directory it would be in.
fn mount_of(path: &Path) -> PathBuf {
    let there = path.ancestors().find_map(|path| path.canonicalize().ok()).unwrap_or_else(|| "/".into());
    let device = |path: &Path| std::fs::metadata(path).map(|metadata| metadata.dev()).ok();
    let own = device(&there);
    let inside = there.ancestors().take_while(|path| device(path) == own).last();
    inside.unwrap_or(&there).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An error that names an entry, as `tree` has one.
    #[derive(Debug, thiserror::Error)]
    #[error("`entry`")]
    struct Entry(#[source] io::Error);

    #[test]
    fn what_is_full_is_found_below_whatever_was_done() {
        let path = Path::new("/dev/shm/kiln/not-there");
        let error = explain(path, explain(path, Errno::NOSPC.into()));
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        let text = error.to_string();
        assert!(
            text.starts_with("no space left on `/dev/shm/kiln/not-there` (file system mounted at `/"),
            "{text}"
        );
        let outer = io::Error::other(Entry(error));
        assert!(find(&outer).is_some() && is_full(&outer));
        assert!(is_full(&io::Error::from(Errno::DQUOT)) && find(&io::Error::from(Errno::DQUOT)).is_none());
        let quota = explain(path, Errno::DQUOT.into()).to_string();
        assert!(quota.contains("quota"), "{quota}");
    }

    #[test]
    fn other_errors_and_the_names_of_entries_stay() {
        let error = explain(Path::new("/x"), Errno::NOENT.into());
        assert_eq!(error.raw_os_error(), Some(Errno::NOENT.raw_os_error()));
        let entry = Entry(Errno::NOSPC.into());
        let error = explain(Path::new("/"), io::Error::new(io::ErrorKind::StorageFull, entry));
        let found = find(&error).unwrap();
        assert!(found.source().unwrap().to_string().contains("entry"));
    }
}
