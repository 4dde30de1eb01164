//! Copies planned on plans that are not on disk yet: the same as if they were.

use proptest::prelude::*;

use super::*;

/// What a step says: sources, destination, and which flags.
type Step = (Vec<&'static str>, &'static str, u8);

fn sources() -> Tree {
    let mut lines = vec![
        "dir d",
        "file d/a 1",
        "hard d/b d/a",
        "hard d/c d/a",
        "link d/l a",
        "dir d/s 700",
        "file d/s/x 2 4755",
        "dir e",
        "file e/a 3",
        "file e/s 4",
        "link e/d ../d",
        "file f 5",
        "hard g f",
        "link l f",
        "link ld d",
        "dir h",
        "hard h/b f",
        "dir h/l",
        "file h/l/y 6",
        "dir i",
        "file i/a 1",
        "fifo i/p",
        "link i/b a",
    ];
    if is_root() {
        lines.extend(["own d/a 7 8", "own d/s 9 9", "null i/n", "cap i/a"]);
    }
    Tree::new(&lines)
}

fn below() -> Tree {
    let mut lines = vec![
        "dir to 711",
        "file to/a 1",
        "link to/l /nowhere",
        "dir real",
        "link ln real",
        "link dang new/place",
        "file plain old",
        "dir to/s",
        "attr to/s user.kept",
        "hard to/hl plain",
        "link loop loop",
    ];
    if is_root() {
        lines.push("own to 1 1");
    }
    Tree::new(&lines)
}

fn step() -> impl Strategy<Value = Step> {
    let source = prop::sample::select(vec![
        "d", "e", "f", "g", "l", "ld", "h", "i", ".", "*", "d/a", "d/b", "d/s", "[dh]", "e/a", "none*",
        "missing", "i/*",
    ]);
    let dest = prop::sample::select(vec![
        "/to",
        "/to/",
        "/to/b",
        "/ln",
        "/ln/x/",
        "/dang",
        "/dang/",
        "/plain",
        "/",
        "/new/place/z",
        "/to/s",
        "/to/l",
        "/to/l/",
        "/loop",
        "/n/../m/",
        "/to/c",
        "/to/hl",
    ]);
    (prop::collection::vec(source, 1..3), dest, any::<u8>())
}

fn copying_of(from: &Tree, step: &Step) -> Copying {
    let (patterns, dest, flags) = step;
    let mut copying = copy(from, patterns, dest);
    // Most flags are rare: equal files are of interest as well.
    match flags % 16 {
        0 => copying = copying.of_stage(),
        1 => copying = copying.chown(3, 4),
        2 => copying = copying.chmod("751"),
        3 => copying = copying.chmod("g+w,o-rX"),
        4 => copying = copying.parents(),
        5 => copying = copying.exclude(&["**/a", "s"]),
        _ => {}
    }
    if !is_root() {
        copying.owner = None;
    }
    copying
}

/// Describes everything in a tree, with the content of files and which are the same.
fn snapshot(root: &Arc<RootDir>) -> Vec<String> {
    let mut first = BTreeMap::new();
    let mut lines = Vec::new();
    for entry in crate::tree::Walk::new(root, "").unwrap() {
        let entry = entry.unwrap();
        let metadata = entry.metadata;
        let same = first.entry((metadata.dev, metadata.ino)).or_insert_with(|| entry.path.clone()).clone();
        let content = match metadata.kind {
            FileKind::File => String::from_utf8(root.read(&entry.path).unwrap()).unwrap(),
            FileKind::Symlink => root.read_link(&entry.path).unwrap().display().to_string(),
            _ => String::new(),
        };
        let xattrs = root.xattrs(&entry.path).unwrap();
        lines.push(format!(
            "{} {same:?} {:?} {:o} {}:{} {} {content} {xattrs:?}",
            entry.path.display(),
            metadata.kind,
            metadata.mode,
            metadata.uid,
            metadata.gid,
            // Of a directory that got a new entry the time is not part of any change.
            if metadata.kind == FileKind::Directory { 0 } else { metadata.mtime.seconds },
        ));
    }
    lines
}

