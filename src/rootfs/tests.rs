//! Both storages by the same cases: what comes out of sealing steps must be the same.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Cursor, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Rootfs, RootfsError, Storage, StorageKind, choose, open};
use crate::blob::{BlobError, BlobSource};
use crate::event::Reporter;
use crate::layer::{Change, ChangeSet, NodeKind};
use crate::oci::{Descriptor, DiffId, Digest, Layer, descriptor, descriptor_digest, media_type};
use crate::sandbox::tests::support::{base, entered};

/// Blobs in memory; counts how often one is read.
#[derive(Default)]
struct Blobs {
    blobs: BTreeMap<Digest, Vec<u8>>,
    opened: AtomicUsize,
}

impl BlobSource for Blobs {
    fn open(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send>, BlobError> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(Cursor::new(self.blobs[&descriptor_digest(descriptor)].clone())))
    }

    fn contains(&self, digest: &Digest) -> Result<bool, BlobError> {
        Ok(self.blobs.contains_key(digest))
    }
}

/// What is put into a layer.
enum Put {
    Dir(&'static str, u32),
    File(&'static str, &'static str),
    Link(&'static str, &'static str),
    Hard(&'static str, &'static str),
}

const MTIME: u64 = 1_700_000_000;

impl Blobs {
    /// Makes a layer of an uncompressed tar.
    fn layer(&mut self, entries: &[Put]) -> Layer {
        let mut tar = tar::Builder::new(Vec::new());
        for entry in entries {
            let mut header = tar::Header::new_ustar();
            header.set_mtime(MTIME);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mode(0o644);
            header.set_size(0);
            match entry {
                Put::Dir(path, mode) => {
                    header.set_entry_type(tar::EntryType::Directory);
                    header.set_mode(*mode);
                    tar.append_data(&mut header, path, std::io::empty()).unwrap();
                }
                Put::File(path, text) => {
                    header.set_size(text.len() as u64);
                    tar.append_data(&mut header, path, text.as_bytes()).unwrap();
                }
                Put::Link(path, target) => {
                    header.set_entry_type(tar::EntryType::Symlink);
                    tar.append_link(&mut header, path, target).unwrap();
                }
                Put::Hard(path, target) => {
                    header.set_entry_type(tar::EntryType::Link);
                    tar.append_link(&mut header, path, target).unwrap();
                }
            }
        }
        let bytes = tar.into_inner().unwrap();
        let digest = Digest::of(&bytes);
        let layer = Layer {
            descriptor: descriptor(media_type::OCI_LAYER, &digest, bytes.len() as u64),
            diff_id: DiffId::new(digest.clone()),
        };
        self.blobs.insert(digest, bytes);
        layer
    }

    /// The same layer compressed.
    fn zstd(&mut self, layer: &Layer) -> Layer {
        let bytes = zstd::encode_all(&self.blobs[&layer.digest()][..], 1).unwrap();
        let digest = Digest::of(&bytes);
        let descriptor = descriptor(media_type::OCI_LAYER, &digest, bytes.len() as u64);
        self.blobs.insert(digest, bytes);
        Layer { descriptor, diff_id: layer.diff_id.clone() }
    }
}

struct Case {
    storage: Arc<dyn Storage>,
    dir: tempfile::TempDir,
}

impl Case {
    fn new(kind: StorageKind) -> Self {
        let dir = tempfile::tempdir_in(base()).unwrap();
        let storage = Self::open(kind, dir.path());
        Self { storage, dir }
    }

