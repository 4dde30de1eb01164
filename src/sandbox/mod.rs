//! SOCKET launch: runs one process in a root, and leaves nothing of it behind.
//!
//! [`enter`] is called first thing in `main`, while the process has one thread: it gives kiln a mount namespace of its
//! own (and a user namespace where that is what it takes), so that every later mount is private and dies with kiln.
//! [`open`] then hands out the [`Launch`] that was chosen. A step is started by re-executing `/proc/self/exe` as a
//! single-threaded process that gets its task over a socket ([`child_main_if_requested`]); nothing is ever forked
//! from a process with threads.
//!
//! Promises: a mount target resolves inside the root however hostile the root is; a step cannot outlive its `run`
//! call, nor kiln; nothing that was put into the root for a step's sake is there when `run` returns.
//!
//! This module does not know about images, layers or Dockerfiles; users, mounts and environment come resolved.

mod cache_files;
mod cancel;
mod child;
mod chroot;
mod conceal;
mod dev_entries;
mod devices;
mod doctor;
mod enter;
mod error;
mod ground;
mod guard;
mod hiding;
mod in_place;
mod journal;
mod keeper;
mod laid;
mod landlock;
mod limits;
mod look;
mod memory;
mod mounted_files;
mod mounting;
mod namespaces;
mod neighbours;
mod network;
mod overlay;
mod placing;
mod presence;
mod private;
mod probe;
mod process;
mod reap;
mod seccomp;
mod step;
mod successor;
mod supervise;
mod surroundings;
mod swap;
mod sys;
mod targets;
mod task;
#[cfg(test)]
pub(crate) mod tests;
mod volumes;
mod wire;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use presence::Alone;
use private::Reach;

use crate::event::OutputStream;
use crate::own_files::OwnFiles;
use crate::tree::RootDir;

pub use cache_files::CacheDirectory;
pub use cancel::Cancel;
pub use child::child_main_if_requested;
pub use conceal::conceal;
pub use doctor::{Finding, doctor};
pub use enter::{Entered, LaunchKind, OWN_IMAGE_MARKER, enter};
pub use error::{SandboxError, Whose};
pub use ground::{Anchor, Ground, Hold, Occupation};
pub use guard::KilnFiles;
pub use keeper::SIGNALS_TOGETHER;
pub use memory::{LentSecret, MemoryDir};
pub use neighbours::SecretValues;
pub use overlay::{MAX_LOWERS, Overlay, unmount_at};
pub use probe::{Probes, probe, probe_for, try_overlay};
pub use task::{
    DEFAULT_HOSTNAME, Ended, Exit, Isolation, Mount, MountKind, Network, Source, Task, Ulimit, User,
};
pub use volumes::{Copies, is_put_aside};

/// A way of running a process in a root.
pub trait Launch: Send + Sync {
    /// Returns the name for people: `namespaces`, `chroot`, `in-place`, `none`.
    fn name(&self) -> &'static str;

    /// Returns why no step can run, where none can: then nothing needs to be made ready for one.
    fn refusal(&self) -> Option<SandboxError> {
        None
    }

    /// Makes ready for steps, or says why none should run where kiln could; before anything is fetched. What is at some
    /// places of this machine is to be read elsewhere from then on.
    fn check(&self) -> Result<Copies, SandboxError> {
        Ok(Copies::default())
    }

    /// Gives back what was kept from the steps, if any has run; another may follow and begin anew.
    fn finish(&self) -> Result<(), SandboxError> {
        Ok(())
    }

    /// Runs `task` to its end, handing on what it prints, and returns how it ended.
    ///
    /// An exit code other than 0 is not an error here. When this returns, no process of the step is alive and
    /// nothing put into the root for its sake is left.
    fn run(&self, task: &Task, output: &mut dyn FnMut(OutputStream, &[u8])) -> Result<Ended, SandboxError>;
}

/// What a launch needs to know beside its tasks.
#[derive(Debug, Clone)]
pub struct LaunchOptions {
    /// A directory of kiln's own for what a launch must remember: the journal of the in-place launch.
    pub state_dir: PathBuf,
    /// The content of `/etc/resolv.conf` for tasks that bring none.
    pub dns: Vec<u8>,
    /// Where the secrets that steps are lent lie while they run.
    pub secrets_dir: PathBuf,
    /// Files with credentials that no step is to read.
    pub private_files: Vec<PathBuf>,
    /// Values that no step is to read in the variables of other processes.
    pub secret_values: SecretValues,
    /// Steps may run although they can read some of those.
    pub allow_visible_credentials: bool,
    /// Steps get no new privileges, and where they see kiln they can send it no signals.
    pub hardened: bool,
    /// Whom a step in place takes the container's own files from.
    pub own_files: OwnFiles,
    /// What a step in place finds of kiln, and is to leave as it is.
    pub kiln_files: KilnFiles,
    /// Where kiln has caches: a volume that holds nothing else is left alone.
    pub cache_directories: Vec<CacheDirectory>,
    /// How much a copy of the volumes that lie over paths of images may take.
    pub volume_limit_bytes: u64,
}

