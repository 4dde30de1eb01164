//! Directories that keep records, and the caches of a build.

use super::*;

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
    put(&open_local(dir.path(), &Arc::default()).unwrap(), &record, b"layer");
    for cache in [
        open_local(dir.path(), &Arc::default()).unwrap(),
        open_local_source(dir.path(), &Arc::default()).unwrap(),
    ] {
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
    assert!(open_local_source(&dir.path().join("nowhere"), &Arc::default()).is_err());
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
    let cache = open_local(dir.path(), &Arc::default()).unwrap();
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
        let cache = open_store(Store::open(dir.path()).unwrap(), true, &Arc::default());
        put(&cache, &old, b"old layer");
        put(&cache, &new, b"new layer");
    }
    let past = std::time::SystemTime::now() - Duration::from_secs(100_000);
    for entry in fs::read_dir(dir.path().join("blobs/sha256")).unwrap() {
        fs::File::open(entry.unwrap().path()).unwrap().set_modified(past).unwrap();
    }
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.collect_garbage(Duration::ZERO).unwrap().blobs, 0);
    let cache = open_store(store, true, &Arc::default());
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
    put(&open_local(dir.path(), &Arc::default()).unwrap(), &record, b"layer");
    let build = open_local(dir.path(), &Arc::default()).unwrap();
    let found = build.find(&record.key).unwrap().unwrap();
    let prune = open_local(dir.path(), &Arc::default()).unwrap();
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
    let caches: Vec<SharedCache> =
        dirs.iter().map(|dir| open_local(dir.path(), &Arc::default()).unwrap()).collect();
    let store_dir = tempfile::tempdir().unwrap();
    let store = Store::open(store_dir.path()).unwrap();
    store.put(b"layer").unwrap();
    let sinks = vec![
        Sink { cache: caches[1].clone(), mode: CacheMode::Max, is_own: false },
        Sink { cache: caches[2].clone(), mode: CacheMode::Min, is_own: false },
    ];
    let build = Caches::new(caches.clone(), sinks, Reporter::silent());
    let (shown, hidden) = (record("shown", b"layer"), record("hidden", b"layer"));
    build.put_later(shown.clone(), store.clone(), true, &Made::Now);
    build.put_later(hidden.clone(), store.clone(), false, &Made::Now);
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
    let sinks = vec![Sink { cache: cache.clone(), mode: CacheMode::Max, is_own: false }];
    let caches = Caches::new(vec![cache], sinks, Reporter::new(heard.clone()));
    for number in 0..50 {
        caches.put_later(record(&number.to_string(), b"layer"), store.clone(), true, &Made::Now);
        assert!(caches.find(&record("x", b"layer").key).is_none());
    }
    caches.finish();
    let heard = heard.0.lock().unwrap();
    assert_eq!(heard.len(), 2, "{heard:?}");
    assert!(heard[1].starts_with("50 records could not be written to cache `failing`"), "{heard:?}");
}
