//! `--cache-from`, `--cache-to` and their like for cache mounts: `type=registry,ref=…`, `type=local,dest=…`.

use std::path::PathBuf;

use super::{ValueError, fields, parse_bool, parse_size_bytes};
use crate::cache::CacheMode;
use crate::oci::Reference;

/// Where a cache is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CachePlace {
    /// kiln's own store.
    Own,
    /// A repository of a registry; a tag goes before the tags of the records.
    Registry(Reference),
    /// A directory.
    Local(PathBuf),
}

/// One `--cache-from` or `--cache-to`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheOption {
    /// Where the cache is.
    pub place: CachePlace,
    /// Which records are written.
    pub mode: CacheMode,
    /// Whether each layer is read before its record counts.
    pub verify: bool,
    /// No more than this is saved of each cache mount.
    pub most_bytes: Option<u64>,
}

/// Which of the options a text is of: what it may say depends on that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheUse {
    /// `--cache-from`.
    From,
    /// `--cache-to`.
    To,
    /// `--cache-mounts-from`.
    MountsFrom,
    /// `--cache-mounts-to`.
    MountsTo,
    /// What `kiln cache` works on.
    Look,
}

impl CacheUse {
    fn option(self) -> &'static str {
        match self {
            Self::From => "--cache-from",
            Self::To => "--cache-to",
            Self::MountsFrom => "--cache-mounts-from",
            Self::MountsTo => "--cache-mounts-to",
            Self::Look => "CACHE",
        }
    }

    /// Returns what the directory is called in options of this kind.
    fn directory(self) -> &'static str {
        if matches!(self, Self::To | Self::MountsTo) { "dest" } else { "src" }
    }
}

/// Kinds of caches that BuildKit has and kiln has not, with what to use instead.
const ELSEWHERE: &[(&str, &str)] = &[
    ("inline", "kiln's records are artifacts of their own"),
    ("gha", "save a `type=local` directory with actions/cache"),
    ("s3", "save a `type=local` directory with your object store's own tool"),
    ("azblob", "save a `type=local` directory with your object store's own tool"),
];

/// Reads one of the options. What comes first without `=` is a repository; `type=none` is nowhere, not kiln's own store either.
pub fn parse_cache(kind: CacheUse, text: &str) -> Result<Option<CacheOption>, ValueError> {
    let fail = |reason: String| ValueError::new(kind.option(), text, reason);
    let parts = fields(text).map_err(|reason| fail(reason.to_owned()))?;
    let mut found = Fields::default();
    let mut settings = &parts[..];
    if let [first, others @ ..] = settings
        && !first.contains('=')
    {
        found.kind = Some("registry".to_owned());
        found.reference = Some(first.clone());
        settings = others;
    }
    for part in settings {
        let (key, value) =
            part.split_once('=').ok_or_else(|| fail(format!("expected `key=value`, found `{part}`")))?;
        found.set(kind, key, value).map_err(&fail)?;
    }
    let place = found.place(kind).map_err(&fail)?;
    let mode = found.mode.unwrap_or_default();
    Ok(place.map(|place| CacheOption { place, mode, verify: found.verify, most_bytes: found.most_bytes }))
}

#[derive(Default)]
struct Fields {
    kind: Option<String>,
    reference: Option<String>,
    directory: Option<String>,
    mode: Option<CacheMode>,
    verify: bool,
    most_bytes: Option<u64>,
}

impl Fields {
    fn set(&mut self, kind: CacheUse, key: &str, value: &str) -> Result<(), String> {
        match key.to_ascii_lowercase().as_str() {
            "type" => self.kind = Some(value.to_owned()),
            "ref" => self.reference = Some(value.to_owned()),
            // `src` and `dest` mean the same directory: one text can serve both ways.
            "src" | "dest" => self.directory = Some(value.to_owned()),
            "mode" if kind == CacheUse::To => {
                self.mode = Some(match value {
                    "max" => CacheMode::Max,
                    "min" => CacheMode::Min,
                    _ => return Err(format!("`mode` is `max` or `min`, not `{value}`")),
                });
            }
            "verify" if kind == CacheUse::From => {
                self.verify = parse_bool(value)
                    .ok_or_else(|| format!("`verify` is `true` or `false`, not `{value}`"))?;
            }
            "max-size" if kind == CacheUse::MountsTo => {
                let bytes = parse_size_bytes("max-size", value).map_err(|error| error.reason)?;
                self.most_bytes = Some(bytes);
            }
            // True of kiln whatever is said; said in command lines made for BuildKit.
            "ignore-error" | "image-manifest" | "oci-mediatypes" if parse_bool(value) == Some(true) => {}
            "ignore-error" | "image-manifest" | "oci-mediatypes" => {
                return Err(format!("`{key}` is always `true` in kiln, found `{value}`"));
            }
            "compression" | "compression-level" | "force-compression" => {
                return Err(format!(
                    "`{key}` does not apply: a cached layer is the image's own; say it with `--output`"
                ));
            }
            _ => return Err(format!("unknown option `{key}`")),
        }
        Ok(())
    }

