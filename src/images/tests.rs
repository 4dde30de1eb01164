//! Merging, without a registry.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::blob::{BlobError, BlobSource, Store};
use crate::oci::{Descriptor, Digest, Platform, descriptor, descriptor_digest, media_type};

/// Blobs in memory.
#[derive(Default, Clone)]
struct Memory(BTreeMap<Digest, Vec<u8>>);

impl BlobSource for Memory {
    fn open(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send>, BlobError> {
        let digest = descriptor_digest(descriptor);
        match self.0.get(&digest) {
            Some(bytes) => Ok(Box::new(Cursor::new(bytes.clone()))),
            None => Err(BlobError::NotFound { digest, place: "memory".to_owned() }),
        }
    }

    fn contains(&self, digest: &Digest) -> Result<bool, BlobError> {
        Ok(self.0.contains_key(digest))
    }
}

impl Memory {
    fn put(&mut self, kind: &str, value: &Value) -> Descriptor {
        let bytes = serde_json::to_vec(value).unwrap();
        let digest = Digest::of(&bytes);
        let described = descriptor(kind, &digest, bytes.len() as u64);
        self.0.insert(digest, bytes);
        described
    }

    /// An image; `content` makes it different from others.
    fn image(&mut self, platform: &str, content: &str) -> Descriptor {
        self.image_of(platform, content, media_type::OCI_MANIFEST, media_type::OCI_CONFIG)
    }

