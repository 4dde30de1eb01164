//! The client against real registries and broken ones.

#[path = "../../../tests/support/registry/mod.rs"]
mod support;

mod auth;
mod beyond;
mod distribution;
mod download;
mod faults;
mod network;
mod push;
mod speed;
mod upload;

use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::*;
use crate::blob::{BlobError, BlobSource};
use crate::event::{Event, Report};
use crate::oci::{DiffId, ImageConfig, Layer, ManifestFormat, descriptor, descriptor_digest, media_type};

/// Keeps what was reported.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<Event>>>);

impl Report for Heard {
    fn report(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }
}

impl Heard {
    fn warnings(&self) -> Vec<String> {
        let events = self.0.lock().unwrap();
        events
            .iter()
            .filter_map(|event| match event {
                Event::Warning { text, .. } => Some(text.clone()),
                _ => None,
            })
            .collect()
    }

    fn outcomes(&self) -> Vec<String> {
        let events = self.0.lock().unwrap();
        events
            .iter()
            .filter_map(|event| match event {
                Event::TransferFinished { outcome, .. } => Some(outcome.clone()),
                _ => None,
            })
            .collect()
    }

    /// Everything, as a developer would print it.
    fn everything(&self) -> String {
        format!("{:?}", self.0.lock().unwrap())
    }
}

/// A configuration that does not wait long.
fn config() -> RegistryConfig {
    RegistryConfig {
        retries: Retries {
            first_pause: Duration::from_millis(2),
            longest_pause: Duration::from_millis(20),
            longest_retry_after: Duration::from_secs(3),
            stall_timeout: Duration::from_secs(5),
            ..Retries::default()
        },
        ..RegistryConfig::default()
    }
}

fn client() -> Client {
    client_with(config()).0
}

fn client_with(config: RegistryConfig) -> (Client, Heard) {
    let heard = Heard::default();
    (Client::new(config, Reporter::new(heard.clone())).unwrap(), heard)
}

fn with_login(mut config: RegistryConfig, host: &str, user: &str, password: &str) -> RegistryConfig {
    let credential = Credential::basic(user, Secret::new(password));
    config.credentials.explicit.push((host.to_owned(), credential));
    config
}

fn reference(text: impl AsRef<str>) -> Reference {
    text.as_ref().parse().unwrap()
}

/// Bytes that no proxy could guess.
fn noise(size: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2) | 1;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

fn blob_descriptor(bytes: &[u8]) -> Descriptor {
    descriptor(media_type::OCI_LAYER, &Digest::of(bytes), bytes.len() as u64)
}

/// Blobs in memory.
#[derive(Default)]
struct Memory(BTreeMap<Digest, Vec<u8>>);

impl BlobSource for Memory {
    fn open(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send>, BlobError> {
        let digest = crate::oci::descriptor_digest(descriptor);
        match self.0.get(&digest) {
            Some(bytes) => Ok(Box::new(Cursor::new(bytes.clone()))),
            None => Err(BlobError::NotFound { digest, place: "memory".to_owned() }),
        }
    }

    fn contains(&self, digest: &Digest) -> Result<bool, BlobError> {
        Ok(self.0.contains_key(digest))
    }
}

/// An image of these layers.
fn image(layers: &[Vec<u8>], platform: &str, format: ManifestFormat) -> (Image, Memory) {
    let platform: Platform = platform.parse().unwrap();
    let config = ImageConfig {
        architecture: platform.architecture,
        variant: platform.variant,
        os: platform.os,
        ..ImageConfig::default()
    };
    let mut memory = Memory::default();
    let layers = layers
        .iter()
        .map(|bytes| {
            memory.0.insert(Digest::of(bytes), bytes.clone());
            Layer { descriptor: blob_descriptor(bytes), diff_id: DiffId::new(Digest::of(bytes)) }
        })
        .collect();
    (Image::seal(config, layers, format, BTreeMap::new()), memory)
}

fn read_all(client: &Client, place: &Reference, descriptor: &Descriptor) -> std::io::Result<Vec<u8>> {
    let mut reader = client.blobs(place).open(descriptor).map_err(std::io::Error::other)?;
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes)?;
    Ok(bytes)
}
