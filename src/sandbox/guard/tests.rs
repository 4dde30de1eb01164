use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt, symlink};

use super::*;
use crate::sandbox::private::{Private, Reach};

struct Place {
    dir: tempfile::TempDir,
    guard: Guard,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for sub in ["own/git", "own/store/records/ab", "own/store/work", "aside"] {
            fs::create_dir_all(at(sub)).unwrap();
        }
        fs::write(at("own/kiln"), "program").unwrap();
        fs::write(at("own/git/git"), "git").unwrap();
        symlink("kiln", at("own/executor")).unwrap();
        fs::write(at("own/store/index.json"), "{}").unwrap();
        fs::write(at("own/store/records/ab/abc"), "record").unwrap();
        let files = KilnFiles {
            fixed: vec![at("own")],
            names: vec![at("own/store/index.json"), at("own/store/records")],
            work: vec![at("own/store/work")],
            ..KilnFiles::default()
        };
        let mut guard = Guard::new(&files, Vec::new(), at("aside/planted")).unwrap();
        guard.begin().unwrap();
        Self { dir, guard }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn settle(&mut self) -> (Vec<String>, Vec<String>) {
        let found = self.guard.settle().unwrap();
        assert_eq!(found.problems, Vec::<String>::new());
        let shown = |paths: Vec<PathBuf>| {
            let name = |path: PathBuf| path.strip_prefix(self.dir.path()).unwrap().display().to_string();
            paths.into_iter().map(name).collect()
        };
        let offences = found.offences.into_iter().map(|offence| offence.path).collect();
        (shown(found.put_back), shown(offences))
    }
}

#[test]
fn what_nobody_touched_is_left_alone_and_work_goes_on() {
    let mut place = Place::new();
    fs::write(place.at("own/store/work/anything"), "x").unwrap();
    assert_eq!(place.settle(), (vec![], vec![]));
}

