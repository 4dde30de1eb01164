//! Keys that do not collide, records that survive, and records that must not be used.

mod keys;
mod places;
mod records;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;

use super::artifact::{read_header, read_record, seal};
use super::*;
use crate::blob::Store;
use crate::event::{Event, Report, Reporter};
use crate::oci::{DiffId, Digest, Layer, descriptor};
use crate::registry::Artifact;
use crate::stream::Compression;
use crate::tree::{Device, FileKind};

const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

fn key(build: impl FnOnce(&mut KeyBuilder)) -> Key {
    let mut builder = KeyBuilder::new("run");
    build(&mut builder);
    builder.finish().0
}

fn file(path: &str) -> FileInput {
    FileInput {
        path: path.into(),
        kind: FileKind::File,
        mode: 0o644,
        uid: 0,
        gid: 0,
        content: Some(Digest::of(b"content")),
        xattrs: None,
        size_bytes: 7,
    }
}

fn layer(content: &[u8]) -> Layer {
    Layer {
        descriptor: descriptor(LAYER_TYPE, &Digest::of(content), content.len() as u64),
        diff_id: DiffId::new(Digest::of(b"diff")),
    }
}

fn record(name: &str, content: &[u8]) -> Record {
    let mut builder = KeyBuilder::new("run");
    builder.text("instruction", name).files("files", FileInputs::new(vec![file("a"), file("b/c")]));
    let (key, inputs) = builder.finish();
    Record {
        compression: Compression::gzip(),
        key,
        step: StepName { project: "p".to_owned(), stage: "s".to_owned(), number: 2 },
        instruction: format!("RUN {name}"),
        parent: Chain::of(&[]),
        sources: vec![("stage build".to_owned(), Chain::of(&[DiffId::new(Digest::of(b"x"))]))],
        layer: layer(content),
        created_seconds: 1_700_000_000,
        inputs,
    }
}
