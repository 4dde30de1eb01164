//! `kiln index`: one name for the images of several platforms.

use std::collections::BTreeMap;
use std::io::Write;

use serde_json::{Value, json};

use super::desk::{Desk, Source};
use super::{print, print_json};
use crate::cli::args::{
    Format, IndexAnnotateArgs, IndexCommand, IndexCreateArgs, IndexInspectArgs, IndexPushArgs,
};
use crate::cli::commit;
use crate::cli::environment::Environment;
use crate::cli::fail::Failure;
use crate::cli::progress::bytes;
use crate::cli::request::platform;
use crate::cli::tags;
use crate::cli::values::{ValueError, key_value};
use crate::images::{self, ImagesError, Merge, Origin, PlatformChange, Scope, is_index, platform_of};
use crate::oci::{Platform, Reference};

/// Runs one of the commands.
pub(super) fn run(
    command: &IndexCommand,
    environment: &Environment,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    match command {
        IndexCommand::Create(args) => create(args, environment, out),
        IndexCommand::Annotate(args) => annotate(args, environment, out),
        IndexCommand::Push(args) => push(args, environment, out),
        IndexCommand::Inspect(args) => inspect(args, environment, out),
    }
}

/// Merges images; the index's digest goes to `out`.
fn create(args: &IndexCreateArgs, environment: &Environment, out: &mut dyn Write) -> Result<(), Failure> {
    let commit = commit::find(".", environment);
    let names: Vec<Reference> =
        args.tag.iter().map(|text| tags::name(text, commit.as_ref())).collect::<Result<_, _>>()?;
    let platforms = platforms(&args.platform, &args.images)?;
    let annotations = annotations(&args.annotation)?;
    let desk = Desk::open(&args.transfer, environment)?;
    let mut merge = Merge::default();
    if let Some(name) = names.first().filter(|_| args.append)
        && let Some(existing) = existing(&desk, name, args.push)?
    {
        merge.add(&existing, None, false)?;
    }
    for image in &args.images {
        let source = desk.source(image)?;
        merge.add(&source.origin, platforms.get(image.as_str()), args.replace)?;
    }
    for (scope, annotations) in &annotations {
        merge.annotate(scope, annotations)?;
    }
    if args.dry_run {
        let (_, bytes) = merge.seal()?;
        drop(desk);
        let value: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        return print_json(out, &value);
    }
    let digest =
        if args.push { merge.push(&desk.client, &names)? } else { merge.keep(&desk.store, &names)? };
    for part in merge.parts() {
        desk.reporter.info(format!("{} {}", part.label(), part.origin.name));
    }
    drop(desk);
    print(out, digest.as_str())
}

