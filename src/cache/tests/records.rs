//! Records as artifacts, and what is refused of them.

use super::*;

#[test]
fn a_record_survives_its_artifact() {
    let mut odd = file("x");
    odd.path =
        std::path::PathBuf::from(<std::ffi::OsString as std::os::unix::ffi::OsStringExt>::from_vec(vec![
            b'\xff', b'"',
        ]));
    odd.kind = FileKind::BlockDevice(Device { major: 8, minor: 1 });
    let many: Vec<FileInput> = (0..300).map(|n| file(&format!("f{n}"))).chain([odd]).collect();
    for files in [vec![file("a")], many] {
        let mut record = record("make", b"layer");
        record
            .inputs
            .0
            .push(Input { name: "more".to_owned(), value: InputValue::Files(FileInputs::new(files)) });
        let (artifact, config) = seal(&record);
        let parsed = Artifact::parse(&artifact.seal().1).unwrap();
        let header = read_header(&parsed).unwrap();
        assert_eq!(read_record(&header, &config).unwrap(), record);
        // It is an image too.
        let image: crate::oci::ImageConfig = serde_json::from_slice(&config).unwrap();
        assert_eq!(image.rootfs.diff_ids, [record.layer.diff_id]);
    }
}

#[test]
fn long_lists_of_files_are_left_out_of_records() {
    let mut record = record("make", b"layer");
    let files = FileInputs::new((0..=MOST_FILES_KEPT).map(|n| file(&format!("f{n}"))).collect());
    record.inputs = Inputs(vec![Input { name: "files".to_owned(), value: InputValue::Files(files.clone()) }]);
    let (artifact, config) = seal(&record);
    let read = read_record(&read_header(&artifact).unwrap(), &config).unwrap();
    let Some(InputValue::Files(read)) = read.inputs.get("files") else { panic!() };
    assert_eq!((read.tree(), read.count()), (files.tree(), files.count()));
    assert!(read.files().is_none() && files.files().is_some());
}

/// A change to an artifact.
type Poison = Box<dyn Fn(&mut Artifact)>;

/// What somebody who may write to the cache could put there.
fn poisons() -> Vec<(&'static str, Poison)> {
    let annotation = |name: &'static str, value: &'static str| -> Poison {
        Box::new(move |artifact| drop(artifact.annotations.insert(name.to_owned(), value.to_owned())))
    };
    let lose =
        |name: &'static str| -> Poison { Box::new(move |artifact| drop(artifact.annotations.remove(name))) };
    vec![
        ("another type", Box::new(|a| a.artifact_type = "application/vnd.x".to_owned())),
        ("no layer", Box::new(|a| a.layers.clear())),
        ("two layers", Box::new(|a| a.layers.push(a.layers[0].clone()))),
        (
            "a foreign layer",
            Box::new(|a| {
                a.layers[0].set_media_type("text/html".into());
            }),
        ),
        (
            "an empty layer",
            Box::new(|a| {
                a.layers[0].set_size(0);
            }),
        ),
        (
            "a layer elsewhere",
            Box::new(|a| {
                a.layers[0].set_urls(Some(vec!["http://x".to_owned()]));
            }),
        ),
        (
            "another digest",
            Box::new(|a| {
                let other = format!("sha512:{}", "0".repeat(128)).parse().unwrap();
                a.layers[0].set_digest(other);
            }),
        ),
        ("no config", Box::new(|a| a.config = None)),
        (
            "a foreign config",
            Box::new(|a| {
                a.config.as_mut().unwrap().set_media_type("text/html".into());
            }),
        ),
        (
            "a huge config",
            Box::new(|a| {
                a.config.as_mut().unwrap().set_size(1 << 40);
            }),
        ),
        ("no key", lose("kiln.cache.key")),
        ("no parent", lose("kiln.cache.parent")),
        ("no diff id", lose("kiln.cache.diff-id")),
        ("a key that is none", annotation("kiln.cache.key", "x")),
        ("a diff id that is none", annotation("kiln.cache.diff-id", "sha256:00")),
        ("a time that is none", annotation("kiln.cache.created", "yesterday")),
        ("sources that are none", annotation("kiln.cache.sources", "[[1]]")),
    ]
}

#[test]
fn what_no_kiln_would_have_written_is_refused() {
    let (artifact, _) = seal(&record("make", b"layer"));
    read_header(&artifact).unwrap();
    for (name, poison) in poisons() {
        let mut poisoned = artifact.clone();
        poison(&mut poisoned);
        assert!(read_header(&poisoned).is_err(), "{name}");
    }
}

#[test]
fn a_config_of_another_record_is_refused() {
    let (artifact, _) = seal(&record("make", b"layer"));
    let header = read_header(&artifact).unwrap();
    for other in [record("other", b"layer"), record("make", b"another layer")] {
        assert!(read_record(&header, &seal(&other).1).unwrap_err().contains("different records"));
    }
    assert!(read_record(&header, b"{}").is_err());
    assert!(read_record(&header, b"{\"kiln.cache.record.zstd\":\"AAAA\"}").is_err());
}
