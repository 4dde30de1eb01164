//! Records as OCI artifacts: a manifest that tells all a hit needs, and a config that tells the rest.
//!
//! The manifest's annotations say what [`Found`](super::Found) says, so that a hit costs one request. Its one layer is
//! the record's. Its config is a valid image config of that one layer with the whole record inside: a record is
//! also an image, because that is what every registry takes, also those that refuse config types they do not know.
//!
//! What comes from outside is checked here, in one place for all kinds of caches.

use std::collections::BTreeMap;
use std::io::Read as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

use super::inputs::Inputs;
use super::key::{Chain, Key, StepName};
use super::record::Record;
use crate::oci::{Descriptor, DiffId, Digest, Layer, Platform, canonical_json, descriptor, media_type};
use crate::registry::Artifact;
use crate::stream::Compression;

/// What a record is (image-spec `manifest.md#artifacttype`).
pub(super) const ARTIFACT_TYPE: &str = "application/vnd.kiln.cache.record.v1+json";

const KEY: &str = "kiln.cache.key";
const STEP: &str = "kiln.cache.step";
const INSTRUCTION: &str = "kiln.cache.instruction";
const PARENT: &str = "kiln.cache.parent";
const SOURCES: &str = "kiln.cache.sources";
const DIFF_ID: &str = "kiln.cache.diff-id";
const COMPRESSION: &str = "kiln.cache.compression";
const CREATED: &str = "kiln.cache.created";

/// Instructions are cut to this in annotations: a manifest stays small. The config has all of it.
const INSTRUCTION_CHARACTERS: usize = 400;
/// Larger records are compressed in their config.
const PLAIN_BYTES: usize = 4096;
/// No record is larger, compressed or not.
const LIMIT_BYTES: u64 = 64 << 20;
/// Level 3 halves lists of files; what is left of them is digests.
const LEVEL: i32 = 3;

/// What a manifest says of its record.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Header {
    pub(super) key: Key,
    /// [`StepName::id`] of the step.
    pub(super) step: String,
    pub(super) instruction: String,
    pub(super) parent: Chain,
    pub(super) sources: Vec<(String, Chain)>,
    pub(super) layer: Layer,
    pub(super) compression: Compression,
    pub(super) created_seconds: i64,
    pub(super) config: Descriptor,
}

#[derive(Serialize, Deserialize)]
struct RecordJson {
    key: Key,
    step: StepName,
    instruction: String,
    parent: Chain,
    sources: Vec<(String, Chain)>,
    layer: Descriptor,
    diff_id: DiffId,
    created_seconds: i64,
    inputs: Inputs,
}

#[derive(Deserialize)]
struct ConfigJson {
    #[serde(default, rename = "kiln.cache.record")]
    record: Option<RecordJson>,
    #[serde(default, rename = "kiln.cache.record.zstd")]
    compressed: Option<String>,
}

/// Returns the artifact of a record, and its config's bytes.
pub(super) fn seal(record: &Record) -> (Artifact, Vec<u8>) {
    let config = config(record);
    let instruction: String = record.instruction.chars().take(INSTRUCTION_CHARACTERS).collect();
    let sources = serde_json::to_string(&record.sources).expect("names and digests are plain JSON");
    let annotations = BTreeMap::from([
        (KEY.to_owned(), record.key.to_string()),
        (STEP.to_owned(), record.step.id()),
        (INSTRUCTION.to_owned(), instruction),
        (PARENT.to_owned(), record.parent.to_string()),
        (SOURCES.to_owned(), sources),
        (DIFF_ID.to_owned(), record.layer.diff_id.to_string()),
        (COMPRESSION.to_owned(), record.compression.to_string()),
        (CREATED.to_owned(), record.created_seconds.to_string()),
    ]);
    let artifact = Artifact {
        artifact_type: ARTIFACT_TYPE.to_owned(),
        config: Some(descriptor(media_type::OCI_CONFIG, &Digest::of(&config), config.len() as u64)),
        layers: vec![record.layer.descriptor.clone()],
        subject: None,
        annotations,
    };
    (artifact, config)
}

fn config(record: &Record) -> Vec<u8> {
    let mut inputs = record.inputs.clone();
    inputs.trim();
    let json = canonical_json(&RecordJson {
        key: record.key,
        step: record.step.clone(),
        instruction: record.instruction.clone(),
        parent: record.parent.clone(),
        sources: record.sources.clone(),
        layer: record.layer.descriptor.clone(),
        diff_id: record.layer.diff_id.clone(),
        created_seconds: record.created_seconds,
        inputs,
    });
    // Registries look at the platform and the diff ids of an image config, and at nothing else.
    let platform = Platform::host();
    let mut config = serde_json::json!({
        "architecture": platform.architecture,
        "os": platform.os,
        "config": {},
        "rootfs": { "type": "layers", "diff_ids": [record.layer.diff_id] },
    });
    let (name, value) = match zstd::bulk::compress(&json, LEVEL) {
        Ok(compressed) if json.len() > PLAIN_BYTES => {
            ("kiln.cache.record.zstd", serde_json::Value::String(BASE64.encode(compressed)))
        }
        _ => ("kiln.cache.record", serde_json::from_slice(&json).expect("written just now")),
    };
    config[name] = value;
    canonical_json(&config)
}

