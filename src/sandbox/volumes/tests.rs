//! A volume is as before, wherever it was cut short; and what was put aside comes back from its copy.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::aside::{Aside, finish_strays};
use super::backup::{Backup, LeftOut, restore};
use super::content::{Laid, directory_of};
use super::{fidelity, unsettled};
use crate::tree::RootDir;

struct Place(tempfile::TempDir);

impl Place {
    /// A volume, a stage and room for a copy.
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        for path in ["volume/own/deep", "stage/point/sub"] {
            fs::create_dir_all(place.at(path)).unwrap();
        }
        for (path, text) in [
            ("volume/own/deep/a", "a"),
            ("volume/top", "top"),
            ("volume/.hidden", "h"),
            ("stage/point/sub/x", "x"),
            ("stage/point/y", "y"),
        ] {
            fs::write(place.at(path), text).unwrap();
        }
        symlink("own", place.at("volume/link")).unwrap();
        fs::hard_link(place.at("volume/top"), place.at("volume/own/twin")).unwrap();
        fs::hard_link(place.at("stage/point/y"), place.at("stage/point/sub/y2")).unwrap();
        fs::set_permissions(place.at("volume"), fs::Permissions::from_mode(0o1777)).unwrap();
        place
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn stage(&self) -> RootDir {
        RootDir::open(&self.at("stage")).unwrap()
    }

    fn taken(&self) -> Aside {
        let mut aside = Aside::prepare(&self.at("volume")).unwrap();
        aside.take(&nothing).unwrap();
        aside
    }
}

fn nothing(_: &Path) -> bool {
    false
}

