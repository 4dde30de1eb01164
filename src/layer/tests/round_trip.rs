//! `apply(write(tree)) == tree`, for all kinds of trees.

use std::ffi::OsStr;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::ffi::OsStrExt as _;

use proptest::prelude::*;

use super::*;
use crate::tree::Device;

/// A file system entry to be, described by a few numbers.
#[derive(Debug, Clone)]
struct Planned {
    directory: usize,
    name: Vec<u8>,
    kind: u8,
    content: Vec<u8>,
    mode: u32,
    owner: (u32, u32),
    seconds: i64,
    xattr: Option<Vec<u8>>,
}

fn names() -> impl Strategy<Value = Vec<u8>> {
    let byte = any::<u8>().prop_filter("names have no slash and no zero", |byte| !matches!(byte, 0 | b'/'));
    prop_oneof![
        4 => "[a-c]{1,3}".prop_map(String::into_bytes),
        2 => prop::collection::vec(byte, 1..12),
        1 => (1usize..=255).prop_map(|length| vec![b'n'; length]),
        1 => Just(b"new\nline 10 path=x\n".to_vec()),
        1 => Just(vec![0xff, 0xfe, b' ', 0xc3]),
    ]
    .prop_filter("reserved or special", |name| {
        !name.starts_with(b".wh.") && !matches!(&name[..], b"." | b"..")
    })
}

fn plans() -> impl Strategy<Value = Vec<Planned>> {
    let xattr = prop::option::weighted(0.3, prop::collection::vec(any::<u8>(), 0..40));
    let owner = prop_oneof![Just((0, 0)), Just((1000, 50)), Just((3_000_000, 4_000_000_000))];
    let seconds = prop_oneof![0..2_000_000_000i64, Just(-5), Just(0o777_7777_7777), Just(10_000_000_000)];
    let content = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..1500),
        (511usize..514).prop_map(|length| vec![7; length]),
        Just(vec![9; 70_000]),
    ];
    let one = (any::<usize>(), names(), 0u8..12, content, 0u32..0o10000, owner, seconds, xattr);
    let one = one.prop_map(|(directory, name, kind, content, mode, owner, seconds, xattr)| Planned {
        directory,
        name,
        kind,
        content,
        mode,
        owner,
        seconds,
        xattr,
    });
    prop::collection::vec(one, 0..25)
}

