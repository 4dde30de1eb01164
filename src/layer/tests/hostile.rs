//! Archives that want out, or want too much.

use super::*;

fn error_of(tar: &[u8], options: &ApplyOptions) -> String {
    let (_dir, root) = temporary();
    unpack(tar, &root, options).unwrap_err().to_string()
}

#[test]
fn names_that_climb_out_are_refused() {
    for name in ["../x", "a/../../x", "/../x", "..", "a/b/../../../x"] {
        for options in [LAYER, LOWER] {
            let error = error_of(&raw_tar(&[(name, b'0', "", b"x")]), &options);
            assert!(
                error.starts_with(&format!("archive entry `{name}` has a name that leads out")),
                "{error}"
            );
        }
    }
}

/// `ADD` takes an archive as if its destination were `/`, like Docker and BuildKit.
#[test]
fn names_in_an_archive_that_climb_stay_at_the_top() {
    for name in ["../x", "a/../../x", "/../x", "a/b/../../../x"] {
        let (dir, root) = temporary();
        unpack(&raw_tar(&[(name, b'0', "", b"1"), ("y", b'1', "../../x", b"")]), &root, &ARCHIVE).unwrap();
        assert_eq!(std::fs::read(dir.path().join("x")).unwrap(), b"1", "{name}");
        assert_eq!(std::fs::read(dir.path().join("y")).unwrap(), b"1", "{name}");
    }
}

#[test]
fn hard_links_that_climb_out_are_refused() {
    for target in ["../../etc/passwd", "..", "/../etc/passwd"] {
        let error = error_of(&raw_tar(&[("x", b'1', target, b"")]), &LAYER);
        assert!(error.contains("is a hard link to that leads out of the archive"), "{error}");
    }
    let error = error_of(&raw_tar(&[("x", b'1', "/", b"")]), &LAYER);
    assert_eq!(error, "archive entry `x` is a hard link to the root");
}

#[test]
fn links_lead_nowhere_outside() {
    let outside = tempfile::tempdir().unwrap();
    let outside_path = outside.path().to_str().unwrap();
    let climbing = format!("../../../../../../../..{outside_path}");
    for target in [outside_path, climbing.as_str()] {
        for options in [LAYER, LOWER, ARCHIVE] {
            let (_dir, root) = temporary();
            let tar = raw_tar(&[
                ("out", b'2', target, b""),
                ("out/file", b'0', "", b"x"),
                ("file", b'2', "out/target", b""),
                ("file", b'0', "", b"replaces the link"),
                ("hard", b'1', "out/file", b""),
            ]);
            unpack(&tar, &root, &options).unwrap();
            assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0, "{target}");
            let inside = Path::new(outside_path).strip_prefix("/").unwrap().join("file");
            assert_eq!(contents(&root, &inside), b"x", "links are followed inside the root");
            assert_eq!(metadata(&root, "hard").nlink, 2);
        }
    }
}

#[test]
fn a_link_is_never_written_through() {
    let outside = tempfile::tempdir().unwrap();
    let victim = outside.path().join("victim");
    std::fs::write(&victim, b"untouched").unwrap();
    let target = victim.to_str().unwrap();
    let (_dir, root) = temporary();
    for type_flag in [b'0', b'5', b'6', b'2'] {
        let tar = raw_tar(&[("link", b'2', target, b""), ("link", type_flag, "somewhere", b"")]);
        unpack(&tar, &root, &LAYER).unwrap();
    }
    assert_eq!(std::fs::read(&victim).unwrap(), b"untouched");
}

#[test]
fn loops_of_links_end() {
    let tar = raw_tar(&[("a", b'2', "b", b""), ("b", b'2', "a", b""), ("a/x", b'0', "", b"")]);
    for options in [LAYER, ARCHIVE] {
        assert_eq!(error_of(&tar, &options), "cannot unpack `a/x`");
    }
    let itself = raw_tar(&[("a", b'1', "a", b"")]);
    let (_dir, root) = temporary();
    assert!(unpack(&itself, &root, &LOWER).is_ok());
}

#[test]
fn whiteouts_of_nothing_are_refused() {
    for name in [".wh.", "d/.wh..", "d/.wh..."] {
        let error = error_of(&raw_tar(&[("d/", b'5', "", b""), (name, b'0', "", b"")]), &LAYER);
        assert!(error.ends_with("is a whiteout of no file"), "{name}: {error}");
    }
}

#[test]
fn the_root_is_not_an_entry() {
    for name in ["/", ".", "./", "a/.."] {
        let (_dir, root) = temporary();
        let before = root.metadata("").unwrap();
        unpack(&raw_tar(&[(name, b'5', "", b"")]), &root, &LAYER).unwrap();
        assert_eq!(root.metadata("").unwrap().mode, before.mode);
        let error = error_of(&raw_tar(&[(name, b'2', "/etc", b"")]), &LAYER);
        assert!(error.ends_with("would take the place of the root"), "{error}");
    }
}

