//! Launch `namespaces`: a mount, ipc and uts namespace per step, and a pid namespace where a fresh /proc is allowed.
//!
//! The same code serves root with SYS_ADMIN and kiln inside a user namespace of its own; what an outer container
//! forbids is replaced by the next best (a recursive bind of /proc instead of a new one, and then no pid namespace).

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::sched::CloneFlags;
use rustix::mount::MountAttrFlags;

use super::mounting::{
    attach, change_root, copy_of, copy_of_path, is_directory, make_all_private, new_filesystem, restrict,
};
use super::network;
use super::overlay::{Overlay, by_descriptor, open_directory};
use super::supervise::Connection;
use super::sys;
use super::targets::{TargetKind, Targets, depth};
use super::task::{Mount, MountKind, Network, Source};
use super::wire::{Cause, Failure, Order, Report};
use super::{Ended, Entered, Launch, LaunchKind, LaunchOptions, SandboxError, Task, step};
use crate::event::OutputStream;
use crate::tree::{RootDir, copy_tree};

/// Size of `/dev/shm` unless the task says otherwise; Docker's and BuildKit's default.
const SHM_SIZE_BYTES: u64 = 64 << 20;

/// Parts of /proc and /sys that tell about or act on the whole machine (Docker's list).
const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Parts of /proc that may be read but not written (Docker's list).
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Device nodes that every step has.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Attributes of file systems that hold no programs and no devices.
const PLAIN: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID
    .union(MountAttrFlags::MOUNT_ATTR_NODEV)
    .union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

/// The launch as kiln sees it.
#[derive(Debug)]
pub(super) struct Namespaces {
    fresh_proc: bool,
    single_id: bool,
    overlay_userxattr: bool,
    options: LaunchOptions,
}

impl Namespaces {
    pub(super) fn new(entered: &Entered, options: LaunchOptions) -> Self {
        Self {
            fresh_proc: entered.fresh_proc,
            single_id: entered.single_id,
            overlay_userxattr: entered.overlay_userxattr,
            options,
        }
    }
}

impl Launch for Namespaces {
    fn name(&self) -> &'static str {
        "namespaces"
    }

    fn run(&self, task: &Task, output: &mut dyn FnMut(OutputStream, &[u8])) -> Result<Ended, SandboxError> {
        let order = Order {
            fresh_proc: self.fresh_proc,
            single_id: self.single_id,
            overlay_userxattr: self.overlay_userxattr,
            dns: task.dns.clone().unwrap_or_else(|| self.options.dns.clone()),
            hardened: self.options.hardened,
            ..Order::new(LaunchKind::Namespaces, task)
        };
        step::run(task, &order, &[], output)
    }
}

/// Puts this process, the step's first, into its namespaces and its root.
pub(super) fn set_up(order: &Order, connection: &mut Connection) -> Result<(), Failure> {
    let flags = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS;
    nix::sched::unshare(flags).map_err(|errno| Failure::setup("make namespaces", errno))?;
    make_all_private().map_err(|error| Failure::setup("make mounts private", error))?;
    if order.network == Network::None {
        network::enter_empty().map_err(|error| Failure::setup("make an empty network", error))?;
    }
    // Podman's seccomp profile forbids this one; a step can live with another name.
    let _ = rustix::system::sethostname(order.hostname.as_bytes());
    let mut builder = Builder::new(order)?;
    builder.mount_all()?;
    let stubs = builder.targets.take_stubs();
    if !stubs.is_empty() {
        connection
            .report(&Report::Stubs(stubs))
            .and_then(|()| connection.wait_for_go())
            .map_err(|error| Failure::setup("report mount targets", error))?;
    }
    change_root(builder.targets.root()).map_err(|error| Failure::setup("change the root", error))
}

/// Makes all mounts of a step.
struct Builder<'a> {
    order: &'a Order,
    targets: Targets,
}

/// Returns the attributes of what a step sees of files that are not the kernel's: device nodes there do not open, wherever
/// they come from, because nothing else keeps a root with MKNOD off this machine's disks.
fn shown_attributes(order: &Order, read_only: bool) -> MountAttrFlags {
    let mut attributes = MountAttrFlags::empty();
    attributes.set(MountAttrFlags::MOUNT_ATTR_NODEV, !order.insecure);
    attributes.set(MountAttrFlags::MOUNT_ATTR_RDONLY, read_only);
    attributes
}

/// Adds what was being done, and where, to an error.
fn at<T>(target: &Path, action: &str, result: io::Result<T>) -> Result<T, Failure> {
    result.map_err(|error| Failure::Mount {
        target: target.to_string_lossy().into_owned(),
        action: action.to_owned(),
        cause: Cause::from(error),
    })
}