    fn open(kind: StorageKind, dir: &Path) -> Arc<dyn Storage> {
        open(kind, &dir.join("work"), &dir.join("trees"), &Arc::default(), Reporter::silent()).unwrap()
    }
}

/// Every storage that works here.
fn kinds() -> Vec<StorageKind> {
    let mut kinds = vec![StorageKind::Directory];
    if let Some(entered) = entered() {
        let dir = tempfile::tempdir_in(base()).unwrap();
        if let (overlay @ StorageKind::Overlay { .. }, _) = choose(entered, dir.path()) {
            kinds.push(overlay);
        }
    }
    kinds
}

fn each(test: impl Fn(&Case)) {
    for kind in kinds() {
        test(&Case::new(kind));
    }
}

/// Lists changes as `+ path kind`, `- path`.
fn text(changes: ChangeSet) -> String {
    let mut text = String::new();
    for change in changes {
        match change.unwrap() {
            Change::Upsert { path, node } => {
                let kind = match node.kind {
                    NodeKind::File { .. } => "file",
                    NodeKind::Directory => "dir",
                    NodeKind::Symlink { .. } => "link",
                    NodeKind::HardLink { .. } => "hard",
                    _ => "other",
                };
                writeln!(text, "+ {} {kind} {:o}", path.display(), node.mode).unwrap();
            }
            Change::Remove { path } => writeln!(text, "- {}", path.display()).unwrap(),
            Change::Opaque { path } => writeln!(text, "! {}", path.display()).unwrap(),
        }
    }
    text
}

fn tree(rootfs: &dyn Rootfs) -> String {
    let root = rootfs.root();
    let mut text = String::new();
    for entry in crate::tree::Walk::new(&root, "").unwrap() {
        let entry = entry.unwrap();
        let content = if entry.metadata.kind == crate::tree::FileKind::File {
            String::from_utf8(root.read(&entry.path).unwrap()).unwrap()
        } else {
            String::new()
        };
        writeln!(
            text,
            "{} {:o} {} {content}",
            entry.path.display(),
            entry.metadata.mode,
            entry.metadata.mtime.seconds
        )
        .unwrap();
    }
    text
}

fn write(rootfs: &dyn Rootfs, path: &str, text: &str) {
    std::fs::write(rootfs.root().path().join(path), text).unwrap();
}

#[test]
fn layers_stack_up() {
    let mut blobs = Blobs::default();
    let base = [
        blobs.layer(&[
            Put::Dir("a", 0o755),
            Put::File("a/gone", "1"),
            Put::File("a/kept", "1"),
            Put::File("f", "1"),
        ]),
        blobs.layer(&[Put::Dir("a", 0o700), Put::File("a/.wh.gone", ""), Put::File("a/new", "2")]),
        blobs.layer(&[Put::Dir("d", 0o755), Put::Link("d/l", "../f"), Put::File("f", "3")]),
    ];
    each(|case| {
        let rootfs = case.storage.create(&base, &blobs).unwrap();
        let expected = format!(
            "a 700 {MTIME} \na/kept 644 {MTIME} 1\na/new 644 {MTIME} 2\nd 755 {MTIME} \nd/l 777 {MTIME} \nf 644 {MTIME} 3\n"
        );
        assert_eq!(tree(&*rootfs), expected, "{}", case.storage.name());
        assert_eq!(std::fs::metadata(rootfs.root().path()).unwrap().mode() & 0o7777, 0o755);
    });
}

/// Old builders put the same empty layer into an image many times, and a cache gives a repeated copy twice.
#[test]
fn a_layer_may_come_again() {
    let mut blobs = Blobs::default();
    let twice = blobs.layer(&[Put::Dir("a", 0o711), Put::File("a/f", "1"), Put::File("a/.wh.x", "")]);
    let between = blobs.layer(&[Put::File(".wh.a", ""), Put::File("g", "2")]);
    let lowest = blobs.layer(&[Put::Dir("a", 0o755), Put::File("a/x", "0"), Put::File("a/y", "0")]);
    for (base, more) in [
        (vec![lowest.clone(), twice.clone(), twice.clone()], format!("a/y 644 {MTIME} 0\n")),
        (vec![lowest, twice.clone(), between, twice], format!("g 644 {MTIME} 2\n")),
    ] {
        each(|case| {
            let rootfs = case.storage.create(&base, &blobs).unwrap();
            let expected = format!("a 711 {MTIME} \na/f 644 {MTIME} 1\n{more}");
            assert_eq!(tree(&*rootfs), expected, "{}", case.storage.name());
        });
    }
}

#[test]
fn steps_are_told_apart() {
    let mut blobs = Blobs::default();
    let base = [blobs.layer(&[
        Put::Dir("a", 0o755),
        Put::File("a/x", "1"),
        Put::File("a/y", "1"),
        Put::Dir("z", 0o755),
    ])];
    each(|case| {
        let name = case.storage.name();
        let mut rootfs = case.storage.create(&base, &blobs).unwrap();
        assert_eq!(text(rootfs.seal_step(&[], &[]).unwrap()), "", "{name}: nothing was done");
        write(&*rootfs, "a/x", "2");
        write(&*rootfs, "new", "2");
        std::fs::remove_dir(rootfs.root().path().join("z")).unwrap();
        let expected = "+ a dir 755\n+ a/x file 644\n+ new file 644\n- z\n";
        assert_eq!(text(rootfs.seal_step(&[], &[]).unwrap()), expected, "{name}");
        write(&*rootfs, "a/y", "3");
        assert_eq!(text(rootfs.seal_step(&[], &[]).unwrap()), "+ a dir 755\n+ a/y file 644\n", "{name}");
    });
}

#[test]
fn changes_can_be_read_while_the_next_step_runs() {
    let mut blobs = Blobs::default();
    let base = [blobs.layer(&[Put::Dir("a", 0o755), Put::File("a/x", "1")])];
    each(|case| {
        let mut rootfs = case.storage.create(&base, &blobs).unwrap();
        if rootfs.must_drain() {
            return;
        }
        write(&*rootfs, "a/x", "2");
        write(&*rootfs, "f", "2");
        let first = rootfs.seal_step(&[], &[]).unwrap();
        std::fs::remove_dir_all(rootfs.root().path().join("a")).unwrap();
        write(&*rootfs, "f", "3 and longer");
        let second = rootfs.seal_step(&[], &[]).unwrap();
        drop(rootfs);
        assert_eq!(text(second), "- a\n+ f file 644\n");
        assert_eq!(text(first), "+ a dir 755\n+ a/x file 644\n+ f file 644\n");
    });
}

#[test]
fn touched_and_restored_entries_do_not_count() {
    let mut blobs = Blobs::default();
    let base = [blobs.layer(&[Put::Dir("a", 0o755), Put::File("a/x", "1")])];
    each(|case| {
        let mut rootfs = case.storage.create(&base, &blobs).unwrap();
        let root = rootfs.root();
        let before = root.metadata("a/x").unwrap().mtime;
        root.set_mode("a/x", 0o600).unwrap();
        root.set_mode("a/x", 0o644).unwrap();
        write(&*rootfs, "a/x", "1");
        root.set_mtime("a/x", before).unwrap();
        assert_eq!(text(rootfs.seal_step(&[], &[]).unwrap()), "", "{}", case.storage.name());
        write(&*rootfs, "kept", "");
        write(&*rootfs, "a/secret", "");
        assert_eq!(text(rootfs.seal_step(&[PathBuf::from("a")], &[]).unwrap()), "+ kept file 644\n");
    });
}

#[test]
fn forks_are_independent() {
    let mut blobs = Blobs::default();
    let base = [blobs.layer(&[Put::File("f", "1")])];
    each(|case| {
        let mut rootfs = case.storage.create(&base, &blobs).unwrap();
        write(&*rootfs, "f", "2");
        if case.storage.name() == "overlay" {
            assert!(matches!(rootfs.fork(), Err(RootfsError::NotSealed)));
        }
        drop(rootfs.seal_step(&[], &[]).unwrap());
        let mut fork = rootfs.fork().unwrap();
        write(&*fork, "f", "fork");
        write(&*rootfs, "g", "original");
        assert_eq!(text(fork.seal_step(&[], &[]).unwrap()), "+ f file 644\n");
        assert_eq!(text(rootfs.seal_step(&[], &[]).unwrap()), "+ g file 644\n");
        drop(rootfs);
        assert_eq!(fork.root().read("f").unwrap(), b"fork", "it lives on without the original");
        assert!(!fork.root().exists("g").unwrap());
    });
}

#[test]
fn scratch_is_an_empty_tree() {
    each(|case| {
        let mut rootfs = case.storage.create(&[], &Blobs::default()).unwrap();
        assert_eq!(tree(&*rootfs), "");
        write(&*rootfs, "f", "1");
        assert_eq!(text(rootfs.seal_step(&[], &[]).unwrap()), "+ f file 644\n");
        std::fs::remove_file(rootfs.root().path().join("f")).unwrap();
        assert_eq!(text(rootfs.seal_step(&[], &[]).unwrap()), "- f\n");
    });
}

#[test]
fn directories_a_layer_does_not_list_keep_their_metadata() {
    let mut blobs = Blobs::default();
    let base = [
        blobs.layer(&[Put::Dir("a", 0o711), Put::Dir("a/b", 0o1777), Put::File("a/b/old", "1")]),
        blobs.layer(&[Put::File("a/b/c/new", "2")]),
        blobs.layer(&[Put::File("a/b/third", "3")]),
    ];
    each(|case| {
        for _again in 0..2 {
            let rootfs = case.storage.create(&base, &blobs).unwrap();
            let root = rootfs.root();
            let name = case.storage.name();
            assert_eq!(root.metadata("a").unwrap().mode, 0o711, "{name}");
            assert_eq!(root.metadata("a/b").unwrap().mode, 0o1777, "{name}");
            assert_eq!(root.metadata("a").unwrap().mtime.seconds, MTIME as i64, "{name}");
            assert_eq!(root.read_dir("a/b").unwrap(), ["c", "old", "third"].map(std::ffi::OsString::from));
        }
    });
}

#[test]
fn hard_links_to_older_layers_have_their_content() {
    let mut blobs = Blobs::default();
    let below = blobs.layer(&[Put::Dir("d", 0o755), Put::File("d/f", "text")]);
    let above = blobs.layer(&[Put::Hard("d/g", "d/f"), Put::Hard("h", "d/f")]);
    let broken = blobs.layer(&[Put::Hard("x", "no/such")]);
    each(|case| {
        let rootfs = case.storage.create(&[below.clone(), above.clone()], &blobs).unwrap();
        let root = rootfs.root();
        assert_eq!(
            (root.read("d/g").unwrap(), root.read("h").unwrap()),
            (b"text".to_vec(), b"text".to_vec())
        );
        assert_eq!(root.metadata("d/g").unwrap().ino, root.metadata("h").unwrap().ino);
        assert_eq!(root.metadata("d").unwrap().mtime.seconds, MTIME as i64, "{}", case.storage.name());
        let error = case.storage.create(&[below.clone(), broken.clone()], &blobs).err().unwrap();
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(error) = source {
            text += &format!(": {error}");
            source = error.source();
        }
        assert!(text.contains("`x`"), "{text}");
    });
}

#[test]
fn kept_trees_are_used_again() {
    let mut blobs = Blobs::default();
    let base = [blobs.layer(&[Put::File("f", "1")]), blobs.layer(&[Put::File("a/b", "2")])];
    for kind in kinds().into_iter().filter(|kind| *kind != StorageKind::Directory) {
        let case = Case::new(kind);
        // Unpacked twice by two builds at once, the trees are complete and there is one of each.
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| Case::open(kind, case.dir.path()).create(&base, &blobs).map(drop).unwrap());
            }
        });
        let before = blobs.opened.load(Ordering::Relaxed);
        let rootfs = Case::open(kind, case.dir.path()).create(&base, &blobs).unwrap();
        assert!(
            blobs.opened.load(Ordering::Relaxed) <= before + 1,
            "only a layer that depends on others is asked for"
        );
        assert_eq!(rootfs.root().read("a/b").unwrap(), b"2");
        let kept = std::fs::read_dir(case.dir.path().join("trees")).unwrap().next().unwrap().unwrap().path();
        let mut names: Vec<_> = std::fs::read_dir(kept)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| {
                !name.ends_with(".lock") && (name.starts_with("diff-") || name.starts_with("chain-"))
            })
            .collect();
        names.sort();
        assert_eq!(names.len(), 2, "{names:?}");
        let trees = case.dir.path().join("trees");
        assert_eq!(super::prune(&trees, &Reporter::silent()).unwrap(), 0, "they are in use");
        drop(rootfs);
        assert_eq!(super::prune(&trees, &Reporter::silent()).unwrap(), 2);
        assert_eq!(super::prune(&trees, &Reporter::silent()).unwrap(), 0);
        let rootfs = Case::open(kind, case.dir.path()).create(&base, &blobs).unwrap();
        assert_eq!(rootfs.root().read("a/b").unwrap(), b"2");
    }
}

