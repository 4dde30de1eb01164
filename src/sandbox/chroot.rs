//! Launch `chroot`: a changed root directory and nothing else.
//!
//! For somebody else's container image in which nothing can be mounted. Device nodes are made in the root for the time of
//! the step; there is no /proc and no /sys, which some programs miss: kiln says so once. A root that may change its root
//! again is out of it in two lines, so steps lack SYS_CHROOT; they still share kiln's processes, network and abstract
//! sockets.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::hiding::Hiding;
use super::placing::Placed;
use super::task::{Ended, Task};
use super::wire::{Failure, Order, hosts_file};
use super::{Copies, Entered, Launch, LaunchKind, LaunchOptions, SandboxError, devices};
use crate::event::OutputStream;

/// Said before the first step.
const WARNING: &str = "kiln: warning: commands run in a chroot here: without /proc, which some programs need (java, ps, \
                       `<(…)`, terminals), and kept from this machine by little more than lost capabilities: not for \
                       Dockerfiles of people you do not trust; see `kiln doctor`\n";

/// The launch as kiln sees it.
#[derive(Debug)]
pub(super) struct Chroot {
    hiding: Hiding,
    /// The container's own `/etc/hosts`: a step has no other host name than the container.
    hosts: String,
    disks_are_open: bool,
    warned: AtomicBool,
}

impl Chroot {
    pub(super) fn new(entered: &Entered, options: LaunchOptions) -> Result<Self, SandboxError> {
        Ok(Self {
            disks_are_open: devices::are_kept_away(&options.state_dir).is_err(),
            hiding: Hiding::open(entered, options)?,
            hosts: std::fs::read_to_string("/etc/hosts").unwrap_or_default(),
            warned: AtomicBool::new(false),
        })
    }
}

impl Launch for Chroot {
    fn name(&self) -> &'static str {
        "chroot"
    }

    fn check(&self) -> Result<Copies, SandboxError> {
        self.hiding.check().map(|()| Copies::default())
    }

    fn finish(&self) -> Result<(), SandboxError> {
        self.hiding.end()
    }

    fn run(&self, task: &Task, output: &mut dyn FnMut(OutputStream, &[u8])) -> Result<Ended, SandboxError> {
        if !self.warned.swap(true, Ordering::Relaxed) {
            output(OutputStream::Stderr, WARNING.as_bytes());
            self.hiding.warn(output);
        }
        let mut turn = self.hiding.begin()?;
        let options = self.hiding.options();
        let order = Order {
            hosts: hosts_file(&self.hosts, task),
            dns: task.dns.clone().unwrap_or_else(|| options.dns.clone()),
            state_dir: options.state_dir.clone(),
            private: turn.records(),
            kiln_files: options.kiln_files.clone(),
            hardened: options.hardened,
            disks_are_open: self.disks_are_open,
            limits: Some(self.hiding.limits().clone()),
            ..Order::new(LaunchKind::Chroot, task)
        };
        let ended = turn.run(task, &order, output)?;
        let settled = turn.settle(&ended, output);
        let kept = turn.end();
        settled?;
        let ended = ended?;
        kept.map(|()| ended)
    }
}

/// Puts into the root what the step is to find there.
pub(super) fn furnish(order: &Order) -> Result<Placed, Failure> {
    let mut placed = Placed::new(&order.root).map_err(|error| Failure::setup("open the root", error))?;
    match placed.place_all(order, &order.mounts, true) {
        Ok(()) => Ok(placed),
        Err(failure) => {
            // The first failure tells more than what follows from it.
            let _ = placed.undo();
            Err(failure)
        }
    }
}

/// Changes the root of this process, the step's first.
pub(super) fn change_root(root: &Path) -> Result<(), Failure> {
    let change = || -> std::io::Result<()> {
        rustix::process::chroot(root)?;
        Ok(rustix::process::chdir(c"/")?)
    };
    change().map_err(|error| Failure::setup("change the root", error))
}