/// Finds what `--append` begins with: nothing, if the name stands for nothing yet.
fn existing(desk: &Desk<'_>, name: &Reference, in_registry: bool) -> Result<Option<Origin>, Failure> {
    let prefix = if in_registry { "docker://" } else { "store://" };
    match desk.source(&format!("{prefix}{name}")) {
        Ok(source) => Ok(Some(source.origin)),
        Err(Failure::NoImage { .. }) => Ok(None),
        Err(Failure::Images(ImagesError::Registry(error))) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads `--platform [IMAGE=]PLATFORM`; without an image it is for the only one there is.
fn platforms<'a>(texts: &'a [String], images: &'a [String]) -> Result<BTreeMap<&'a str, Platform>, Failure> {
    let mut platforms = BTreeMap::new();
    for text in texts {
        let fail = |reason: &str| ValueError::new("--platform", text, reason);
        let (image, value) = match (text.rsplit_once('='), images) {
            (Some((image, value)), _) => (image, value),
            (None, [only]) => (only.as_str(), text.as_str()),
            (None, _) => {
                return Err(fail("of several images, say which one it is for: `IMAGE=OS/ARCH`").into());
            }
        };
        if !images.iter().any(|other| other == image) {
            return Err(fail("no such IMAGE is on the command line").into());
        }
        platforms.insert(image, platform(value)?);
    }
    Ok(platforms)
}

/// Annotations, and what they are put on.
type ScopedAnnotations = (Scope, BTreeMap<String, String>);

/// Reads `--annotation [SCOPE[PLATFORM]:]NAME=VALUE`.
fn annotations(texts: &[String]) -> Result<Vec<ScopedAnnotations>, Failure> {
    let mut found: Vec<ScopedAnnotations> = Vec::new();
    for text in texts {
        let (key, value) = key_value("--annotation", text)?;
        let (scope, key) = scope(text, key)?;
        match found.iter_mut().find(|(other, _)| *other == scope) {
            Some((_, all)) => drop(all.insert(key.to_owned(), value.to_owned())),
            None => found.push((scope, BTreeMap::from([(key.to_owned(), value.to_owned())]))),
        }
    }
    // Manifests first: an entry's annotations are of the new manifest.
    found.sort_by_key(|(scope, _)| !matches!(scope, Scope::Manifest(_)));
    Ok(found)
}

/// Reads what stands before an annotation's name.
fn scope<'a>(text: &str, key: &'a str) -> Result<(Scope, &'a str), Failure> {
    let fail = |reason: &str| ValueError::new("--annotation", text, reason);
    let Some((head, name)) = key.split_once(':') else { return Ok((Scope::Index, key)) };
    let (kind, of) = match head.split_once('[') {
        Some((kind, rest)) => match rest.strip_suffix(']') {
            Some(of) => (kind, Some(platform(of)?)),
            None => return Err(fail("expected `]` after the platform").into()),
        },
        None => (head, None),
    };
    let scope = match kind {
        "index" if of.is_none() => Scope::Index,
        "index" => return Err(fail("an index has no platform: leave it out").into()),
        "manifest" => Scope::Manifest(of),
        "manifest-descriptor" => Scope::Entry(of),
        "index-descriptor" => {
            return Err(fail("nothing points to the index: annotate it with `index:`").into());
        }
        // Names of annotations may have a colon of their own.
        _ => return Ok((Scope::Index, key)),
    };
    if name.is_empty() { Err(fail("the annotation has no name").into()) } else { Ok((scope, name)) }
}

/// Changes an index; its new digest goes to `out`.
fn annotate(args: &IndexAnnotateArgs, environment: &Environment, out: &mut dyn Write) -> Result<(), Failure> {
    let change = change(args)?;
    let desk = Desk::open(&args.transfer, environment)?;
    let source = index(&desk, &args.index)?;
    let name = match (source.names.first(), args.push) {
        (Some(name), true) if name.tag().is_none() => Err(name),
        (name, _) => Ok(name.cloned()),
    };
    let name = name.map_err(|_| Failure::NoDestination { image: args.index.clone() })?;
    let mut merge = Merge::default();
    merge.add(&source.origin, None, false)?;
    let mut annotations = BTreeMap::new();
    for text in &args.annotation {
        let (key, value) = key_value("--annotation", text)?;
        annotations.insert(key.to_owned(), value.to_owned());
    }
    match &args.entry {
        None if change.is_some() => {
            return Err(Failure::NoEntryNamed { index: args.index.clone() });
        }
        None => merge.annotate(&Scope::Index, &annotations)?,
        Some(entry) => {
            let entry = entry_digest(&desk, &merge, entry)?;
            if args.remove {
                merge.remove(&entry)?;
            } else {
                let part = merge.find(&entry)?;
                if let Some(change) = &change {
                    part.change_platform(change);
                }
                part.annotate(&annotations);
            }
        }
    }
    let names: Vec<Reference> = name.into_iter().collect();
    let digest = match (args.push, names.is_empty()) {
        (true, true) => return Err(Failure::NoDestination { image: args.index.clone() }),
        (true, false) => merge.push(&desk.client, &names)?,
        (false, _) => merge.keep(&desk.store, &names)?,
    };
    drop(desk);
    print(out, digest.as_str())
}

/// Reads what is to become of an entry's platform.
fn change(args: &IndexAnnotateArgs) -> Result<Option<PlatformChange>, Failure> {
    let mut change = PlatformChange {
        os: args.os.clone(),
        architecture: args.arch.clone(),
        variant: args.variant.clone(),
        os_version: args.os_version.clone(),
        os_features: args.os_features.clone(),
    };
    if let Some(text) = &args.platform {
        let platform = platform(text)?;
        change.os = Some(platform.os);
        change.architecture = Some(platform.architecture);
        change.variant = Some(platform.variant.unwrap_or_default());
    }
    Ok((change != PlatformChange::default()).then_some(change))
}

/// An entry may be named as docker has it, by the image it was made of.
fn entry_digest(desk: &Desk<'_>, merge: &Merge, entry: &str) -> Result<String, Failure> {
    let is_known = |part: &images::Part| {
        entry.parse().is_ok_and(|platform| part.is_for(&platform))
            || part.descriptor().digest().to_string().trim_start_matches("sha256:").starts_with(entry)
    };
    if entry.starts_with("sha256:") || merge.parts().iter().any(is_known) {
        return Ok(entry.to_owned());
    }
    if entry.contains(['/', ':', '@'])
        && entry.parse::<Platform>().is_err()
        && let Ok(source) = desk.source(entry)
    {
        return Ok(source.origin.descriptor.digest().to_string());
    }
    Ok(entry.to_owned())
}

/// Finds an index; anything else is an error.
fn index(desk: &Desk<'_>, text: &str) -> Result<Source, Failure> {
    let source = desk.source(text)?;
    if is_index(&source.origin.descriptor) {
        return Ok(source);
    }
    let found = source.origin.descriptor.media_type().to_string();
    Err(ImagesError::NotAnIndex { name: text.to_owned(), found }.into())
}

/// Pushes an index; its digest goes to `out`.
fn push(args: &IndexPushArgs, environment: &Environment, out: &mut dyn Write) -> Result<(), Failure> {
    let desk = Desk::open(&args.transfer, environment)?;
    let source = index(&desk, &args.index)?;
    let names = super::push::destinations(&args.destination, &args.index, &source.names)?;
    let digest = images::push(&source.origin, &desk.client, &names)?;
    if args.purge && source.origin.repository.is_none() {
        for name in &source.names {
            desk.store.remove_tag(&name.to_string())?;
        }
    }
    drop(desk);
    print(out, digest.as_str())
}

/// Shows an index.
fn inspect(args: &IndexInspectArgs, environment: &Environment, out: &mut dyn Write) -> Result<(), Failure> {
    let desk = Desk::open(&args.transfer, environment)?;
    let source = index(&desk, &args.index)?;
    drop(desk);
    if args.raw {
        let bytes = source.origin.read(&source.origin.descriptor, "index")?;
        return out.write_all(&bytes).map_err(Failure::Stdout);
    }
    show(&source.origin, &source.names, args.format, out)
}

/// Shows an index with its entries.
pub(super) fn show(
    origin: &Origin,
    names: &[Reference],
    format: Format,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let index: Value = origin.document(&origin.descriptor, "index")?;
    let none = Vec::new();
    let entries = index["manifests"].as_array().unwrap_or(&none);
    if format == Format::Json {
        let value = json!({
            "digest": origin.descriptor.digest().to_string(),
            "mediaType": origin.descriptor.media_type().to_string(),
            "names": names.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "sizeBytes": origin.descriptor.size(),
            "index": index,
            "manifests": entries.iter().map(as_json).collect::<Vec<_>>(),
        });
        return print_json(out, &value);
    }
    let mut field = |name: &str, value: &str| print(out, &format!("{name:12} {value}"));
    for name in names {
        field("name", &name.to_string())?;
    }
    field("digest", origin.descriptor.digest().as_ref())?;
    field("media type", origin.descriptor.media_type().as_ref())?;
    for (key, value) in index["annotations"].as_object().into_iter().flatten() {
        field("annotation", &format!("{key}={}", value.as_str().unwrap_or_default()))?;
    }
    for entry in entries {
        let platform = platform_text(entry).unwrap_or_else(|| "-".to_owned());
        let digest = entry["digest"].as_str().unwrap_or_default();
        field("image", &format!("{platform} {digest} {}", bytes(entry["size"].as_u64().unwrap_or(0))))?;
        for (key, value) in entry["annotations"].as_object().into_iter().flatten() {
            field("", &format!("{key}={}", value.as_str().unwrap_or_default()))?;
        }
    }
    Ok(())
}

/// Writes the platform an entry is for.
pub(super) fn platform_text(entry: &Value) -> Option<String> {
    let platform = platform_of(entry)?;
    let version = platform.os_version.as_ref().map(|version| format!(" ({version})")).unwrap_or_default();
    Some(format!("{platform}{version}"))
}

fn as_json(entry: &Value) -> Value {
    json!({
        "platform": platform_text(entry),
        "digest": entry["digest"],
        "mediaType": entry["mediaType"],
        "sizeBytes": entry["size"],
        "annotations": entry["annotations"],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_say_what_they_are_put_on() {
        let arm: Platform = "linux/arm64".parse().unwrap();
        for (text, expected) in [
            ("a.b=c", (Scope::Index, "a.b")),
            ("index:a=c", (Scope::Index, "a")),
            ("org.x:y=c", (Scope::Index, "org.x:y")),
            ("manifest:a=c", (Scope::Manifest(None), "a")),
            ("manifest[linux/arm64]:a=c", (Scope::Manifest(Some(arm.clone())), "a")),
            ("manifest-descriptor[linux/arm64]:a=c", (Scope::Entry(Some(arm)), "a")),
        ] {
            let key = text.split_once('=').unwrap().0;
            assert_eq!(scope(text, key).unwrap(), expected, "{text}");
        }
        for text in ["index[linux/arm64]:a", "manifest[x:a", "index-descriptor:a", "manifest:"] {
            assert!(scope(text, text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_platform_is_for_one_image() {
        let one = ["a".to_owned()];
        let two = ["a".to_owned(), "r.io/b:1".to_owned()];
        let texts = |text: &str| vec![text.to_owned()];
        assert!(platforms(&texts("linux/arm64"), &one).unwrap().contains_key("a"));
        assert!(platforms(&texts("r.io/b:1=linux/arm64"), &two).unwrap().contains_key("r.io/b:1"));
        assert!(platforms(&texts("linux/arm64"), &two).is_err());
        assert!(platforms(&texts("c=linux/arm64"), &two).is_err());
    }
}