#[test]
fn wrong_content_is_refused_and_not_kept() {
    let mut blobs = Blobs::default();
    let mut layer = blobs.layer(&[Put::File("f", "1")]);
    layer.diff_id = DiffId::new(Digest::of(b"other"));
    each(|case| {
        for _ in 0..2 {
            let error = case.storage.create(std::slice::from_ref(&layer), &blobs).err().unwrap();
            assert!(matches!(error, RootfsError::DiffIdMismatch { .. }), "{error}");
        }
    });
}

#[test]
fn a_claimed_diff_id_gives_nobody_elses_tree() {
    let mut blobs = Blobs::default();
    let honest = blobs.layer(&[Put::File("f", "honest")]);
    let mut claim = blobs.layer(&[Put::File("f", "hostile")]);
    claim.diff_id = honest.diff_id.clone();
    // The same content in another form is as good as the first.
    let other_form = blobs.zstd(&honest);
    each(|case| {
        let create = |layer: &Layer| case.storage.create(std::slice::from_ref(layer), &blobs);
        let refused = |layer| matches!(create(layer).err(), Some(RootfsError::DiffIdMismatch { .. }));
        assert!(refused(&claim), "before the honest one");
        for layer in [&honest, &other_form, &honest] {
            assert_eq!(create(layer).unwrap().root().read("f").unwrap(), b"honest");
        }
        assert!(refused(&claim) && refused(&claim), "after the honest one");
        let mut wrong = honest.clone();
        wrong.diff_id = DiffId::new(Digest::of(b"other"));
        assert!(refused(&wrong), "a blob that is known by its own diff id");
    });
}