/// [`LaunchOptions::volume_limit_bytes`] unless somebody says: a working copy with its history fits, and it is copied
/// within a second or two.
pub const DEFAULT_VOLUME_LIMIT_BYTES: u64 = 1 << 30;

/// Opens the launch that [`enter`] chose.
pub fn open(entered: &Entered, options: LaunchOptions) -> Result<Arc<dyn Launch>, SandboxError> {
    match entered.launch {
        LaunchKind::Namespaces if entered.fresh_proc || landlock::is_there() => {
            Ok(Arc::new(namespaces::Namespaces::new(entered, options)))
        }
        // They would see each other's processes, and through those each other's files.
        LaunchKind::Namespaces => Ok(Arc::new(InTurn::new(namespaces::Namespaces::new(entered, options)))),
        LaunchKind::Chroot => Ok(Arc::new(InTurn::new(chroot::Chroot::new(entered, options)?))),
        LaunchKind::InPlace => Ok(Arc::new(in_place::InPlace::new(entered, options)?)),
        LaunchKind::None => Ok(Arc::new(NoLaunch { reason: entered.description.clone() })),
    }
}

/// A launch whose steps run one after the other.
struct InTurn<L> {
    launch: L,
    turn: Mutex<()>,
}

impl<L> InTurn<L> {
    fn new(launch: L) -> Self {
        Self { launch, turn: Mutex::new(()) }
    }
}

impl<L: Launch> Launch for InTurn<L> {
    fn name(&self) -> &'static str {
        self.launch.name()
    }

    fn refusal(&self) -> Option<SandboxError> {
        self.launch.refusal()
    }

    fn check(&self) -> Result<Copies, SandboxError> {
        self.launch.check()
    }

    fn finish(&self) -> Result<(), SandboxError> {
        self.launch.finish()
    }

    fn run(&self, task: &Task, output: &mut dyn FnMut(OutputStream, &[u8])) -> Result<Ended, SandboxError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.launch.run(task, output)
    }
}

/// The launch where nothing can run.
struct NoLaunch {
    reason: String,
}

impl Launch for NoLaunch {
    fn name(&self) -> &'static str {
        "none"
    }

    fn refusal(&self) -> Option<SandboxError> {
        Some(SandboxError::NoLaunch { reason: self.reason.clone() })
    }

    fn run(&self, _task: &Task, _output: &mut dyn FnMut(OutputStream, &[u8])) -> Result<Ended, SandboxError> {
        Err(SandboxError::NoLaunch { reason: self.reason.clone() })
    }
}

/// Tells whether there is anything for [`recover`] in a state directory after steps in place, or somebody at work: who reads the
/// store then reads what a step may have written. It costs a few looks.
pub fn needs_recovery(state_dir: &Path) -> bool {
    journal::Journal::exists(state_dir)
        || private::is_noted(state_dir, Reach::All)
        || successor::is_noted(state_dir)
        || volumes::are_unsettled(state_dir)
        || Alone::now(state_dir).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
}

/// Puts the container's own files back if a kiln that ran steps in place was killed half-way.
///
/// Called before anything else reads the file system; returns what was repaired, for a warning. Another kiln whose steps are in
/// place, and what is left of one, is waited for a moment; then it is [`SandboxError::Occupied`]. Files with credentials are not
/// refilled: if nobody did it who still knew their content, they are lost. Nor does anybody know then what the step made of `names`
/// ([`KilnFiles::names`]): these are removed.
pub fn recover(state_dir: &Path, names: &[PathBuf]) -> Result<Option<String>, SandboxError> {
    dev_entries::check_null()?;
    let _alone = wait_for_others(state_dir)?;
    let (mut told, mut is_known) = recover_swap(state_dir)?;
    let setup =
        |source| SandboxError::Setup { action: "put the container's volumes back".to_owned(), source };
    let restored = volumes::recover(state_dir).map_err(setup)?;
    if restored > 0 {
        told.push(format!("put {restored} entries of volumes back that a step had removed"));
    }
    let unsettled = volumes::tell_unsettled(state_dir).map_err(setup)?;
    is_known &= !unsettled.is_new;
    told.extend(unsettled.texts);
    // Only in its own image has a kiln put a volume's entries aside unasked.
    if Path::new(OWN_IMAGE_MARKER).exists() {
        told.extend(volumes::recover_strays(state_dir).map_err(setup)?);
    }
    if !is_known {
        let drop = |source| SandboxError::Setup { action: "remove names and records".to_owned(), source };
        if drop_names(names).map_err(drop)? {
            told.push("removed the names and records of the store, which the step could write to".to_owned());
        }
    }
    Ok((!told.is_empty()).then(|| told.join("; ")))
}

