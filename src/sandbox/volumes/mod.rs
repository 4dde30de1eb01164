//! The container's volumes that lie over paths of an image, in place: directories that are mounted read-write.
//!
//! For the time of a step a volume's own entries are put aside within the volume (`aside.rs`) and the stage's files of
//! that path take their place (`content.rs`). What was put aside is within the step's reach: it has a copy on the container's own
//! file system (`backup.rs`), made once for a build, from which it is put right after each step. The build reads its
//! contexts from the copy, too. Volumes that move out of a step's way with the directories above them have a copy as well: a
//! step reaches them where they are (`places.rs`).
//!
//! kiln itself has [`Volumes`]; the process that watches over a step gets a [`VolumeOrder`] for each, and has what it
//! [`Noted`] if kiln is killed.

mod aside;
mod backup;
mod content;
mod fidelity;
mod noted;
mod places;
#[cfg(test)]
mod tests;
mod unsettled;
mod writers;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use aside::Strays;
pub use aside::is_put_aside;
pub(super) use aside::{Aside, AsideNote};
use backup::{Backup, Damage, LeftOut};
pub(super) use content::{Laid, directory_of};
pub(super) use noted::Noted;
use places::{Found, Places, Way, copied, find, showing};
pub(super) use unsettled::{Told, Unsettled};
pub(super) use writers::Writers;

use super::cache_files::{CacheFiles, Depth, Touched};
use super::keeper;
use super::look::at;
use super::mounting::mount_points;
use super::wire::path;
use super::{LaunchOptions, SandboxError, Whose};
use crate::tree::{RootDir, regular};

/// In the state directory: the copies, and what is beside them.
const DIRECTORY: &str = "volumes";

/// Locked by the kiln whose copies they are.
const LOCK: &str = "lock";

/// There while a step runs, and until what it did is put right: where each volume and its copy are.
const UNCHECKED: &str = "unchecked";

/// How often a volume is copied again whose files come and go.
const MOST_TRIES: usize = 10;

/// No more entries are named in a warning.
const MOST_NAMED: usize = 3;

/// A volume, as the process that watches over a step gets it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct VolumeOrder {
    #[serde(with = "path")]
    pub(super) point: PathBuf,
    /// Other places where the same directory is mounted.
    pub(super) twins: Vec<OsString>,
}

/// A volume and its copy, for whoever puts right what a killed kiln could not.
#[derive(Debug, Serialize, Deserialize)]
struct Unchecked {
    #[serde(with = "path")]
    point: PathBuf,
    #[serde(with = "path")]
    copy: PathBuf,
    left_out: LeftOut,
}

/// The volumes of a container, ready for steps.
#[derive(Debug)]
pub(super) struct Volumes {
    directory: PathBuf,
    backups: Vec<(Way, Backup)>,
    orders: Vec<VolumeOrder>,
    places: Places,
    caches: CacheFiles,
    /// Something could not be put right: the copies are left to whoever comes next.
    has_given_up: bool,
    /// Where volumes are mounted that hold this container's own file system, and so are left to the steps.
    left: Vec<PathBuf>,
    _lock: Option<File>,
}