fn listing(directory: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut pending = vec![directory.to_path_buf()];
    while let Some(path) = pending.pop() {
        let metadata = path.symlink_metadata().unwrap();
        lines.push(format!(
            "{} {:o} {}.{} {} {:?}",
            path.strip_prefix(directory).unwrap().display(),
            metadata.mode(),
            metadata.mtime(),
            metadata.mtime_nsec(),
            if metadata.is_dir() { 0 } else { metadata.nlink() },
            if metadata.is_file() { fs::read(&path).unwrap() } else { Vec::new() },
        ));
        if metadata.is_dir() {
            pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    lines.sort();
    lines
}

#[test]
fn entries_go_aside_and_come_back() {
    let place = Place::new();
    let before = listing(&place.at("volume"));
    let aside = place.taken();
    let names: Vec<_> =
        fs::read_dir(place.at("volume")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(names.len() == 1 && aside.is_own(&names[0]), "{names:?}");
    assert!(finish_strays(&place.at("volume")).is_err(), "it is locked");
    fs::write(place.at("volume/of-the-stage"), "").unwrap();
    aside.drop_stage(true, &nothing).unwrap();
    aside.give_back().unwrap();
    assert_eq!(listing(&place.at("volume")), before);
}

#[test]
fn what_was_put_aside_comes_back_where_nothing_is_in_its_way() {
    for phase in ["taking", "away", "returning"] {
        let place = Place::new();
        let before = listing(&place.at("volume"));
        drop(place.taken());
        let name = fs::read_dir(place.at("volume")).unwrap().next().unwrap().unwrap().path();
        // Half of it is where it belongs.
        fs::rename(name.join("own/top"), place.at("volume/top")).unwrap();
        fs::rename(&name, name.with_extension(phase)).unwrap();
        let strays = finish_strays(&place.at("volume")).unwrap();
        assert!(strays.back > 0 && strays.left.is_empty(), "{phase}: {strays:?}");
        assert_eq!(listing(&place.at("volume")), before, "{phase}");
        assert_eq!(finish_strays(&place.at("volume")).unwrap().back, 0);
    }
}

/// A volume may hold what the container's own files are on: copying it there would have no end.
#[test]
fn a_volume_that_holds_the_copies_is_known_by_what_lies_beside_them() {
    let place = Place::new();
    let volume = RootDir::open(&place.at("volume")).unwrap();
    let size =
        |here: &str| super::backup::size_bytes(&volume, &LeftOut::default(), OsStr::new(here)).unwrap();
    assert!(size("here-x").is_some_and(|bytes| bytes > 0));
    fs::create_dir_all(place.at("volume/upper/volumes")).unwrap();
    fs::write(place.at("volume/upper/volumes/here-x"), "").unwrap();
    assert_eq!((size("here-x"), size("here-y").is_some()), (None, true));
}

/// A repository may have a directory of such a name.
#[test]
fn a_name_removes_and_replaces_nothing() {
    let place = Place::new();
    let stray = place.at("volume/.kiln-00000000-0000000000000000-00000000.away");
    fs::create_dir_all(stray.join("own/new")).unwrap();
    fs::write(
        stray.join("look"),
        r#"{"look":{"mode":511,"uid":4242,"gid":7,"mtime_seconds":0,"mtime_nanoseconds":0},"xattrs":[]}"#,
    )
    .unwrap();
    fs::write(stray.join("own/top"), "evil").unwrap();
    let mode = fs::metadata(place.at("volume")).unwrap().mode();
    let before = listing(&place.at("volume")).into_iter().filter(|line| !line.contains(".kiln-")).skip(1);
    let before: Vec<_> = before.collect();
    let strays = finish_strays(&place.at("volume")).unwrap();
    assert_eq!((strays.back, &strays.left), (1, &vec![stray.clone()]));
    assert_eq!(fs::read(stray.join("own/top")).unwrap(), b"evil");
    let root = fs::metadata(place.at("volume")).unwrap();
    assert_eq!((root.mode(), root.uid()), (mode, 0));
    let after = listing(&place.at("volume"));
    assert!(before.iter().all(|line| after.contains(line)), "{before:?}\n{after:?}");
    // What leads elsewhere is followed by nobody.
    for own in [false, true] {
        let _ = fs::remove_dir_all(&stray);
        fs::create_dir(&stray).unwrap();
        std::os::unix::fs::symlink(place.at("stage"), stray.join(if own { "own" } else { "look" })).unwrap();
        assert_eq!(finish_strays(&place.at("volume")).unwrap().left.len(), usize::from(own));
    }
}

/// Killed between making the directory and the note in it, or between removing the note and the directory.
#[test]
fn the_roots_time_comes_back_even_without_the_note() {
    let place = Place::new();
    for then in [Duration::new(981_173_106, 7), Duration::ZERO] {
        let then = SystemTime::UNIX_EPOCH + then;
        fs::File::open(place.at("volume")).unwrap().set_modified(then).unwrap();
        let mut aside = Aside::prepare(&place.at("volume")).unwrap();
        fs::remove_file(place.at("volume").join(aside.begin().unwrap()).join("look")).unwrap();
        drop(aside);
        assert!(finish_strays(&place.at("volume")).unwrap().left.is_empty());
        assert_eq!(fs::metadata(place.at("volume")).unwrap().modified().unwrap(), then);
    }
}

#[test]
fn a_step_finds_the_stages_files_and_its_changes_are_taken_back() {
    let place = Place::new();
    let stage = place.stage();
    let path = directory_of(&stage, Path::new("/point")).unwrap();
    let inode = |path: &str| fs::metadata(place.at(path)).unwrap().ino();
    let aside = place.taken();
    let laid = Laid::lay(&stage, &aside, path.clone(), Vec::new()).unwrap();
    let (before, sub) = (listing(&place.at("stage")), inode("stage/point/sub/x"));
    assert!(!laid.take_back(&stage, &aside).unwrap());
    assert_eq!(listing(&place.at("stage")), before);
    // A step: new, changed, renamed and removed entries, and another hard link.
    fs::create_dir(place.at("volume/new")).unwrap();
    fs::write(place.at("volume/new/z"), "z").unwrap();
    fs::hard_link(place.at("volume/y"), place.at("volume/new/y3")).unwrap();
    fs::set_permissions(place.at("volume/y"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::remove_file(place.at("volume/sub/y2")).unwrap();
    symlink("new", place.at("volume/sub/to")).unwrap();
    assert!(laid.take_back(&stage, &aside).unwrap());
    let mut wanted = listing(&place.at("volume"));
    wanted.retain(|line| !line.starts_with(".kiln-"));
    assert_eq!(listing(&place.at("stage/point")), wanted);
    assert_eq!(inode("stage/point/sub/x"), sub, "what was left alone is the same file");
    assert_eq!(inode("stage/point/y"), inode("stage/point/new/y3"));
}

#[test]
fn an_image_that_lacks_the_path_lacks_it_afterwards() {
    let place = Place::new();
    let stage = place.stage();
    assert!(directory_of(&stage, Path::new("/none")).unwrap().is_none());
    let aside = place.taken();
    let laid = Laid::lay(&stage, &aside, None, Vec::new()).unwrap();
    assert!(!laid.take_back(&stage, &aside).unwrap());
    symlink("point", place.at("stage/link")).unwrap();
    assert!(directory_of(&stage, Path::new("/link")).unwrap_err().to_string().contains("symbolic link"));
    assert!(directory_of(&stage, Path::new("/link/sub")).unwrap_err().to_string().contains("through a link"));
}

#[test]
fn what_became_of_a_volume_is_put_right_from_its_copy() {
    let place = Place::new();
    let volume = place.at("volume");
    let mut backup = Backup::make(&volume, &place.at("copy"), LeftOut::default()).unwrap();
    let before = listing(&volume);
    assert!(backup.check().unwrap().restored.is_empty());
    fs::remove_dir_all(place.at("volume/own")).unwrap();
    fs::write(place.at("volume/.hidden"), "forged").unwrap();
    fs::write(place.at("volume/planted"), "").unwrap();
    fs::set_permissions(place.at("volume/top"), fs::Permissions::from_mode(0o777)).unwrap();
    let damage = backup.check().unwrap();
    assert!(damage.spoilt.is_empty() && damage.restored.len() >= 5, "{damage:?}");
    assert_eq!(listing(&volume), before);
    assert_eq!(fs::read(place.at("volume/.hidden")).unwrap(), b"h");
    assert!(backup.check().unwrap().restored.is_empty());
    // A file that somebody writes to is somebody's log.
    let mut log = fs::File::options().append(true).open(place.at("volume/top")).unwrap();
    std::io::Write::write_all(&mut log, b"line").unwrap();
    assert!(backup.check().unwrap().restored.is_empty());
    drop(log);
    assert!(backup.check().unwrap().restored.is_empty());
    fs::write(place.at("copy/own/deep/a"), "spoilt").unwrap();
    assert!(backup.check().unwrap().spoilt.contains(Path::new("own/deep/a")));
}

#[test]
fn what_is_missing_comes_back_without_an_index() {
    let place = Place::new();
    let before = listing(&place.at("volume"));
    Backup::make(&place.at("volume"), &place.at("copy"), LeftOut::default()).unwrap();
    fs::remove_dir_all(place.at("volume/own/deep")).unwrap();
    fs::remove_file(place.at("volume/.hidden")).unwrap();
    fs::remove_file(place.at("volume/top")).unwrap();
    fs::remove_file(place.at("volume/own/twin")).unwrap();
    fs::set_permissions(place.at("volume/own"), fs::Permissions::from_mode(0o777)).unwrap();
    assert_eq!(restore(&place.at("volume"), &place.at("copy")).unwrap(), 5);
    assert_eq!(listing(&place.at("volume")), before);
}

#[test]
fn an_ordinary_file_system_keeps_everything() {
    let place = Place::new();
    let before = listing(&place.at("volume"));
    if rustix::process::geteuid().is_root() {
        assert!(fidelity::lost(&place.at("volume")).unwrap().is_empty());
        assert_eq!(listing(&place.at("volume")), before);
    }
}

#[test]
fn what_cannot_be_put_right_is_told_until_it_is() {
    let place = Place::new();
    let copies = place.at("copies");
    fs::create_dir(&copies).unwrap();
    let mut backup = Backup::make(&place.at("volume"), &copies.join("0"), LeftOut::default()).unwrap();
    fs::write(place.at("volume/top"), "forged").unwrap();
    fs::remove_dir_all(place.at("volume/own")).unwrap();
    let all = [backup.all_unsettled()];
    unsettled::keep(&copies, &all).unwrap();
    let told = unsettled::tell(&copies).unwrap();
    assert!(told.is_new && told.texts[0].contains("volume/own`"), "{told:?}");
    backup.check().unwrap();
    assert!(unsettled::tell(&copies).unwrap().texts.is_empty());
    assert_eq!(fs::read_dir(&copies).unwrap().count(), 1, "the note is gone");
    // A step's notes name no other directory, and stop nobody.
    for note in ["{", "[{\"point\":\"/\",\"entries\":[],\"copy\":\"../0\",\"spoilt\":[]}]"] {
        fs::write(copies.join("unsettled"), note).unwrap();
        let told = unsettled::tell(&copies).unwrap();
        assert!(told.is_new && told.texts[0].contains("nobody can read it"), "{note} {told:?}");
        assert!(unsettled::tell(&copies).unwrap().texts.is_empty(), "{note}");
    }
}
