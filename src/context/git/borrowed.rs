//! Somebody's repository, asked about without being believed.
//!
//! A repository's configuration and hooks name programs that git runs: filters, monitors, pagers, helpers. So git is
//! asked in a git directory of kiln's own, in which what is data is linked to the repository's: references, objects,
//! the index, rules for ignored files. Of its configuration git sees [`BELIEVED`] and nothing else. Nothing is looked
//! for from where git runs, so that a repository among a context's files is none; and whose files they are is no matter.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use tempfile::TempDir;

use super::program::Git;
use crate::event::Reporter;
use crate::own_files::OwnFiles;

/// What a repository has once for all its work trees.
const SHARED_DATA: [&str; 5] = ["objects", "refs", "packed-refs", "info", "shallow"];

/// What may be said of files and how they are compared, in words and numbers; and how objects and references are stored.
const BELIEVED: [&str; 13] = [
    "core.autocrlf",
    "core.checkstat",
    "core.eol",
    "core.filemode",
    "core.ignorecase",
    "core.precomposeunicode",
    "core.sparsecheckout",
    "core.sparsecheckoutcone",
    "core.symlinks",
    "core.trustctime",
    "extensions.objectformat",
    "extensions.refstorage",
    "status.showuntrackedfiles",
];

/// The longest file that is read whole: one line, with a path at most.
const MOST_LINE_BYTES: u64 = 8 << 10;

/// The git directory that borrows from a repository.
pub(super) struct Borrowed {
    directory: TempDir,
    work_tree: PathBuf,
    /// Variables for git.
    environment: Vec<(OsString, OsString)>,
    /// The remote `origin`, as it is written there.
    pub(super) origin: Option<String>,
}

impl Borrowed {
    /// Borrows from the repository that has its work tree at `work_tree`, if there is one.
    pub(super) fn open(work_tree: &Path, environment: &[(OsString, OsString)]) -> Option<Self> {
        let git_dir = git_dir(work_tree)?;
        let shared = match line(&git_dir.join("commondir")) {
            Some(path) => git_dir.join(path),
            None => git_dir.clone(),
        };
        // Neither need be there, and kiln's own image has no /tmp.
        let directory = tempfile::tempdir().or_else(|_| tempfile::tempdir_in("/dev/shm")).ok()?;
        let mut environment = environment.to_vec();
        environment.push(("GIT_OPTIONAL_LOCKS".into(), "0".into()));
        environment.push(("GIT_WORK_TREE".into(), work_tree.into()));
        let mut borrowed = Self { directory, work_tree: work_tree.to_owned(), environment, origin: None };
        borrowed.link(&git_dir, &shared).ok()?;
        borrowed.read_configuration(&shared.join("config"))?;
        Some(borrowed)
    }

    /// The same for a work tree below this one.
    pub(super) fn submodule(&self, work_tree: &Path) -> Option<Self> {
        Self::open(work_tree, &self.environment)
    }

    /// Runs a command in the work tree; `None` if it fails.
    pub(super) fn ask(&self, arguments: &[&str]) -> Option<String> {
        let reporter = Reporter::silent();
        let git = Git {
            url: "",
            directory: &self.work_tree,
            git_dir: self.directory.path().to_owned(),
            environment: self.environment.clone(),
            settings: Vec::new(),
            moved: Mutex::default(),
            own_files: OwnFiles::default(),
            reporter: &reporter,
        };
        git.attempt(arguments).ok()?.ok()
    }

    fn link(&self, git_dir: &Path, shared: &Path) -> io::Result<()> {
        let link = |from: &Path, name: &str| -> io::Result<()> {
            let from = from.join(name);
            // A pipe would be waited for.
            match fs::metadata(&from).is_ok_and(|metadata| metadata.is_file() || metadata.is_dir()) {
                true => symlink(from.canonicalize()?, self.directory.path().join(name)),
                false => Ok(()),
            }
        };
        SHARED_DATA.into_iter().try_for_each(|name| link(shared, name))?;
        // Where another work tree's HEAD is in a table, the tables of all have to be read together.
        if git_dir == shared {
            link(git_dir, "reftable")?;
        }
        for entry in fs::read_dir(git_dir)? {
            match entry?.file_name().to_str() {
                Some(name) if name == "index" || name.starts_with("sharedindex.") => link(git_dir, name)?,
                _ => {}
            }
        }
        let head = line(&git_dir.join("HEAD")).ok_or(io::ErrorKind::InvalidData)?;
        fs::write(self.directory.path().join("HEAD"), format!("{head}\n"))
    }

    /// Reads a repository's configuration, without files that it includes, and writes what is believed.
    fn read_configuration(&mut self, path: &Path) -> Option<()> {
        if !fs::metadata(path).is_ok_and(|metadata| metadata.is_file()) {
            return Some(());
        }
        let listing = self.ask(&["config", "--no-includes", "--null", "--list", "--file", path.to_str()?])?;
        let mut text = String::new();
        for setting in listing.split('\0') {
            // A name alone is switched on.
            let (name, value) = setting.split_once('\n').unwrap_or((setting, "true"));
            let is_word = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_alphanumeric());
            if name == "remote.origin.url" {
                self.origin = Some(value.to_owned());
            }
            if BELIEVED.contains(&name) && is_word {
                let (section, key) = name.split_once('.')?;
                text += &format!("[{section}]\n\t{key} = {value}\n");
            }
        }
        // Extensions count from version 1 on.
        let version = u8::from(text.contains("[extensions]"));
        let text = format!("[core]\n\trepositoryformatversion = {version}\n{text}");
        fs::write(self.directory.path().join("config"), text).ok()
    }
}

/// Returns the git directory of a work tree: `.git`, or where the file of that name says.
fn git_dir(work_tree: &Path) -> Option<PathBuf> {
    let entry = work_tree.join(".git");
    let git_dir = match fs::metadata(&entry).ok()?.is_dir() {
        true => entry,
        false => work_tree.join(line(&entry)?.strip_prefix("gitdir: ")?),
    };
    git_dir.join("HEAD").exists().then_some(git_dir)
}

/// Reads a file of one line.
fn line(path: &Path) -> Option<String> {
    if !fs::metadata(path).ok()?.is_file() {
        return None;
    }
    let mut text = String::new();
    fs::File::open(path).ok()?.take(MOST_LINE_BYTES).read_to_string(&mut text).ok()?;
    Some(text.lines().next()?.trim_end().to_owned())
}
