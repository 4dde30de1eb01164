//! The canonical form, pinned.

use std::ffi::OsString;
use std::sync::Arc;

use super::*;
use crate::blob::{BlobSource as _, Growing, Store};
use crate::oci::{ManifestFormat, media_type};
use crate::stream::{Compression, auto_decoder};
use crate::tree::Device;

/// One of everything.
fn sample() -> Vec<Change> {
    let mut capable = file(b"#!/bin/true\n");
    capable.mode = 0o4755;
    let v3 = [1, 0, 0, 3, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xe8, 3, 0, 0];
    capable.xattrs.insert(OsString::from("security.capability"), v3.to_vec());
    capable.xattrs.insert(OsString::from("user.note"), b"two\nlines\n".to_vec());
    capable.xattrs.insert(OsString::from("trusted.overlay.origin"), b"of the overlay".to_vec());
    let mut owned = file(b"");
    (owned.uid, owned.gid) = (3_000_000, 100);
    owned.mtime.seconds = 2_000_000_000;
    let long = format!("dir/{}", "long".repeat(50));
    let upsert = |path: &str, node| Change::Upsert { path: PathBuf::from(path), node };
    vec![
        upsert("bin", directory()),
        upsert("bin/true", capable),
        upsert("bin/yes", hard_link("bin/true")),
        upsert("dev", directory()),
        upsert("dev/null", node(NodeKind::CharDevice(Device { major: 1, minor: 3 }), 0o666)),
        upsert("dev/pipe", node(NodeKind::Fifo, 0o600)),
        upsert("dev/sda", node(NodeKind::BlockDevice(Device { major: 8, minor: 0 }), 0o660)),
        upsert("dir", directory()),
        Change::Opaque { path: PathBuf::from("dir") },
        Change::Remove { path: PathBuf::from("dir/gone") },
        upsert(&long, file(b"content")),
        upsert("lib", symlink("usr/lib")),
        Change::Remove { path: PathBuf::from("old") },
        upsert("owned", owned),
    ]
}

fn change_set(changes: Vec<Change>) -> ChangeSet {
    Box::new(changes.into_iter().map(Ok))
}

fn tar(changes: Vec<Change>, epoch: Option<i64>) -> Vec<u8> {
    let mut out = Vec::new();
    write_tar(change_set(changes), &TarOptions { epoch }, &mut out).unwrap();
    out
}

/// The digests below are part of kiln's promise: equal changes, equal layers. A change here says that to everybody
/// who compares images, so it belongs into the CHANGELOG.
#[test]
fn canonical_layers_do_not_drift() {
    assert_eq!(tar(Vec::new(), None), [0; 1024], "an empty layer is the one everybody has");
    let bytes = tar(sample(), None);
    assert_eq!((bytes.len(), Digest::of(&bytes).short()), (12_288, "6fc1dfd4928a"));
    let clamped = tar(sample(), Some(0));
    assert_eq!((clamped.len(), Digest::of(&clamped).short()), (12_288, "d69dc4c8bf82"));
}

#[test]
fn the_epoch_clamps_newer_times_only() {
    let times = |epoch| -> Vec<i64> {
        let bytes = tar(sample(), epoch);
        let mut reader = TarReader::new(&bytes[..]);
        let mut times = Vec::new();
        while let Some(entry) = reader.next_entry().unwrap() {
            times.push(entry.mtime.seconds);
        }
        times
    };
    assert_eq!(times(None).iter().max(), Some(&2_000_000_000));
    assert_eq!(times(Some(1_800_000_000)).iter().max(), Some(&1_800_000_000));
    assert!(times(Some(1_800_000_000)).contains(&1_700_000_000));
    assert_eq!(times(Some(-1)).iter().max(), Some(&0), "whiteouts keep theirs");
}

#[test]
fn entries_are_what_the_changes_say() {
    let bytes = tar(sample(), None);
    let mut reader = TarReader::new(&bytes[..]);
    let mut entries = BTreeMap::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        entries.insert(entry.path.to_str().unwrap().to_owned(), entry);
    }
    let capable = &entries["bin/true"];
    let v2 = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let names: Vec<_> = capable.xattrs.keys().map(|name| name.to_str().unwrap()).collect();
    assert_eq!(names, ["security.capability", "user.note"], "none of the overlay's");
    assert_eq!(capable.xattrs[&OsString::from("security.capability")], v2);
    assert_eq!(capable.xattrs[&OsString::from("user.note")], b"two\nlines\n");
    assert_eq!(entries["bin/yes"].kind, TarEntryKind::HardLink { target: PathBuf::from("bin/true") });
    assert!(entries["bin/yes"].xattrs.is_empty());
    assert_eq!(entries["owned"].uid, 3_000_000);
    assert_eq!(entries["dir/.wh..wh..opq"].mode, 0);
    assert!(entries.contains_key("dir/.wh.gone") && entries.contains_key(".wh.old"));
    assert!(entries.contains_key("dir/") && entries["bin/true"].mtime.nanoseconds == 0);
}