impl<'a> Builder<'a> {
    fn new(order: &'a Order) -> Result<Self, Failure> {
        let begin = |root: &Path| -> io::Result<Targets> {
            let here = open_directory(root)?;
            let mount = copy_of(&here)?;
            restrict(&mount, shown_attributes(order, false))?;
            // Programs with setuid must work even if the work directory's file system forbids them; in a user namespace
            // the flag is locked, and then it stays as it is. A step that may do everything may use devices, too.
            let mut clear = MountAttrFlags::MOUNT_ATTR_NOSUID;
            if order.insecure {
                clear |= MountAttrFlags::MOUNT_ATTR_NODEV;
            }
            let _ = sys::mount_setattr(&mount, MountAttrFlags::empty(), clear, false);
            attach(&mount, &here)?;
            Targets::open(mount, root)
        };
        let targets = begin(&order.root)
            .map_err(|error| Failure::setup(format!("mount the root `{}`", order.root.display()), error))?;
        Ok(Self { order, targets })
    }

    fn mount_all(&mut self) -> Result<(), Failure> {
        self.mount_proc()?;
        self.mount_sys()?;
        self.mount_dev()?;
        if !self.order.insecure {
            self.mask()?;
        }
        self.provide_file("/etc/resolv.conf", &self.order.dns)?;
        self.provide_file("/etc/hosts", self.order.hosts.as_bytes())?;
        if self.order.single_id {
            self.keep_apt_one_user()?;
        }
        let mut mounts: Vec<&Mount> = self.order.mounts.iter().collect();
        mounts.sort_by_key(|mount| depth(&mount.target));
        mounts.into_iter().try_for_each(|mount| self.mount(mount))
    }

    /// Tells apt that there is no other user for its downloads: it checks whether it became that one.
    fn keep_apt_one_user(&mut self) -> Result<(), Failure> {
        let directory = Path::new("/etc/apt/apt.conf.d");
        match at(directory, "open", self.targets.existing(directory))? {
            // The last file of the directory has the last word.
            Some(_) => {
                self.provide_file("/etc/apt/apt.conf.d/99zz-one-user", b"APT::Sandbox::User \"root\";\n")
            }
            None => Ok(()),
        }
    }

    /// Attaches a detached mount at a path of the root, made if missing.
    fn attach(&mut self, mount: impl AsFd, target: &Path, kind: TargetKind) -> Result<(), Failure> {
        let place = at(target, "make the mount point", self.targets.ensure(target, kind))?;
        at(target, "mount", attach(mount, place))
    }

    fn mount_filesystem(
        &mut self,
        name: &str,
        target: &str,
        options: &[(&str, &str)],
        attributes: MountAttrFlags,
    ) -> Result<(), Failure> {
        let target = Path::new(target);
        let mount = at(target, name, new_filesystem(name, options, attributes))?;
        self.attach(mount, target, TargetKind::Directory)
    }

    fn mount_proc(&mut self) -> Result<(), Failure> {
        if self.order.fresh_proc {
            return self.mount_filesystem("proc", "/proc", &[], PLAIN);
        }
        // Not recursive would be refused: what the container hides under mounts would show.
        let target = Path::new("/proc");
        let mount = at(target, "bind", copy_of_path(target))?;
        self.attach(mount, target, TargetKind::Directory)
    }

    fn mount_sys(&mut self) -> Result<(), Failure> {
        let target = Path::new("/sys");
        let mount = at(target, "bind", copy_of_path(target))?;
        if self.order.network == Network::None {
            // Only a new one shows the interfaces of the new network namespace.
            if let Ok(fresh) = new_filesystem("sysfs", &[], PLAIN | MountAttrFlags::MOUNT_ATTR_RDONLY) {
                return self.attach(fresh, target, TargetKind::Directory);
            }
        }
        at(target, "make read-only", restrict(&mount, MountAttrFlags::MOUNT_ATTR_RDONLY))?;
        self.attach(mount, target, TargetKind::Directory)
    }

    fn mount_dev(&mut self) -> Result<(), Failure> {
        let dev = Path::new("/dev");
        let options = [("mode", "755"), ("size", "65536k")];
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_STRICTATIME
            | shown_attributes(self.order, false);
        self.mount_filesystem("tmpfs", "/dev", &options, attributes)?;
        for name in DEVICES {
            let device = dev.join(name);
            match copy_of_path(&device) {
                Ok(mount) => self.attach(mount, &device, TargetKind::File)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return at(&device, "bind", Err(error)),
            }
        }
        self.mount_pts()?;
        let shm = self.order.shm_size_bytes.unwrap_or(SHM_SIZE_BYTES).to_string();
        self.mount_filesystem("tmpfs", "/dev/shm", &[("mode", "1777"), ("size", &shm)], PLAIN)?;
        // Some containers' profiles have no mqueue; nothing a build does needs it.
        if let Ok(mount) = new_filesystem("mqueue", &[], PLAIN) {
            self.attach(mount, Path::new("/dev/mqueue"), TargetKind::Directory)?;
        }
        for (name, target) in [
            ("fd", "/proc/self/fd"),
            ("stdin", "/proc/self/fd/0"),
            ("stdout", "/proc/self/fd/1"),
            ("stderr", "/proc/self/fd/2"),
            ("core", "/proc/kcore"),
            ("ptmx", "pts/ptmx"),
        ] {
            let link = dev.join(name);
            at(&link, "make the link", self.targets.root().symlink(Path::new(target), &link))?;
        }
        Ok(())
    }