impl Volumes {
    /// Finds the volumes that a step reaches, tries out what they can hold, and copies them, but for `private` files, which
    /// are going to be empty.
    pub(super) fn prepare(options: &LaunchOptions, private: &[PathBuf]) -> Result<Self, SandboxError> {
        let failed =
            |source| SandboxError::Setup { action: "look at the container's volumes".to_owned(), source };
        let places = Places::note().map_err(failed)?;
        let found = find(options).map_err(failed)?;
        let directory = options.state_dir.join(DIRECTORY);
        let caches = CacheFiles::note(&options.cache_directories, Depth::Contents);
        let mut volumes = Self {
            directory,
            backups: Vec::new(),
            orders: Vec::new(),
            places,
            caches: caches.map_err(failed)?,
            has_given_up: false,
            left: Vec::new(),
            _lock: None,
        };
        let (mut showing, mut others) = (Vec::new(), Vec::new());
        for (point, way) in &found.ways {
            match way {
                Way::Shows => showing.push((point, *way)),
                Way::Moves | Way::Stays | Way::Cache => others.push((point, *way)),
                Way::Kilns => {
                    let problem = "kiln keeps its own files there: mount nothing below `--root`".to_owned();
                    return Err(SandboxError::Volume { point: point.clone(), problem });
                }
                Way::File | Way::Devices | Way::Kernels | Way::ReadOnly | Way::Covered => {}
            }
        }
        if showing.is_empty() && others.is_empty() {
            return Ok(volumes);
        }
        volumes._lock = Some(volumes.begin().map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => SandboxError::Occupied,
            _ => failed(error),
        })?);
        // What shows the copies themselves cannot be copied there.
        let here =
            tempfile::Builder::new().prefix("here-").tempfile_in(&volumes.directory).map_err(failed)?;
        let here = here.path().file_name().unwrap_or_default();
        let left_bytes = options.volume_limit_bytes;
        let mut copying = Copying { options, private, found: &found, here, left_bytes };
        let mut seen: Vec<(u64, u64)> = Vec::new();
        // Those that show something first: a twin of one of them is its twin.
        for (point, way) in showing.into_iter().chain(others) {
            // What is mounted below one that is left is of this container once more.
            if volumes.left.iter().any(|left| point.starts_with(left)) {
                continue;
            }
            let root = RootDir::open(point).and_then(|root| root.metadata("")).map_err(failed)?;
            match seen.iter().position(|known| *known == (root.dev, root.ino)) {
                Some(first) if way == Way::Shows => volumes.orders[first].twins.push(point.into()),
                Some(_) => {}
                None => {
                    seen.push((root.dev, root.ino));
                    if way == Way::Shows {
                        volumes.orders.push(VolumeOrder { point: point.clone(), twins: Vec::new() });
                    }
                    volumes.add((point, way), &mut copying)?;
                }
            }
        }
        Ok(volumes)
    }

    /// Makes an empty directory for the copies, and locks it.
    fn begin(&self) -> io::Result<File> {
        std::fs::create_dir_all(&self.directory)?;
        regular::check_directory(&self.directory).map_err(|error| at(&self.directory, error))?;
        let lock = wait_for_lock(&self.directory, || true)?;
        clear(&self.directory)?;
        Ok(lock)
    }

    fn add(&mut self, (point, way): (&Path, Way), copying: &mut Copying<'_>) -> Result<(), SandboxError> {
        let Copying { options, private, found, here, left_bytes } = copying;
        let limit_bytes = options.volume_limit_bytes;
        let problem = |problem: String| SandboxError::Volume { point: point.to_path_buf(), problem };
        let failed = |error: io::Error| problem(format!("it cannot be copied: {error}"));
        let volume = RootDir::open(point).map_err(failed)?;
        try_out(point, way).map_err(problem)?;
        let mounted = mount_points().map_err(failed)?;
        let below = |path: &PathBuf| Some(path.strip_prefix(point).ok()?.to_path_buf());
        let inner = mounted.iter().filter_map(below).filter(|path| !path.as_os_str().is_empty());
        let left_out = LeftOut {
            foreign: inner.chain(found.caches_below(point)).collect(),
            is_shared: way == Way::Cache,
            private: private.iter().filter_map(below).collect(),
        };
        let size_bytes = match (backup::size_bytes(&volume, &left_out, here).map_err(failed)?, way) {
            (Some(size_bytes), _) => size_bytes,
            (None, Way::Stays) => {
                self.left.push(point.to_path_buf());
                return Ok(());
            }
            (None, _) => {
                return Err(problem(
                    "it holds this container's own file system, so it cannot be copied there".to_owned(),
                ));
            }
        };
        *left_bytes = left_bytes.checked_sub(size_bytes).ok_or_else(|| {
            problem(format!(
                "it holds {} MiB, and a copy of all volumes may take {} MiB",
                size_bytes >> 20,
                limit_bytes >> 20
            ))
        })?;
        // Some may be there of volumes that a step before has left spoilt.
        let unused = (0..u32::MAX).map(|number| self.directory.join(number.to_string()));
        let copy = unused.into_iter().find(|copy| copy.symlink_metadata().is_err()).unwrap_or_default();
        let mut tries = 0;
        let backup = loop {
            match Backup::make(point, &copy, left_out.clone()) {
                // Something went away meanwhile: the job may have processes of its own.
                Err(error) if error.kind() == io::ErrorKind::NotFound && tries < MOST_TRIES => {
                    RootDir::open(&copy).and_then(|copy| copy.remove_all("")).map_err(failed)?;
                    tries += 1;
                }
                other => break other.map_err(failed)?,
            }
        };
        self.backups.push((way, backup));
        Ok(())
    }

    /// Returns what the process that watches over a step is to know.
    pub(super) fn orders(&self) -> &[VolumeOrder] {
        &self.orders
    }

    /// Returns where volumes are mounted that are somewhere else during a step.
    pub(super) fn moving(&self) -> impl Iterator<Item = &PathBuf> {
        self.of_way(Way::Moves)
    }

    /// Returns where volumes are mounted that steps see as they are.
    pub(super) fn staying(&self) -> impl Iterator<Item = &PathBuf> {
        self.of_way(Way::Stays).chain(self.of_way(Way::Cache))
    }

    fn of_way(&self, way: Way) -> impl Iterator<Item = &PathBuf> {
        self.backups.iter().filter(move |(other, _)| *other == way).map(|(_, backup)| &backup.point)
    }

    /// Returns where volumes are mounted that steps can change, and nobody puts right.
    pub(super) fn left(&self) -> &[PathBuf] {
        &self.left
    }

    /// Returns where the copies are.
    pub(super) fn copies(&self) -> Copies {
        let copy = |(_, backup): &(Way, Backup)| (backup.point.clone(), backup.copy_path().to_path_buf());
        // One of a cache is without the cache.
        let copies = self.backups.iter().filter(|(way, _)| *way != Way::Cache);
        Copies(copies.map(copy).collect())
    }

    /// A step is about to run: whoever comes next is to put right what it did, if this process cannot.
    pub(super) fn begin_step(&mut self) -> Result<(), SandboxError> {
        self.check_places()?;
        self.caches.renew().map_err(caches_failed)?;
        if self.backups.is_empty() {
            return Ok(());
        }
        for (_, backup) in &mut self.backups {
            let failed = |source| SandboxError::Setup { action: "look at the volumes".to_owned(), source };
            backup.renew().map_err(failed)?;
        }
        let entry = |(_, backup): &(Way, Backup)| Unchecked {
            point: backup.point.clone(),
            copy: backup.copy_path().to_path_buf(),
            left_out: backup.left_out().clone(),
        };
        let list: Vec<Unchecked> = self.backups.iter().map(entry).collect();
        let write = || regular::replace(&self.directory.join(UNCHECKED), &serde_json::to_vec(&list)?);
        write().map_err(|source| SandboxError::Setup { action: "note the volumes".to_owned(), source })
    }

    /// Removes what the step did to kiln's caches. Returns what to warn of.
    pub(super) fn settle_caches(&mut self) -> Result<Vec<String>, SandboxError> {
        let touched = self.caches.settle().map_err(caches_failed)?;
        Ok(touched.iter().filter_map(Touched::warning).collect())
    }

    /// An error if something is mounted elsewhere than before the first step; what can be is moved back.
    pub(super) fn check_places(&self) -> Result<(), SandboxError> {
        let state_dir = self.directory.parent().unwrap_or(&self.directory);
        let moved = self.places.first_moved(state_dir).map_err(|source| SandboxError::Setup {
            action: "look at the container's mounts".to_owned(),
            source,
        })?;
        moved.map_or(Ok(()), |(point, problem)| Err(SandboxError::Volume { point, problem }))
    }

    /// Puts right what the step did to the volumes.
    pub(super) fn end_step(&mut self) -> Result<Settled, SandboxError> {
        let settled = self.settle();
        self.has_given_up |= settled.is_err();
        settled
    }

    fn settle(&mut self) -> Result<Settled, SandboxError> {
        let mut settled = Settled::default();
        let (mut spoilt, mut planted, mut destroyed) = (None, Vec::new(), Vec::new());
        let mut failures = Vec::new();
        // From the inside out: the entries of one may be in what another has put aside.
        for (way, backup) in self.backups.iter_mut().rev() {
            let point = backup.point.clone();
            let failed = |source| {
                let action = format!("put the volume `{}` right", point.display());
                SandboxError::Setup { action, source }
            };
            let damage = backup.check().map_err(failed)?;
            if let Some((first, problem)) = damage.failed.first_key_value() {
                unsettled::keep(&self.directory, backup.unsettled(&damage).as_slice()).map_err(failed)?;
                failures.push((point.clone(), damage.failure(first, problem, backup.copy_path())));
            }
            if !damage.destroyed.is_empty() {
                destroyed.push((point.clone(), damage.destroyed.len()));
            }
            spoilt = spoilt.or(damage.spoilt.first().map(|path| backup.copy_path().join(path)));
            if *way == Way::Stays {
                planted.extend(damage.restored.iter().map(|path| point.join(path)));
            }
            if let (Way::Cache, Some(first)) = (*way, damage.restored.first().or(damage.dressed.first())) {
                settled.warnings.push(format!(
                    "the step changed `{}`, and `{}` has a cache of kiln's that steps see as it is: the change is in no layer \
                     and undone, and the step is kept in no cache",
                    point.join(first).display(),
                    point.display()
                ));
                settled.in_no_layer.push(point.join(first));
            } else {
                settled.warnings.extend(damage.warnings(&point));
            }
        }
        if let (Some((point, problem)), None, true) = (failures.pop(), &spoilt, destroyed.is_empty()) {
            return Err(SandboxError::Volume { point, problem });
        }
        // Nobody is to put anything back from a copy that is not what it was.
        let noted = std::fs::remove_file(self.directory.join(UNCHECKED));
        destroyed.reverse();
        if !destroyed.is_empty() {
            return Err(SandboxError::VolumesLost { volumes: destroyed });
        }
        if let Some(path) = spoilt {
            return Err(SandboxError::OwnFiles { path, whose: Whose::Kilns, state: String::new() });
        }
        if let Some(source) = noted.err().filter(|error| error.kind() != io::ErrorKind::NotFound) {
            return Err(SandboxError::Setup { action: "note the volumes".to_owned(), source });
        }
        settled.offence = planted.first().map(|path| SandboxError::OwnFiles {
            path: path.clone(),
            whose: Whose::Containers,
            state: format!(", and {} more; all is as before again", planted.len() - 1),
        });
        Ok(settled)
    }
}

