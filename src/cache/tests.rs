//! Keys that do not collide, records that survive, and records that must not be used.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;

use super::artifact::{read_header, read_record, seal};
use super::*;
use crate::blob::Store;
use crate::event::{Event, Report, Reporter};
use crate::oci::{DiffId, Digest, Layer, descriptor};
use crate::registry::Artifact;
use crate::tree::{Device, FileKind};

const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

fn key(build: impl FnOnce(&mut KeyBuilder)) -> Key {
    let mut builder = KeyBuilder::new("run");
    build(&mut builder);
    builder.finish().0
}

fn file(path: &str) -> FileInput {
    FileInput {
        path: path.into(),
        kind: FileKind::File,
        mode: 0o644,
        uid: 0,
        gid: 0,
        content: Some(Digest::of(b"content")),
        xattrs: None,
        size_bytes: 7,
    }
}

/// A part of a key, as a test makes it up.
#[derive(Debug, Clone, PartialEq)]
enum Part {
    Text(String, String),
    Bytes(String, Vec<u8>),
    List(String, Vec<String>),
    Files(String, Vec<(String, u32)>),
}

impl Part {
    fn add(&self, builder: &mut KeyBuilder) {
        match self.clone() {
            Self::Text(name, value) => builder.text(&name, &value),
            Self::Bytes(name, value) => builder.bytes(&name, &value),
            Self::List(name, values) => builder.list(&name, values),
            Self::Files(name, files) => {
                let files = files.into_iter().map(|(path, mode)| FileInput { mode, ..file(&path) });
                builder.files(&name, FileInputs::new(files.collect()))
            }
        };
    }

    /// Parts are equal if they say the same; files have no order of their own.
    fn sorted(mut self) -> Self {
        if let Self::Files(_, files) = &mut self {
            files.sort();
        }
        self
    }
}

/// Texts of few letters, so that joining them in the wrong places often gives the same bytes.
fn text() -> impl Strategy<Value = String> {
    proptest::collection::vec(prop_oneof!["", "a", "b", "=", ",", "\0", "run", "\u{1}"], 0..4)
        .prop_map(|words| words.concat())
}

fn part() -> impl Strategy<Value = Part> {
    prop_oneof![
        (text(), text()).prop_map(|(name, value)| Part::Text(name, value)),
        (text(), text()).prop_map(|(name, value)| Part::Bytes(name, value.into_bytes())),
        (text(), proptest::collection::vec(text(), 0..4)).prop_map(|(name, list)| Part::List(name, list)),
        (text(), proptest::collection::btree_map("[ab/]{1,3}", 0u32..3, 0..3))
            .prop_map(|(name, files)| Part::Files(name, files.into_iter().collect())),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn different_parts_never_make_the_same_key(
        one in proptest::collection::vec(part(), 0..4),
        other in proptest::collection::vec(part(), 0..4),
    ) {
        let of = |parts: &[Part]| key(|builder| parts.iter().for_each(|part| part.add(builder)));
        let says = |parts: &[Part]| parts.iter().cloned().map(Part::sorted).collect::<Vec<_>>();
        prop_assert_eq!(of(&one) == of(&other), says(&one) == says(&other));
    }

    #[test]
    fn bytes_moved_across_a_boundary_make_another_key(name in "[a-c]{1,6}", value in "[a-c]{1,6}", at in 0usize..6) {
        let joined = format!("{name}{value}");
        let at = at.min(joined.len());
        let (left, right) = joined.split_at(at);
        let moved = key(|b| { b.text(left, right); });
        let unmoved = key(|b| { b.text(&name, &value); });
        prop_assert_eq!(moved == unmoved, left == name);
        let list = |values: &[&str]| key(|b| { b.list("x", values.iter().map(|v| (*v).to_owned())); });
        prop_assert!(list(&[left, right]) != list(&[&joined]));
        prop_assert_eq!(list(&[left, right]) == list(&[&name, &value]), left == name);
    }
}

#[test]
fn everything_of_a_file_is_in_the_key() {
    let of = |files: Vec<FileInput>| {
        key(|b| {
            b.files("files", FileInputs::new(files));
        })
    };
    let plain = of(vec![file("a"), file("b")]);
    assert_eq!(plain, of(vec![file("b"), file("a")]), "order is not");
    let changes: Vec<FileInput> = vec![
        FileInput { path: "c".into(), ..file("a") },
        FileInput { kind: FileKind::Symlink, ..file("a") },
        FileInput { kind: FileKind::CharDevice(Device { major: 1, minor: 3 }), ..file("a") },
        FileInput { mode: 0o600, ..file("a") },
        FileInput { uid: 1, ..file("a") },
        FileInput { gid: 1, ..file("a") },
        FileInput { content: None, ..file("a") },
        FileInput { content: Some(Digest::of(b"x")), ..file("a") },
        FileInput { xattrs: Some(Digest::of(b"content")), ..file("a") },
        // A digest in the one place is not the same digest in the other.
        FileInput { xattrs: Some(Digest::of(b"content")), content: None, ..file("a") },
        FileInput { size_bytes: 8, ..file("a") },
    ];
    let mut keys = vec![plain, of(vec![file("a")]), of(Vec::new())];
    keys.extend(changes.into_iter().map(|change| of(vec![change, file("b")])));
    let count = keys.len();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), count);
}

