//! `kiln copy`: whole images from anywhere to anywhere.

use std::io::Write;

use super::desk::{Desk, Source, Target, layout_names};
use super::print;
use crate::cli::args::CopyArgs;
use crate::cli::environment::Environment;
use crate::cli::fail::Failure;
use crate::cli::request::platform;
use crate::images::{self, keep, write_layout};
use crate::oci::{Digest, Reference, descriptor_digest};

/// Copies an image; its digest goes to `out`.
pub(super) fn run(args: &CopyArgs, environment: &Environment, out: &mut dyn Write) -> Result<(), Failure> {
    let platform = args.platform.as_deref().map(platform).transpose()?;
    let desk = Desk::open(&args.transfer, environment)?;
    let targets = args.destination.iter().map(|text| desk.target(text)).collect::<Result<Vec<_>, _>>()?;
    let mut source = desk.source(&args.image)?;
    if let Some(platform) = &platform {
        source.origin = source.origin.choose(platform)?;
    }
    let digest = copy(&desk, &source, targets)?;
    drop(desk);
    print(out, digest.as_str())
}

fn copy(desk: &Desk<'_>, source: &Source, targets: Vec<Target>) -> Result<Digest, Failure> {
    let mut in_registries: Vec<Reference> = Vec::new();
    for target in targets {
        match target {
            Target::Registry(name) => in_registries.push(tagged(name, source)?),
            Target::Store(name) => {
                keep(&source.origin, &desk.store)?;
                let name = match (name.tag(), name.digest()) {
                    (None, None) => name.with_tag(source.tag().unwrap_or("latest"))?,
                    _ => name,
                };
                desk.store.set_tag(&name.to_string(), &source.origin.descriptor)?;
            }
            Target::Layout(target, tag) => {
                let names = layout_names(&target, tag.as_deref(), source)?;
                write_layout(&source.origin, &target, &names)?;
            }
        }
    }
    if in_registries.is_empty() {
        return Ok(descriptor_digest(&source.origin.descriptor));
    }
    Ok(images::push(&source.origin, &desk.client, &in_registries)?)
}

/// A destination without a tag takes the source's; what has only a digest keeps that alone.
fn tagged(name: Reference, source: &Source) -> Result<Reference, Failure> {
    match (name.tag(), name.digest(), source.names.first()) {
        (Some(_), ..) | (_, Some(_), _) => Ok(name),
        (None, None, Some(own)) if own.tag().is_none() && own.digest().is_some() => Ok(name),
        (None, None, _) => Ok(name.with_tag(source.tag().unwrap_or("latest"))?),
    }
}