/// Finishes what killed kilns of other containers left in a volume, and finds out whether it can hold an image's files; says why it
/// cannot be worked in.
fn try_out(point: &Path, way: Way) -> Result<(), String> {
    let failed = |error: io::Error| format!("it cannot be copied: {error}");
    let strays = match aside::finish_strays(point) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            return Err("a kiln in another container works in it".to_owned());
        }
        strays => strays.map_err(failed)?,
    };
    if let Some(left) = strays.left.first() {
        return Err(is_left(left));
    }
    let lost = if way == Way::Shows { fidelity::lost(point).map_err(failed)? } else { Vec::new() };
    match lost.is_empty() {
        true => Ok(()),
        false => Err(format!("it does not keep {}, which an image has", lost.join(", "))),
    }
}

/// What a step did to the volumes, all of which are as before.
#[derive(Debug, Default)]
pub(super) struct Settled {
    /// What to warn of.
    pub(super) warnings: Vec<String>,
    /// What of the step's doing is in no layer.
    pub(super) in_no_layer: Vec<PathBuf>,
    /// What no step may do.
    pub(super) offence: Option<SandboxError>,
}

impl Damage {
    /// Says what could not be put right.
    fn failure(&self, first: &Path, problem: &str, copy: &Path) -> String {
        format!(
            "`{}` and {} more of what the step changed in it cannot be put right: {problem}; the volume's copy is in `{}`",
            first.display(),
            self.failed.len() - 1,
            copy.display()
        )
    }

