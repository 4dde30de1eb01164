//! The store: what shows when, what survives a kill, what a collection keeps; and foreign layouts.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use serde_json::json;

use super::*;
use crate::oci::{annotation, descriptor, media_type};

fn describe(bytes: &[u8]) -> Descriptor {
    descriptor(media_type::OCI_LAYER, &Digest::of(bytes), bytes.len() as u64)
}

fn put_image(store: &Store, name: &str) -> Descriptor {
    let layer = format!("layer of {name}").into_bytes();
    let config = format!("{{\"config\":\"of {name}\"}}").into_bytes();
    store.put(&layer).unwrap();
    store.put(&config).unwrap();
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
        "config": describe(&config), "layers": [describe(&layer)],
    }))
    .unwrap();
    store.put(&manifest).unwrap();
    descriptor(media_type::OCI_MANIFEST, &Digest::of(&manifest), manifest.len() as u64)
}

/// Makes every blob look as if it was last used long ago.
fn age(dir: &Path) {
    let long_ago = SystemTime::now() - Duration::from_secs(100_000);
    for entry in fs::read_dir(dir.join("blobs/sha256")).unwrap() {
        let file = fs::File::open(entry.unwrap().path()).unwrap();
        file.set_modified(long_ago).unwrap();
    }
}

fn count(dir: &Path, sub: &str) -> usize {
    fs::read_dir(dir.join(sub)).unwrap().count()
}

#[test]
fn blobs_come_back_verified() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let digest = store.put(b"content").unwrap();
    assert_eq!(digest, Digest::of(b"content"));
    assert!(store.has(&digest) && !store.has(&Digest::of(b"other")));
    assert_eq!(store.read(&describe(b"content")).unwrap(), b"content");
    assert!(matches!(store.read(&describe(b"other")), Err(BlobError::NotFound { .. })));
    assert!(!store.has(&Digest::of(b"")));
    store.put(b"").unwrap();
    assert!(store.has(&Digest::of(b"")));
    assert_eq!(count(dir.path(), "blobs/sha256"), 2);
}

#[test]
fn nothing_shows_before_the_commit_or_without_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let mut writer = store.writer().unwrap();
    writer.write_all(b"half").unwrap();
    assert!(!store.has(&Digest::of(b"half")));
    drop(writer);
    let mut writer = store.writer().unwrap();
    writer.write_all(b"wrong").unwrap();
    let error = writer.commit(Some(&describe(b"right"))).unwrap_err();
    assert!(
        matches!(&error, BlobError::Damaged { problem, .. } if problem.contains("found 5 bytes")),
        "{error}"
    );
    assert_eq!(count(dir.path(), "blobs/sha256"), 0);
    let mut writer = store.writer().unwrap();
    writer.write_all(b"right").unwrap();
    assert_eq!(writer.commit(Some(&describe(b"right"))).unwrap().size_bytes, 5);
    let session = fs::read_dir(dir.path().join("ingest")).unwrap().map(|entry| entry.unwrap().path());
    let left: usize =
        session.filter(|path| path.is_dir()).map(|path| fs::read_dir(path).unwrap().count()).sum();
    assert_eq!(left, 0, "temporary files are gone");
}

#[test]
fn damage_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let digest = store.put(b"content").unwrap();
    let path = store.blob_path(&digest);
    let overwrite = |bytes: &[u8]| {
        fs::remove_file(&path).unwrap();
        fs::write(&path, bytes).unwrap();
    };
    overwrite(b"CONTENT");
    assert!(matches!(store.read(&describe(b"content")), Err(BlobError::Damaged { .. })));
    assert!(!path.exists(), "the next run must not find it again");
    store.put(b"content").unwrap();
    overwrite(b"cont");
    assert!(matches!(store.open(&describe(b"content")), Err(BlobError::Damaged { .. })));
    assert!(!path.exists());
    store.put(b"content").unwrap();
    overwrite(b"");
    assert!(!store.has(&digest), "a name whose bytes a power failure took is no blob");
    store.put(b"content").unwrap();
    assert_eq!(store.read(&describe(b"content")).unwrap(), b"content");
}

#[test]
fn a_killed_session_is_swept_and_a_living_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let living = Store::open(dir.path()).unwrap();
    let mut writer = living.writer().unwrap();
    writer.write_all(b"in the middle").unwrap();
    // What a killed process leaves: a lock file nobody holds, and its temporary files.
    fs::create_dir_all(dir.path().join("ingest/4711-0")).unwrap();
    fs::write(dir.path().join("ingest/4711-0/0"), b"half a layer").unwrap();
    fs::write(dir.path().join("ingest/4711-0.lock"), b"").unwrap();
    fs::create_dir_all(dir.path().join("ingest/orphan")).unwrap();
    let other = Store::open(dir.path()).unwrap();
    assert!(!dir.path().join("ingest/4711-0").exists() && !dir.path().join("ingest/4711-0.lock").exists());
    assert!(!dir.path().join("ingest/orphan").exists());
    let counted = writer.commit(None).unwrap();
    assert!(other.has(&counted.digest));
    drop((living, other));
    assert_eq!(count(dir.path(), "ingest"), 0, "a session that ends takes its files along");
}

