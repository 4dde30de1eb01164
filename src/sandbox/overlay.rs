//! Mounting an overlay, on any kernel that has them.

use std::fmt::Write as _;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, UnmountFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, mount, unmount,
};

use super::mounting::attach;

/// How many lower directories the kernel stacks at most (OVL_MAX_STACK).
pub const MAX_LOWERS: usize = 500;

/// Nothing in an overlay of ours outlives a crash of the machine, so no write to one has to reach the disk: neither
/// when it is unmounted nor when a package manager asks for it (Linux 5.10).
const VOLATILE: &str = "volatile";

/// What an overlay is made of.
#[derive(Debug, Clone, Copy)]
pub struct Overlay<'a> {
    /// Read-only directories, the uppermost first; at least one, [`MAX_LOWERS`] at most.
    pub lowers: &'a [&'a Path],
    /// The directory that takes the writes, and an empty one beside it for the kernel's own use.
    pub upper: Option<(&'a Path, &'a Path)>,
    /// Keep overlay's marks in `user.*` attributes, as is needed in a user namespace.
    pub userxattr: bool,
}

impl Overlay<'_> {
    /// Mounts the overlay at the directory `target`, visible in this mount namespace only.
    ///
    /// No index, no metadata-only copies and no redirects: what changed can then be read off the upper directory.
    pub fn mount(&self, target: &Path) -> io::Result<()> {
        let target_fd = open_directory(target)?;
        // Descriptors keep the option strings short: the kernel takes 255 bytes in one way and a page in the other.
        let opened = self.open()?;
        match self.detached(&opened) {
            Ok(mount) => attach(mount, target_fd),
            // Before Linux 6.7 there is no `lowerdir+`.
            Err(Errno::INVAL | Errno::NOSYS) => self.classic(&opened, &target_fd),
            Err(errno) => Err(errno.into()),
        }
    }

    fn open(&self) -> io::Result<Opened> {
        let lowers = self.lowers.iter().map(|path| open_directory(path)).collect::<io::Result<_>>()?;
        let upper = match self.upper {
            Some((upper, work)) => Some((open_directory(upper)?, open_directory(work)?)),
            None => None,
        };
        Ok(Opened { lowers, upper })
    }

    fn detached(&self, opened: &Opened) -> Result<OwnedFd, Errno> {
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        let context = context.as_fd();
        fsconfig_set_string(context, "source", "kiln")?;
        for lower in &opened.lowers {
            fsconfig_set_string(context, "lowerdir+", by_descriptor(lower))?;
        }
        if let Some((upper, work)) = &opened.upper {
            fsconfig_set_string(context, "upperdir", by_descriptor(upper))?;
            fsconfig_set_string(context, "workdir", by_descriptor(work))?;
            match fsconfig_set_flag(context, VOLATILE) {
                Ok(()) | Err(Errno::INVAL) => {}
                Err(errno) => return Err(errno),
            }
        }
        for (key, value) in self.plain_options() {
            fsconfig_set_string(context, key, value)?;
        }
        if self.userxattr {
            fsconfig_set_flag(context, "userxattr")?;
        }
        fsconfig_create(context)?;
        fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
    }

    /// With userxattr the kernel has redirects off by itself and refuses the option.
    fn plain_options(&self) -> impl Iterator<Item = (&'static str, &'static str)> + use<> {
        let redirect = (!self.userxattr).then_some(("redirect_dir", "off"));
        [("index", "off"), ("metacopy", "off")].into_iter().chain(redirect)
    }

    fn classic(&self, opened: &Opened, target: &OwnedFd) -> io::Result<()> {
        let lowers: Vec<String> = opened.lowers.iter().map(by_descriptor).collect();
        let mut options = format!("lowerdir={}", lowers.join(":"));
        if let Some((upper, work)) = &opened.upper {
            // Writing to a String cannot fail.
            let _ = write!(options, ",upperdir={},workdir={}", by_descriptor(upper), by_descriptor(work));
        }
        for (key, value) in self.plain_options() {
            let _ = write!(options, ",{key}={value}");
        }
        if self.userxattr {
            options.push_str(",userxattr");
        }
        let mount_with = |options: &str| -> io::Result<()> {
            let options = std::ffi::CString::new(options).map_err(|_| io::ErrorKind::InvalidInput)?;
            let target = by_descriptor(target);
            Ok(mount("kiln", target, "overlay", MountFlags::empty(), Some(options.as_c_str()))?)
        };
        if self.upper.is_some() && mount_with(&format!("{options},{VOLATILE}")).is_ok() {
            return Ok(());
        }
        mount_with(&options)
    }
}

struct Opened {
    lowers: Vec<OwnedFd>,
    upper: Option<(OwnedFd, OwnedFd)>,
}

/// Takes away what is mounted at `target`, at once for everybody and for good when its last user is gone.
pub fn unmount_at(target: &Path) -> io::Result<()> {
    Ok(unmount(target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?)
}

pub(super) fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Names what a descriptor refers to by a path.
pub(super) fn by_descriptor(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}