    /// Says what a step did to the volume at `point`.
    fn warnings(self, point: &Path) -> Vec<String> {
        let mut warnings = Vec::new();
        if !self.lost.is_empty() {
            warnings.push(format!(
                "the step removed what came into the volume `{}` during the build, and of which there is no copy: {}",
                point.display(),
                few(&self.lost)
            ));
        }
        let changed: Vec<PathBuf> = self.restored.into_iter().chain(self.dressed).collect();
        if !changed.is_empty() {
            warnings.push(format!(
                "the step changed what was put aside of the volume `{}`, which is as before: {}",
                point.display(),
                few(&changed)
            ));
        }
        warnings
    }
}

/// What the volumes are copied with.
struct Copying<'a> {
    options: &'a LaunchOptions,
    private: &'a [PathBuf],
    found: &'a Found,
    /// The name of a file beside the copies that no other container has.
    here: &'a OsStr,
    /// How much more may be copied.
    left_bytes: u64,
}

fn caches_failed(source: io::Error) -> SandboxError {
    SandboxError::Setup { action: "look at the local caches".to_owned(), source }
}

/// Volumes, by where they are mounted, and where there are copies of what they hold: to be read instead while steps run.
#[derive(Debug, Clone, Default)]
pub struct Copies(Vec<(PathBuf, PathBuf)>);

