//! Small images made of tars, compared.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::*;
use crate::blob::Store;
use crate::layer::{Change, Content, LayerOptions, Node, NodeKind, TarOptions, write_layer};
use crate::oci::{History, ImageConfig, ManifestFormat};
use crate::stream::Compression;
use crate::tree::Timestamp;

/// A store that several images share.
struct Shop {
    _directory: tempfile::TempDir,
    store: Arc<Store>,
}

fn shop() -> Shop {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    Shop { _directory: directory, store }
}

/// `path=content`, `path/` for a directory, `-path` for a removal, `path//` for a directory that hides all below;
/// `path@seconds=content` has a time, `path>target` is a symlink.
fn change(text: &str) -> Change {
    let node = |kind, mode, seconds| Node {
        kind,
        mode,
        uid: 0,
        gid: 0,
        mtime: Timestamp { seconds, nanoseconds: 0 },
        xattrs: BTreeMap::new(),
    };
    if let Some(path) = text.strip_prefix('-') {
        return Change::Remove { path: path.into() };
    }
    if let Some(path) = text.strip_suffix("//") {
        return Change::Opaque { path: path.into() };
    }
    if let Some(path) = text.strip_suffix('/') {
        return Change::Upsert { path: path.into(), node: node(NodeKind::Directory, 0o755, 0) };
    }
    if !text.contains('=')
        && let Some((path, target)) = text.split_once('>')
    {
        let kind = NodeKind::Symlink { target: target.into() };
        return Change::Upsert { path: path.into(), node: node(kind, 0o777, 0) };
    }
    let (path, content) = text.split_once('=').unwrap();
    let (path, seconds) = path.split_once('@').unwrap_or((path, "0"));
    let bytes: Arc<[u8]> = content.as_bytes().into();
    let kind = NodeKind::File { size_bytes: bytes.len() as u64, content: Content::Bytes(bytes) };
    Change::Upsert { path: path.into(), node: node(kind, 0o644, seconds.parse().unwrap()) }
}

impl Shop {
    fn layer(&self, changes: &[&str], compression: Compression) -> Layer {
        let options = LayerOptions {
            compression,
            threads: NonZeroUsize::MIN,
            tar: TarOptions::default(),
            format: ManifestFormat::Oci,
        };
        let changes: Vec<Change> = changes.iter().map(|text| change(text)).collect();
        write_layer(Box::new(changes.into_iter().map(Ok)), &options, &self.store, None).unwrap()
    }

    fn image(&self, layers: &[&[&str]]) -> Subject {
        let layers: Vec<Layer> =
            layers.iter().map(|changes| self.layer(changes, Compression::gzip())).collect();
        self.of_layers(layers, |_| {})
    }

    fn of_layers(&self, layers: Vec<Layer>, shape: impl Fn(&mut ImageConfig)) -> Subject {
        let history = (1..=layers.len())
            .map(|number| History { created_by: Some(format!("step {number}")), ..History::default() });
        let mut config = ImageConfig { history: history.collect(), ..ImageConfig::default() };
        shape(&mut config);
        let image = Image::seal(config, layers, ManifestFormat::Oci, BTreeMap::new());
        Subject { image, blobs: self.store.clone() }
    }
}

/// The differing paths as `-path`, `+path` and `path: field field`.
fn shown(changes: &[PathChange]) -> Vec<String> {
    let fields = |change: &PathChange| {
        change.fields.iter().map(|field| field.name.clone()).collect::<Vec<_>>().join(" ")
    };
    let line = |change: &PathChange| match change.side {
        Side::First => format!("-{}", change.path.display()),
        Side::Second => format!("+{}", change.path.display()),
        Side::Both => format!("{}: {}", change.path.display(), fields(change)),
    };
    changes.iter().map(line).collect()
}

fn tree(first: &[&[&str]], second: &[&[&str]]) -> Vec<String> {
    let shop = shop();
    shown(&compare_images(&shop.image(first), &shop.image(second)).unwrap().paths)
}