    fn place(&mut self, used: CacheUse) -> Result<Option<CachePlace>, String> {
        let kind = self.kind.take().ok_or("`type=` is missing, expected registry, local or none")?;
        let reference = self.reference.take();
        let directory = self.directory.take();
        let unfit = |what: &str| format!("`type={kind}` has no `{what}`");
        let place = match kind.as_str() {
            "registry" => {
                let text = reference.as_ref().ok_or("`type=registry` needs `ref=REPOSITORY`")?;
                let reference: Reference = text.parse().map_err(|error| format!("{error}"))?;
                if reference.digest().is_some() {
                    return Err(format!("`{text}` is one image: a cache is a repository"));
                }
                if reference.tag().is_some_and(|tag| tag.len() > LONGEST_TAG) {
                    return Err(format!("a tag that names a cache has {LONGEST_TAG} characters at most"));
                }
                Some(CachePlace::Registry(reference))
            }
            "local" => {
                let name = used.directory();
                let path = directory.as_ref().filter(|path| !path.is_empty());
                let path = path.ok_or_else(|| format!("`type=local` needs `{name}=DIRECTORY`"))?;
                Some(CachePlace::Local(path.into()))
            }
            "none" if used != CacheUse::Look => None,
            other => {
                let instead = ELSEWHERE.iter().find(|(known, _)| *known == other);
                let instead = instead.map(|(_, instead)| format!("; {instead}")).unwrap_or_default();
                return Err(format!(
                    "kiln has no cache of type `{other}`, expected registry, local or none{instead}"
                ));
            }
        };
        if reference.is_some() && !matches!(place, Some(CachePlace::Registry(_))) {
            return Err(unfit("ref"));
        }
        if directory.is_some() && !matches!(place, Some(CachePlace::Local(_))) {
            return Err(unfit(used.directory()));
        }
        Ok(place)
    }
}

/// A tag of a registry has 128 characters; a record's own name takes 69 of them.
const LONGEST_TAG: usize = 56;

#[cfg(test)]
mod tests {
    use super::*;

    fn place(kind: CacheUse, text: &str) -> CachePlace {
        parse_cache(kind, text).unwrap().unwrap().place
    }

    #[test]
    fn places_are_registries_directories_or_nowhere() {
        let repository = CachePlace::Registry("r.io/app/cache".parse().unwrap());
        assert_eq!(place(CacheUse::From, "r.io/app/cache"), repository);
        assert_eq!(place(CacheUse::To, "type=registry,ref=r.io/app/cache,mode=max"), repository);
        assert_eq!(place(CacheUse::From, "r.io/app/cache,verify=true"), repository);
        assert_eq!(place(CacheUse::From, "type=local,src=/c"), CachePlace::Local("/c".into()));
        assert_eq!(place(CacheUse::To, "type=local,dest=/c"), CachePlace::Local("/c".into()));
        assert_eq!(parse_cache(CacheUse::To, "type=none").unwrap(), None);
        assert!(parse_cache(CacheUse::Look, "type=none").is_err());
        let option = parse_cache(CacheUse::To, "type=registry,ref=r.io/a:b,mode=min,ignore-error=true")
            .unwrap()
            .unwrap();
        assert_eq!(option.mode, CacheMode::Min);
        let option = parse_cache(CacheUse::MountsTo, "type=local,dest=m,max-size=2g").unwrap().unwrap();
        assert_eq!(option.most_bytes, Some(2 << 30));
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (kind, text, says) in [
            (CacheUse::From, "type=gha", "`gha`"),
            (CacheUse::To, "type=inline", "`inline`"),
            (CacheUse::To, "type=s3,ref=x", "`s3`"),
            (CacheUse::From, "ref=r.io/x", "`type=` is missing"),
            (CacheUse::From, "type=registry", "needs `ref=REPOSITORY`"),
            (CacheUse::From, "type=local", "needs `src=DIRECTORY`"),
            (CacheUse::To, "type=local", "needs `dest=DIRECTORY`"),
            (CacheUse::To, "type=local,dest=/c,ref=x", "has no `ref`"),
            (CacheUse::From, "type=registry,ref=r.io/x,mode=max", "unknown option `mode`"),
            (CacheUse::To, "type=registry,ref=r.io/x,mode=all", "`mode` is `max` or `min`"),
            (CacheUse::To, "type=registry,ref=r.io/x,compression=zstd", "`compression` does not apply"),
            (CacheUse::To, "type=registry,ref=r.io/x,image-manifest=false", "always `true`"),
            (CacheUse::To, "type=registry,ref=r.io/X", "lowercase"),
            (CacheUse::From, "type=registry,ref=r.io/x,verify=maybe", "`verify` is `true` or `false`"),
            (CacheUse::To, "type=registry,ref=r.io/x,verify=true", "unknown option `verify`"),
            (CacheUse::To, "type=registry,ref=r.io/x,shiny=1", "unknown option `shiny`"),
            (CacheUse::To, "type=registry,ref=r.io/x,max-size=1g", "unknown option `max-size`"),
        ] {
            let error = parse_cache(kind, text).unwrap_err();
            assert!(error.reason.contains(says), "{text}: {error}");
        }
    }
}