/// Reads what a manifest says of its record, and refuses what no kiln would have written.
pub(super) fn read_header(artifact: &Artifact) -> Result<Header, String> {
    if artifact.artifact_type != ARTIFACT_TYPE {
        return Err(format!(
            "expected an artifact of type `{ARTIFACT_TYPE}`, found `{}`",
            artifact.artifact_type
        ));
    }
    let [layer] = &artifact.layers[..] else {
        return Err(format!("expected one layer, found {}", artifact.layers.len()));
    };
    let text = |name: &str| {
        artifact
            .annotations
            .get(name)
            .ok_or_else(|| format!("it has no annotation `{name}`"))
            .map(String::as_str)
    };
    let bad = |name: &str, error: &dyn std::fmt::Display| format!("annotation `{name}`: {error}");
    let diff_id = text(DIFF_ID)?.parse::<Digest>().map_err(|e| bad(DIFF_ID, &e))?;
    let chain = text(PARENT)?.parse::<Digest>().map_err(|e| bad(PARENT, &e))?;
    let config = artifact.config.as_ref().ok_or("it has no config")?;
    Ok(Header {
        key: text(KEY)?.parse().map_err(|e| bad(KEY, &e))?,
        step: text(STEP)?.to_owned(),
        instruction: text(INSTRUCTION)?.to_owned(),
        parent: Chain::from_digest(chain),
        sources: serde_json::from_str(text(SOURCES)?).map_err(|e| bad(SOURCES, &e))?,
        layer: Layer { descriptor: checked_layer(layer)?, diff_id: DiffId::new(diff_id) },
        compression: text(COMPRESSION)?.parse().map_err(|e| bad(COMPRESSION, &e))?,
        created_seconds: text(CREATED)?.parse().map_err(|e| bad(CREATED, &e))?,
        config: checked_config(config)?,
    })
}

fn checked_layer(layer: &Descriptor) -> Result<Descriptor, String> {
    const KNOWN: &[&str] = &[
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.oci.image.layer.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "application/vnd.docker.image.rootfs.diff.tar.zstd",
    ];
    let kind = layer.media_type().to_string();
    if !KNOWN.contains(&kind.as_str()) {
        return Err(format!("its layer has the unknown media type `{kind}`"));
    }
    // A tar ends in 1024 zeros: in no encoding does it have no bytes at all.
    if layer.size() == 0 {
        return Err("its layer has no bytes".to_owned());
    }
    if layer.urls().as_ref().is_some_and(|urls| !urls.is_empty()) {
        return Err("its layer is said to be elsewhere".to_owned());
    }
    let digest = checked_digest(layer)?;
    Ok(descriptor(&kind, &digest, layer.size()))
}

fn checked_config(config: &Descriptor) -> Result<Descriptor, String> {
    let kind = config.media_type().to_string();
    if kind != media_type::OCI_CONFIG {
        return Err(format!("expected a config of type `{}`, found `{kind}`", media_type::OCI_CONFIG));
    }
    if config.size() > LIMIT_BYTES {
        return Err(format!("its config has {} bytes: expected at most {LIMIT_BYTES}", config.size()));
    }
    let digest = checked_digest(config)?;
    Ok(descriptor(&kind, &digest, config.size()))
}

fn checked_digest(descriptor: &Descriptor) -> Result<Digest, String> {
    let text: &str = descriptor.digest().as_ref();
    text.parse().map_err(|error| format!("{error}"))
}

/// Reads the whole record from its config, which must agree with its manifest.
pub(super) fn read_record(header: &Header, config: &[u8]) -> Result<Record, String> {
    let unreadable = |error: &dyn std::fmt::Display| format!("its config can't be read: {error}");
    let json: ConfigJson = serde_json::from_slice(config).map_err(|e| unreadable(&e))?;
    let json = match (json.record, json.compressed) {
        (Some(record), None) => record,
        (None, Some(text)) => {
            let bytes = BASE64.decode(text).map_err(|e| unreadable(&e))?;
            let decoder = zstd::Decoder::new(&bytes[..]).map_err(|e| unreadable(&e))?;
            let mut plain = Vec::new();
            decoder.take(LIMIT_BYTES).read_to_end(&mut plain).map_err(|e| unreadable(&e))?;
            serde_json::from_slice(&plain).map_err(|e| unreadable(&e))?
        }
        _ => return Err("its config has no record".to_owned()),
    };
    let layer = Layer { descriptor: checked_layer(&json.layer)?, diff_id: json.diff_id };
    if json.key != header.key || layer != header.layer || json.parent != header.parent {
        return Err("its config and its manifest tell of different records".to_owned());
    }
    Ok(Record {
        key: json.key,
        step: json.step,
        instruction: json.instruction,
        parent: json.parent,
        sources: json.sources,
        layer,
        compression: header.compression,
        created_seconds: json.created_seconds,
        inputs: json.inputs,
    })
}