#[test]
fn keys_do_not_drift() {
    // Pinned: a change of framing must raise `VERSION`, or old records would answer to new meanings.
    let (key, _) = {
        let mut builder = KeyBuilder::new("run");
        builder.text("instruction", "make").bytes("secret", b"x").list("env", ["A=b".to_owned()]);
        builder
            .key("parent", "00".repeat(32).parse().unwrap())
            .files("files", FileInputs::new(vec![file("a")]));
        builder.finish()
    };
    assert_eq!(key.to_string(), PINNED_KEY);
    assert_eq!(Chain::of(&[]).to_string(), PINNED_CHAIN);
    assert!(key.to_string().parse::<Key>().is_ok_and(|read| read == key));
    for text in ["", "00", &"0".repeat(63), &"A".repeat(64), &"g".repeat(64)] {
        assert!(text.parse::<Key>().is_err(), "{text}");
    }
}

const PINNED_KEY: &str = "470c8c7b7500104d986e47b7fab4d428487cfe96ce147b15148a3d4240da50c3";
const PINNED_CHAIN: &str = "sha256:3de70ee27a544b3a9a001002a5ee923776d0f23ee39eb75e66ed88d644310502";

fn layer(content: &[u8]) -> Layer {
    Layer {
        descriptor: descriptor(LAYER_TYPE, &Digest::of(content), content.len() as u64),
        diff_id: DiffId::new(Digest::of(b"diff")),
    }
}

fn record(name: &str, content: &[u8]) -> Record {
    let mut builder = KeyBuilder::new("run");
    builder.text("instruction", name).files("files", FileInputs::new(vec![file("a"), file("b/c")]));
    let (key, inputs) = builder.finish();
    Record {
        key,
        step: StepName { project: "p".to_owned(), stage: "s".to_owned(), number: 2 },
        instruction: format!("RUN {name}"),
        parent: Chain::of(&[]),
        sources: vec![("stage build".to_owned(), Chain::of(&[DiffId::new(Digest::of(b"x"))]))],
        layer: layer(content),
        created_seconds: 1_700_000_000,
        inputs,
    }
}

#[test]
fn a_record_survives_its_artifact() {
    let mut odd = file("x");
    odd.path =
        std::path::PathBuf::from(<std::ffi::OsString as std::os::unix::ffi::OsStringExt>::from_vec(vec![
            b'\xff', b'"',
        ]));
    odd.kind = FileKind::BlockDevice(Device { major: 8, minor: 1 });
    let many: Vec<FileInput> = (0..300).map(|n| file(&format!("f{n}"))).chain([odd]).collect();
    for files in [vec![file("a")], many] {
        let mut record = record("make", b"layer");
        record
            .inputs
            .0
            .push(Input { name: "more".to_owned(), value: InputValue::Files(FileInputs::new(files)) });
        let (artifact, config) = seal(&record);
        let parsed = Artifact::parse(&artifact.seal().1).unwrap();
        let header = read_header(&parsed).unwrap();
        assert_eq!(read_record(&header, &config).unwrap(), record);
        // It is an image too.
        let image: crate::oci::ImageConfig = serde_json::from_slice(&config).unwrap();
        assert_eq!(image.rootfs.diff_ids, [record.layer.diff_id]);
    }
}