#[test]
fn what_a_layer_cannot_hold_is_an_error() {
    for name in ["a/.wh.b", ".wh..wh..opq"] {
        let change = Change::Upsert { path: PathBuf::from(name), node: file(b"") };
        let result = write_tar(change_set(vec![change]), &TarOptions::default(), &mut Vec::new());
        assert!(matches!(result, Err(LayerError::Unrepresentable { .. })), "{name}");
    }
    let mut odd = file(b"");
    odd.xattrs.insert(OsString::from("user.a=b"), Vec::new());
    let change = Change::Upsert { path: PathBuf::from("x"), node: odd };
    let result = write_tar(change_set(vec![change]), &TarOptions::default(), &mut Vec::new());
    assert!(matches!(result, Err(LayerError::Unrepresentable { .. })));
}

#[test]
fn a_layer_is_stored_whatever_its_form() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let diff_id = Digest::of(&tar(sample(), None));
    for (compression, format, media_type) in [
        (Compression::None, ManifestFormat::Oci, media_type::OCI_LAYER),
        (Compression::gzip(), ManifestFormat::Oci, "application/vnd.oci.image.layer.v1.tar+gzip"),
        (Compression::gzip(), ManifestFormat::Docker, media_type::DOCKER_LAYER_GZIP),
        (Compression::zstd(), ManifestFormat::Oci, "application/vnd.oci.image.layer.v1.tar+zstd"),
    ] {
        let threads = std::num::NonZeroUsize::new(2).unwrap();
        let options = LayerOptions { compression, threads, tar: TarOptions::default(), format };
        let layer = write_layer(change_set(sample()), &options, &store, None).unwrap();
        assert_eq!(layer.descriptor.media_type().to_string(), media_type);
        assert_eq!(layer.diff_id.digest(), &diff_id, "{compression}");
        let mut tar = Vec::new();
        auto_decoder(store.open(&layer.descriptor).unwrap()).unwrap().1.read_to_end(&mut tar).unwrap();
        assert_eq!(Digest::of(&tar), diff_id);
    }
}

#[test]
fn a_large_layer_can_be_read_while_it_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let options = LayerOptions {
        compression: Compression::None,
        threads: std::num::NonZeroUsize::MIN,
        tar: TarOptions::default(),
        format: ManifestFormat::Oci,
    };
    let large = vec![7; usize::try_from(LARGE_BYTES).unwrap()];
    let write = |content: &[u8], broken: bool| {
        let mut changes = vec![Ok(Change::Upsert { path: PathBuf::from("a"), node: file(content) })];
        if broken {
            let source = std::io::ErrorKind::PermissionDenied.into();
            changes.push(Err(LayerError::Read { path: PathBuf::from("b"), source }));
        }
        let mut readers = Vec::new();
        let mut watch = |growing: Arc<Growing>| {
            readers.push(std::thread::spawn(move || {
                let mut bytes = Vec::new();
                growing.follow().read_to_end(&mut bytes).map(|_| bytes)
            }));
        };
        let layer = write_layer(Box::new(changes.into_iter()), &options, &store, Some(&mut watch));
        let read: Vec<_> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
        (layer, read)
    };
    let (layer, read) = write(&large, false);
    assert_eq!(read.len(), 1, "told once");
    assert!(store.read(&layer.unwrap().descriptor).unwrap() == *read[0].as_ref().unwrap());
    assert!(write(b"small", false).1.is_empty(), "not worth it");
    let (layer, read) = write(&large, true);
    assert!(layer.is_err() && read[0].is_err(), "half a layer has no end");
}

#[test]
fn a_layer_that_fails_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let options = LayerOptions {
        compression: Compression::gzip(),
        threads: std::num::NonZeroUsize::MIN,
        tar: TarOptions::default(),
        format: ManifestFormat::Oci,
    };
    let changes = vec![
        Ok(Change::Upsert { path: PathBuf::from("a"), node: file(b"fine") }),
        Err(LayerError::Read {
            path: PathBuf::from("b"),
            source: std::io::ErrorKind::PermissionDenied.into(),
        }),
    ];
    let error = write_layer(Box::new(changes.into_iter()), &options, &store, None).unwrap_err();
    assert_eq!(error.to_string(), "cannot read `b`");
    assert_eq!(std::fs::read_dir(dir.path().join("blobs/sha256")).unwrap().count(), 0);
}
