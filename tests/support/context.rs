//! Build contexts, written from a list of paths and contents.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

/// A throw-away build context.
pub(crate) struct Context {
    directory: tempfile::TempDir,
}

impl Context {
    /// A context with this Dockerfile.
    pub(crate) fn new(dockerfile: &str) -> Self {
        let context = Self::empty();
        context.file("Dockerfile", dockerfile)
    }

    /// A context whose Dockerfile is `FROM busybox` and these lines.
    pub(crate) fn on_busybox(lines: &str) -> Self {
        Self::new(&format!("FROM {}\n{lines}", super::base::busybox()))
    }

    /// A context without a Dockerfile.
    pub(crate) fn empty() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    /// Adds a file with mode 0644, and the directories above it.
    pub(crate) fn file(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        self.file_with_mode(path, content, 0o644)
    }

    pub(crate) fn file_with_mode(self, path: &str, content: impl AsRef<[u8]>, mode: u32) -> Self {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        self
    }

    pub(crate) fn directory(self, path: &str) -> Self {
        fs::create_dir_all(self.at(path)).unwrap();
        self
    }

    pub(crate) fn symlink(self, path: &str, target: &str) -> Self {
        symlink(target, self.at(path)).unwrap();
        self
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.path().join(path)
    }
}