/// Run by the test below, in a process of its own, until it is killed.
#[test]
#[ignore = "the child of another test"]
fn writes_until_killed() {
    let Some(dir) = std::env::var_os("KILN_TEST_STORE") else { return };
    let store = Store::open(Path::new(&dir)).unwrap();
    for number in 0u64.. {
        let image = put_image(&store, &format!("image {number} {}", "x".repeat(100_000)));
        store.set_tag("the:tag", &image).unwrap();
    }
}

#[test]
fn a_process_killed_at_any_instant_leaves_a_store_that_works() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..5 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "blob::tests::writes_until_killed", "--ignored"])
            .env("KILN_TEST_STORE", dir.path())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let before = fs::read_dir(dir.path().join("blobs/sha256")).map_or(0, Iterator::count);
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while fs::read_dir(dir.path().join("blobs/sha256")).map_or(0, Iterator::count) < before + 5 + round {
            assert!(std::time::Instant::now() < deadline, "the child writes nothing");
            std::thread::sleep(Duration::from_micros(700 * round as u64));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(count(dir.path(), "ingest"), 2, "nothing but our own session");
        for entry in fs::read_dir(dir.path().join("blobs/sha256")).unwrap() {
            let path = entry.unwrap().path();
            let digest = Digest::of(&fs::read(&path).unwrap());
            assert_eq!(digest.hex(), path.file_name().unwrap().to_str().unwrap());
        }
        for tag in store.tags().unwrap() {
            assert!(store.read(&tag.descriptor).unwrap().starts_with(b"{"));
        }
    }
}

#[test]
fn tags_come_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let (one, two) = (put_image(&store, "one"), put_image(&store, "two"));
    store.set_tag("registry:5000/b/image:v1", &one).unwrap();
    store.set_tag("a/image:latest", &one).unwrap();
    store.set_tag("a/image:latest", &two).unwrap();
    let tags = store.tags().unwrap();
    let names: Vec<&str> = tags.iter().map(|tag| tag.reference.as_str()).collect();
    assert_eq!(names, ["a/image:latest", "registry:5000/b/image:v1"]);
    assert_eq!(tags[0].descriptor.digest(), two.digest());
    let annotations = tags[1].descriptor.annotations().clone().unwrap();
    assert_eq!(annotations[annotation::REF_NAME], "v1");
    assert!(store.remove_tag("a/image:latest").unwrap());
    assert!(!store.remove_tag("a/image:latest").unwrap());
    let missing = store.set_tag("x", &describe(b"missing")).unwrap_err();
    assert!(matches!(missing, BlobError::NotFound { .. }));
}

#[test]
fn a_collection_keeps_what_tags_reach() {
    let dir = tempfile::tempdir().unwrap();
    let image = {
        let store = Store::open(dir.path()).unwrap();
        let image = put_image(&store, "kept");
        let index = serde_json::to_vec(&json!({"schemaVersion": 2, "manifests": [image]})).unwrap();
        store.put(&index).unwrap();
        let index = descriptor(media_type::OCI_INDEX, &Digest::of(&index), index.len() as u64);
        store.set_tag("kept:1", &index).unwrap();
        put_image(&store, "lost");
        image
    };
    age(dir.path());
    let store = Store::open(dir.path()).unwrap();
    let collected = store.collect_garbage(Duration::from_secs(3600)).unwrap();
    assert_eq!(collected.blobs, 3);
    assert_eq!(count(dir.path(), "blobs/sha256"), 4);
    assert!(store.contains(&descriptor_digest(&image)).unwrap());
    assert_eq!(store.collect_garbage(Duration::ZERO).unwrap(), Collected::default());
}

fn descriptor_digest(descriptor: &Descriptor) -> Digest {
    checked_digest(descriptor).unwrap()
}

#[test]
fn a_collection_keeps_what_living_sessions_used() {
    let dir = tempfile::tempdir().unwrap();
    let (asked, opened, unused) = (b"asked for", b"opened", b"not used");
    {
        let store = Store::open(dir.path()).unwrap();
        for blob in [&asked[..], opened, unused] {
            store.put(blob).unwrap();
        }
    }
    age(dir.path());
    let build = Store::open(dir.path()).unwrap();
    assert!(build.has(&Digest::of(asked)));
    drop(build.open(&describe(opened)).unwrap());
    build.put(b"written").unwrap();
    std::thread::sleep(Duration::from_millis(20));
    let prune = Store::open(dir.path()).unwrap();
    assert_eq!(prune.collect_garbage(Duration::ZERO).unwrap().blobs, 1);
    for blob in [&asked[..], opened, b"written"] {
        assert!(build.has(&Digest::of(blob)));
    }
    drop((build, prune));
    age(dir.path());
    let prune = Store::open(dir.path()).unwrap();
    assert_eq!(
        prune.collect_garbage(Duration::from_secs(200_000)).unwrap().blobs,
        0,
        "within the grace period"
    );
    assert_eq!(prune.collect_garbage(Duration::ZERO).unwrap().blobs, 3, "the build is over");
}

