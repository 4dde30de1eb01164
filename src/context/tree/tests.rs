use std::io::Write as _;
use std::path::PathBuf;

use super::*;

fn header(name: &str, kind: tar::EntryType, size: usize, mtime: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_path(name).unwrap();
    header.set_entry_type(kind);
    header.set_size(size as u64);
    header.set_mode(0o640);
    header.set_uid(4711);
    header.set_gid(4712);
    header.set_mtime(mtime);
    header.set_cksum();
    header
}

fn archive(files: &[(&str, &str, u64)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content, mtime) in files {
        let header = header(name, tar::EntryType::Regular, content.len(), *mtime);
        builder.append(&header, content.as_bytes()).unwrap();
    }
    builder.append(&header("dir/", tar::EntryType::Directory, 0, 9_000_000_000), io::empty()).unwrap();
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn open(bytes: &[u8]) -> (tempfile::TempDir, Result<Archive, ContextError>) {
    let dir = tempfile::tempdir().unwrap();
    let opened = open_stream(bytes, &dir.path().join("new/context"));
    (dir, opened)
}

fn tree(bytes: &[u8]) -> (tempfile::TempDir, ContextTree) {
    match open(bytes) {
        (dir, Ok(Archive::Tree(tree))) => (dir, tree),
        (_, other) => panic!("expected a tree, found {other:?}"),
    }
}

fn error(bytes: &[u8]) -> String {
    open(bytes).1.unwrap_err().to_string()
}

#[test]
fn archives_are_unpacked_in_every_compression() {
    let plain = archive(&[("Dockerfile", "FROM scratch", 5), ("a/.wh.b", "x", 7), ("z", "", 6)]);
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bzip2.write_all(&plain).unwrap();
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 0);
    xz.write_all(&plain).unwrap();
    let compressed = [
        gzip(&plain),
        zstd::encode_all(&plain[..], 1).unwrap(),
        bzip2.finish().unwrap(),
        xz.finish().unwrap(),
        plain,
    ];
    for bytes in compressed {
        let (_dir, tree) = tree(&bytes);
        assert_eq!(tree.root.read("Dockerfile").unwrap(), b"FROM scratch");
        assert_eq!(tree.root.read("a/.wh.b").unwrap(), b"x");
        assert_eq!(tree.time, Some(7));
        assert_eq!(tree.commit, None);
        assert!(tree.ignore.is_empty());
        assert_eq!(tree.warnings, Vec::<String>::new());
        let metadata = tree.root.metadata("Dockerfile").unwrap();
        assert_eq!((metadata.uid, metadata.mode & 0o777), (rustix::process::geteuid().as_raw(), 0o640));
    }
}

#[test]
fn an_empty_archive_is_an_empty_context() {
    let (_dir, tree) = tree(&[0; 1024]);
    assert_eq!(tree.root.read_dir("").unwrap(), Vec::<PathBuf>::new());
    assert_eq!(tree.time, None);
}

#[test]
fn the_writers_padding_is_read() {
    struct Counting<'a>(&'a [u8], &'a std::sync::atomic::AtomicUsize);
    impl Read for Counting<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.0.read(buffer)?;
            self.1.fetch_add(count, std::sync::atomic::Ordering::Relaxed);
            Ok(count)
        }
    }
    let mut bytes = archive(&[("a", "b", 1)]);
    bytes.resize(1 << 20, 0);
    let count = std::sync::atomic::AtomicUsize::new(0);
    let dir = tempfile::tempdir().unwrap();
    open_stream(Counting(&bytes, &count), dir.path()).unwrap();
    assert_eq!(count.into_inner(), bytes.len());
}

#[test]
fn everything_else_is_a_dockerfile() {
    for text in ["", "FROM scratch\n", &"# long\n".repeat(1000), "FROM caf\u{e9}"] {
        match open(text.as_bytes()).1 {
            Ok(Archive::Dockerfile(bytes)) => assert_eq!(bytes, text.as_bytes()),
            other => panic!("expected a Dockerfile, found {other:?}"),
        }
    }
    assert!(matches!(open(b"# caf\xe9\nFROM scratch").1, Ok(Archive::Dockerfile(_))));
    let limit = vec![b'#'; 1 << 20];
    assert!(matches!(open(&limit).1, Ok(Archive::Dockerfile(text)) if text.len() == 1 << 20));
}

#[test]
fn what_is_neither_is_refused() {
    let start = "the build context is neither a tar archive nor a Dockerfile: ";
    assert_eq!(error(&vec![b'#'; (1 << 20) + 1]), format!("{start}it is longer than 1 MiB"));
    assert_eq!(error(b"\x7fELF\0\0"), format!("{start}it is not text"));
    assert_eq!(error(&[0; 100]), format!("{start}it is not text"));
    assert_eq!(
        error(&gzip(b"FROM scratch")),
        format!("{start}there is no tar archive in its gzip compression")
    );
    let mut damaged = archive(&[("a", "b", 1)]);
    damaged[0] = b'z';
    assert_eq!(error(&damaged), format!("{start}it is not text"));
}

#[test]
fn a_cut_stream_is_an_error() {
    let bytes = gzip(&archive(&[("a", &"text".repeat(10_000), 1)]));
    for length in [12, bytes.len() / 2, bytes.len() - 1] {
        assert!(matches!(
            open(&bytes[..length]).1,
            Err(ContextError::Stream { .. } | ContextError::Unpack { .. })
        ));
    }
    assert!(open(&archive(&[("a", &"text".repeat(1000), 1)])[..1500]).1.is_err());
}

#[test]
fn headers_are_told_by_their_checksum() {
    let bytes = archive(&[("a", "b", 1)]);
    assert!(is_tar_block(&bytes[..512]));
    assert!(!is_tar_block(&bytes[..511]));
    assert!(!is_tar_block(&[b' '; 512]));
    assert!(!is_tar_block(&[b'0'; 512]));
    let mut latin = tar::Header::new_old();
    latin.as_mut_bytes()[0] = 0xe9;
    latin.set_cksum();
    assert!(is_tar_block(latin.as_bytes()));
}

#[test]
fn directories_are_taken_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open_directory(dir.path(), Arc::new(Ignore::none())).unwrap();
    assert_eq!((opened.time, opened.commit), (None, None));
    let error = open_directory(&dir.path().join("missing"), Arc::new(Ignore::none())).unwrap_err();
    assert!(error.to_string().starts_with("cannot open the build context `/"));
}
