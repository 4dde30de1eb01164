//! `--output type=…,dest=…`: docker's exporters and their options.
//!
//! What shapes the image ([`ImageOptions`]) is told apart from where it goes ([`OutputSpec`]): one build
//! makes one image, and outputs that want different ones are an error of the request.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::{ValueError, fields, parse_bool};
use crate::oci::{ManifestFormat, Reference};
use crate::output::{Destination, OutputSpec, PushOptions};
use crate::stream::Compression;

/// One `--output`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputOption {
    /// Where the image goes; `None` for `type=cacheonly`.
    pub spec: Option<OutputSpec>,
    /// What the image must be like.
    pub image: ImageOptions,
}

/// What outputs ask of the image itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageOptions {
    /// `compression` and `compression-level`.
    pub compression: Option<Compression>,
    /// `oci-mediatypes`.
    pub format: Option<ManifestFormat>,
    /// `force-compression`: layers of the base image too.
    pub force_compression: bool,
    /// `rewrite-timestamp`.
    pub rewrite_timestamp: bool,
    /// `source-date-epoch`, in seconds.
    pub source_date_epoch: Option<i64>,
    /// `annotation.KEY`.
    pub annotations: BTreeMap<String, String>,
}

const OPTION: &str = "--output";
const TYPES: &str = "registry, image, oci, docker, tar, local, store or cacheonly";

/// The options of one output that are not about its type.
#[derive(Default)]
struct Fields {
    destination: Option<String>,
    names: Vec<Reference>,
    tar: Option<bool>,
    push: Option<bool>,
    by_digest: bool,
    compression: Option<String>,
    level: Option<i64>,
    image: ImageOptions,
    /// Options given that only images have, for the error on a type that makes none.
    image_keys: Vec<String>,
}

/// Reads one `--output`: `type=…` with options, or a bare directory (`type=local`), or `-` (`type=tar` to
/// standard output).
pub fn parse_output(text: &str) -> Result<OutputOption, ValueError> {
    let fail = |reason: String| ValueError::new(OPTION, text, reason);
    let parts = fields(text).map_err(|reason| fail(reason.to_owned()))?;
    if let [only] = &parts[..]
        && !only.contains('=')
    {
        let spec = match only.as_str() {
            "" => return Err(fail(format!("expected `type=…`, one of {TYPES}"))),
            "-" => OutputSpec::RootfsArchive { destination: Destination::Stdout },
            directory => OutputSpec::RootfsDirectory { path: directory.into() },
        };
        return Ok(OutputOption { spec: Some(spec), image: ImageOptions::default() });
    }
    let mut kind = None;
    let mut found = Fields::default();
    for part in &parts {
        let (key, value) =
            part.split_once('=').ok_or_else(|| fail(format!("expected `key=value`, found `{part}`")))?;
        match key.to_ascii_lowercase().as_str() {
            "type" => kind = Some(value.to_owned()),
            _ => found.set(key, value).map_err(&fail)?,
        }
    }
    let kind = kind.ok_or_else(|| fail(format!("`type=` is missing, expected one of {TYPES}")))?;
    found.image.compression = compression(found.compression.as_deref(), found.level).map_err(&fail)?;
    let spec = spec(&kind, &mut found).map_err(&fail)?;
    Ok(OutputOption { spec, image: found.image })
}

