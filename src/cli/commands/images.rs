//! `kiln images`: what is in the store.

use std::io::Write;
use std::sync::Arc;

use serde_json::json;

use super::locate::is_nameless;
use super::{open_store, print, print_json, print_table};
use crate::blob::{Store, Tagged};
use crate::cli::args::{Format, ImagesArgs};
use crate::cli::environment::Environment;
use crate::cli::fail::Failure;
use crate::cli::progress::bytes;
use crate::images::{Origin, is_index};
use crate::oci::{Image, Reference, descriptor_digest};
use crate::output::read_image;

/// Lists images.
pub(super) fn run(args: &ImagesArgs, environment: &Environment, out: &mut dyn Write) -> Result<(), Failure> {
    let store = open_store(&args.store, environment)?;
    let mut tags = store.tags()?;
    if let Some(name) = &args.name {
        let wanted = |tagged: &Tagged| {
            let familiar = tagged.reference.parse::<Reference>().map(|r| r.familiar()).unwrap_or_default();
            tagged.reference.starts_with(name.as_str()) || familiar.starts_with(name.as_str())
        };
        tags.retain(wanted);
    }
    if args.quiet {
        return tags.iter().try_for_each(|tagged| print(out, descriptor_digest(&tagged.descriptor).as_str()));
    }
    match args.format {
        Format::Json => {
            let list: Vec<_> = tags.iter().map(|tagged| as_json(&store, tagged)).collect();
            print_json(out, &json!(list))
        }
        Format::Text => {
            let rows: Vec<Vec<String>> = tags.iter().map(|tagged| as_row(&store, tagged)).collect();
            print_table(out, &["NAME", "TAG", "DIGEST", "PLATFORM", "CREATED", "SIZE"], &rows)
        }
    }
}

/// Returns name and tag as people write them.
fn names(tagged: &Tagged) -> (String, String) {
    let none = || "<none>".to_owned();
    if is_nameless(&tagged.reference) {
        return (none(), none());
    }
    match tagged.reference.parse::<Reference>() {
        Ok(reference) => {
            let tag = reference.tag().unwrap_or("latest").to_owned();
            let familiar = reference.familiar();
            (familiar.strip_suffix(&format!(":{tag}")).unwrap_or(&familiar).to_owned(), tag)
        }
        Err(_) => (tagged.reference.clone(), none()),
    }
}

/// Returns the image's bytes: layers, config and manifest.
pub(super) fn size_bytes(image: &Image) -> u64 {
    let layers: u64 = image.layers.iter().map(|layer| layer.descriptor.size()).sum();
    layers + image.config_descriptor.size() + image.descriptor.size()
}

/// What the store has of an index.
struct StoredIndex {
    /// The platforms whose images are here.
    platforms: Vec<String>,
    /// Bytes of the index and of these images.
    size_bytes: u64,
}

/// Reads an index with those of its images that are in the store; `None` for all else.
fn stored_index(store: &Arc<Store>, tagged: &Tagged) -> Option<StoredIndex> {
    if !is_index(&tagged.descriptor) {
        return None;
    }
    let origin = Origin::local(&tagged.reference, &tagged.descriptor, Arc::clone(store) as _);
    let mut index = StoredIndex { platforms: Vec::new(), size_bytes: tagged.descriptor.size() };
    for (descriptor, entry) in origin.entries_as_written().ok()? {
        if let Ok(image) = read_image(store.as_ref(), &descriptor) {
            index.platforms.extend(super::index::platform_text(&entry));
            index.size_bytes += size_bytes(&image);
        }
    }
    Some(index)
}

fn as_row(store: &Arc<Store>, tagged: &Tagged) -> Vec<String> {
    let (name, tag) = names(tagged);
    let digest = descriptor_digest(&tagged.descriptor).short().to_owned();
    if let Some(index) = stored_index(store, tagged) {
        let platforms = index.platforms.join(", ");
        return [name, tag, digest, platforms, "-".to_owned(), bytes(index.size_bytes)].into();
    }
    // A damaged image is listed too, or nobody could remove it.
    let details = match read_image(store.as_ref(), &tagged.descriptor) {
        Ok(image) => {
            let created = image.config.created.as_deref().unwrap_or("-").replace('T', " ");
            let created = created.get(..16).unwrap_or(&created).to_owned();
            [image.config.platform().to_string(), created, bytes(size_bytes(&image))]
        }
        Err(_) => ["damaged".to_owned(), "-".to_owned(), "-".to_owned()],
    };
    [name, tag, digest].into_iter().chain(details).collect()
}

fn as_json(store: &Arc<Store>, tagged: &Tagged) -> serde_json::Value {
    let (name, tag) = names(tagged);
    let mut entry = json!({
        "name": name,
        "tag": tag,
        "digest": descriptor_digest(&tagged.descriptor),
        "mediaType": tagged.descriptor.media_type().to_string(),
    });
    if let Some(index) = stored_index(store, tagged) {
        entry["platforms"] = json!(index.platforms);
        entry["sizeBytes"] = json!(index.size_bytes);
        return entry;
    }
    match read_image(store.as_ref(), &tagged.descriptor) {
        Ok(image) => {
            entry["platform"] = json!(image.config.platform().to_string());
            entry["created"] = json!(image.config.created);
            entry["sizeBytes"] = json!(size_bytes(&image));
        }
        Err(error) => entry["error"] = json!(error.to_string()),
    }
    entry
}