/// Adds to a listing what it leaves out.
fn detailed(changes: &[Change]) -> Vec<String> {
    let times = changes.iter().map(|change| match change {
        Change::Upsert { node, .. } => format!("{} {:?}", node.mtime.seconds, node.xattrs),
        _ => panic!("a copy removes nothing"),
    });
    listed(changes).into_iter().zip(times).map(|(line, time)| format!("{line} @{time}")).collect()
}

fn check(steps: &[Step]) {
    let from = sources();
    let base = below();
    let (on_disk, later) = (base.fork(), base.fork());
    let mut pending = Pending::default();
    let mut queue = Vec::new();
    for step in steps {
        let copying = copying_of(&from, step);
        let applied = copying.plan(Below { root: Some(&on_disk.root), pending: &Pending::default() });
        let stacked = copying.plan(Below { root: Some(&later.root), pending: &pending });
        match (applied, stacked) {
            (Ok((applied, _)), Ok((stacked, planned))) => {
                assert_eq!(detailed(&stacked), detailed(&applied), "{step:?}");
                let ordered = stacked.windows(2).all(|pair| pair[0].path() < pair[1].path());
                assert!(ordered, "{:?}", listed(&stacked));
                apply(&applied, &on_disk.root).unwrap();
                pending.merge(planned);
                queue.push(stacked);
            }
            (Err(applied), Err(stacked)) => assert_eq!(stacked.to_string(), applied.to_string(), "{step:?}"),
            (applied, stacked) => panic!("{step:?}: {applied:?} on disk, {stacked:?} pending"),
        }
    }
    for changes in &queue {
        apply(changes, &later.root).unwrap();
    }
    assert_eq!(snapshot(&later.root), snapshot(&on_disk.root));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 4, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_plan_on_a_pending_plan_is_the_plan_on_its_files(steps in prop::collection::vec(step(), 1..6)) {
        check(&steps);
    }
}

#[test]
fn the_same_copy_twice_changes_nothing_the_second_time() {
    let from = Tree::new(&["dir d", "file d/a 1", "link d/l a", "dir d/s 700"]);
    let base = Tree::new(&[]);
    let mut pending = Pending::default();
    let copying = copy(&from, &["d"], "/to");
    let (_, planned) = copying.plan(Below { root: Some(&base.root), pending: &pending }).unwrap();
    pending.merge(planned);
    let (again, _) = copying.plan(Below { root: Some(&base.root), pending: &pending }).unwrap();
    assert_eq!(listed(&again), Vec::<String>::new());
}

#[test]
fn a_link_that_waits_is_followed() {
    let from = Tree::new(&["dir d", "link d/l /elsewhere", "file f x"]);
    let mut pending = Pending::default();
    let (_, planned) = copy(&from, &["d"], "/").plan(Below { root: None, pending: &pending }).unwrap();
    pending.merge(planned);
    let (changes, _) = copy(&from, &["f"], "/l/").plan(Below { root: None, pending: &pending }).unwrap();
    assert_eq!(listed(&changes), ["dir 755 0:0 elsewhere", "file 644 0:0 elsewhere/f x"]);
}

/// What waits is not a link to the disk: a name by itself is a file.
#[test]
fn a_hard_link_that_waits_is_a_file() {
    check(&[(vec!["d"], "/to", 15), (vec!["d/b"], "/to/b", 15)]);
    check(&[(vec!["d"], "/to", 15), (vec!["e/a"], "/to/a", 15), (vec!["d/b"], "/to/b", 15)]);
    check(&[(vec!["d", "h"], "/to", 15), (vec!["d/b"], "/to/c", 15)]);
}

#[test]
fn a_directory_that_is_there_keeps_its_attributes() {
    check(&[(vec!["d"], "/to", 15), (vec!["d"], "/to", 15)]);
}