#[test]
fn equal_images_have_no_difference() {
    let shop = shop();
    let image = shop.image(&[&["a=1"], &["b=2"]]);
    let diff = compare_images(&image, &image).unwrap();
    assert!(diff.same && diff.paths.is_empty() && diff.config.is_empty() && diff.history.is_empty());
    assert!(diff.layers.iter().all(|layer| layer.likeness == Likeness::Same));
}

#[test]
fn layers_that_both_have_are_not_read() {
    let shop = shop();
    let (first, second) = (shop.image(&[&["base=1"], &["a=1"]]), shop.image(&[&["base=1"], &["a=2"]]));
    std::fs::remove_file(shop.store.blob_path(&first.image.layers[0].digest())).unwrap();
    let diff = compare_images(&first, &second).unwrap();
    assert_eq!(shown(&diff.paths), ["a: content"]);
    assert_eq!(diff.layers[1].created_by, "step 2");
    assert_eq!(diff.layers[1].likeness, Likeness::Entries);
}

#[test]
fn every_field_of_an_entry_counts() {
    let one = &["d/", "d/f=one"][..];
    assert_eq!(tree(&[one], &[&["d/", "d/f=three"]]), ["d/f: size content"]);
    assert_eq!(tree(&[one], &[&["d/", "d/f@5=one"]]), ["d/f: mtime"]);
    assert_eq!(tree(&[one], &[&["d/", "d/f>one"]]), ["d/f: type mode size content target"]);
    assert_eq!(tree(&[&["l>a"]], &[&["l>b"]]), ["l: target"]);
    assert_eq!(tree(&[one], &[&["d/"]]), ["-d/f"]);
    assert_eq!(tree(&[&["d/"]], &[one]), ["+d/f"]);
}

#[test]
fn layers_come_to_a_tree() {
    let base = &["d/", "d/a=1", "d/b=2", "e=3"][..];
    // However it came about, the same tree is no difference.
    assert!(tree(&[base, &["d/", "-d/a"]], &[base, &["d/", "d//", "d/b=2"]]).is_empty());
    assert!(tree(&[base, &["-d"], &["d/", "d/a=1", "d/b=2"]], &[base]).is_empty());
    assert!(tree(&[&["a=1"], &["a=2"]], &[&["a=2"]]).is_empty());
    // What the common layers have shows through, and is hidden.
    assert_eq!(tree(&[base, &["-d"]], &[base]), ["+d", "+d/a", "+d/b"]);
    assert_eq!(tree(&[base], &[base, &["d=file"]]), ["d: type mode size content", "-d/a", "-d/b"]);
    assert_eq!(tree(&[base, &["e=9"]], &[base]), ["e: content"]);
    assert_eq!(tree(&[base, &["d/", "d//"]], &[base, &["-e"]]), ["+d/a", "+d/b", "-e"]);
    assert_eq!(tree(&[base, &["x=1"], &["y=1"]], &[base, &["x=2"], &["y=1"]]), ["x: content"]);
    // A later common layer takes away what an earlier one had.
    let replaced = &["d>elsewhere"][..];
    assert_eq!(tree(&[base, replaced, &["-d"]], &[base, replaced]), ["+d"]);
}

#[test]
fn the_form_and_the_compression_of_a_layer_are_told_apart() {
    let shop = shop();
    let of = |layer| shop.of_layers(vec![layer], |_| {});
    let (gzip, zstd) = (Compression::gzip(), Compression::zstd());
    let diff = compare_images(&of(shop.layer(&["a=1"], gzip)), &of(shop.layer(&["a=1"], zstd))).unwrap();
    assert_eq!(diff.layers[0].likeness, Likeness::Compression);
    assert!(!diff.same && diff.paths.is_empty());
    // The same entries in another order.
    let mut reordered = tar::Builder::new(Vec::new());
    for name in ["b", "a"] {
        let mut header = tar::Header::new_ustar();
        header.set_size(1);
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        reordered.append_data(&mut header, name, &b"1"[..]).unwrap();
    }
    let bytes = reordered.into_inner().unwrap();
    let digest = shop.store.put(&bytes).unwrap();
    let descriptor = crate::oci::descriptor(crate::oci::media_type::OCI_LAYER, &digest, bytes.len() as u64);
    let other = Layer { descriptor, diff_id: crate::oci::DiffId::new(digest) };
    let diff = compare_images(&of(shop.layer(&["a=1", "b=1"], gzip)), &of(other)).unwrap();
    assert_eq!(diff.layers[0].likeness, Likeness::Form);
}

