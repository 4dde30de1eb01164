//! `kiln artifact`: files in registries that are not images.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;

use serde_json::json;

use super::desk::Desk;
use super::{print, print_json, print_table};
use crate::cli::args::{ArtifactCommand, ArtifactListArgs, ArtifactPullArgs, ArtifactPushArgs, Format};
use crate::cli::environment::Environment;
use crate::cli::fail::Failure;
use crate::cli::request::registry_config;
use crate::cli::values::{ValueError, key_value};
use crate::cli::wire;
use crate::event::Reporter;
use crate::images::{Files, Unpacking, write_file};
use crate::oci::{Descriptor, Digest, Reference, descriptor_digest};
use crate::registry::Artifact;
use crate::tree::RootDir;

/// Runs one of the commands.
pub(super) fn run(
    command: &ArtifactCommand,
    environment: &Environment,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    match command {
        ArtifactCommand::Push(args) => push(args, environment, out),
        ArtifactCommand::Pull(args) => pull(args, environment, out),
        ArtifactCommand::Ls(args) => list(args, environment, out),
    }
}

/// Pushes files; the artifact's digest goes to `out`.
fn push(args: &ArtifactPushArgs, environment: &Environment, out: &mut dyn Write) -> Result<(), Failure> {
    let name: Reference = args.name.parse()?;
    media_type("--artifact-type", &args.artifact_type)?;
    let desk = Desk::open(&args.transfer, environment)?;
    let mut files = Files::new(desk.store.clone());
    let mut artifact = Artifact { artifact_type: args.artifact_type.clone(), ..Artifact::default() };
    for text in &args.files {
        let (path, kind) = split_type(environment, text)?;
        let descriptor = files.add(&environment.directory.join(path), Some(&title(path)?), kind)?;
        artifact.layers.push(descriptor);
    }
    if let Some(text) = &args.config {
        let (path, kind) = split_type(environment, text)?;
        artifact.config = Some(files.add(&environment.directory.join(path), None, kind)?);
    }
    annotate(&mut artifact, &args.annotation)?;
    if let Some(text) = &args.subject {
        artifact.subject = Some(subject(&desk, &name, text)?);
    }
    let descriptor = desk.client.push_artifact(&artifact, &files, &name)?;
    drop(desk);
    match args.format {
        Format::Text => print(out, descriptor.digest().as_ref()),
        Format::Json => {
            let named = name.with_digest(descriptor_digest(&descriptor));
            let value = json!({
                "reference": named.to_string(),
                "digest": descriptor.digest().to_string(),
                "artifactType": args.artifact_type,
                "subject": artifact.subject,
                "files": artifact.layers,
            });
            print_json(out, &value)
        }
    }
}

/// Finds the manifest an artifact is about: a tag or digest of its repository, or a full name there.
fn subject(desk: &Desk<'_>, name: &Reference, text: &str) -> Result<Descriptor, Failure> {
    let reference = match text.parse::<Digest>() {
        Ok(digest) => name.untagged().with_digest(digest),
        Err(_) if text.contains('/') => text.parse()?,
        Err(_) => name.with_tag(text.trim_start_matches(':'))?,
    };
    if reference.name() != name.name() {
        return Err(Failure::OtherRepository { subject: text.to_owned(), name: name.to_string() });
    }
    Ok(desk.client.resolve(&reference)?)
}

/// Puts annotations on the artifact, and on its files.
fn annotate(artifact: &mut Artifact, texts: &[String]) -> Result<(), Failure> {
    let title_of = |file: &Descriptor| {
        let annotations = file.annotations().as_ref();
        annotations.and_then(|all| all.get(crate::oci::annotation::TITLE)).cloned().unwrap_or_default()
    };
    for text in texts {
        let (key, value) = key_value("--annotation", text)?;
        let of_file = key.split_once(':').and_then(|(file, key)| {
            let file = artifact.layers.iter_mut().find(|layer| title_of(layer) == file)?;
            Some((file, key))
        });
        match of_file {
            Some((file, key)) => {
                let mut all = file.annotations().clone().unwrap_or_default();
                all.insert(key.to_owned(), value.to_owned());
                file.set_annotations(Some(all));
            }
            None => drop(artifact.annotations.insert(key.to_owned(), value.to_owned())),
        }
    }
    Ok(())
}

/// Splits `FILE:MEDIA-TYPE`; a file that is there by the whole text has no type.
fn split_type<'a>(environment: &Environment, text: &'a str) -> Result<(&'a str, Option<&'a str>), Failure> {
    if environment.directory.join(text).exists() {
        return Ok((text, None));
    }
    match text.rsplit_once(':') {
        Some((path, kind)) if kind.contains('/') && environment.directory.join(path).exists() => {
            media_type("FILE", kind)?;
            Ok((path, Some(kind)))
        }
        _ => Ok((text, None)),
    }
}

/// Checks the form of a media type (RFC 6838).
fn media_type(option: &'static str, text: &str) -> Result<(), ValueError> {
    let word = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b))
    };
    let bare = text.split(';').next().unwrap_or(text).trim_end();
    match bare.split_once('/') {
        Some((kind, subtype)) if word(kind) && word(subtype) => Ok(()),
        _ => Err(ValueError::new(option, text, "expected a media type such as `application/json`")),
    }
}

