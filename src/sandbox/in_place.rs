//! Launch `in-place`: for the time of a step the stage's files are the container's own.
//!
//! What kiln can do in a default Docker or Kubernetes container: no mounts, no namespaces, and still real /proc, /sys
//! and /dev for the step. The stage's tree has to be on the container's own file system; steps take turns. Volumes of the
//! container that lie over paths of the image show the stage's files meanwhile (`volumes/`).

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::cache_files::{CacheFiles, Depth};
use super::hiding::Hiding;
use super::laid::Laying;
use super::mounting::{mount_id, mount_points};
use super::placing::Placed;
use super::presence::Presence;
use super::supervise::Connection;
use super::surroundings::Surroundings;
use super::swap::Swap;
use super::task::{Ended, Mount, Task};
use super::volumes::{Copies, Volumes};
use super::wire::{Failure, Order, Report, hosts_file};
use super::{Entered, Launch, LaunchKind, LaunchOptions, SandboxError, devices};
use crate::event::OutputStream;

/// The launch as kiln sees it.
#[derive(Debug)]
pub(super) struct InPlace {
    hiding: Hiding,
    /// The container's own `/etc/hosts`: a step has no other host name than the container.
    hosts: String,
    /// Held by the step whose turn it is; ready from the first step on.
    volumes: Mutex<Option<Volumes>>,
    warned: AtomicBool,
    disks_are_open: bool,
    #[expect(dead_code, reason = "it is held for its lock")]
    presence: Presence,
}

impl InPlace {
    pub(super) fn new(entered: &Entered, options: LaunchOptions) -> Result<Self, SandboxError> {
        let state_dir = options.state_dir.clone();
        let presence = std::fs::create_dir_all(&state_dir).and_then(|()| Presence::begin(&state_dir));
        let presence = presence.map_err(|source| SandboxError::Setup {
            action: format!("lock `{}`", state_dir.display()),
            source,
        })?;
        Ok(Self {
            presence,
            disks_are_open: devices::are_kept_away(&options.state_dir).is_err(),
            hiding: Hiding::open(entered, options)?,
            hosts: std::fs::read_to_string("/etc/hosts").unwrap_or_default(),
            volumes: Mutex::new(None),
            warned: AtomicBool::new(false),
        })
    }
}

impl Launch for InPlace {
    fn name(&self) -> &'static str {
        "in-place"
    }

    fn check(&self) -> Result<Copies, SandboxError> {
        self.hiding.check()?;
        let mut volumes = self.volumes.lock().unwrap_or_else(PoisonError::into_inner);
        let _away = self.hiding.options().own_files.away(|| false);
        Ok(self.ready(&mut volumes)?.copies())
    }

    fn finish(&self) -> Result<(), SandboxError> {
        self.hiding.end()
    }

    fn run(&self, task: &Task, output: &mut dyn FnMut(OutputStream, &[u8])) -> Result<Ended, SandboxError> {
        let options = self.hiding.options();
        // A panic in an output callback leaves nothing half done: the child puts everything back.
        let mut turn = self.volumes.lock().unwrap_or_else(PoisonError::into_inner);
        let away = options.own_files.away(|| task.cancel.is_cancelled());
        let _away = away.ok_or(SandboxError::Cancelled)?;
        let volumes = self.ready(&mut turn)?;
        if !self.warned.swap(true, Ordering::Relaxed) {
            self.hiding.warn(output);
            for point in volumes.left() {
                let text = format!(
                    "kiln: warning: the volume `{}` holds this container's own file system: what steps change there stays\n",
                    point.display()
                );
                output(OutputStream::Stderr, text.as_bytes());
            }
        }
        let mut turn = self.hiding.begin()?;
        let order = Order {
            hosts: hosts_file(&self.hosts, task),
            dns: task.dns.clone().unwrap_or_else(|| options.dns.clone()),
            state_dir: options.state_dir.clone(),
            private: turn.records(),
            kiln_files: options.kiln_files.clone(),
            hardened: options.hardened,
            disks_are_open: self.disks_are_open,
            limits: Some(self.hiding.limits().clone()),
            volumes: volumes.orders().to_vec(),
            moving: volumes.moving().map(OsString::from).collect(),
            staying: volumes.staying().map(OsString::from).collect(),
            caches: options.cache_directories.clone(),
            ..Order::new(LaunchKind::InPlace, task)
        };
        let surroundings = Surroundings::note(&order.private).map_err(|source| SandboxError::Setup {
            action: "look at what stays in its place beside the step".to_owned(),
            source,
        })?;
        volumes.begin_step()?;
        let ended = turn.run(task, &order, output)?;
        let around = surroundings.put_back().blame();
        if ended.is_err() {
            // Somebody killed the process that would have put everything back, or had it fail.
            Swap::recover(&options.state_dir, |_| Ok(())).map_err(|source| SandboxError::Setup {
                action: "put the container's own files back".to_owned(),
                source,
            })?;
        }
        let in_place = volumes.check_places();
        let put_right = volumes.end_step();
        let caches = volumes.settle_caches();
        let of_caches = caches.iter().flatten();
        let of_volumes = put_right.iter().flat_map(|settled| &settled.warnings);
        for warning in of_volumes.chain(of_caches) {
            output(OutputStream::Stderr, format!("kiln: warning: {warning}\n").as_bytes());
        }
        let settled = turn.settle(&ended, output);
        let is_around = !matches!(around, Err(SandboxError::Setup { .. }));
        if in_place.is_err() || put_right.is_err() || caches.is_err() || !is_around {
            turn.give_up();
        }
        let kept = turn.end();
        // What is lost for good comes first, then what the job would go on in.
        let put_right = match put_right {
            Err(lost @ SandboxError::VolumesLost { .. }) => return Err(lost),
            other => other,
        };
        around?;
        in_place?;
        settled?;
        let put_right = put_right.map(|settled| (settled.in_no_layer, settled.offence));
        if let Ok((_, Some(offence))) = put_right {
            return Err(offence);
        }
        let mut ended = ended?;
        ended.hidden.extend(put_right?.0);
        caches?;
        kept.map(|()| ended)
    }
}