impl Fields {
    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let boolean =
            || parse_bool(value).ok_or_else(|| format!("`{key}` is `true` or `false`, not `{value}`"));
        let key_lower = key.to_ascii_lowercase();
        match key_lower.as_str() {
            "dest" | "destination" => self.destination = Some(value.to_owned()),
            "tar" => self.tar = Some(boolean()?),
            "name" | "names" => {
                for name in value.split(',') {
                    self.names.push(name.trim().parse().map_err(|error| format!("{error}"))?);
                }
            }
            "push" => self.push = Some(boolean()?),
            "push-by-digest" => self.by_digest = boolean()?,
            "compression" => self.compression = Some(value.to_owned()),
            "compression-level" => {
                let level =
                    value.parse().map_err(|_| format!("`compression-level` is a number, not `{value}`"))?;
                self.level = Some(level);
            }
            "force-compression" => self.image.force_compression = boolean()?,
            "oci-mediatypes" => {
                let format = if boolean()? { ManifestFormat::Oci } else { ManifestFormat::Docker };
                self.image.format = Some(format);
            }
            "rewrite-timestamp" => self.image.rewrite_timestamp = boolean()?,
            "source-date-epoch" => {
                let epoch = value.parse().map_err(|_| format!("invalid source-date-epoch: `{value}`"))?;
                self.image.source_date_epoch = Some(epoch);
            }
            _ => match annotation_key(key) {
                Some(name) => {
                    self.image.annotations.insert(name.to_owned(), value.to_owned());
                }
                None => return Err(format!("unknown option `{key}`")),
            },
        }
        if !matches!(key_lower.as_str(), "dest" | "destination") {
            self.image_keys.push(key.to_owned());
        }
        Ok(())
    }

    /// Refuses options that a root filesystem has no place for.
    fn no_image_options(&self, kind: &str) -> Result<(), String> {
        match self.image_keys.first() {
            Some(key) => Err(format!("option `{key}` does not go with `type={kind}`")),
            None => Ok(()),
        }
    }

    fn refuse(&self, kind: &str, key: &str, given: bool) -> Result<(), String> {
        if given { Err(format!("option `{key}` does not go with `type={kind}`")) } else { Ok(()) }
    }

    /// Returns the archive's destination: standard output without `dest`, as docker has it.
    fn archive(&self) -> Destination {
        match self.destination.as_deref() {
            None | Some("" | "-") => Destination::Stdout,
            Some(path) => Destination::File(path.into()),
        }
    }

    fn directory(&self, kind: &str) -> Result<PathBuf, String> {
        match self.destination.as_deref() {
            None | Some("") => Err(format!("`dest=DIRECTORY` is missing for `type={kind}`")),
            Some("-") => Err(format!("`type={kind}` writes a directory, which cannot go to standard output")),
            Some(path) => Ok(path.into()),
        }
    }
}

/// Returns the key of `annotation.KEY` and `annotation-manifest.KEY`.
fn annotation_key(key: &str) -> Option<&str> {
    let name = key.strip_prefix("annotation.").or_else(|| key.strip_prefix("annotation-manifest."))?;
    (!name.is_empty()).then_some(name)
}

fn spec(kind: &str, found: &mut Fields) -> Result<Option<OutputSpec>, String> {
    let names = std::mem::take(&mut found.names);
    match kind {
        "registry" | "image" => {
            found.refuse(kind, "dest", found.destination.is_some())?;
            found.refuse(kind, "tar", found.tar.is_some())?;
            let push = found.push.unwrap_or(kind == "registry" || found.by_digest);
            found.refuse(kind, "push=false", kind == "registry" && !push)?;
            Ok(Some(if push {
                OutputSpec::Registry {
                    names,
                    options: PushOptions { by_digest: found.by_digest, ..PushOptions::default() },
                }
            } else {
                OutputSpec::Store { names }
            }))
        }
        "store" => {
            found.refuse(kind, "dest", found.destination.is_some())?;
            found.refuse(kind, "tar", found.tar.is_some())?;
            found.refuse(kind, "push", found.push.is_some() || found.by_digest)?;
            Ok(Some(OutputSpec::Store { names }))
        }
        "oci" | "docker" => {
            found.refuse(kind, "push", found.push.is_some() || found.by_digest)?;
            let directory = found.tar == Some(false);
            if directory && kind == "docker" {
                return Err("`tar=false` goes with `type=oci`: a docker archive is a tar".to_owned());
            }
            Ok(Some(match (kind, directory) {
                ("oci", true) => OutputSpec::OciDirectory { path: found.directory("oci,tar=false")?, names },
                ("oci", false) => OutputSpec::OciArchive { destination: found.archive(), names },
                _ => OutputSpec::DockerArchive { destination: found.archive(), names },
            }))
        }
        "tar" => {
            found.no_image_options(kind)?;
            Ok(Some(OutputSpec::RootfsArchive { destination: found.archive() }))
        }
        "local" => {
            found.no_image_options(kind)?;
            Ok(Some(OutputSpec::RootfsDirectory { path: found.directory(kind)? }))
        }
        "cacheonly" => {
            found.no_image_options(kind)?;
            found.refuse(kind, "dest", found.destination.is_some())?;
            Ok(None)
        }
        _ => Err(format!("unknown type `{kind}`, expected one of {TYPES}")),
    }
}

