//! Archives: read, unpacked in all three ways, written again.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln::layer::{
    ApplyOptions, Change, Node, NodeKind, Owners, TarOptions, TarReader, Whiteouts, apply_tar, write_tar,
};
use kiln::tree::{FileKind, RootDir, Walk};

use super::fuzz;
use super::input::{Input, Samples};

const BLOCK: usize = 512;

/// A larger tree is not written again: holes would be written out.
const WRITTEN_LIMIT_BYTES: u64 = 1 << 20;

const WORDS: &[&str] = &[
    "../",
    "/",
    "/../../escape",
    "a/b/c",
    ".",
    "..",
    ".wh.",
    ".wh..wh..opq",
    ".wh.a",
    "\0",
    "ustar\x0000",
    "ustar  \0",
    "0000000\0",
    "7777777\0",
    "00000000010\0",
    "77777777777\0",
    "L",
    "K",
    "x",
    "g",
    "S",
    "1",
    "2",
    "5",
    "19 path=../escape\n",
    "13 size=1000\n",
    "20 linkpath=a/../..\n",
    "28 SCHILY.xattr.user.a=bcd\n",
    "22 GNU.sparse.major=1\n",
    "22 GNU.sparse.minor=0\n",
    "27 GNU.sparse.realsize=999\n",
    "20 mtime=1.99999999999\n",
    "1",
    " ",
    "\n",
];

struct Entry<'a> {
    name: &'a [u8],
    kind: u8,
    link: &'a [u8],
    content: &'a [u8],
}

fn entry<'a>(name: &'a str, kind: u8, link: &'a str, content: &'a [u8]) -> Entry<'a> {
    Entry { name: name.as_bytes(), kind, link: link.as_bytes(), content }
}

fn archive(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut tar = Vec::new();
    for entry in entries {
        let mut header = [0; BLOCK];
        header[..entry.name.len()].copy_from_slice(entry.name);
        header[100..108].copy_from_slice(b"0004755\0");
        header[108..116].copy_from_slice(b"0000012\0");
        header[116..124].copy_from_slice(b"0000034\0");
        header[124..136].copy_from_slice(format!("{:011o}\0", entry.content.len()).as_bytes());
        header[136..148].copy_from_slice(b"14000000000\0");
        header[156] = entry.kind;
        header[157..157 + entry.link.len()].copy_from_slice(entry.link);
        header[257..265].copy_from_slice(b"ustar\x0000");
        header[329..337].copy_from_slice(b"0000001\0");
        header[337..345].copy_from_slice(b"0000003\0");
        tar.extend_from_slice(&header);
        tar.extend_from_slice(entry.content);
        tar.resize(tar.len().next_multiple_of(BLOCK), 0);
    }
    tar.resize(tar.len() + 2 * BLOCK, 0);
    repair(&mut tar);
    tar
}

/// Makes the checksums right, header after header for as long as sizes lead from one to the next.
#[expect(clippy::ptr_arg, reason = "the type that samples name")]
fn repair(tar: &mut Vec<u8>) {
    let mut at = 0;
    while at + BLOCK <= tar.len() {
        let header = &mut tar[at..at + BLOCK];
        if header.iter().all(|byte| *byte == 0) {
            return;
        }
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let size = String::from_utf8_lossy(&header[124..136]);
        let size = usize::from_str_radix(size.trim_matches(['\0', ' ']), 8).unwrap_or(0);
        at = (at + BLOCK).saturating_add(size).checked_next_multiple_of(BLOCK).unwrap_or(usize::MAX - BLOCK);
    }
}

/// Extended header records, each with its length in front.
fn pax(records: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for record in records {
        let rest = record.len() + 2;
        let length = (rest + 1..).find(|length| rest + length.to_string().len() == *length).unwrap();
        bytes.extend_from_slice(format!("{length} ").as_bytes());
        bytes.extend_from_slice(record);
        bytes.push(b'\n');
    }
    bytes
}