#[test]
fn modes_owners_and_times_are_put_back() {
    let mut place = Place::new();
    let before = fs::metadata(place.at("own/kiln")).unwrap();
    for name in ["own", "own/kiln", "own/store/index.json"] {
        fs::set_permissions(place.at(name), PermissionsExt::from_mode(0o4777)).unwrap();
    }
    std::os::unix::fs::lchown(place.at("own/executor"), Some(7), None).unwrap();
    File::open(place.at("own/kiln")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(
        place.settle(),
        (["own", "own/executor", "own/kiln", "own/store/index.json"].map(str::to_owned).to_vec(), vec![])
    );
    let after = fs::metadata(place.at("own/kiln")).unwrap();
    assert_eq!((after.mode(), after.mtime_nsec()), (before.mode(), before.mtime_nsec()));
    assert_eq!(fs::symlink_metadata(place.at("own/executor")).unwrap().uid(), before.uid());
    assert_eq!(place.settle(), (vec![], vec![]));
}

#[test]
fn what_was_changed_replaced_removed_or_planted_is_found_and_undone() {
    let mut place = Place::new();
    let then = fs::metadata(place.at("own/kiln")).unwrap().modified().unwrap();
    fs::write(place.at("own/kiln"), "pr0gram").unwrap();
    File::open(place.at("own/kiln")).unwrap().set_modified(then).unwrap();
    fs::rename(place.at("own/git"), place.at("own/git2")).unwrap();
    fs::create_dir(place.at("own/git")).unwrap();
    fs::write(place.at("own/git/git"), "git").unwrap();
    fs::write(place.at("own/ls"), "planted").unwrap();
    fs::remove_file(place.at("own/executor")).unwrap();
    symlink("ls", place.at("own/executor")).unwrap();
    fs::write(place.at("own/store/index.json"), "[]").unwrap();
    fs::write(place.at("own/store/records/ab/abc"), "r3cord").unwrap();
    fs::write(place.at("own/store/records/ab/planted"), "r3cord").unwrap();
    let (put_back, offences) = place.settle();
    assert_eq!(put_back, Vec::<String>::new());
    for name in [
        "own/kiln",
        "own/git",
        "own/git/git",
        "own/ls",
        "own/executor",
        "own/store/index.json",
        "own/store/records/ab/planted",
    ] {
        assert!(offences.iter().any(|offence| offence == name), "{name}: {offences:?}");
    }
    let read = |name: &str| fs::read_to_string(place.at(name)).unwrap();
    assert_eq!((read("own/kiln"), read("own/git/git")), ("program".to_owned(), "git".to_owned()));
    assert_eq!((read("own/executor"), read("own/store/index.json")), ("program".to_owned(), "{}".to_owned()));
    for name in ["own/ls", "own/store/records/ab/abc", "own/store/records/ab/planted"] {
        assert!(!place.at(name).exists(), "{name}");
    }
    assert_eq!(place.settle(), (vec![], vec![]));
}

#[test]
fn another_process_settles_in_kilns_stead() {
    type Spoil = fn(&Place);
    let spoil: [(Option<&str>, Spoil); 8] = [
        (None, |place| fs::write(place.at("own/store/work/anything"), "x").unwrap()),
        (None, |place| {
            fs::set_permissions(place.at("own"), PermissionsExt::from_mode(0o777)).unwrap();
        }),
        (Some("own/kiln"), |place| fs::write(place.at("own/kiln"), "pr0gram").unwrap()),
        (Some("own/git"), |place| {
            fs::rename(place.at("own/git"), place.at("own/store/work/git")).unwrap();
        }),
        (Some("own/ls"), |place| fs::write(place.at("own/ls"), "").unwrap()),
        (Some("own/store/index.json"), |place| {
            fs::write(place.at("own/store/index.json"), "[]").unwrap();
        }),
        (Some("own/store/records/ab/abc"), |place| {
            fs::write(place.at("own/store/records/ab/abc"), "r3cord").unwrap();
        }),
        (Some("own/store/records/ab/planted"), |place| {
            fs::write(place.at("own/store/records/ab/planted"), "").unwrap();
        }),
    ];
    for (named, spoil) in spoil {
        let place = Place::new();
        let descriptors = place.guard.descriptors().map(|fd| fd.try_clone_to_owned().unwrap());
        let notes = Notes::take_over(
            (place.guard.files.clone(), Vec::new()),
            place.at("aside/planted"),
            &mut descriptors.into_iter(),
        );
        spoil(&place);
        let found = notes.unwrap().settle().unwrap();
        let named = named.map(|named| format!("`{}`", place.at(named).display()));
        assert_eq!((found.first_touched(), found.problems), (named, vec![]));
        let read = |name: &str| fs::read_to_string(place.at(name)).unwrap();
        assert_eq!((read("own/kiln"), read("own/git/git")), ("program".into(), "git".into()));
        assert_eq!(read("own/store/index.json"), "{}");
        for name in ["own/ls", "own/store/records/ab/planted"] {
            assert!(!place.at(name).exists(), "{name}");
        }
    }
}

#[test]
fn what_is_read_is_guarded_where_nothing_else_is() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for sub in ["state", "home", "real"] {
        fs::create_dir(at(sub)).unwrap();
    }
    for (name, content) in [("home/empty", ""), ("home/credentials", "token"), ("real/config", "own")] {
        fs::write(at(name), content).unwrap();
    }
    symlink("../real/config", at("home/link")).unwrap();
    let (mut private, visible) =
        Private::open(&at("state"), Reach::All, &[at("home/credentials"), at("home/empty")]).unwrap();
    assert_eq!((private.records().len(), visible), (1, vec![]));
    let mut files = KilnFiles {
        read: ["home/credentials", "home/empty", "home/link", "home/.aws/config", "home/certs.d"]
            .map(at)
            .to_vec(),
        ..KilnFiles::default()
    };
    files.follow_links();
    let mut guard = Guard::new(&files, private.records(), at("state/planted")).unwrap();
    guard.begin().unwrap();
    private.empty().unwrap();
    let settle = |guard: &mut Guard| {
        let found = guard.settle().unwrap();
        assert_eq!((found.put_back, found.problems), (vec![], vec![]));
        found.offences.into_iter().map(|offence| offence.path).collect::<Vec<_>>()
    };
    // Others' files may come and go.
    fs::write(at("home/another"), "").unwrap();
    assert_eq!(settle(&mut guard), Vec::<PathBuf>::new());
    fs::write(at("home/empty"), "evil").unwrap();
    fs::write(at("real/config"), "evil").unwrap();
    for sub in ["home/.aws", "home/certs.d"] {
        fs::create_dir(at(sub)).unwrap();
    }
    fs::write(at("home/.aws/config"), "evil").unwrap();
    fs::write(at("home/certs.d/ca.crt"), "evil").unwrap();
    let offences = settle(&mut guard);
    let expected = ["home/empty", "real/config", "home/.aws/config", "home/certs.d"].map(at);
    assert_eq!(offences, expected);
    assert!(!at("home/.aws/config").exists() && !at("home/certs.d").exists());
    assert_eq!(["home/empty", "home/link"].map(|name| fs::read_to_string(at(name)).unwrap()), ["", "own"]);
    // The file that was emptied is not the guard's: nobody refills it too early.
    assert_eq!(fs::read_to_string(at("home/credentials")).unwrap(), "");
    fs::rename(at("home/another"), at("home/credentials")).unwrap();
    assert_eq!(settle(&mut guard), [at("home/credentials")]);
}

#[test]
fn everything_is_made_anew_when_nothing_is_left() {
    let mut place = Place::new();
    fs::remove_dir_all(place.at("own")).unwrap();
    assert!(place.settle().1.len() > 5);
    assert_eq!(fs::read_to_string(place.at("own/git/git")).unwrap(), "git");
    assert_eq!(place.settle(), (vec![], vec![]));
}