    fn image_of(&mut self, platform: &str, content: &str, kind: &str, config_kind: &str) -> Descriptor {
        let parsed: Platform = platform.parse().unwrap();
        let config = json!({
            "os": parsed.os, "architecture": parsed.architecture, "variant": parsed.variant,
            "rootfs": {"type": "layers", "diff_ids": []}, "config": {"Labels": {"content": content}},
        });
        let config = self.put(config_kind, &config);
        self.put(kind, &json!({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": []}))
    }

    fn index(&mut self, entries: &[(&Descriptor, &str)], annotations: Value) -> Descriptor {
        let entries: Vec<Value> = entries
            .iter()
            .map(|(entry, platform)| {
                let mut value = serde_json::to_value(entry).unwrap();
                if let Some((os, architecture)) = platform.split_once('/') {
                    value["platform"] = json!({"os": os, "architecture": architecture});
                }
                value
            })
            .collect();
        let index = json!({
            "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": entries,
            "annotations": annotations,
        });
        self.put(media_type::OCI_INDEX, &index)
    }

    fn origin(&self, name: &str, descriptor: &Descriptor) -> Origin {
        Origin::local(name, descriptor, Arc::new(self.clone()))
    }
}

fn sealed(merge: &Merge) -> Value {
    serde_json::from_slice(&merge.seal().unwrap().1).unwrap()
}

fn platforms(merge: &Merge) -> Vec<String> {
    merge.parts().iter().map(|part| part.platform().map_or("-".to_owned(), |p| p.to_string())).collect()
}

fn platform(text: &str) -> Platform {
    text.parse().unwrap()
}

#[test]
fn platforms_come_from_the_configs_and_nested_indexes_are_flattened() {
    let mut memory = Memory::default();
    let amd = memory.image("linux/amd64", "a");
    let arm = memory.image("linux/arm/v7", "b");
    let s390x = memory.image("linux/s390x", "c");
    let inner = memory.index(&[(&s390x, "linux/s390x")], json!({}));
    let outer = memory.index(&[(&inner, "")], json!({}));
    let mut merge = Merge::default();
    for (name, descriptor) in [("amd", &amd), ("arm", &arm), ("nested", &outer), ("amd again", &amd)] {
        merge.add(&memory.origin(name, descriptor), None, false).unwrap();
    }
    assert_eq!(platforms(&merge), ["linux/amd64", "linux/arm/v7", "linux/s390x"]);
    assert_eq!(sealed(&merge)["mediaType"], media_type::OCI_INDEX);
    assert!(matches!(Merge::default().seal(), Err(ImagesError::Empty)));
}

#[test]
fn two_images_for_one_platform_are_an_error_unless_one_replaces_the_other() {
    let mut memory = Memory::default();
    let (old, new) = (memory.image("linux/amd64", "old"), memory.image("linux/amd64", "new"));
    let arm = memory.image("linux/arm64", "c");
    let attestation = memory.put("application/vnd.oci.image.manifest.v1+json", &json!({"attested": 1}));
    let mut about = attestation.clone();
    let note = [("vnd.docker.reference.digest".to_owned(), old.digest().to_string())];
    about.set_annotations(Some(note.into()));
    let index = memory.index(
        &[(&old, "linux/amd64"), (&arm, "linux/arm64"), (&about, "unknown/unknown")],
        json!({"kept": "yes"}),
    );
    let mut merge = Merge::default();
    merge.add(&memory.origin("index", &index), None, false).unwrap();
    assert_eq!(merge.parts().len(), 3);
    let error = merge.add(&memory.origin("new", &new), None, false).unwrap_err();
    assert_eq!(error.to_string(), format!("`new` is for linux/amd64, and so is `index@{}`", old.digest()));
    merge.add(&memory.origin("new", &new), None, true).unwrap();
    // What was attached to the old image went with it; the order and the annotations stay.
    assert_eq!(platforms(&merge), ["linux/amd64", "linux/arm64"]);
    assert_eq!(merge.parts()[0].descriptor().digest(), new.digest());
    assert_eq!(sealed(&merge)["annotations"]["kept"], "yes");
    // A platform of one's own choice is no conflict.
    merge.add(&memory.origin("old", &old), Some(&platform("linux/amd64/v2")), false).unwrap();
    assert_eq!(merge.parts().len(), 3);
    assert!(merge.add(&memory.origin("index", &index), Some(&platform("linux/arm")), false).is_err());
}

#[test]
fn an_index_alone_stays_as_it_is() {
    let mut memory = Memory::default();
    let amd = memory.image("linux/amd64", "a");
    let index = memory.index(&[(&amd, "linux/amd64")], json!({"z": "1", "a": "2"}));
    let mut merge = Merge::default();
    merge.add(&memory.origin("index", &index), None, false).unwrap();
    assert_eq!(merge.seal().unwrap().0.digest(), index.digest());
    let arm = memory.image("linux/arm64", "b");
    merge.add(&memory.origin("arm", &arm), None, false).unwrap();
    assert_ne!(merge.seal().unwrap().0.digest(), index.digest());
}

#[test]
fn dockers_images_make_a_manifest_list_until_something_needs_annotations() {
    let mut memory = Memory::default();
    let docker = |memory: &mut Memory, platform: &str| {
        memory.image_of(platform, "d", media_type::DOCKER_MANIFEST, media_type::DOCKER_CONFIG)
    };
    let (amd, arm) = (docker(&mut memory, "linux/amd64"), docker(&mut memory, "linux/arm64"));
    let mut merge = Merge::default();
    merge.add(&memory.origin("amd", &amd), None, false).unwrap();
    merge.add(&memory.origin("arm", &arm), None, false).unwrap();
    assert_eq!(sealed(&merge)["mediaType"], media_type::DOCKER_LIST);
    let note = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
    let error = merge.annotate(&Scope::Manifest(None), &note).unwrap_err();
    assert!(matches!(error, ImagesError::NoAnnotations { .. }), "{error}");
    merge.annotate(&Scope::Index, &note).unwrap();
    assert_eq!(sealed(&merge)["mediaType"], media_type::OCI_INDEX);
    assert_eq!(sealed(&merge)["annotations"]["a"], "b");
}

#[test]
fn annotations_and_platforms_are_put_where_they_are_meant() {
    let mut memory = Memory::default();
    let (amd, arm) = (memory.image("linux/amd64", "a"), memory.image("linux/arm64", "b"));
    let mut merge = Merge::default();
    merge.add(&memory.origin("amd", &amd), None, false).unwrap();
    merge.add(&memory.origin("arm", &arm), None, false).unwrap();
    let note = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
    merge.annotate(&Scope::Entry(Some(platform("linux/arm64"))), &note).unwrap();
    assert!(merge.annotate(&Scope::Entry(Some(platform("linux/ppc64le"))), &note).is_err());
    let index = sealed(&merge);
    assert_eq!(index["manifests"][1]["annotations"]["a"], "b");
    assert!(index["manifests"][0]["annotations"].is_null());
    // A manifest with annotations is another manifest.
    merge.annotate(&Scope::Manifest(Some(platform("linux/amd64"))), &note).unwrap();
    let part = &merge.parts()[0];
    assert_ne!(part.descriptor().digest(), amd.digest());
    let manifest: Value = part.origin.document(part.descriptor(), "manifest").unwrap();
    assert_eq!(manifest["annotations"]["a"], "b");

    let change = PlatformChange {
        variant: Some("v8".to_owned()),
        os_version: Some("1.2".to_owned()),
        os_features: vec!["sse4".to_owned()],
        ..PlatformChange::default()
    };
    merge.find("linux/arm64").unwrap().change_platform(&change);
    let entry = sealed(&merge)["manifests"][1]["platform"].clone();
    let expected = json!({"os": "linux", "architecture": "arm64", "variant": "v8", "os.version": "1.2",
        "os.features": ["sse4"]});
    assert_eq!(entry, expected);
    let digits = arm.digest().to_string()["sha256:".len()..][..12].to_owned();
    let back = PlatformChange { variant: Some(String::new()), ..PlatformChange::default() };
    merge.find(&digits).unwrap().change_platform(&back);
    assert!(sealed(&merge)["manifests"][1]["platform"]["variant"].is_null());
    merge.remove(&digits).unwrap();
    assert_eq!(merge.parts().len(), 1);
    let error = merge.find("linux/arm64").err().unwrap();
    assert!(matches!(error, ImagesError::NoEntry { .. }), "{error}");
}

#[test]
fn an_index_that_is_here_in_part_is_not_passed_on() {
    let mut memory = Memory::default();
    let (amd, arm) = (memory.image("linux/amd64", "a"), memory.image("linux/arm64", "b"));
    let index = memory.index(&[(&amd, "linux/amd64"), (&arm, "linux/arm64")], json!({}));
    memory.0.remove(&descriptor_digest(&arm));
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let origin = memory.origin("index", &index);
    for error in [keep(&origin, &store).unwrap_err(), Merge::default().add(&origin, None, false).unwrap_err()]
    {
        assert_eq!(error.to_string(), "`index` is not complete: its image for linux/arm64 is not here");
    }
    // The part that is here is.
    keep(&origin.choose(&platform("linux/amd64")).unwrap(), &store).unwrap();
    assert!(store.has(&descriptor_digest(&amd)));
}

#[test]
fn a_corrupt_manifest_is_not_kept() {
    let mut memory = Memory::default();
    let amd = memory.image("linux/amd64", "a");
    let config: Value = serde_json::from_slice(&memory.0[&descriptor_digest(&amd)]).unwrap();
    let digest: Digest = config["config"]["digest"].as_str().unwrap().parse().unwrap();
    let length = memory.0[&digest].len();
    memory.0.insert(digest.clone(), vec![b' '; length]);
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    assert!(keep(&memory.origin("amd", &amd), &store).is_err());
    assert!(!store.has(&digest) && !store.has(&descriptor_digest(&amd)));
}
