//! `kiln inspect`: an image's manifest and config, wherever it is.

use std::io::Write;

use serde_json::{Value, json};

use super::desk::Desk;
use super::images::size_bytes;
use super::{index, print, print_json};
use crate::cli::args::{Format, InspectArgs, ProgressArg, TransferArgs};
use crate::cli::environment::Environment;
use crate::cli::fail::Failure;
use crate::cli::progress::bytes;
use crate::cli::request::platform;
use crate::images::is_index;
use crate::oci::{Image, Platform, Reference};
use crate::output::read_image;

/// Shows an image; an index as it is, unless one of its platforms is named.
pub(super) fn run(args: &InspectArgs, environment: &Environment, out: &mut dyn Write) -> Result<(), Failure> {
    let platform = args.platform.as_deref().map(platform).transpose()?;
    let transfer = TransferArgs {
        progress: ProgressArg::Quiet,
        quiet: true,
        registry: args.registry.clone(),
        store: args.store.clone(),
    };
    let desk = Desk::open(&transfer, environment)?;
    let source = desk.source(&args.image)?;
    if platform.is_none() && is_index(&source.origin.descriptor) {
        return index::show(&source.origin, &source.names, args.format, out);
    }
    let chosen = source.origin.choose(&platform.unwrap_or_else(Platform::host))?;
    let image = read_image(chosen.source.as_ref(), &chosen.descriptor)?;
    match args.format {
        Format::Json => print_json(out, &as_json(&image, &source.names)),
        Format::Text => as_text(&image, &source.names, out),
    }
}

fn manifest(image: &Image) -> Value {
    serde_json::from_slice(&image.manifest).unwrap_or(Value::Null)
}

fn as_json(image: &Image, names: &[Reference]) -> Value {
    json!({
        "digest": image.digest(),
        "names": names.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "platform": image.config.platform().to_string(),
        "sizeBytes": size_bytes(image),
        "descriptor": image.descriptor,
        "manifest": manifest(image),
        "config": serde_json::from_slice::<Value>(&image.config_bytes).unwrap_or(Value::Null),
    })
}

fn as_text(image: &Image, names: &[Reference], out: &mut dyn Write) -> Result<(), Failure> {
    let mut field = |name: &str, value: &str| {
        if value.is_empty() { Ok(()) } else { print(out, &format!("{name:12} {value}")) }
    };
    for name in names {
        field("name", &name.to_string())?;
    }
    field("digest", image.digest().as_str())?;
    field("media type", image.descriptor.media_type().as_ref())?;
    field("config", image.config_descriptor.digest().as_ref())?;
    field("platform", &image.config.platform().to_string())?;
    field("created", image.config.created.as_deref().unwrap_or_default())?;
    field("size", &bytes(size_bytes(image)))?;
    let config = &image.config.config;
    let list = |list: &Option<Vec<String>>| list.as_ref().map(|l| json!(l).to_string()).unwrap_or_default();
    field("user", &config.user)?;
    field("workdir", &config.working_dir)?;
    field("entrypoint", &list(&config.entrypoint))?;
    field("cmd", &list(&config.cmd))?;
    for variable in &config.env {
        field("env", variable)?;
    }
    for port in config.exposed_ports.keys() {
        field("port", port)?;
    }
    for volume in config.volumes.keys() {
        field("volume", volume)?;
    }
    for (key, value) in &config.labels {
        field("label", &format!("{key}={value}"))?;
    }
    if let Some(annotations) = manifest(image)["annotations"].as_object() {
        for (key, value) in annotations {
            field("annotation", &format!("{key}={}", value.as_str().unwrap_or_default()))?;
        }
    }
    for layer in &image.layers {
        let descriptor = &layer.descriptor;
        let kind = descriptor.media_type().to_string();
        let kind = kind.rsplit('.').next().unwrap_or_default().to_owned();
        field("layer", &format!("{} {} {kind}", descriptor.digest(), bytes(descriptor.size())))?;
    }
    Ok(())
}