fn build(root: &RootDir, plans: &[Planned]) {
    let mut directories = vec![PathBuf::new()];
    let mut files = Vec::new();
    let mut times = Vec::new();
    for plan in plans {
        let path = directories[plan.directory % directories.len()].join(OsStr::from_bytes(&plan.name));
        if root.exists(&path).unwrap() {
            continue;
        }
        match plan.kind {
            0..=2 => {
                root.create_dir(&path, 0o700).unwrap();
                directories.push(path.clone());
            }
            3 => root.symlink(OsStr::from_bytes(&[b"../", &plan.name[..]].concat()).as_ref(), &path).unwrap(),
            4 => root.mknod(&path, FileKind::Fifo, 0o600).unwrap(),
            5 => {
                let device = Device { major: plan.owner.0 % 4000 + 1, minor: 77 };
                root.mknod(&path, FileKind::CharDevice(device), 0o600).unwrap();
            }
            6 | 7 if !files.is_empty() => {
                let target: &PathBuf = &files[plan.directory % files.len()];
                root.hard_link(target, &path).unwrap();
                continue;
            }
            8 => {
                let mut file = root.create_file(&path, 0o600).unwrap();
                file.seek(SeekFrom::Start(200_000)).unwrap();
                file.write_all(&plan.content).unwrap();
                file.set_len(400_000).unwrap();
                files.push(path.clone());
            }
            _ => {
                root.create_file(&path, 0o600).unwrap().write_all(&plan.content).unwrap();
                files.push(path.clone());
            }
        }
        root.set_owner(&path, plan.owner.0, plan.owner.1).unwrap();
        if plan.kind != 3 {
            if let Some(value) = &plan.xattr {
                root.set_xattr(&path, OsStr::new("trusted.kiln"), value).unwrap();
            }
            root.set_mode(&path, plan.mode).unwrap();
        }
        times.push((path, Timestamp { seconds: plan.seconds, nanoseconds: 123 }));
    }
    for (path, time) in times {
        root.set_mtime(path, time).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_tree_comes_back(plans in plans()) {
        // Devices, owners and `trusted` attributes are for root.
        if is_root() {
            let (_before_dir, before) = temporary();
            build(&before, &plans);
            let tar = tar_of(&before);
            let expected = list(&before);
            for options in [LAYER, LOWER, ARCHIVE] {
                let (_after_dir, after) = temporary();
                let applied = unpack(&tar, &after, &options).unwrap();
                prop_assert!(applied.warnings.is_empty() && applied.implied_dirs.is_empty());
                prop_assert_eq!(applied.entries as usize, expected.len());
                if options == ARCHIVE {
                    // Of a user's archive only file capabilities are taken, as docker does.
                    let mut bare = expected.clone();
                    bare.values_mut().for_each(|listed| listed.xattrs.clear());
                    prop_assert_eq!(&list(&after), &bare);
                } else {
                    prop_assert_eq!(&list(&after), &expected);
                    prop_assert!(tar_of(&after) == tar, "the same tree has the same bytes");
                }
            }
        }
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..3000), at in 0usize..2000, flip in any::<u8>()) {
        let (_dir, root) = temporary();
        let _ = unpack(&bytes, &root, &ARCHIVE);
        // Damage something that was valid, keeping checksums out of the way as often as not.
        let mut tar = raw_tar(&[("a/", b'5', "", b""), ("a/b", b'0', "", b"content"), ("c", b'2', "a", b"")]);
        let at = at % tar.len();
        tar[at] ^= flip;
        bytes.truncate(64);
        tar.extend(bytes);
        let _ = unpack(&tar, &root, &ARCHIVE);
    }
}

#[test]
fn long_paths_and_deep_trees_come_back() {
    let (_before_dir, before) = temporary();
    let mut path = PathBuf::new();
    for level in 0..30 {
        path.push(format!("{level:0>200}"));
        before.create_dir(&path, 0o755).unwrap();
    }
    path.push("file");
    before.create_file(&path, 0o644).unwrap().write_all(b"deep").unwrap();
    let target = "t/".repeat(1000);
    before.symlink(Path::new(&target), "link").unwrap();
    let (_after_dir, after) = temporary();
    unpack(&tar_of(&before), &after, &LAYER).unwrap();
    assert_eq!(list(&after), list(&before));
}

#[test]
fn holes_are_kept_by_length_and_read_as_zeros() {
    let (_before_dir, before) = temporary();
    let mut file = before.create_file("sparse", 0o644).unwrap();
    file.seek(SeekFrom::Start(50 << 20)).unwrap();
    file.write_all(b"end").unwrap();
    drop(file);
    before.create_file("empty hole", 0o644).unwrap().set_len(3 << 20).unwrap();
    let tar = tar_of(&before);
    assert!(tar.len() as u64 > 53 << 20, "written in full: {}", tar.len());
    let (_after_dir, after) = temporary();
    unpack(&tar, &after, &LAYER).unwrap();
    assert_eq!(list(&after), list(&before));
}

#[test]
fn a_file_that_changes_while_it_is_read_is_an_error() {
    let (_dir, root) = temporary();
    for (name, length) in [("small", 100), ("large", 300_000)] {
        root.create_file(name, 0o644).unwrap().write_all(&vec![1; length]).unwrap();
        for now in [length - 1, length + 1] {
            let listed: Vec<_> = changes(&root).collect();
            let path = root.path().join(name);
            std::fs::write(&path, vec![2; now]).unwrap();
            let result = write_tar(Box::new(listed.into_iter()), &TarOptions::default(), &mut Vec::new());
            let Err(LayerError::Changed { expected_bytes, .. }) = result else {
                panic!("{name}: {result:?}")
            };
            assert_eq!(expected_bytes, length as u64);
            std::fs::write(&path, vec![1; length]).unwrap();
        }
        root.remove_file(name).unwrap();
    }
}
