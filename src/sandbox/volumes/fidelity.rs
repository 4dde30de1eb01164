//! Whether a volume can hold what an image has: owners, modes, times and links. Network and FUSE file systems lose some.
//!
//! Extended attributes are another matter: who sets one that cannot be held is told so at once.

use std::io::{self, Write as _};
use std::path::Path;

use super::aside::Aside;
use crate::tree::{FileKind, RootDir, Timestamp};

/// An owner that nobody has by chance.
const OWNER: (u32, u32) = (12_345, 54_321);

/// A time with nanoseconds, which some file systems round.
const TIME: Timestamp = Timestamp { seconds: 1_234_567_891, nanoseconds: 123_456_789 };

/// Tells whether something is kept.
type Trial = fn(&RootDir) -> io::Result<bool>;

/// Tries everything out in a throw-away directory of the volume at `point`; returns what is lost.
pub(super) fn lost(point: &Path) -> io::Result<Vec<&'static str>> {
    let mut aside = Aside::prepare(point)?;
    let tried = aside.begin().and_then(|directory| aside.volume().subdir(directory)).map(|probe| {
        let trials: [(&'static str, Trial); 5] = [
            ("owners", keeps_owners),
            ("modes", keeps_modes),
            ("times", keeps_times),
            ("hard links", keeps_hard_links),
            ("symbolic links", keeps_symlinks),
        ];
        let fails = |trial: Trial| !trial(&probe).unwrap_or(false);
        trials.into_iter().filter(|(_, trial)| fails(*trial)).map(|(name, _)| name).collect()
    });
    aside.give_back()?;
    tried
}

fn file(probe: &RootDir, name: &str) -> io::Result<()> {
    probe.create_file(name, 0o600)?.write_all(b"probe")
}

fn keeps_owners(probe: &RootDir) -> io::Result<bool> {
    file(probe, "owner")?;
    probe.set_owner("owner", OWNER.0, OWNER.1)?;
    let metadata = probe.metadata("owner")?;
    Ok((metadata.uid, metadata.gid) == OWNER)
}

fn keeps_modes(probe: &RootDir) -> io::Result<bool> {
    file(probe, "mode")?;
    let mut keeps = true;
    for mode in [0o4751, 0o2640, 0o000] {
        probe.set_mode("mode", mode)?;
        keeps &= probe.metadata("mode")?.mode == mode;
    }
    Ok(keeps)
}

fn keeps_times(probe: &RootDir) -> io::Result<bool> {
    file(probe, "time")?;
    probe.set_mtime("time", TIME)?;
    Ok(probe.metadata("time")?.mtime == TIME)
}

fn keeps_hard_links(probe: &RootDir) -> io::Result<bool> {
    file(probe, "one")?;
    probe.hard_link("one", "two")?;
    let (one, two) = (probe.metadata("one")?, probe.metadata("two")?);
    Ok(one.same_inode(&two) && one.nlink == 2)
}

fn keeps_symlinks(probe: &RootDir) -> io::Result<bool> {
    probe.symlink(Path::new("nowhere"), "link")?;
    let metadata = probe.metadata("link")?;
    Ok(metadata.kind == FileKind::Symlink && probe.read_link("link")? == Path::new("nowhere"))
}