impl InPlace {
    fn ready<'a>(&self, volumes: &'a mut Option<Volumes>) -> Result<&'a mut Volumes, SandboxError> {
        match volumes {
            Some(volumes) => Ok(volumes),
            None => {
                let state_dir = &self.hiding.options().state_dir;
                std::fs::create_dir_all(state_dir).map_err(|source| SandboxError::Setup {
                    action: format!("create `{}`", state_dir.display()),
                    source,
                })?;
                check_place(state_dir)?;
                let private = self.hiding.private_paths();
                Ok(volumes.insert(Volumes::prepare(self.hiding.options(), &private)?))
            }
        }
    }
}

/// A stage in the place of `/`, until [`Occupied::leave`].
pub(super) struct Occupied {
    placed: Placed,
    swap: Option<Swap>,
    caches: Option<CacheFiles>,
}

/// Puts the stage into place; after an error everything is as it was.
pub(super) fn occupy(order: &Order, connection: &Connection) -> Result<Occupied, Failure> {
    check_place(&order.root)?;
    let placed = Placed::new(&order.root).map_err(|error| Failure::setup("open the root", error))?;
    let mut occupied = Occupied { placed, swap: None, caches: None };
    match occupied.begin(order, connection) {
        Ok(()) => Ok(occupied),
        Err(failure) => {
            // The first failure tells more than what follows from it.
            let _ = occupied.leave(true);
            Err(failure)
        }
    }
}

impl Occupied {
    fn begin(&mut self, order: &Order, connection: &Connection) -> Result<(), Failure> {
        let mut mounts = mount_points().map_err(|error| Failure::setup("list the mounts", error))?;
        mounts.retain(|mount| !order.moving.iter().any(|moving| mount == Path::new(moving)));
        let caches = CacheFiles::note(&order.caches, Depth::Looks);
        self.caches = Some(caches.map_err(|error| Failure::setup("look at the local caches", error))?);
        let volumes: BTreeSet<PathBuf> = order.volumes.iter().map(|volume| volume.point.clone()).collect();
        let laying = Laying::of(&order.mounts, self.placed.root(), &mounts, &volumes)?;
        let shown: Vec<Mount> = order.mounts.iter().filter(|mount| !laying.has(mount)).cloned().collect();
        self.placed.place_all(order, &shown, false)?;
        let failed = |error| Failure::setup("put the stage into the place of `/`", error);
        let mut overwrite = Vec::new();
        overwrite.extend(order.own_hosts.then(|| ("/etc/hosts".into(), order.hosts.clone().into_bytes())));
        overwrite.extend(order.own_dns.then(|| ("/etc/resolv.conf".into(), order.dns.clone())));
        let swap = Swap::new(&order.root, &order.state_dir, self.placed.lent(), overwrite).map_err(failed)?;
        let swap = self.swap.insert(swap);
        for point in order.moving.iter().chain(&order.staying).map(Path::new) {
            swap.note(point).map_err(failed)?;
        }
        let hidden = swap.enter(volumes).map_err(failed)?;
        swap.show(&order.volumes)?;
        swap.lay(&laying)?;
        for path in hidden {
            let text = format!(
                "the step does not see the image's `{}`: the container has a mount there",
                path.display()
            );
            connection.report(&Report::Warning(text)).map_err(failed)?;
            connection.report(&Report::Hidden(path.into())).map_err(failed)?;
        }
        Ok(())
    }

    /// Puts everything back, and returns what of the stage the step did not touch ([`Swap::leave`]); and looks after the volumes
    /// if kiln is not there to do it.
    pub(super) fn leave(mut self, kiln_is_there: bool) -> Result<Vec<PathBuf>, Failure> {
        let settled = match (&mut self.swap, kiln_is_there) {
            (Some(swap), false) => swap.settle_volumes(),
            _ => Ok(()),
        };
        let left = match self.swap.take().map_or(Ok(Vec::new()), Swap::leave) {
            Err(failure @ Failure::OwnFiles { .. }) => return Err(failure),
            left => left,
        };
        // As long as the stage is in `/`, its tree is not where the placed things are looked for.
        let covered = self.placed.paths();
        let undone = left.and_then(|mut still| {
            // What was there instead tells nothing of what comes back.
            still.retain(|path| !covered.contains(path));
            self.placed.undo().map(|()| still)
        });
        if let (Some(caches), false) = (&mut self.caches, kiln_is_there) {
            let settled = caches.settle();
            settled.map_err(|error| Failure::setup("put the local caches right", error))?;
        }
        let still = undone?;
        settled.map(|()| still)
    }
}

/// Says why steps in place cannot work with kiln's files below `directory`, if they cannot.
pub(super) fn refusal(directory: &Path) -> Option<String> {
    check_place(directory).err().map(|failure| SandboxError::from(failure).to_string())
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
    let text = "steps in place need it on the container's own file system, and it is on a volume: leave `--root` (`KILN_ROOT`, \
                `--kaniko-dir`) out where steps run in place, and keep what is to stay with `--cache-to`";
    Err(failed(std::io::Error::new(std::io::ErrorKind::CrossesDevices, text)))
}