#[test]
fn stores_are_shared_by_threads_and_sessions() {
    let dir = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let dir = dir.path();
            scope.spawn(move || {
                let store = Store::open(dir).unwrap();
                for number in 0..25 {
                    let blob = format!("blob {number}");
                    let digest = store.put(blob.as_bytes()).unwrap();
                    assert_eq!(store.read(&describe(blob.as_bytes())).unwrap(), blob.as_bytes());
                    let image = put_image(&store, &format!("{thread} {number}"));
                    store.set_tag(&format!("t{thread}:{number}"), &image).unwrap();
                    store.collect_garbage(Duration::ZERO).unwrap();
                    assert!(store.has(&digest));
                }
            });
        }
    });
    assert_eq!(Store::open(dir.path()).unwrap().tags().unwrap().len(), 100);
}

#[test]
fn a_place_that_is_not_writable_is_named() {
    // /proc refuses to everybody, root included.
    let error = Store::open(Path::new("/proc/kiln-store")).unwrap_err();
    assert!(error.to_string().contains("/proc/kiln-store"), "{error}");
    let read_only = BlobError::io("write", Path::new("/x"), rustix::io::Errno::ROFS.into());
    assert!(matches!(read_only, BlobError::ReadOnly { .. }) && read_only.hint().is_some());
}

#[test]
fn foreign_layouts_are_read_as_directories_and_archives() {
    let dir = tempfile::tempdir().unwrap();
    let layout = dir.path().join("layout");
    let image = {
        let store = Store::open(&layout).unwrap();
        let image = put_image(&store, "foreign");
        store.set_tag("example.org/app:v2", &image).unwrap();
        image
    };
    let archive = dir.path().join("layout.tar");
    let file = fs::File::create(&archive).unwrap();
    let mut builder = tar::Builder::new(file);
    builder.append_dir_all(".", &layout).unwrap();
    builder.into_inner().unwrap();
    for path in [&layout, &archive] {
        let layout = Layout::open(path).unwrap();
        assert_eq!(layout.manifests().len(), 1);
        for name in [None, Some("v2"), Some("example.org/app:v2"), Some(AsRef::<str>::as_ref(image.digest()))]
        {
            assert_eq!(layout.find(name).unwrap().digest(), image.digest(), "{name:?}");
        }
        assert!(layout.find(Some("v3")).is_none());
        assert!(layout.read(&image).unwrap().starts_with(b"{"));
        assert!(layout.contains(&Digest::of(b"layer of foreign")).unwrap());
        assert!(!layout.contains(&Digest::of(b"?")).unwrap());
        assert!(matches!(layout.open(&describe(b"?")), Err(BlobError::NotFound { .. })));
    }
}

#[test]
fn what_is_not_a_layout_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let error = Layout::open(dir.path()).unwrap_err();
    assert!(error.to_string().ends_with("is not an OCI image layout: there is no `oci-layout`"), "{error}");
    let packed = dir.path().join("layout.tar.gz");
    fs::write(&packed, [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0]).unwrap();
    let error = Layout::open(&packed).unwrap_err();
    assert!(error.to_string().contains("it is compressed (Gzip)"), "{error}");
    fs::write(dir.path().join("oci-layout"), r#"{"imageLayoutVersion":"2.0.0"}"#).unwrap();
    assert!(Layout::open(dir.path()).unwrap_err().to_string().contains("found `2.0.0`"));
    assert!(matches!(Layout::open(&dir.path().join("nowhere")), Err(BlobError::Io { .. })));
}

#[test]
fn a_digest_of_another_kind_is_an_error_and_no_panic() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let other: Descriptor = serde_json::from_value(json!({
        "mediaType": "x/y", "size": 1, "digest": format!("sha512:{}", "0".repeat(128)),
    }))
    .unwrap();
    assert!(matches!(store.open(&other), Err(BlobError::Digest { .. })));
    assert!(matches!(store.read(&other), Err(BlobError::Digest { .. })));
}

#[test]
fn a_full_disk_is_told_from_other_failures() {
    // Root only: a tmpfs of one page. Where it cannot be mounted there is nothing to test.
    let dir = tempfile::tempdir().unwrap();
    let mount = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=256k", "none"])
        .arg(dir.path())
        .stderr(std::process::Stdio::null())
        .status();
    if !mount.is_ok_and(|status| status.success()) {
        return;
    }
    let result = Store::open(dir.path()).and_then(|store| store.put(&vec![7; 1 << 20]));
    let umount = Command::new("umount").arg("-l").arg(dir.path()).status().unwrap();
    assert!(umount.success());
    assert!(result.as_ref().is_err_and(|error| crate::space::find(error).is_some()), "{result:?}");
}
