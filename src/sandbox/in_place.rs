//! Launch `in-place`: for the time of a step the stage's files are the container's own.
//!
//! What kiln can do in a default Docker or Kubernetes container: no mounts, no namespaces, and still real /proc, /sys
//! and /dev for the step. The stage's tree has to be on the container's own file system; steps take turns.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::guard::Guard;
use super::hiding::Hiding;
use super::laid::Laying;
use super::mounting::{mount_id, mount_points};
use super::placing::Placed;
use super::supervise::Connection;
use super::swap::Swap;
use super::task::{Exit, Mount, Task};
use super::wire::{Failure, Order, Report, hosts_file};
use super::{Entered, Launch, LaunchKind, LaunchOptions, SandboxError, devices, step};
use crate::event::OutputStream;

/// The launch as kiln sees it.
#[derive(Debug)]
pub(super) struct InPlace {
    hiding: Hiding,
    /// The container's own `/etc/hosts`: a step has no other host name than the container.
    hosts: String,
    guard: Mutex<Option<Guard>>,
    warned: AtomicBool,
    disks_are_open: bool,
}

impl InPlace {
    pub(super) fn new(entered: &Entered, options: LaunchOptions) -> Result<Self, SandboxError> {
        Ok(Self {
            disks_are_open: devices::are_kept_away(&options.state_dir).is_err(),
            hiding: Hiding::open(entered, options)?,
            hosts: std::fs::read_to_string("/etc/hosts").unwrap_or_default(),
            guard: Mutex::new(None),
            warned: AtomicBool::new(false),
        })
    }
}

impl Launch for InPlace {
    fn name(&self) -> &'static str {
        "in-place"
    }

    fn capacity(&self) -> Option<usize> {
        Some(1)
    }

    fn check(&self) -> Result<(), SandboxError> {
        self.hiding.check()
    }

    fn finish(&self) -> Result<(), SandboxError> {
        self.hiding.end()
    }

    fn run(&self, task: &Task, output: &mut dyn FnMut(OutputStream, &[u8])) -> Result<Exit, SandboxError> {
        let options = self.hiding.options();
        // A panic in an output callback leaves nothing half done: the child puts everything back.
        let mut guard = self.guard.lock().unwrap_or_else(PoisonError::into_inner);
        let away = options.own_files.away(|| task.cancel.is_cancelled());
        let _away = away.ok_or(SandboxError::Cancelled)?;
        if !self.warned.swap(true, Ordering::Relaxed) {
            self.hiding.warn(output);
        }
        let private = self.hiding.begin()?;
        let order = Order {
            hosts: hosts_file(&self.hosts, task),
            dns: task.dns.clone().unwrap_or_else(|| options.dns.clone()),
            state_dir: options.state_dir.clone(),
            private: private.records(),
            hardened: options.hardened,
            disks_are_open: self.disks_are_open,
            ..Order::new(LaunchKind::InPlace, task)
        };
        let guard = self.guard(&mut guard)?;
        let ended = step::run(task, &order, Some(&private), output);
        if let Err(SandboxError::ChildVanished { .. }) = &ended {
            // Somebody killed the process that would have put everything back; what it watched over has been ended.
            Swap::recover(&options.state_dir, |_| Ok(())).map_err(|source| SandboxError::Setup {
                action: "put the container's own files back".to_owned(),
                source,
            })?;
        }
        let found = guard.settle().map_err(|source| SandboxError::Setup {
            action: "look at kiln's own files after the step".to_owned(),
            source,
        })?;
        if let Some(first) = found.put_back.first() {
            let text = format!(
                "kiln: warning: the step changed modes, owners or times of kiln's own files (`{}` and {} more), which \
                 are put back\n",
                first.display(),
                found.put_back.len() - 1
            );
            output(OutputStream::Stderr, text.as_bytes());
        }
        if found.dropped > 0 {
            let text = format!(
                "kiln: warning: the step changed {} records of the local cache, which are not used any more\n",
                found.dropped
            );
            output(OutputStream::Stderr, text.as_bytes());
        }
        match found.offences.first() {
            Some(first) => {
                let path = match ended {
                    Err(SandboxError::OwnFiles { path, .. }) => path,
                    _ => first.clone(),
                };
                Err(SandboxError::OwnFiles { path, state: found.state() })
            }
            None => ended.and_then(|exit| self.hiding.check_keeper().map(|()| exit)),
        }
    }
}