/// Waits until nobody is at work in a state directory. A step that outlived all of kiln may have taken the lock.
fn wait_for_others(state_dir: &Path) -> Result<Alone, SandboxError> {
    let setup = |source| SandboxError::Setup { action: "wait for a kiln that was killed".to_owned(), source };
    let is_busy = |error: &std::io::Error| error.kind() == std::io::ErrorKind::WouldBlock;
    let mut alone = Alone::within(state_dir, keeper::PATIENCE);
    if alone.as_ref().is_err_and(is_busy) && !keeper::is_claimed().map_err(setup)? {
        reap::kill_orphans(None).map_err(setup)?;
        alone = Alone::within(state_dir, keeper::PATIENCE);
    }
    alone.map_err(|error| if is_busy(&error) { SandboxError::Occupied } else { setup(error) })
}

/// How often what was filled again meanwhile is removed again.
const LAST_CALLS: u32 = 100;

/// Tells whether there were any. No component of a path may have become a link.
fn drop_names(names: &[PathBuf]) -> std::io::Result<bool> {
    let mut any = false;
    for path in names {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { continue };
        let parent = match RootDir::open_exact(parent) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            parent => parent.map_err(|error| look::at(path, error))?,
        };
        let mut removed = parent.remove_all(name);
        // The last system call of each thread of a kiln that is being killed may still make something there.
        for _ in 0..LAST_CALLS {
            match &removed {
                Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty => {
                    std::thread::sleep(std::time::Duration::from_millis(10));
                    removed = parent.remove_all(name);
                }
                _ => break,
            }
        }
        match removed {
            Ok(()) => any = true,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(look::at(path, error)),
        }
    }
    Ok(any)
}

/// Says what was put back or is lost, and whether all that a step did to kiln's own files is known.
fn recover_swap(state_dir: &Path) -> Result<(Vec<String>, bool), SandboxError> {
    let setup =
        |source| SandboxError::Setup { action: "put the container's own files back".to_owned(), source };
    let is_noted = |reach| private::is_noted(state_dir, reach);
    let is_cut_short =
        journal::Journal::exists(state_dir) || is_noted(Reach::All) || is_noted(Reach::Credentials);
    let is_alive = is_cut_short && !keeper::wait().map_err(setup)?;
    let begin = std::time::Instant::now();
    let recovered = loop {
        match swap::Swap::recover(state_dir, |since| reap::kill_orphans(Some(since))) {
            // The process that watched over the step of a killed kiln is putting everything back just now.
            Err(error)
                if error.kind() == std::io::ErrorKind::WouldBlock && begin.elapsed() < keeper::PATIENCE =>
            {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            other => break other,
        }
    };
    let root = match recovered {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Err(SandboxError::Occupied),
        other => other.map_err(setup)?,
    };
    let mut is_known = root.is_none();
    let mut said: Vec<String> = Vec::new();
    said.extend(root.map(|root| {
        let root = root.display();
        format!("put the container's own files back: a kiln that ran a step of `{root}` in place was killed")
    }));
    if is_alive {
        // A kiln between two steps.
        return Ok((said, is_known));
    }
    if is_cut_short && is_known {
        // Of a kiln that was killed between two steps, or whose steps were in a chroot; or a step has removed the journal.
        reap::kill_orphans(None).map_err(setup)?;
    }
    if let Some(told) = successor::take_note(state_dir).map_err(setup)? {
        is_known = false;
        said.push(told);
    }
    is_known &= !is_noted(Reach::All);
    for path in private::settle(state_dir).map_err(setup)? {
        said.push(format!(
            "`{}`, which was hidden from the steps of a kiln that was killed, is lost with all of its processes; nothing is \
             refilled: write it anew, in a new container if a step may have done that",
            path.display()
        ));
    }
    Ok((said, is_known))
}
