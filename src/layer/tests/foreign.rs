//! Archives that other programs write and read: GNU tar and Python. Skipped where there is none.

use std::ffi::OsStr;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::process::Command;

use super::*;

fn run(program: &str, arguments: &[&str], directory: &Path) -> Option<Vec<u8>> {
    let output = Command::new(program).args(arguments).current_dir(directory).output().ok()?;
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {complaint}");
    Some(output.stdout)
}

/// Odd names, long names, links, holes.
fn sample() -> (tempfile::TempDir, Arc<RootDir>) {
    let (dir, root) = temporary();
    let long = "n".repeat(200);
    root.create_dir("dir", 0o755).unwrap();
    root.create_dir(format!("dir/{long}"), 0o755).unwrap();
    for name in [
        &b"plain"[..],
        b"new\nline",
        b"\xff\xfe raw",
        "umlaut \u{e4}".as_bytes(),
        format!("dir/{long}/{long}").as_bytes(),
    ] {
        let mut file = root.create_file(OsStr::from_bytes(name), 0o640).unwrap();
        file.write_all(name).unwrap();
    }
    root.symlink(Path::new(&"target/".repeat(30)), "long link").unwrap();
    root.symlink(Path::new("plain"), "link").unwrap();
    root.hard_link("plain", "same").unwrap();
    root.hard_link(format!("dir/{long}/{long}"), "same as long").unwrap();
    let mut file = root.create_file("sparse", 0o644).unwrap();
    for part in 0..12 {
        file.seek(SeekFrom::Start((part * 3 + 1) << 20)).unwrap();
        file.write_all(format!("part {part}").as_bytes()).unwrap();
    }
    file.set_len(40 << 20).unwrap();
    for entry in Walk::new(&root, "").unwrap() {
        root.set_mtime(entry.unwrap().path, Timestamp { seconds: 1_500_000_000, nanoseconds: 0 }).unwrap();
    }
    (dir, root)
}

#[test]
fn archives_of_gnu_tar_are_understood_in_every_format() {
    let (dir, root) = sample();
    let expected = list(&root);
    let names: Vec<String> = vec![".".to_owned()];
    for format in [
        &["--format=gnu"][..],
        &["--format=pax"],
        &["--format=gnu", "--sparse"],
        &["--format=pax", "--sparse", "--sparse-version=0.0"],
        &["--format=pax", "--sparse", "--sparse-version=0.1"],
        &["--format=pax", "--sparse", "--sparse-version=1.0"],
    ] {
        let mut arguments = vec!["-cf", "-", "--sort=name"];
        arguments.extend(format);
        arguments.extend(names.iter().map(String::as_str));
        let Some(tar) = run("tar", &arguments, dir.path()) else { return };
        let (_after_dir, after) = temporary();
        let applied = unpack(&tar, &after, &ARCHIVE).unwrap();
        assert!(applied.warnings.is_empty(), "{format:?}");
        assert_eq!(list(&after), expected, "{format:?}");
        if format.contains(&"--sparse") {
            assert!(tar.len() < 2 << 20, "{format:?}");
            assert!(is_hole(&after, "sparse"), "{format:?}: holes stay holes");
        }
    }
}

#[test]
fn gnu_tar_reads_ours() {
    let (dir, root) = sample();
    let (after_dir, after) = temporary();
    let archive = dir.path().parent().unwrap().join(format!("kiln-{}.tar", std::process::id()));
    std::fs::write(&archive, tar_of(&root)).unwrap();
    let unpacked = run("tar", &["-xpf", archive.to_str().unwrap()], after_dir.path());
    std::fs::remove_file(&archive).unwrap();
    if unpacked.is_some() {
        assert_eq!(list(&after), list(&root));
    }
}

#[test]
fn python_reads_ours() {
    let (dir, root) = sample();
    if is_root() {
        root.set_xattr("plain", OsStr::new("user.x"), b"a\nb").unwrap();
    }
    let archive = dir.path().parent().unwrap().join(format!("kiln-python-{}.tar", std::process::id()));
    std::fs::write(&archive, tar_of(&root)).unwrap();
    let script = "import sys, tarfile\n\
        for m in tarfile.open(sys.argv[1], errors='surrogateescape'):\n    \
        sys.stdout.buffer.write(b'%d %d %s\\0' % (m.size, m.mtime, m.name.encode('utf-8', 'surrogateescape')))";
    let output = run("python3", &["-c", script, archive.to_str().unwrap()], dir.path());
    std::fs::remove_file(&archive).unwrap();
    let Some(output) = output else { return };
    let found: Vec<&[u8]> = output.split(|byte| *byte == 0).filter(|line| !line.is_empty()).collect();
    let expected: Vec<Vec<u8>> = list(&root)
        .iter()
        .map(|(path, listed)| {
            let metadata = root.metadata(path).unwrap();
            let first =
                !listed.kind.contains("same as") || listed.kind.ends_with(&format!("as {}", path.display()));
            let size = if listed.kind.starts_with("file") && first { metadata.size_bytes } else { 0 };
            [format!("{size} 1500000000 ").as_bytes(), path.as_os_str().as_bytes()].concat()
        })
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn archives_of_python_are_understood() {
    let (dir, root) = sample();
    let script = "import sys, tarfile\n\
        f = {'v7': tarfile.USTAR_FORMAT, 'gnu': tarfile.GNU_FORMAT, 'pax': tarfile.PAX_FORMAT}[sys.argv[1]]\n\
        t = tarfile.open(fileobj=sys.stdout.buffer, mode='w|', format=f, encoding='utf-8', \
        errors='surrogateescape', pax_headers={'comment': 'global'} if sys.argv[1] == 'pax' else None)\n\
        t.add('.')\nt.close()";
    for format in ["gnu", "pax"] {
        let Some(tar) = run("python3", &["-c", script, format], dir.path()) else { return };
        let (_after_dir, after) = temporary();
        unpack(&tar, &after, &ARCHIVE).unwrap();
        assert_eq!(list(&after), list(&root), "{format}");
    }
}

#[test]
fn the_reader_fills_holes_with_zeros() {
    let (dir, root) = sample();
    let Some(tar) = run("tar", &["-cSf", "-", "--format=gnu", "sparse"], dir.path()) else { return };
    let mut reader = TarReader::new(&tar[..]);
    let entry = reader.next_entry().unwrap().unwrap();
    assert_eq!(entry.data.as_ref().map(Vec::len), Some(12));
    let mut content = Vec::new();
    reader.read_to_end(&mut content).unwrap();
    assert!(content == contents(&root, Path::new("sparse")));
    assert!(reader.next_entry().unwrap().is_none());
}
