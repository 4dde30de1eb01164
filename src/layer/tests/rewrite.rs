//! Layers written anew with their times clamped.

use std::num::NonZeroUsize;

use super::*;
use crate::blob::{BlobSource as _, Store};
use crate::oci::ManifestFormat;
use crate::stream::{Compression, auto_decoder};

const SENTENCE: &[u8] = b"some content that is the same whoever wrote the archive\n";

/// The tar that a rewritten layer has.
fn rewritten(tar: &[u8], epoch: i64, threads: usize) -> (String, Vec<u8>) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let options = LayerOptions {
        compression: Compression::gzip(),
        threads: NonZeroUsize::new(threads).unwrap(),
        tar: TarOptions { epoch: Some(epoch) },
        format: ManifestFormat::Oci,
    };
    let layer = rewrite_layer(tar, &options, &store).unwrap();
    let (_, mut reader) = auto_decoder(store.open(&layer.descriptor).unwrap()).unwrap();
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).unwrap();
    assert_eq!(Digest::of(&bytes), *layer.diff_id.digest());
    (layer.descriptor.digest().to_string(), bytes)
}

fn entries(tar: &[u8]) -> Vec<(TarEntry, Vec<u8>)> {
    let mut reader = TarReader::new(tar);
    let mut found = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        let mut content = Vec::new();
        reader.read_to_end(&mut content).unwrap();
        found.push((entry, content));
    }
    found
}

#[test]
fn only_times_after_the_epoch_change() {
    let tar = raw_tar(&[
        ("z/", b'5', "", b""),
        ("z/.wh.gone", b'0', "", b""),
        ("z/file", b'0', "", SENTENCE),
        ("a", b'1', "z/file", b""),
        (&"long/".repeat(60), b'5', "", b""),
        ("pipe", b'6', "", b""),
    ]);
    assert!(is_newer(&tar[..], 1_599_999_999).unwrap());
    assert!(!is_newer(&tar[..], 1_600_000_000).unwrap());
    let (digest, clamped) = rewritten(&tar, 7, 1);
    let expected: Vec<(TarEntry, Vec<u8>)> = entries(&tar)
        .into_iter()
        .map(|(mut entry, content)| {
            entry.mtime.seconds = 7;
            (entry, content)
        })
        .collect();
    assert_eq!(entries(&clamped), expected, "order, names, kinds and contents stay");
    assert_eq!(rewritten(&tar, 7, 3), (digest, clamped.clone()), "threads do not show");
    assert_eq!(rewritten(&clamped, 7, 2).1, clamped, "what is canonical stays as it is");
}

#[test]
fn the_archiver_does_not_show() {
    let (dir, root) = temporary();
    for (name, content) in [("a", &b""[..]), ("b", SENTENCE), ("c", &SENTENCE.repeat(5000))] {
        std::io::Write::write_all(&mut root.create_file(name, 0o644).unwrap(), content).unwrap();
        root.set_mtime(name, Timestamp { seconds: 1_500_000_000, nanoseconds: 0 }).unwrap();
    }
    root.hard_link("b", "d").unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for format in ["gnu", "pax", "ustar", "oldgnu"] {
        let mut command = std::process::Command::new("tar");
        command.args(["-cf", "-", "--owner=someone:5", "--group=people:6", "--format", format]);
        let Ok(output) = command.args(["a", "b", "c", "d"]).current_dir(dir.path()).output() else { return };
        seen.insert(rewritten(&output.stdout, 1_400_000_000, 2).0);
    }
    assert_eq!(seen.len(), 1);
}

#[test]
fn a_damaged_layer_is_an_error() {
    let tar = raw_tar(&[("file", b'0', "", SENTENCE)]);
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let options = LayerOptions {
        compression: Compression::None,
        threads: NonZeroUsize::MIN,
        tar: TarOptions::default(),
        format: ManifestFormat::Oci,
    };
    for length in [100, 512, 520] {
        assert!(rewrite_layer(&tar[..length], &options, &store).is_err(), "cut to {length} bytes");
    }
}