/// Returns the title of a file: its path as typed; where that leads out of the directory, its name.
fn title(path: &str) -> Result<String, Failure> {
    let path = Path::new(path.trim_end_matches('/'));
    let inside: Option<Vec<&str>> = path
        .components()
        .filter(|part| !matches!(part, std::path::Component::CurDir))
        .map(|part| match part {
            std::path::Component::Normal(name) => name.to_str(),
            _ => None,
        })
        .collect();
    let name = path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
    inside.map(|parts| parts.join("/")).filter(|title| !title.is_empty()).or(name).ok_or_else(|| {
        ValueError::new("FILE", &path.display().to_string(), "expected the name of a file or directory")
            .into()
    })
}

/// Fetches files; the artifact's digest goes to `out`.
fn pull(args: &ArtifactPullArgs, environment: &Environment, out: &mut dyn Write) -> Result<(), Failure> {
    let name: Reference = args.name.strip_prefix("docker://").unwrap_or(&args.name).parse()?;
    let desk = Desk::open(&args.transfer, environment)?;
    let (descriptor, artifact) = desk.client.artifact(&name)?;
    let digest = descriptor_digest(&descriptor);
    let directory = environment.directory.join(&args.output);
    let failed = |source| Failure::File { action: "create", path: directory.clone(), source };
    fs::create_dir_all(&directory).map_err(failed)?;
    let root = RootDir::open(&directory).map_err(failed)?;
    let blobs = desk.client.blobs(&name.with_digest(digest.clone()));
    let how = Unpacking { owner: environment.user, keep_old: args.keep_old_files };
    let mut paths = Vec::new();
    for layer in &artifact.layers {
        let path = write_file(&root, layer, blobs.as_ref(), how)?;
        desk.reporter.info(format!("{} {}", path.display(), layer.media_type()));
        paths.push(path);
    }
    drop(desk);
    match args.format {
        Format::Text => print(out, digest.as_str()),
        Format::Json => {
            let file = |(path, layer): (&std::path::PathBuf, &Descriptor)| {
                json!({
                    "path": root.path().join(path),
                    "mediaType": layer.media_type().to_string(),
                    "digest": layer.digest().to_string(),
                    "sizeBytes": layer.size(),
                })
            };
            let value = json!({
                "reference": name.with_digest(digest.clone()).to_string(),
                "digest": digest,
                "artifactType": artifact.artifact_type,
                "annotations": artifact.annotations,
                "subject": artifact.subject,
                "files": paths.iter().zip(&artifact.layers).map(file).collect::<Vec<_>>(),
            });
            print_json(out, &value)
        }
    }
}

/// Lists what refers to an image.
fn list(args: &ArtifactListArgs, environment: &Environment, out: &mut dyn Write) -> Result<(), Failure> {
    let subject: Reference = args.subject.strip_prefix("docker://").unwrap_or(&args.subject).parse()?;
    let client = wire::open_client(registry_config(&args.registry, environment)?, Reporter::silent())?;
    let found = client.referrers(&subject, args.artifact_type.as_deref())?;
    let kind = |entry: &Descriptor| entry.artifact_type().as_ref().map(ToString::to_string);
    match args.format {
        Format::Text => {
            let row = |entry: &Descriptor| {
                let annotations: BTreeMap<&String, &String> = entry.annotations().iter().flatten().collect();
                let annotations: Vec<String> =
                    annotations.into_iter().map(|(key, value)| format!("{key}={value}")).collect();
                vec![
                    entry.digest().to_string(),
                    kind(entry).unwrap_or_else(|| "-".to_owned()),
                    annotations.join(" "),
                ]
            };
            print_table(out, &["DIGEST", "TYPE", "ANNOTATIONS"], &found.iter().map(row).collect::<Vec<_>>())
        }
        Format::Json => {
            let entry = |entry: &Descriptor| {
                json!({
                    "digest": entry.digest().to_string(),
                    "mediaType": entry.media_type().to_string(),
                    "artifactType": kind(entry),
                    "sizeBytes": entry.size(),
                    "annotations": entry.annotations(),
                })
            };
            print_json(out, &json!(found.iter().map(entry).collect::<Vec<_>>()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_are_paths_as_typed_that_stay_inside() {
        for (path, expected) in [
            ("a.txt", "a.txt"),
            ("./a.txt", "a.txt"),
            ("d/a.txt", "d/a.txt"),
            ("d/", "d"),
            ("/tmp/a.txt", "a.txt"),
            ("../a.txt", "a.txt"),
        ] {
            assert_eq!(title(path).unwrap(), expected, "{path}");
        }
        assert!(title("..").is_err());
    }

    #[test]
    fn media_types_have_two_parts() {
        for text in ["application/json", "application/vnd.a.b+json", "text/plain; charset=utf-8"] {
            assert!(media_type("FILE", text).is_ok(), "{text}");
        }
        for text in ["", "json", "a/", "/b", "a/b c"] {
            assert!(media_type("FILE", text).is_err(), "{text}");
        }
    }
}