impl Copies {
    /// Returns where the copy of a file or directory is, if it is on one of the volumes.
    pub fn of(&self, path: &Path) -> Option<PathBuf> {
        let path = std::fs::canonicalize(path).ok()?;
        let above = self.0.iter().filter(|(point, _)| path.starts_with(point));
        let (point, copy) = above.max_by_key(|(point, _)| point.components().count())?;
        let below = path.strip_prefix(point).ok()?;
        Some(if below.as_os_str().is_empty() { copy.clone() } else { copy.join(below) })
    }
}

impl Drop for Volumes {
    fn drop(&mut self) {
        if self._lock.is_some() && !self.has_given_up && !self.directory.join(UNCHECKED).exists() {
            let _ = clear(&self.directory);
        }
    }
}

/// Names a few of many paths.
pub(super) fn few(paths: &[PathBuf]) -> String {
    let mut named: Vec<String> =
        paths.iter().take(MOST_NAMED).map(|path| format!("`{}`", path.display())).collect();
    if paths.len() > MOST_NAMED {
        named.push(format!("{} more", paths.len() - MOST_NAMED));
    }
    named.join(", ")
}

fn lock(directory: &Path) -> io::Result<File> {
    let path = directory.join(LOCK);
    let file = regular::open_or_create(&path).map_err(|error| at(&path, error))?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    Ok(file)
}

/// The same after those are done who hold it for moments, as long as `is_worth_it`.
fn wait_for_lock(directory: &Path, is_worth_it: impl Fn() -> bool) -> io::Result<File> {
    let begin = Instant::now();
    loop {
        match lock(directory) {
            Err(error)
                if error.kind() == io::ErrorKind::WouldBlock
                    && begin.elapsed() < keeper::PATIENCE
                    && is_worth_it() =>
            {
                std::thread::sleep(Duration::from_millis(10));
            }
            other => return other,
        }
    }
}

/// Removes the copies but for those of volumes that are not as they were.
fn clear(directory: &Path) -> io::Result<()> {
    let root = RootDir::open_exact(directory)?;
    let mut kept = unsettled::kept(directory)?;
    kept.push(LOCK.into());
    root.read_dir("")?
        .iter()
        .filter(|name| !kept.iter().any(|kept| kept == Path::new(name)))
        .try_for_each(|name| root.remove_all(name))
}

/// Returns the volumes of which nobody has said yet that they are as they were before a step.
fn unchecked(directory: &Path) -> io::Result<Vec<Unchecked>> {
    match regular::read(&directory.join(UNCHECKED)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        list => Ok(serde_json::from_slice(&list?)?),
    }
}

/// Keeps in mind what is not as it was before a step, for whoever can say so.
pub(super) fn keep_unsettled(state_dir: &Path, found: &[Unsettled]) -> io::Result<()> {
    unsettled::keep(&state_dir.join(DIRECTORY), found)
}

/// Returns where that is which [`keep_unsettled`] kept in mind since the last start.
pub(super) fn unsettled_paths(state_dir: &Path) -> io::Result<Vec<PathBuf>> {
    let directory = state_dir.join(DIRECTORY);
    Ok(unsettled::fresh(&directory)?.iter().flat_map(|unsettled| unsettled.paths(&directory)).collect())
}