#[test]
fn giant_extensions_are_refused_before_they_are_read() {
    for type_flag in [b'x', b'g', b'L', b'K'] {
        let mut tar = Vec::new();
        let header = header::Header {
            type_flag,
            name: b"x",
            link: b"",
            mode: 0,
            uid: 0,
            gid: 0,
            size_bytes: 1 << 32,
            mtime_seconds: 0,
            device: None,
        };
        header.write(BTreeMap::new(), &mut tar);
        let error = error_of(&tar, &LAYER);
        assert!(error.contains("extended header of 4294967296 bytes: expected at most"), "{error}");
    }
}

#[test]
fn many_extensions_for_one_entry_share_a_limit() {
    let mut record = Vec::new();
    super::super::pax::push_record(&mut record, b"SCHILY.xattr.user.x", &vec![b'v'; 300_000]);
    for type_flag in [b'x', b'g'] {
        let entries = vec![("p", type_flag, "", &record[..]); 5];
        let error = error_of(&raw_tar(&entries), &LAYER);
        assert!(error.contains("expected at most") || error.contains("global extended headers"), "{error}");
    }
}

#[test]
fn cut_archives_are_errors() {
    let whole = raw_tar(&[("a", b'0', "", &[1; 700]), ("b", b'0', "", b"2")]);
    for length in [1, 511, 513, 1000, 1024, 1100, 1536 + 100, 2048 + 5] {
        let (_dir, root) = temporary();
        assert!(unpack(&whole[..length], &root, &LAYER).is_err(), "cut to {length}");
    }
    // Between two entries an end is an end: many writers leave out the two blocks of zeros.
    for length in [0, 1536, 2560, 3072] {
        let (_dir, root) = temporary();
        assert!(unpack(&whole[..length], &root, &LAYER).is_ok(), "cut to {length}");
    }
}

#[test]
fn damaged_headers_are_errors() {
    let mut tar = raw_tar(&[("a", b'0', "", b"")]);
    tar[0] = b'b';
    assert!(error_of(&tar, &LAYER).starts_with("damaged archive at byte 0: header checksum mismatch"));
    assert!(error_of(&raw_tar(&[("a", b'Z', "", b"")]), &LAYER).contains("unknown entry type `Z`"));
    assert!(error_of(&raw_tar(&[("a", b'2', "", b"")]), &LAYER).contains("link without a target"));
    assert!(error_of(&raw_tar(&[("", b'0', "", b"")]), &LAYER).contains("the place of the root"));
    assert!(error_of(&[b'x'; 2048], &LAYER).contains("checksum is not a number"));
    for (key, value, problem) in [
        ("uid", "4294967295", "impossible uid"),
        ("gid", "18446744073709551616", "`gid` is not a number"),
        ("size", "x10", "`size` is not a number"),
        ("size", "9999999999999999999", "impossible size"),
        ("mtime", "1e9", "`mtime` is not a time"),
        ("path", "a\0b", "name with a zero byte"),
        ("GNU.sparse.major", "2", "unknown sparse form 2.0"),
        ("GNU.sparse.size", "9", "sparse map of 0 bytes of data where 5 are stored"),
    ] {
        let mut record = Vec::new();
        super::super::pax::push_record(&mut record, key.as_bytes(), value.as_bytes());
        let error = error_of(&raw_tar(&[("p", b'x', "", &record), ("a", b'0', "", b"12345")]), &LAYER);
        assert!(error.contains(problem), "{error}");
    }
    assert!(error_of(&raw_tar(&[("p", b'x', "", b"9 uid=99\n")]), &LAYER).contains("without an entry"));
}

#[test]
fn a_file_in_the_way_of_the_same_archive_is_an_error() {
    let tar = raw_tar(&[("a", b'0', "", b""), ("a/b", b'0', "", b"")]);
    for options in [LAYER, LOWER, ARCHIVE] {
        assert_eq!(error_of(&tar, &options), "cannot unpack `a/b`");
    }
}

#[test]
fn the_input_is_read_to_its_end() {
    let mut tar = raw_tar(&[("a", b'0', "", b"")]);
    tar.resize(tar.len() + 10_240, 0);
    let mut counting = crate::stream::HashingReader::new(&tar[..]);
    let (_dir, root) = temporary();
    apply_tar(TarReader::new(&mut counting), &root, Path::new(""), &LAYER).unwrap();
    assert_eq!(counting.size_bytes(), tar.len() as u64, "so that a verifying reader gets to its verdict");
}
