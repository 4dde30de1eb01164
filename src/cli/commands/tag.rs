//! `kiln tag`, `kiln ls-tags` and `kiln rm-tag`: names of images that exist.

use std::io::Write;

use serde_json::json;

use super::desk::Desk;
use super::{print, print_json, print_table};
use crate::cli::args::{Format, ListTagsArgs, RemoveTagArgs, TagArgs};
use crate::cli::environment::Environment;
use crate::cli::fail::Failure;
use crate::cli::request::registry_config;
use crate::cli::wire;
use crate::event::Reporter;
use crate::images::{self, remove_tag};
use crate::oci::{Reference, descriptor_digest};
use crate::registry::RegistryError;

/// Gives an image further names; its digest goes to `out`.
pub(super) fn tag(args: &TagArgs, environment: &Environment, out: &mut dyn Write) -> Result<(), Failure> {
    let desk = Desk::open(&args.transfer, environment)?;
    let source = desk.source(&args.image)?;
    let names: Vec<Reference> = args.names.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
    let names = names
        .into_iter()
        .map(|name| if name.tag().is_some() { Ok(name) } else { name.with_tag("latest") })
        .collect::<Result<Vec<_>, _>>()?;
    match &source.origin.repository {
        Some(repository) => {
            if let Some(away) = names.iter().find(|name| name.registry() != repository.registry()) {
                return Err(Failure::OtherRegistry { image: args.image.clone(), name: away.to_string() });
            }
            images::push(&source.origin, &desk.client, &names)?;
        }
        None => {
            // What is in a layout comes into the store with its name.
            images::keep(&source.origin, &desk.store)?;
            for name in &names {
                desk.store.set_tag(&name.to_string(), &source.origin.descriptor)?;
            }
        }
    }
    let digest = descriptor_digest(&source.origin.descriptor);
    drop(desk);
    print(out, digest.as_str())
}

/// Lists the tags of a repository.
pub(super) fn list(
    args: &ListTagsArgs,
    environment: &Environment,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let name = args.repository.strip_prefix("docker://").unwrap_or(&args.repository);
    let repository: Reference = name.parse()?;
    let client = wire::open_client(registry_config(&args.registry, environment)?, Reporter::silent())?;
    let tags = client.list_tags(&repository)?;
    if !args.digests {
        return match args.format {
            Format::Text => tags.iter().try_for_each(|tag| print(out, tag)),
            Format::Json => print_json(out, &json!({"name": repository.name(), "tags": tags})),
        };
    }
    let mut found = Vec::new();
    for tag in tags {
        match client.resolve(&repository.with_tag(&tag)?) {
            Ok(descriptor) => found.push((tag, descriptor)),
            // Removed since it was listed, or of a kind that nobody can verify any more.
            Err(error) if error.is_not_found() => {}
            Err(RegistryError::LegacyManifest { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    match args.format {
        Format::Text => {
            let row = |(tag, descriptor): &(String, crate::oci::Descriptor)| {
                vec![tag.clone(), descriptor.digest().to_string(), descriptor.media_type().to_string()]
            };
            print_table(out, &["TAG", "DIGEST", "TYPE"], &found.iter().map(row).collect::<Vec<_>>())
        }
        Format::Json => {
            let tag = |(tag, descriptor): &(String, crate::oci::Descriptor)| {
                json!({
                    "tag": tag,
                    "digest": descriptor.digest().to_string(),
                    "mediaType": descriptor.media_type().to_string(),
                })
            };
            let tags: Vec<_> = found.iter().map(tag).collect();
            print_json(out, &json!({"name": repository.name(), "tags": tags}))
        }
    }
}

/// Removes tags from registries.
pub(super) fn remove(
    args: &RemoveTagArgs,
    environment: &Environment,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let parse = |text: &String| text.strip_prefix("docker://").unwrap_or(text).parse();
    let references: Vec<Reference> = args.references.iter().map(parse).collect::<Result<_, _>>()?;
    let client = wire::open_client(registry_config(&args.registry, environment)?, Reporter::silent())?;
    let mut all = Vec::new();
    for reference in &references {
        let removed = remove_tag(&client, reference, args.force)?;
        if args.format == Format::Text {
            print(out, &format!("removed {reference}"))?;
            for tag in &removed.also {
                print(out, &format!("removed {}", reference.with_tag(tag)?))?;
            }
        }
        all.push(json!({
            "name": removed.reference.to_string(),
            "digest": removed.digest,
            "alsoRemoved": removed.also,
        }));
    }
    match args.format {
        Format::Text => Ok(()),
        Format::Json => print_json(out, &json!(all)),
    }
}
