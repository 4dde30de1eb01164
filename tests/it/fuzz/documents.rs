//! Image documents from a registry or a layout: configs, manifests, indexes.

use std::collections::HashMap;
use std::io::{Cursor, Read};

use kiln::blob::{BlobError, BlobSource};
use kiln::oci::{
    Descriptor, Digest, ImageConfig, Platform, canonical_json, descriptor, descriptor_digest, media_type,
};
use kiln::output::{read_image, select_manifest};

use super::fuzz;
use super::input::{Input, Samples};

const CONFIG: &str = r#"{"architecture":"amd64","os":"linux","created":"2024-01-02T03:04:05.678Z","author":"a",
"config":{"User":"u","ExposedPorts":{"80/tcp":{}},"Env":["A=b","PATH=/bin"],"Entrypoint":["/x"],"Cmd":null,
"Volumes":{"/v":{}},"WorkingDir":"/w","Labels":{"l":"m"},"StopSignal":"TERM","OnBuild":["RUN x"],"Shell":["/s"],
"Healthcheck":{"Test":["CMD","x"],"Interval":1000000,"Retries":3},"Unknown":{"deep":[1,2.5,null]}},
"rootfs":{"type":"layers","diff_ids":["sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]},
"history":[{"created":"2024-01-02T03:04:05Z","created_by":"x","empty_layer":true},{"comment":"y"}],"more":1e300}"#;

const WORDS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "null",
    "true",
    "0",
    "-1",
    "1e999",
    "18446744073709551616",
    "\\u0000",
    "\\ud800",
    "\"config\"",
    "\"rootfs\"",
    "\"history\"",
    "\"diff_ids\"",
    "\"layers\"",
    "\"manifests\"",
    "\"digest\"",
    "\"size\"",
    "\"mediaType\"",
    "\"platform\"",
    "\"os\"",
    "\"architecture\"",
    "\"Env\"",
    "\"Cmd\"",
    "sha256:",
    "sha512:",
    "md5:d41d8cd98f00b204e9800998ecf8427e",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "{\"a\":",
    "[[[[[[[[[[[[[[[[",
];

/// The blobs of one made-up image.
struct Blobs(HashMap<Digest, Vec<u8>>);

impl Blobs {
    fn add(&mut self, media_type: &str, bytes: &[u8]) -> Descriptor {
        let digest = Digest::of(bytes);
        self.0.insert(digest.clone(), bytes.to_vec());
        descriptor(media_type, &digest, bytes.len() as u64)
    }
}

impl BlobSource for Blobs {
    fn open(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send>, BlobError> {
        let text: &str = descriptor.digest().as_ref();
        let digest: Digest = text.parse().map_err(|_| BlobError::Digest { digest: text.to_owned() })?;
        match self.0.get(&digest) {
            Some(bytes) => Ok(Box::new(Cursor::new(bytes.clone()))),
            None => Err(BlobError::NotFound { digest, place: "memory".to_owned() }),
        }
    }

    fn contains(&self, digest: &Digest) -> Result<bool, BlobError> {
        Ok(self.0.contains_key(digest))
    }
}

fn read(blobs: &Blobs, manifest: &Descriptor) {
    let Ok(image) = read_image(blobs, manifest) else { return };
    assert_eq!(Digest::of(&image.config_bytes), descriptor_digest(&image.config_descriptor));
    assert_eq!(image.config.rootfs.diff_ids.len(), image.layers.len());
    for layer in &image.layers {
        let _ = descriptor_digest(&layer.descriptor);
    }
}

#[test]
fn configs_lose_nothing() {
    fuzz("configs", 2000, &Samples::new([CONFIG], WORDS), |input: &Input| {
        let Ok(config) = serde_json::from_slice::<ImageConfig>(&input.0) else { return };
        let bytes = canonical_json(&config);
        let again: ImageConfig = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(again, config);
        assert_eq!(canonical_json(&again), bytes);
        let _ = config.platform().to_string();
    });
}

#[test]
fn manifests_and_indexes_are_read() {
    let mut blobs = Blobs(HashMap::new());
    let layer = blobs.add(&format!("{}+gzip", media_type::OCI_LAYER), b"layer");
    let config = blobs.add(media_type::OCI_CONFIG, CONFIG.as_bytes());
    let document = |kind: &str, content: serde_json::Value| {
        let mut document = serde_json::json!({ "schemaVersion": 2, "mediaType": kind });
        document.as_object_mut().unwrap().extend(content.as_object().unwrap().clone());
        canonical_json(&document)
    };
    let manifest =
        document(media_type::OCI_MANIFEST, serde_json::json!({ "config": config, "layers": [layer] }));
    let mut described = blobs.add(media_type::OCI_MANIFEST, &manifest);
    described.set_platform(Some(Platform::host().to_spec()));
    let index = document(media_type::OCI_INDEX, serde_json::json!({ "manifests": [described] }));
    let inner = blobs.add(media_type::OCI_INDEX, &index);
    let nested =
        String::from_utf8(document(media_type::OCI_INDEX, serde_json::json!({ "manifests": [inner] })))
            .unwrap()
            .replace("\"size\"", "\"platform\":{\"os\":\"linux\",\"architecture\":\"amd64\"},\"size\"");
    let sha512 = String::from_utf8(index.clone())
        .unwrap()
        .replace(&Digest::of(&manifest).to_string(), &format!("sha512:{}", "0".repeat(128)));
    let samples = Samples::new([manifest, index, nested.into_bytes(), sha512.into_bytes()], WORDS);
    let host = Platform::host();
    fuzz("manifests", 1000, &samples, |input| {
        let mut blobs = Blobs(blobs.0.clone());
        let manifest = blobs.add(media_type::OCI_MANIFEST, &input.0);
        read(&blobs, &manifest);
        for kind in [media_type::OCI_INDEX, media_type::DOCKER_LIST] {
            let index = blobs.add(kind, &input.0);
            if let Ok(manifest) = select_manifest(&blobs, &index, &host) {
                read(&blobs, &manifest);
            }
        }
    });
}