#[test]
fn stacks_of_other_heights_are_paired_from_both_ends() {
    let shop = shop();
    let first = shop.image(&[&["base=1"], &["top=1"]]);
    let second = shop.image(&[&["base=1"], &["new=1"], &["top=1"]]);
    let diff = compare_images(&first, &second).unwrap();
    let likeness: Vec<Likeness> = diff.layers.iter().map(|layer| layer.likeness).collect();
    assert_eq!(likeness, [Likeness::Same, Likeness::Alone(Side::Second), Likeness::Same]);
    assert_eq!(shown(&diff.paths), ["+new"]);
}

#[test]
fn documents_are_compared_by_field() {
    let shop = shop();
    let image = |env: &[&str], created: &str| {
        shop.of_layers(vec![shop.layer(&["a=1"], Compression::None)], |config| {
            config.config.env = env.iter().map(|entry| (*entry).to_owned()).collect();
            config.created = Some(created.to_owned());
            config.history[0].created = Some(created.to_owned());
        })
    };
    let diff = compare_images(&image(&["A=1", "B=2"], "then"), &image(&["A=9"], "now")).unwrap();
    let names: Vec<&str> = diff.config.iter().map(|field| field.name.as_str()).collect();
    assert_eq!(names, ["config.Env.A", "config.Env.B", "created"]);
    assert_eq!(diff.config[1].after, None);
    let turned = compare_images(&image(&["A=1", "B=2"], "then"), &image(&["B=2", "A=1"], "then")).unwrap();
    assert_eq!(turned.config[0].name, "config.Env (order)");
    assert_eq!(
        diff.history,
        [FieldChange { name: "1".into(), before: Some("then".into()), after: Some("now".into()) }]
    );
}

#[test]
fn a_missing_layer_is_an_error_that_names_it() {
    let shop = shop();
    let (first, second) = (shop.image(&[&["a=1"]]), shop.image(&[&["a=2"]]));
    std::fs::remove_file(shop.store.blob_path(&first.image.layers[0].digest())).unwrap();
    assert!(matches!(compare_images(&first, &second), Err(CompareError::Blob { .. })));
}

/// The contrast of one file in two layers.
fn contrasted(path: &str, first: &str, second: &str) -> (PathChange, Option<Contrast>) {
    let shop = shop();
    let image = |content: &str| shop.image(&[&[&format!("{path}={content}")]]);
    let (first, second) = (image(first), image(second));
    let change = compare_images(&first, &second).unwrap().paths.remove(0);
    let layers = (&first.image.layers[0], &second.image.layers[0]);
    let found = contrast(Path::new(path), (&first, layers.0), (&second, layers.1)).unwrap();
    (change, found)
}

#[test]
fn the_first_difference_is_found_wherever_it_is() {
    let long = "0123456789".repeat(100_000);
    for (first, second, offset) in [
        ("same x".to_owned(), "same y".to_owned(), 5),
        ("short".to_owned(), "short and more".to_owned(), 5),
        (String::new(), "x".to_owned(), 0),
        (format!("{long}a"), format!("{long}b"), 1_000_000),
        (format!("{long}a{long}"), format!("{long}b{long}"), 1_000_000),
    ] {
        let found = contrasted("f", &first, &second).1.unwrap();
        assert_eq!(found.offset, offset);
        let around = |which: usize| &found.around[which][found.before..];
        assert_eq!(around(0).first(), first.as_bytes().get(offset as usize));
        assert_eq!(around(1).first(), second.as_bytes().get(offset as usize));
    }
    let shop = shop();
    let image = shop.image(&[&["f=1"]]);
    let place = (&image, &image.image.layers[0]);
    assert_eq!(contrast(Path::new("f"), place, place).unwrap(), None);
    assert_eq!(contrast(Path::new("missing"), place, place).unwrap(), None);
}