/// Tells whether something of a volume is not as it was, or nobody has said yet how all of it is.
pub(super) fn are_unsettled(state_dir: &Path) -> bool {
    let directory = state_dir.join(DIRECTORY);
    [UNCHECKED, unsettled::NOTE].into_iter().any(|name| directory.join(name).symlink_metadata().is_ok())
}

/// Says what is not as it was before a step; copies of what is by now are removed.
pub(super) fn tell_unsettled(state_dir: &Path) -> io::Result<Told> {
    let directory = state_dir.join(DIRECTORY);
    let told = unsettled::tell(&directory)?;
    // They may be another kiln's, which is alive.
    let lock = directory.is_dir().then(|| lock(&directory));
    if matches!(lock, Some(Ok(_))) && !directory.join(UNCHECKED).exists() {
        clear(&directory)?;
    }
    Ok(told)
}

/// Puts the volumes right if a step was not followed to its end. Returns how many entries were missing.
///
/// A step may have written what says so: it can only name volumes of this container, and copies that kiln could have made.
fn restore(directory: &Path) -> io::Result<usize> {
    let points = copied(directory.parent().unwrap_or(directory))?;
    let is_copy = |copy: &Path| {
        let is_number = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit());
        copy.parent() == Some(directory) && copy.file_name().and_then(OsStr::to_str).is_some_and(is_number)
    };
    let is_believed = |entry: &Unchecked| points.contains(&entry.point) && is_copy(&entry.copy);
    let list = unchecked(directory).ok().filter(|list| list.iter().all(is_believed));
    let Some(list) = list else {
        let note = directory.join(UNCHECKED);
        regular::remove(&note)?;
        let text = format!("`{}`: a step may have written it; go on in a new container", note.display());
        return Err(io::Error::other(text));
    };
    let mut restored = 0;
    for Unchecked { point, copy, .. } in list {
        if regular::check_directory(&copy).is_ok() {
            restored += backup::restore(&point, &copy).map_err(|error| at(&point, error))?;
        }
    }
    Ok(restored)
}

/// Removes the copies if kiln is not alive: who knows how the volumes were has put them right.
pub(super) fn clear_for_dead(state_dir: &Path) -> io::Result<()> {
    let directory = state_dir.join(DIRECTORY);
    match regular::check_directory(&directory).is_ok().then(|| lock(&directory)) {
        Some(Ok(_lock)) => clear(&directory),
        Some(Err(error)) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        _ => Ok(()),
    }
}

/// Does what a kiln that was killed could not: puts right what a step did to the volumes, and removes the copies.
/// Everything else is back already. Returns how many entries were missing.
pub(super) fn recover(state_dir: &Path) -> io::Result<usize> {
    let directory = state_dir.join(DIRECTORY);
    match regular::check_directory(&directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        other => other.map_err(|error| at(&directory, error))?,
    }
    regular::make_way(&directory.join(LOCK))?;
    // Who watched over the step of a killed kiln may be at it.
    let _lock = match wait_for_lock(&directory, || directory.join(UNCHECKED).exists()) {
        // Whose they are is alive.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
        other => other?,
    };
    let restored = restore(&directory)?;
    clear(&directory)?;
    Ok(restored)
}

/// Puts back what kilns of containers that are gone left aside in this container's volumes, as far as nothing is in its way; says
/// what was done. An error names what is left.
pub(super) fn recover_strays(state_dir: &Path) -> io::Result<Vec<String>> {
    let mut told = Vec::new();
    for point in showing(state_dir)? {
        match aside::finish_strays(&point) {
            Ok(Strays { back, left }) => {
                if let Some(left) = left.first() {
                    return Err(io::Error::other(is_left(left)));
                }
                told.extend((back > 0).then(|| {
                    format!(
                        "put {back} entries of the volume `{}` back: a kiln of another container was killed; what it had there of a \
                         stage may be beside them, and its root may look as in the stage",
                        point.display()
                    )
                }));
            }
            // A kiln works in it.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(at(&point, error)),
        }
    }
    Ok(told)
}

fn is_left(stray: &Path) -> String {
    format!(
        "`{}` is called like a directory where a kiln puts a volume's entries aside, and a kiln that was killed may have left it: move \
         back what you need of it, and remove it",
        stray.display()
    )
}
