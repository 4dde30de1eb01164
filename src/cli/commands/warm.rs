//! `kiln warm`: images into the store, for builds without a network.

use std::io::Write;

use serde_json::json;

use super::desk::Desk;
use super::{print, print_json};
use crate::cli::args::{Format, WarmArgs};
use crate::cli::bases::{self, Recipe};
use crate::cli::environment::Environment;
use crate::cli::fail::Failure;
use crate::cli::request::{platform, registry_config};
use crate::images::{self, Platforms};
use crate::oci::{Platform, Reference};

/// An image to fetch, and for which platforms.
struct Wanted {
    reference: Reference,
    platforms: Vec<Platform>,
}

/// Fetches images; the digests of what their names stand for go to `out`, in order.
pub(super) fn run(args: &WarmArgs, environment: &Environment, out: &mut dyn Write) -> Result<(), Failure> {
    let mut platforms =
        args.platform.iter().map(|text| platform(text)).collect::<Result<Vec<Platform>, _>>()?;
    if platforms.is_empty() {
        platforms.push(Platform::host());
    }
    let desk = Desk::open(&args.transfer, environment)?;
    let mut wanted: Vec<Wanted> = Vec::new();
    for text in &args.images {
        want(&mut wanted, text, &platforms)?;
    }
    let config = registry_config(&args.transfer.registry, environment)?;
    for path in &args.file {
        let recipe = Recipe {
            path,
            build_args: &args.build_arg,
            build_contexts: &args.build_context,
            target: args.target.as_deref(),
        };
        for platform in &platforms {
            for image in bases::images(&recipe, platform, environment, &config, &desk.reporter)? {
                want(&mut wanted, &image.text, &[image.platform])?;
            }
        }
    }
    if wanted.is_empty() {
        desk.reporter.info("nothing to fetch: no image is built on".to_owned());
    }
    let mut fetched = Vec::new();
    for wanted in wanted {
        let platforms =
            if args.all_platforms { Platforms::All } else { Platforms::These(wanted.platforms.clone()) };
        let descriptor = images::warm(&desk.client, &wanted.reference, &platforms, &desk.store)?;
        desk.reporter.info(format!("{} {}", wanted.reference, descriptor.digest()));
        fetched.push((wanted, descriptor));
    }
    drop(desk);
    match args.format {
        Format::Text => {
            fetched.iter().try_for_each(|(_, descriptor)| print(out, descriptor.digest().as_ref()))
        }
        Format::Json => {
            let image = |(wanted, descriptor): &(Wanted, crate::oci::Descriptor)| {
                let platforms: Vec<String> = wanted.platforms.iter().map(ToString::to_string).collect();
                json!({
                    "name": wanted.reference.to_string(),
                    "digest": descriptor.digest().to_string(),
                    "mediaType": descriptor.media_type().to_string(),
                    "platforms": if args.all_platforms { json!("all") } else { json!(platforms) },
                })
            };
            print_json(out, &json!(fetched.iter().map(image).collect::<Vec<_>>()))
        }
    }
}

/// Notes an image; one that is noted already may be wanted for more platforms.
fn want(wanted: &mut Vec<Wanted>, text: &str, platforms: &[Platform]) -> Result<(), Failure> {
    let reference: Reference = text.strip_prefix("docker://").unwrap_or(text).parse()?;
    let at = wanted.iter().position(|other| same(&other.reference, &reference)).unwrap_or_else(|| {
        wanted.push(Wanted { reference, platforms: Vec::new() });
        wanted.len() - 1
    });
    for platform in platforms {
        if !wanted[at].platforms.contains(platform) {
            wanted[at].platforms.push(platform.clone());
        }
    }
    Ok(())
}

/// Tells whether two names mean the same image: no tag means `latest`.
fn same(one: &Reference, other: &Reference) -> bool {
    one.familiar() == other.familiar()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_wanted_once_for_all_its_platforms() {
        let (amd, arm): (Platform, Platform) =
            ("linux/amd64".parse().unwrap(), "linux/arm64".parse().unwrap());
        let mut wanted = Vec::new();
        want(&mut wanted, "a", std::slice::from_ref(&amd)).unwrap();
        want(&mut wanted, "docker.io/library/a:latest", &[amd, arm.clone()]).unwrap();
        want(&mut wanted, "b", std::slice::from_ref(&arm)).unwrap();
        let found: Vec<(String, usize)> =
            wanted.iter().map(|w| (w.reference.familiar(), w.platforms.len())).collect();
        assert_eq!(found, [("a:latest".to_owned(), 2), ("b:latest".to_owned(), 1)]);
    }
}