#[test]
fn usual_causes_are_recognised() {
    let zip = |text: &str| format!("PK\u{3}\u{4}{text}");
    let cases: &[(&str, &str, &str, &str)] = &[
        ("usr/lib/python3/__pycache__/a.cpython-312.pyc", "a", "b", "Python"),
        ("var/log/apt/history.log", "a", "b", "apt and dpkg"),
        ("var/log/dpkg.log", "a", "b", "apt and dpkg"),
        ("var/lib/apt/lists/x_Release", "a", "b", "its mirror"),
        ("var/lib/dpkg/status", "a", "b", "package database"),
        ("etc/machine-id", "a", "b", "machine id"),
        ("etc/ssh/ssh_host_rsa_key", "a", "b", "host keys"),
        ("var/cache/ldconfig/aux-cache", "a", "b", "ldconfig"),
        ("etc/shadow", "root:*:1", "root:*:2", "password"),
        ("opt/app.jar", &zip("one"), &zip("two"), "zip"),
        ("lib.a", "!<arch>\none", "!<arch>\ntwo", "ar writes"),
        ("app", "\u{7f}ELF..Nov 20 2026..", "\u{7f}ELF..Nov 21 2026..", "a time in a binary"),
        ("app", "\u{7f}ELF../tmp/ccAAAAAA.o", "\u{7f}ELF../tmp/ccBBBBBB.o", "temporary directory"),
        ("app", "\u{7f}ELFa", "\u{7f}ELFb", "linked differently"),
        ("list", "b\na\nc\n", "a\nb\nc\n", "another order"),
        ("stamp", "Sat Nov 21 15:00:01 UTC 2026\n", "Sat Nov 21 15:00:03 UTC 2026\n", "time of the build"),
        ("stamp", "built 1795273201\n", "built 1795273203\n", "time of the build"),
        (
            "stamp",
            "{\"at\":\"2026-11-21T15:00:01Z\"}",
            "{\"at\":\"2026-11-21T15:00:03Z\"}",
            "time of the build",
        ),
        ("id", "6f2b1a52-6c0e-4b0e-9a44-0123456789ab\n", "0d4c3a52-1c0e-4b0e-8a44-ba9876543210\n", "a UUID"),
        ("token", "secret=9f86d081884c7d659a2f\n", "secret=60303ae22b998861bce3\n", "random bytes"),
        ("log", "in /tmp/tmp.AbCdEf1\n", "in /tmp/tmp.XyZuVw2\n", "temporary file"),
    ];
    for (path, first, second, expected) in cases {
        let (change, contrast) = contrasted(path, first, second);
        let evidence = Evidence { change: &change, contrast: contrast.as_ref() };
        let found = usual_cause(&evidence);
        assert!(found.is_some_and(|cause| cause.what.contains(expected)), "{path} {first:?}: {found:?}");
    }
    // gzip's header, whose bytes are no text.
    let mut heads = [vec![0x1f, 0x8b, 8, 0], vec![0x1f, 0x8b, 8, 0]];
    heads[0].extend([1, 2, 3, 4]);
    heads[1].extend([9, 2, 3, 4]);
    let change = PathChange { path: PathBuf::from("a.gz"), side: Side::Both, fields: Vec::new() };
    let contrast = Contrast { offset: 4, around: heads.clone(), heads, before: 4 };
    let found = usual_cause(&Evidence { change: &change, contrast: Some(&contrast) });
    assert!(found.unwrap().what.contains("gzip"));
}

#[test]
fn a_difference_without_a_usual_cause_has_none() {
    let (change, contrast) = contrasted("etc/app.conf", "colour=red\n", "colour=blue\n");
    assert_eq!(usual_cause(&Evidence { change: &change, contrast: contrast.as_ref() }), None);
    let shop = shop();
    let diff = compare_images(&shop.image(&[&["a=1"]]), &shop.image(&[&["a=1", "tmp.X1Y2Z3=1"]])).unwrap();
    let change = &diff.paths[0];
    let cause = usual_cause(&Evidence { change, contrast: None }).unwrap();
    assert!(cause.what.contains("temporary file"));
    let time = PathChange {
        path: "f".into(),
        side: Side::Both,
        fields: vec![FieldChange { name: "mtime".into(), before: None, after: None }],
    };
    assert!(usual_cause(&Evidence { change: &time, contrast: None }).unwrap().what.contains("time"));
}