#[test]
fn long_lists_of_files_are_left_out_of_records() {
    let mut record = record("make", b"layer");
    let files = FileInputs::new((0..=MOST_FILES_KEPT).map(|n| file(&format!("f{n}"))).collect());
    record.inputs = Inputs(vec![Input { name: "files".to_owned(), value: InputValue::Files(files.clone()) }]);
    let (artifact, config) = seal(&record);
    let read = read_record(&read_header(&artifact).unwrap(), &config).unwrap();
    let Some(InputValue::Files(read)) = read.inputs.get("files") else { panic!() };
    assert_eq!((read.tree(), read.count()), (files.tree(), files.count()));
    assert!(read.files().is_none() && files.files().is_some());
}

/// A change to an artifact.
type Poison = Box<dyn Fn(&mut Artifact)>;

/// What somebody who may write to the cache could put there.
fn poisons() -> Vec<(&'static str, Poison)> {
    let annotation = |name: &'static str, value: &'static str| -> Poison {
        Box::new(move |artifact| drop(artifact.annotations.insert(name.to_owned(), value.to_owned())))
    };
    let lose =
        |name: &'static str| -> Poison { Box::new(move |artifact| drop(artifact.annotations.remove(name))) };
    vec![
        ("another type", Box::new(|a| a.artifact_type = "application/vnd.x".to_owned())),
        ("no layer", Box::new(|a| a.layers.clear())),
        ("two layers", Box::new(|a| a.layers.push(a.layers[0].clone()))),
        (
            "a foreign layer",
            Box::new(|a| {
                a.layers[0].set_media_type("text/html".into());
            }),
        ),
        (
            "an empty layer",
            Box::new(|a| {
                a.layers[0].set_size(0);
            }),
        ),
        (
            "a layer elsewhere",
            Box::new(|a| {
                a.layers[0].set_urls(Some(vec!["http://x".to_owned()]));
            }),
        ),
        (
            "another digest",
            Box::new(|a| {
                let other = format!("sha512:{}", "0".repeat(128)).parse().unwrap();
                a.layers[0].set_digest(other);
            }),
        ),
        ("no config", Box::new(|a| a.config = None)),
        (
            "a foreign config",
            Box::new(|a| {
                a.config.as_mut().unwrap().set_media_type("text/html".into());
            }),
        ),
        (
            "a huge config",
            Box::new(|a| {
                a.config.as_mut().unwrap().set_size(1 << 40);
            }),
        ),
        ("no key", lose("kiln.cache.key")),
        ("no parent", lose("kiln.cache.parent")),
        ("no diff id", lose("kiln.cache.diff-id")),
        ("a key that is none", annotation("kiln.cache.key", "x")),
        ("a diff id that is none", annotation("kiln.cache.diff-id", "sha256:00")),
        ("a time that is none", annotation("kiln.cache.created", "yesterday")),
        ("sources that are none", annotation("kiln.cache.sources", "[[1]]")),
    ]
}

#[test]
fn what_no_kiln_would_have_written_is_refused() {
    let (artifact, _) = seal(&record("make", b"layer"));
    read_header(&artifact).unwrap();
    for (name, poison) in poisons() {
        let mut poisoned = artifact.clone();
        poison(&mut poisoned);
        assert!(read_header(&poisoned).is_err(), "{name}");
    }
}

#[test]
fn a_config_of_another_record_is_refused() {
    let (artifact, _) = seal(&record("make", b"layer"));
    let header = read_header(&artifact).unwrap();
    for other in [record("other", b"layer"), record("make", b"another layer")] {
        assert!(read_record(&header, &seal(&other).1).unwrap_err().contains("different records"));
    }
    assert!(read_record(&header, b"{}").is_err());
    assert!(read_record(&header, b"{\"kiln.cache.record.zstd\":\"AAAA\"}").is_err());
}

/// Collects warnings.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<String>>>);

impl Report for Heard {
    fn report(&self, event: Event) {
        if let Event::Warning { text, .. } = event {
            self.0.lock().unwrap().push(text);
        }
    }
}

fn put(cache: &SharedCache, record: &Record, content: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    let elsewhere = Store::open(dir.path()).unwrap();
    elsewhere.put(content).unwrap();
    cache.put(record, &*elsewhere).unwrap();
}