#[test]
fn a_kept_tree_that_is_not_as_it_was_is_made_anew_after_a_boot() {
    let mut blobs = Blobs::default();
    let base = [blobs.layer(&[Put::Dir("d", 0o755), Put::File("d/f", "whole")])];
    for kind in kinds().into_iter().filter(|kind| *kind != StorageKind::Directory) {
        let case = Case::new(kind);
        let create = || case.storage.create(&base, &blobs).unwrap();
        drop(create());
        let dir = std::fs::read_dir(case.dir.path().join("trees")).unwrap().next().unwrap().unwrap().path();
        let tree = dir.join(super::trees::diff_key(&base[0].diff_id));
        let boot = |tree: &Path| {
            let seal = std::fs::read_to_string(tree.join("seal")).unwrap();
            let (_, look) = seal.split_once('\n').unwrap();
            std::fs::write(tree.join("seal"), format!("another boot\n{look}")).unwrap();
        };
        boot(&tree);
        let before = blobs.opened.load(Ordering::Relaxed);
        drop(create());
        assert_eq!(blobs.opened.load(Ordering::Relaxed), before, "whole, and not unpacked again");
        boot(&tree);
        std::fs::write(tree.join("tree/d/f"), "").unwrap();
        assert_eq!(create().root().read("d/f").unwrap(), b"whole");
        std::fs::write(tree.join("seal"), "").unwrap();
        assert_eq!(create().root().read("d/f").unwrap(), b"whole");
    }
}