fn samples() -> Samples {
    let long = format!("{}long", "deep/".repeat(60));
    let records = pax(&[b"SCHILY.xattr.user.a=bcd", b"path=a/pax\xc3\xa9\xff.x", b"mtime=-1.500"]);
    let sparse = pax(&[
        b"GNU.sparse.major=1",
        b"GNU.sparse.minor=0",
        b"GNU.sparse.name=a/sp",
        b"GNU.sparse.realsize=9999",
    ]);
    let globals = pax(&[b"uid=77"]);
    let mut map = b"2\n0\n3\n5000\n4\n".to_vec();
    map.resize(BLOCK, 0);
    map.extend_from_slice(b"abcdefg");
    let plain = archive(&[
        entry("a/", b'5', "", b""),
        entry("a/file", b'0', "", b"content"),
        entry("a/link", b'2', "../b", b""),
        entry("a/hard", b'1', "a/file", b""),
        entry("a/link/through", b'0', "", b"x"),
        entry("pipe", b'6', "", b""),
        entry("null", b'3', "", b""),
        entry("old", b'\0', "", b"v7"),
    ]);
    let layer = archive(&[
        entry("d/x", b'0', "", b"1"),
        entry("d/.wh.y", b'0', "", b""),
        entry("e/", b'5', "", b""),
        entry("e/.wh..wh..opq", b'0', "", b""),
        entry("e/z", b'0', "", b"2"),
        entry(".wh.gone", b'0', "", b""),
        entry("d", b'2', "e", b""),
        entry("d/z", b'0', "", b"3"),
    ]);
    let extended = archive(&[
        entry("././@LongLink", b'L', "", long.as_bytes()),
        entry("short", b'0', "", b"long name"),
        entry("././@LongLink", b'K', "", b"target/of/link\0"),
        entry("l", b'2', "", b""),
        entry("pax", b'x', "", &records),
        entry("replaced", b'0', "", b"pax"),
        entry("glob", b'g', "", &globals),
        entry("sparse", b'x', "", &sparse),
        entry("sp", b'0', "", &map),
    ]);
    let mut gnu = archive(&[entry("s", b'S', "", b"1234567")]);
    gnu[257..265].copy_from_slice(b"ustar  \0");
    for (field, text) in
        [(386, "00000000000"), (398, "00000000003"), (410, "00000010000"), (422, "00000000004")]
    {
        gnu[field..field + 11].copy_from_slice(text.as_bytes());
    }
    gnu[483..494].copy_from_slice(b"00000010004");
    repair(&mut gnu);
    let mut large = archive(&[entry("n", b'0', "", b"base 256")]);
    large[124..136].copy_from_slice(&[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8]);
    large[108..116].copy_from_slice(&[0x80, 0, 0, 0, 0, 0x7f, 0xff, 0xff]);
    repair(&mut large);
    Samples { repair, ..Samples::new([plain, layer, extended, gnu, large], WORDS) }
}

/// Reads every entry and the beginning of its content.
fn read_through(tar: &[u8]) {
    let mut reader = TarReader::new(tar);
    let mut entries = 0;
    while let Ok(Some(entry)) = reader.next_entry() {
        entries += 1;
        assert!(entries <= tar.len() / BLOCK);
        assert!(entry.mode <= 0o7777 && entry.mtime.nanoseconds < 1_000_000_000, "{entry:?}");
        let wanted = entry.size_bytes.min(1 << 16);
        let mut content = Vec::new();
        if (&mut reader).take(wanted).read_to_end(&mut content).is_ok() {
            assert_eq!(content.len() as u64, wanted, "{entry:?}");
        }
    }
}

/// Describes a tree; hard links by their first name.
fn list(root: &RootDir) -> BTreeMap<PathBuf, String> {
    let mut first: HashMap<(u64, u64), PathBuf> = HashMap::new();
    let mut listing = BTreeMap::new();
    for entry in Walk::new(root, "").unwrap() {
        let entry = entry.unwrap();
        let metadata = entry.metadata;
        let content = match metadata.kind {
            FileKind::File => root.read(&entry.path).unwrap().escape_ascii().to_string(),
            FileKind::Symlink => root.read_link(&entry.path).unwrap().display().to_string(),
            _ => String::new(),
        };
        let same = first.entry((metadata.dev, metadata.ino)).or_insert_with(|| entry.path.clone());
        let line = format!(
            "{:?} {content} {} {:o} {}:{} {} {:?}",
            metadata.kind,
            same.display(),
            if metadata.kind == FileKind::Symlink { 0 } else { metadata.mode },
            metadata.uid,
            metadata.gid,
            metadata.mtime.seconds,
            root.xattrs(&entry.path).unwrap(),
        );
        listing.insert(entry.path, line);
    }
    listing
}