/// Reads `compression` and `compression-level`; a level alone is gzip's.
pub fn compression(name: Option<&str>, level: Option<i64>) -> Result<Option<Compression>, String> {
    let within = |level: i64, most: i64, name: &str| {
        let out_of_range = format!("compression-level of {name} is 1 to {most}, not {level}");
        if (1..=most).contains(&level) {
            i32::try_from(level).map_err(|_| out_of_range)
        } else {
            Err(out_of_range)
        }
    };
    Ok(Some(match (name, level) {
        (None, None) => return Ok(None),
        (Some("gzip"), None) => Compression::gzip(),
        (Some("gzip") | None, Some(level)) => {
            Compression::Gzip { level: within(level, 9, "gzip")?.unsigned_abs() }
        }
        (Some("zstd"), None) => Compression::zstd(),
        (Some("zstd"), Some(level)) => Compression::Zstd { level: within(level, 22, "zstd")? },
        (Some("uncompressed" | "none"), None) => Compression::None,
        (Some(name @ ("uncompressed" | "none")), Some(_)) => {
            return Err(format!("`compression={name}` has no compression-level"));
        }
        (Some(name), _) => {
            return Err(format!("unknown compression `{name}`, expected gzip, zstd or uncompressed"));
        }
    }))
}

impl ImageOptions {
    /// Takes on what another output asks for; returns the name of an option they disagree about.
    pub fn merge(&mut self, other: Self) -> Result<(), &'static str> {
        let disagree = |name, same| if same { Ok(()) } else { Err(name) };
        disagree(
            "compression",
            self.compression.is_none()
                || other.compression.is_none()
                || self.compression == other.compression,
        )?;
        disagree(
            "oci-mediatypes",
            self.format.is_none() || other.format.is_none() || self.format == other.format,
        )?;
        disagree(
            "source-date-epoch",
            self.source_date_epoch.is_none()
                || other.source_date_epoch.is_none()
                || self.source_date_epoch == other.source_date_epoch,
        )?;
        self.compression = self.compression.or(other.compression);
        self.format = self.format.or(other.format);
        self.source_date_epoch = self.source_date_epoch.or(other.source_date_epoch);
        self.force_compression |= other.force_compression;
        self.rewrite_timestamp |= other.rewrite_timestamp;
        for (key, value) in other.annotations {
            if *self.annotations.entry(key).or_insert_with(|| value.clone()) != value {
                return Err("annotation");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> OutputOption {
        parse_output(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn reason(text: &str) -> String {
        parse_output(text).unwrap_err().reason
    }

    #[test]
    fn short_forms_are_dockers() {
        assert_eq!(parsed("out").spec, Some(OutputSpec::RootfsDirectory { path: "out".into() }));
        assert_eq!(parsed("-").spec, Some(OutputSpec::RootfsArchive { destination: Destination::Stdout }));
    }

    #[test]
    fn types_have_their_destinations() {
        let file = || Destination::File("x".into());
        let none = Vec::new;
        for (text, spec) in [
            ("type=registry", OutputSpec::Registry { names: none(), options: PushOptions::default() }),
            ("type=image,push=true", OutputSpec::Registry { names: none(), options: PushOptions::default() }),
            (
                "type=image,push-by-digest=true",
                OutputSpec::Registry {
                    names: none(),
                    options: PushOptions { by_digest: true, ..PushOptions::default() },
                },
            ),
            ("type=image", OutputSpec::Store { names: none() }),
            ("type=store", OutputSpec::Store { names: none() }),
            ("type=oci,dest=x", OutputSpec::OciArchive { destination: file(), names: none() }),
            ("type=oci", OutputSpec::OciArchive { destination: Destination::Stdout, names: none() }),
            ("type=oci,dest=x,tar=false", OutputSpec::OciDirectory { path: "x".into(), names: none() }),
            ("type=docker,dest=x", OutputSpec::DockerArchive { destination: file(), names: none() }),
            (
                "type=docker,dest=-",
                OutputSpec::DockerArchive { destination: Destination::Stdout, names: none() },
            ),
            ("dest=x,type=tar", OutputSpec::RootfsArchive { destination: file() }),
            ("type=local,dest=x", OutputSpec::RootfsDirectory { path: "x".into() }),
        ] {
            assert_eq!(parsed(text).spec, Some(spec), "{text}");
        }
        assert_eq!(parsed("type=cacheonly").spec, None);
    }

    #[test]
    fn names_may_be_several_in_quotes() {
        let Some(OutputSpec::OciArchive { names, .. }) =
            parsed(r#"type=oci,dest=x,"name=r.io/a:1,b:2""#).spec
        else {
            panic!("expected an archive")
        };
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["r.io/a:1", "docker.io/library/b:2"]);
    }

    #[test]
    fn image_options_are_read() {
        let options = parsed(
            "type=oci,dest=x,compression=zstd,compression-level=19,oci-mediatypes=false,rewrite-timestamp=true,annotation.a.b=c=d,force-compression=1,source-date-epoch=5",
        )
        .image;
        assert_eq!(options.compression, Some(Compression::Zstd { level: 19 }));
        assert_eq!(options.format, Some(ManifestFormat::Docker));
        assert!(options.rewrite_timestamp && options.force_compression);
        assert_eq!(options.source_date_epoch, Some(5));
        assert_eq!(options.annotations["a.b"], "c=d");
        let image = |text| parsed(text).image;
        assert_eq!(image("type=oci,compression-level=1").compression, Some(Compression::Gzip { level: 1 }));
        assert_eq!(image("type=oci,compression=uncompressed").compression, Some(Compression::None));
        assert_eq!(image("type=oci").compression, None);
    }

    #[test]
    fn what_is_unknown_or_does_not_fit_is_named() {
        for (text, expected) in [
            ("type=oci,dest=x,colour=red", "unknown option `colour`"),
            ("type=ftp,dest=x", "unknown type `ftp`"),
            ("dest=x", "`type=` is missing"),
            ("", "expected `type=…`"),
            ("type=local", "`dest=DIRECTORY` is missing"),
            ("type=local,dest=-", "cannot go to standard output"),
            ("type=oci,tar=false", "`dest=DIRECTORY` is missing"),
            ("type=docker,dest=x,tar=false", "a docker archive is a tar"),
            ("type=registry,dest=x", "option `dest`"),
            ("type=registry,push=false", "option `push=false`"),
            ("type=local,dest=x,compression=gzip", "option `compression` does not go with `type=local`"),
            ("type=tar,dest=x,name=a", "option `name`"),
            ("type=oci,push=true", "option `push`"),
            ("type=oci,tar=maybe", "`true` or `false`"),
            ("type=oci,compression=estargz", "unknown compression `estargz`"),
            ("type=oci,compression=gzip,compression-level=12", "1 to 9"),
            ("type=oci,compression=zstd,compression-level=0", "1 to 22"),
            ("type=oci,compression=uncompressed,compression-level=1", "no compression-level"),
            ("type=oci,compression-level=x", "is a number"),
            ("type=oci,name=r.io/UPPER", "invalid reference format"),
            ("type=oci,annotation.=x", "unknown option `annotation.`"),
            ("type=oci,annotation-index.a=x", "unknown option `annotation-index.a`"),
            ("type=oci,x", "expected `key=value`"),
        ] {
            let reason = reason(text);
            assert!(reason.contains(expected), "{text}: {reason}");
        }
    }

    #[test]
    fn outputs_that_want_different_images_disagree() {
        let image = |text| parsed(text).image;
        let mut one = image("type=oci,compression=zstd,annotation.a=1");
        one.merge(image("type=docker,oci-mediatypes=false,annotation.b=2")).unwrap();
        assert_eq!(one.annotations.len(), 2);
        assert_eq!(one.format, Some(ManifestFormat::Docker));
        assert_eq!(one.merge(image("type=oci,compression=gzip")), Err("compression"));
        assert_eq!(one.merge(image("type=oci,oci-mediatypes=true")), Err("oci-mediatypes"));
        assert_eq!(one.merge(image("type=oci,annotation.a=2")), Err("annotation"));
    }
}