#[test]
fn a_layer_that_empties_the_root_hides_all_below_on_every_storage() {
    let mut blobs = Blobs::default();
    let base = [
        blobs.layer(&[Put::Dir("d", 0o755), Put::File("d/f", "1"), Put::File("g", "1")]),
        blobs.layer(&[Put::File(".wh..wh..opq", ""), Put::File("h", "2")]),
        blobs.layer(&[Put::File("i", "3")]),
    ];
    each(|case| {
        let mut rootfs = case.storage.create(&base, &blobs).unwrap();
        assert_eq!(rootfs.root().read_dir("").unwrap(), ["h", "i"], "{}", case.storage.name());
        write(&*rootfs, "j", "");
        assert_eq!(text(rootfs.seal_step(&[], &[]).unwrap()), "+ j file 644\n");
    });
}

#[test]
fn nothing_is_left_of_a_build() {
    let mut blobs = Blobs::default();
    let mode = if rustix::process::geteuid().is_root() { 0o000 } else { 0o755 };
    let base = [blobs.layer(&[Put::Dir("d", mode), Put::File("d/f", "1")])];
    each(|case| {
        let dir = tempfile::tempdir_in(case.dir.path()).unwrap();
        let kind = if case.storage.name() == "overlay" { kinds()[1] } else { StorageKind::Directory };
        let storage = Case::open(kind, dir.path());
        let mut rootfs = storage.create(&base, &blobs).unwrap();
        write(&*rootfs, "x", "");
        let changes = rootfs.seal_step(&[], &[]).unwrap();
        let fork = rootfs.fork().unwrap();
        drop((rootfs, storage, fork));
        drop(changes);
        assert_eq!(std::fs::read_dir(dir.path().join("work")).unwrap().count(), 0);
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        assert!(!mounts.contains(dir.path().to_str().unwrap()), "{mounts}");
    });
}

#[test]
fn more_steps_than_the_kernel_stacks() {
    for kind in kinds().into_iter().filter(|kind| *kind != StorageKind::Directory) {
        let case = Case::new(kind);
        let mut rootfs = case.storage.create(&[], &Blobs::default()).unwrap();
        for step in 0..30 {
            write(&*rootfs, &format!("f{step}"), "");
            drop(rootfs.seal_step(&[], &[]).unwrap());
        }
        std::fs::remove_file(rootfs.root().path().join("f0")).unwrap();
        assert_eq!(text(rootfs.seal_step(&[], &[]).unwrap()), "- f0\n");
        assert_eq!(rootfs.root().read_dir("").unwrap().len(), 29);
    }
}