/// The whole tree as changes; `None` if it is too large or has what no layer holds.
fn changes(root: &Arc<RootDir>) -> Option<Vec<Change>> {
    let mut first: HashMap<(u64, u64), PathBuf> = HashMap::new();
    let mut changes = Vec::new();
    let mut bytes = 0;
    for entry in Walk::new(root, "").unwrap() {
        let entry = entry.unwrap();
        let (path, metadata) = (entry.path, entry.metadata);
        bytes += metadata.size_bytes;
        if bytes > WRITTEN_LIMIT_BYTES {
            return None;
        }
        let mut node = Node::from_tree(root, path.clone(), &metadata).unwrap()?;
        if metadata.kind == FileKind::File && metadata.nlink > 1 {
            match first.get(&(metadata.dev, metadata.ino)) {
                Some(first) => node.kind = NodeKind::HardLink { target: first.clone() },
                None => drop(first.insert((metadata.dev, metadata.ino), path.clone())),
            }
        }
        changes.push(Change::Upsert { path, node });
    }
    Some(changes)
}

/// What an archive is unpacked beside; nothing of it may ever change.
struct Place {
    outside: tempfile::TempDir,
    witness: (u64, i64, i64, u32),
}

impl Place {
    fn new() -> Self {
        let outside = tempfile::tempdir().unwrap();
        std::fs::create_dir(outside.path().join("root")).unwrap();
        std::fs::write(outside.path().join("escape"), "witness").unwrap();
        let witness = Self::look(outside.path());
        Self { outside, witness }
    }

    fn look(outside: &Path) -> (u64, i64, i64, u32) {
        let metadata = std::fs::metadata(outside.join("escape")).unwrap();
        (metadata.ino(), metadata.ctime(), metadata.ctime_nsec(), metadata.mode())
    }

    fn root(&self) -> Arc<RootDir> {
        Arc::new(RootDir::open(&self.outside.path().join("root")).unwrap())
    }

    fn assert_untouched(&self) {
        let mut names: Vec<OsString> =
            std::fs::read_dir(self.outside.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["escape", "root"]);
        assert_eq!(Self::look(self.outside.path()), self.witness);
        assert!(!Path::new("/escape").exists());
    }
}

fn unpack(input: &Input, whiteouts: Whiteouts) {
    let is_root = rustix::process::geteuid().is_root();
    let owners = if is_root { Owners::Keep } else { Owners::KeepIfPossible };
    let options = ApplyOptions { whiteouts, owners };
    let place = Place::new();
    let root = place.root();
    let applied = apply_tar(TarReader::new(&input.0[..]), &root, Path::new(""), &options);
    place.assert_untouched();
    let Ok(applied) = applied else { return };
    assert!(applied.entries <= (input.0.len() / BLOCK) as u64);
    if whiteouts != Whiteouts::Apply || !applied.warnings.is_empty() {
        return;
    }
    // What was unpacked can be written, and unpacks to the same.
    let Some(changes) = changes(&root) else { return };
    let mut tar = Vec::new();
    write_tar(Box::new(changes.into_iter().map(Ok)), &TarOptions::default(), &mut tar).unwrap();
    let second = Place::new();
    apply_tar(TarReader::new(&tar[..]), &second.root(), Path::new(""), &options).unwrap();
    assert_eq!(list(&second.root()), list(&root));
}

#[test]
fn archives_are_unpacked() {
    let samples = samples();
    for sample in &samples.samples {
        let place = Place::new();
        let options = ApplyOptions { whiteouts: Whiteouts::Apply, owners: Owners::KeepIfPossible };
        apply_tar(TarReader::new(&sample[..]), &place.root(), Path::new(""), &options).unwrap();
    }
    fuzz("archives", 60, &samples, |input| {
        read_through(&input.0);
        for whiteouts in [Whiteouts::Apply, Whiteouts::Overlay { userxattr: false }, Whiteouts::Literal] {
            unpack(input, whiteouts);
        }
    });
}