impl InPlace {
    /// Takes note of kiln's own files; of those that nobody changes only before the first step.
    fn guard<'a>(&self, slot: &'a mut Option<Guard>) -> Result<&'a mut Guard, SandboxError> {
        let failed = |source| SandboxError::Setup { action: "look at kiln's own files".to_owned(), source };
        let guard = match slot {
            Some(guard) => guard,
            None => {
                let aside = self.hiding.options().state_dir.join("planted");
                std::fs::create_dir_all(&self.hiding.options().state_dir).map_err(failed)?;
                slot.insert(Guard::new(&self.hiding.options().kiln_files, aside).map_err(failed)?)
            }
        };
        guard.begin().map_err(failed)?;
        Ok(guard)
    }
}

/// A stage in the place of `/`, until [`Occupied::leave`].
pub(super) struct Occupied {
    placed: Placed,
    swap: Option<Swap>,
}

/// Puts the stage into place; after an error everything is as it was.
pub(super) fn occupy(order: &Order, connection: &Connection) -> Result<Occupied, Failure> {
    check_place(&order.root)?;
    let placed = Placed::new(&order.root).map_err(|error| Failure::setup("open the root", error))?;
    let mut occupied = Occupied { placed, swap: None };
    match occupied.begin(order, connection) {
        Ok(()) => Ok(occupied),
        Err(failure) => {
            // The first failure tells more than what follows from it.
            let _ = occupied.leave();
            Err(failure)
        }
    }
}

impl Occupied {
    fn begin(&mut self, order: &Order, connection: &Connection) -> Result<(), Failure> {
        let mounts = mount_points().map_err(|error| Failure::setup("list the mounts", error))?;
        let laying = Laying::of(&order.mounts, self.placed.root(), &mounts)?;
        let shown: Vec<Mount> = order.mounts.iter().filter(|mount| !laying.has(mount)).cloned().collect();
        self.placed.place_all(order, &shown, false)?;
        let failed = |error| Failure::setup("put the stage into the place of `/`", error);
        let mut overwrite = Vec::new();
        overwrite.extend(order.own_hosts.then(|| ("/etc/hosts".into(), order.hosts.clone().into_bytes())));
        overwrite.extend(order.own_dns.then(|| ("/etc/resolv.conf".into(), order.dns.clone())));
        let swap = Swap::new(&order.root, &order.state_dir, self.placed.lent(), overwrite).map_err(failed)?;
        let swap = self.swap.insert(swap);
        let hidden = swap.enter().map_err(failed)?;
        if let Some(swap) = &mut self.swap {
            swap.lay(&laying)?;
        }
        for path in hidden {
            let text = format!(
                "the step does not see the image's `{}`: the container has a mount there",
                path.display()
            );
            connection.report(&Report::Warning(text)).map_err(failed)?;
        }
        Ok(())
    }

    /// Puts everything back.
    pub(super) fn leave(mut self) -> Result<(), Failure> {
        let left = match self.swap.take() {
            Some(swap) => match swap.leave() {
                Ok(None) => Ok(()),
                Ok(Some(path)) => {
                    return Err(Failure::OwnFiles { path: path.to_string_lossy().into_owned() });
                }
                Err(error) => Err(Failure::setup("put the container's files back", error)),
            },
            None => Ok(()),
        };
        // As long as the stage is in `/`, its tree is not where the placed things are looked for.
        left.and_then(|()| self.placed.undo())
    }
}

/// Renames between a volume and the container's own file system do not work.
fn check_place(root: &Path) -> Result<(), Failure> {
    let id = |path: &Path| {
        let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
        mount_id(rustix::fs::open(path, flags, rustix::fs::Mode::empty())?)
    };
    let failed = |error| Failure::setup(format!("look at `{}`", root.display()), error);
    if id(root).map_err(failed)? == id(Path::new("/")).map_err(failed)? {
        return Ok(());
    }
    let text = "steps in place need it on the container's own file system, and it is on a volume";
    Err(failed(std::io::Error::new(std::io::ErrorKind::CrossesDevices, text)))
}
