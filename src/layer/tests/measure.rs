//! Measurements, to be run by hand:
//! `cargo test --release --lib layer::tests::measure -- --ignored --nocapture --test-threads 1`.

use std::io::{self, Write as _};
use std::time::Instant;

use super::*;
use crate::blob::Store;
use crate::oci::ManifestFormat;
use crate::stream::Compression;

fn small_files(root: &RootDir, count: usize) {
    for directory in 0..count / 100 {
        root.create_dir(format!("d{directory}"), 0o755).unwrap();
        for number in 0..100 {
            let mut file = root.create_file(format!("d{directory}/f{number}"), 0o644).unwrap();
            file.write_all(format!("file {number} of {directory}\n").repeat(200).as_bytes()).unwrap();
        }
    }
}

#[test]
#[ignore = "a measurement"]
fn small_files_there_and_back() {
    let (_dir, root) = temporary();
    small_files(&root, 30_000);
    let start = Instant::now();
    let mut tar = Vec::new();
    write_tar(changes(&root), &TarOptions::default(), &mut tar).unwrap();
    println!("30,000 files, {} MB: walk and tar {:?}", tar.len() / 1_000_000, start.elapsed());
    for (name, options) in [("merged", LAYER), ("lower", LOWER), ("archive", ARCHIVE)] {
        let (_after_dir, after) = temporary();
        let start = Instant::now();
        unpack(&tar, &after, &options).unwrap();
        println!("unpacked as {name}: {:?}", start.elapsed());
    }
    store(&root, "30,000 small files");
}

/// `KILN_MEASURE=/usr/lib`
#[test]
#[ignore = "a measurement"]
fn a_tree_into_the_store() {
    let Some(path) = std::env::var_os("KILN_MEASURE") else { return };
    let root = Arc::new(RootDir::open(Path::new(&path)).unwrap());
    write_tar(changes(&root), &TarOptions::default(), &mut io::sink()).unwrap();
    let start = Instant::now();
    write_tar(changes(&root), &TarOptions::default(), &mut io::sink()).unwrap();
    println!("walk and tar alone: {:?}", start.elapsed());
    store(&root, "the tree");
    let tar = tar_of(&root);
    let (_after_dir, after) = temporary();
    let start = Instant::now();
    let applied = unpack(&tar, &after, &LOWER).unwrap();
    println!("unpack {} entries, {} MB: {:?}", applied.entries, tar.len() / 1_000_000, start.elapsed());
}

fn store(root: &Arc<RootDir>, what: &str) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    for compression in [Compression::None, Compression::gzip(), Compression::zstd()] {
        let threads = std::thread::available_parallelism().unwrap();
        let options =
            LayerOptions { compression, threads, tar: TarOptions::default(), format: ManifestFormat::Oci };
        let start = Instant::now();
        let layer = write_layer(changes(root), &options, &store, None).unwrap();
        let size = layer.descriptor.size() / 1_000_000;
        println!("{what} into a layer, {compression}: {:?}, {size} MB", start.elapsed());
    }
}