#[test]
fn a_directory_keeps_records_for_other_builds() {
    let dir = tempfile::tempdir().unwrap();
    let record = record("make", b"layer");
    put(&open_local(dir.path()).unwrap(), &record, b"layer");
    for cache in [open_local(dir.path()).unwrap(), open_local_source(dir.path()).unwrap()] {
        let found = cache.find(&record.key).unwrap().unwrap();
        assert_eq!(
            (found.layer, found.parent, found.sources),
            (record.layer.clone(), record.parent.clone(), record.sources.clone())
        );
        assert!(found.blobs.unwrap().contains(&Digest::of(b"layer")).unwrap());
        assert_eq!(cache.newest(&record.step).unwrap().as_ref(), Some(&record));
        assert!(
            cache
                .find(&key(|b| {
                    b.text("x", "y");
                }))
                .unwrap()
                .is_none()
        );
    }
    assert!(open_local_source(&dir.path().join("nowhere")).is_err());
}

fn only_record_file(root: &Path) -> std::path::PathBuf {
    let in_dir = |dir: &Path| fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect::<Vec<_>>();
    let dirs = in_dir(&root.join("records"));
    let dir = dirs.iter().find(|dir| !dir.ends_with("steps")).unwrap();
    in_dir(dir).remove(0)
}

#[test]
fn damaged_records_are_refused_once_each_and_never_used() {
    let dir = tempfile::tempdir().unwrap();
    let (record, other) = (record("make", b"layer"), record("other", b"layer"));
    let cache = open_local(dir.path()).unwrap();
    put(&cache, &record, b"layer");
    let path = only_record_file(dir.path());
    let whole = fs::read(&path).unwrap();
    let (other_artifact, _) = seal(&other);
    for poison in [whole[..whole.len() / 2].to_vec(), Vec::new(), other_artifact.seal().1] {
        fs::write(&path, poison).unwrap();
        let heard = Heard::default();
        let caches = Caches::new(vec![cache.clone()], Vec::new(), Reporter::new(heard.clone()));
        assert!(caches.find(&record.key).is_none());
        assert_eq!(heard.0.lock().unwrap().len(), 1);
        assert_eq!(cache.entries().unwrap()[0].key, None, "it is listed, so that it can be removed");
    }
    // A layer that lost bytes, and one that is gone.
    fs::write(&path, &whole).unwrap();
    let blob = dir.path().join("blobs/sha256").join(Digest::of(b"layer").hex());
    fs::remove_file(&blob).unwrap();
    fs::write(&blob, b"lay").unwrap();
    assert!(cache.find(&record.key).is_err());
    assert!(cache.find(&record.key).unwrap().is_none(), "the damaged layer was dropped");
    put(&cache, &record, b"layer");
    assert!(cache.find(&record.key).unwrap().is_some());
}

#[test]
fn the_stores_garbage_collection_keeps_what_records_need() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (record("old", b"old layer"), record("new", b"new layer"));
    {
        let cache = open_store(Store::open(dir.path()).unwrap(), true);
        put(&cache, &old, b"old layer");
        put(&cache, &new, b"new layer");
    }
    let past = std::time::SystemTime::now() - Duration::from_secs(100_000);
    for entry in fs::read_dir(dir.path().join("blobs/sha256")).unwrap() {
        fs::File::open(entry.unwrap().path()).unwrap().set_modified(past).unwrap();
    }
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.collect_garbage(Duration::ZERO).unwrap().blobs, 0);
    let cache = open_store(store, true);
    let entries = cache.entries().unwrap();
    assert_eq!(entries.len(), 2);
    let going: Vec<Entry> = entries.into_iter().filter(|entry| entry.instruction == "RUN old").collect();
    let removed = cache.remove(&going).unwrap();
    assert_eq!(removed.records, 1);
    assert!(removed.bytes >= b"old layer".len() as u64);
    assert!(cache.find(&old.key).unwrap().is_none());
    assert!(cache.find(&new.key).unwrap().unwrap().blobs.is_none());
    assert_eq!(cache.newest(&new.step).unwrap(), Some(new));
}

/// A hit that a build has been told of must stay usable whatever is pruned meanwhile.
#[test]
fn a_prune_takes_nothing_from_a_running_build() {
    let dir = tempfile::tempdir().unwrap();
    let record = record("make", b"layer");
    put(&open_local(dir.path()).unwrap(), &record, b"layer");
    let build = open_local(dir.path()).unwrap();
    let found = build.find(&record.key).unwrap().unwrap();
    let prune = open_local(dir.path()).unwrap();
    assert_eq!(prune.remove(&prune.entries().unwrap()).unwrap().records, 1);
    assert!(build.find(&record.key).unwrap().is_none());
    let mut bytes = Vec::new();
    found.blobs.unwrap().open(&found.layer.descriptor).unwrap().read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, b"layer");
    drop(build);
    drop(prune.remove(&[]));
}