    fn mount_pts(&mut self) -> Result<(), Failure> {
        let options = [("newinstance", ""), ("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")];
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let target = Path::new("/dev/pts");
        // Group 5, tty, has no mapping where kiln has few ids.
        let mount = new_filesystem("devpts", &options, attributes)
            .or_else(|_| new_filesystem("devpts", &options[..3], attributes));
        let mount = at(target, "devpts", mount)?;
        self.attach(mount, target, TargetKind::Directory)
    }

    /// Hides and protects parts of /proc and /sys; what the kernel has not is left out.
    fn mask(&mut self) -> Result<(), Failure> {
        for path in MASKED.map(Path::new) {
            let Some(place) = at(path, "open", self.targets.existing(path))? else { continue };
            let cover = if at(path, "open", is_directory(&place))? {
                new_filesystem("tmpfs", &[], PLAIN | MountAttrFlags::MOUNT_ATTR_RDONLY)
            } else {
                copy_of_path(Path::new("/dev/null"))
            };
            let cover = at(path, "mask", cover)?;
            at(path, "mask", attach(cover, place))?;
        }
        for path in READ_ONLY.map(Path::new) {
            let Some(place) = at(path, "open", self.targets.existing(path))? else { continue };
            let same = at(path, "bind", copy_of(&place))?;
            at(path, "make read-only", restrict(&same, MountAttrFlags::MOUNT_ATTR_RDONLY))?;
            at(path, "mount", attach(same, place))?;
        }
        Ok(())
    }

    /// Shows a read-only file with this content.
    fn provide_file(&mut self, target: &str, content: &[u8]) -> Result<(), Failure> {
        let target = Path::new(target);
        let make = || -> io::Result<OwnedFd> {
            // A file that only this namespace ever sees: in the new /dev, and unlinked once it is bound.
            let holder = Path::new("/dev/.kiln-file");
            let mut file = self.targets.root().create_file(holder, 0o644)?;
            io::Write::write_all(&mut file, content)?;
            let fd = self.targets.existing(holder)?.ok_or(io::ErrorKind::NotFound)?;
            let mount = copy_of(&fd)?;
            restrict(&mount, shown_attributes(self.order, true))?;
            Ok(mount)
        };
        let mount = at(target, "write the file", make())?;
        self.attach(mount, target, TargetKind::File)?;
        at(target, "unlink the file", self.targets.root().remove_file("/dev/.kiln-file"))
    }

    fn mount(&mut self, mount: &Mount) -> Result<(), Failure> {
        let target = &mount.target;
        match &mount.kind {
            MountKind::Bind { source, read_only } => self.bind(target, source, *read_only),
            MountKind::Tmpfs { size_bytes, mode } => {
                let (mode, size) = (format!("{mode:o}"), size_bytes.map(|size| size.to_string()));
                let mut options = vec![("mode", mode.as_str())];
                options.extend(size.as_deref().map(|size| ("size", size)));
                let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | shown_attributes(self.order, false);
                let made = at(target, "tmpfs", new_filesystem("tmpfs", &options, attributes))?;
                self.attach(made, target, TargetKind::Directory)
            }
            MountKind::ScratchOverlay { lower, scratch } => self.scratch(target, lower, scratch),
        }
    }

    fn bind(&mut self, target: &Path, source: &Source, read_only: bool) -> Result<(), Failure> {
        let action = format!("bind `{source}`");
        let source = at(target, &action, source.open())?;
        self.show(target, &action, &source, read_only)
    }

    /// Shows what a descriptor refers to.
    fn show(
        &mut self,
        target: &Path,
        action: &str,
        source: &OwnedFd,
        read_only: bool,
    ) -> Result<(), Failure> {
        let kind = match at(target, action, is_directory(source))? {
            true => TargetKind::Directory,
            false => TargetKind::File,
        };
        let mount = at(target, action, copy_of(source))?;
        at(target, "restrict the mount", restrict(&mount, shown_attributes(self.order, read_only)))?;
        self.attach(mount, target, kind)
    }

    /// Shows a directory that can be written to without any effect: as an overlay, else as a copy.
    fn scratch(&mut self, target: &Path, lower: &Source, scratch: &Path) -> Result<(), Failure> {
        let [upper, work, merged] = ["upper", "work", "merged"].map(|name| scratch.join(name));
        for path in [&upper, &work, &merged] {
            at(target, "make the scratch directory", std::fs::create_dir(path))?;
        }
        let lower = at(target, &format!("open `{lower}`"), lower.open())?;
        let below = by_descriptor(&lower);
        let overlay = Overlay {
            lowers: &[Path::new(&below)],
            upper: Some((&upper, &work)),
            userxattr: self.order.overlay_userxattr,
        };
        if overlay.mount(&merged).is_err() {
            // For one, the scratch directory is on an overlay itself.
            let to = at(target, "open", RootDir::open(&merged))?;
            at(target, "copy", copy_tree(&RootDir::from_fd(lower, target), "", &to, ""))?;
        }
        let merged = at(target, "open", open_directory(&merged))?;
        self.show(target, "bind the scratch directory", &merged, false)
    }
}