#[test]
fn sources_are_asked_in_order_and_sinks_get_what_their_mode_says() {
    let dirs: Vec<tempfile::TempDir> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let caches: Vec<SharedCache> = dirs.iter().map(|dir| open_local(dir.path()).unwrap()).collect();
    let store_dir = tempfile::tempdir().unwrap();
    let store = Store::open(store_dir.path()).unwrap();
    store.put(b"layer").unwrap();
    let sinks = vec![
        Sink { cache: caches[1].clone(), mode: CacheMode::Max },
        Sink { cache: caches[2].clone(), mode: CacheMode::Min },
    ];
    let build = Caches::new(caches.clone(), sinks, Reporter::silent());
    let (shown, hidden) = (record("shown", b"layer"), record("hidden", b"layer"));
    build.put_later(shown.clone(), store.clone(), true);
    build.put_later(hidden.clone(), store.clone(), false);
    build.finish();
    let has = |cache: &SharedCache, record: &Record| cache.find(&record.key).unwrap().is_some();
    assert_eq!(caches.iter().map(|c| has(c, &shown)).collect::<Vec<_>>(), [false, true, true]);
    assert_eq!(caches.iter().map(|c| has(c, &hidden)).collect::<Vec<_>>(), [false, true, false]);
    assert_eq!(build.find(&shown.key).unwrap().from, dirs[1].path().display().to_string());
    let blind = Caches::new(caches.clone(), Vec::new(), Reporter::silent()).using_hits(false);
    assert!(blind.find(&shown.key).is_none() && blind.newest(&shown.step).is_some());
    let found = |most: u64, age: i64| {
        let caches = Caches::new(caches.clone(), Vec::new(), Reporter::silent());
        let caches = caches.with_most_age(Some(Duration::from_secs(most)), shown.created_seconds + age);
        caches.find(&shown.key).is_some()
    };
    assert!(found(101, 100) && !found(100, 100));
    assert!(!found(0, 0) && !found(0, -5), "nothing is young enough for an age of 0");
    assert!(found(1, -5), "another machine's clock may be ahead");
}

#[test]
fn a_sink_that_fails_is_warned_about_once() {
    #[derive(Debug)]
    struct Failing;
    impl Cache for Failing {
        fn describe(&self) -> String {
            "failing".to_owned()
        }
        fn find(&self, _: &Key) -> Result<Option<Found>, CacheError> {
            Err(CacheError::NoDeletion { place: self.describe() })
        }
        fn newest(&self, _: &StepName) -> Result<Option<Record>, CacheError> {
            Ok(None)
        }
        fn put(&self, _: &Record, _: &dyn BlobSource) -> Result<(), CacheError> {
            Err(CacheError::NoDeletion { place: self.describe() })
        }
        fn entries(&self) -> Result<Vec<Entry>, CacheError> {
            Ok(Vec::new())
        }
        fn remove(&self, _: &[Entry]) -> Result<Removed, CacheError> {
            Ok(Removed::default())
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let heard = Heard::default();
    let cache: SharedCache = Arc::new(Failing);
    let sinks = vec![Sink { cache: cache.clone(), mode: CacheMode::Max }];
    let caches = Caches::new(vec![cache], sinks, Reporter::new(heard.clone()));
    for number in 0..50 {
        caches.put_later(record(&number.to_string(), b"layer"), store.clone(), true);
        assert!(caches.find(&record("x", b"layer").key).is_none());
    }
    caches.finish();
    let heard = heard.0.lock().unwrap();
    assert_eq!(heard.len(), 2, "{heard:?}");
    assert!(heard[1].starts_with("50 records could not be written to cache `failing`"), "{heard:?}");
}

#[test]
fn step_names_do_not_run_together() {
    let name = |project: &str, stage: &str, number| {
        StepName { project: project.to_owned(), stage: stage.to_owned(), number }.id()
    };
    let ids = [name("a", "b", 1), name("ab", "", 1), name("", "ab", 1), name("a", "b", 2)];
    let distinct: BTreeMap<_, ()> = ids.iter().map(|id| (id, ())).collect();
    assert_eq!(distinct.len(), ids.len());
}
