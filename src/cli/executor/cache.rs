//! kaniko's cache flags: a cache of layers with `--cache`, in `--cache-repo` or beside the image.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::args::CacheFlags;
use super::request::{ExecutorError, parse_duration_seconds};
use crate::cache::CacheMode;
use crate::cli::environment::Environment;
use crate::cli::request::{CacheSetup, RequestError};
use crate::cli::values::{CachePlace, ValueError};
use crate::oci::Reference;

/// kaniko's default for `--cache-dir`.
const DEFAULT_CACHE_DIR: &str = "/cache";

/// Reads the cache flags. Their values are checked whether or not there is a cache.
pub(super) fn cache_setup(
    flags: &CacheFlags,
    names: &[Reference],
    environment: &Environment,
) -> Result<CacheSetup, ExecutorError> {
    let most_age = age(&flags.cache_ttl)?;
    let named = flags.cache_repo.as_deref().filter(|text| !text.is_empty());
    let named = named.map(|text| place(text, environment)).transpose()?;
    if flags.cache != Some(true) {
        return Ok(CacheSetup::default());
    }
    // RUN is always run, as was asked for; copies alone are made faster than they are looked up.
    if flags.cache_run_layers == Some(false) {
        return Ok(CacheSetup::default());
    }
    let place = match (named, names.first()) {
        (Some(place), _) => place,
        (None, Some(name)) => CachePlace::Registry(beside(name)?),
        (None, None) => return Err(ExecutorError::NoCacheRepository),
    };
    let pushes = flags.no_push_cache != Some(true);
    Ok(CacheSetup {
        sources: vec![(place.clone(), false)],
        sinks: pushes.then_some((place, CacheMode::Max)).into_iter().collect(),
        use_hits: true,
        most_age: Some(most_age),
        ..CacheSetup::default()
    })
}

fn age(text: &str) -> Result<Duration, ExecutorError> {
    let seconds = parse_duration_seconds("--cache-ttl", text)?;
    Duration::try_from_secs_f64(seconds)
        .map_err(|_| ValueError::new("--cache-ttl", text, "expected a duration of 0 or more").into())
}

/// Reads `--cache-repo`: a repository, or with `oci:` a directory.
fn place(text: &str, environment: &Environment) -> Result<CachePlace, ExecutorError> {
    if let Some(path) = text.strip_prefix("oci:") {
        return Ok(CachePlace::Local(environment.directory.join(path)));
    }
    Ok(CachePlace::Registry(text.parse().map_err(RequestError::from)?))
}

/// Returns kaniko's default: the repository `cache` below the first destination's.
fn beside(name: &Reference) -> Result<Reference, ExecutorError> {
    let repository = format!("{}/cache", name.repository());
    Ok(Reference::new(name.registry(), &repository, None, None).map_err(RequestError::from)?)
}

/// Returns the directory of base images, if the warmer has put any there.
pub(super) fn base_layouts(flags: &CacheFlags, environment: &Environment) -> Vec<PathBuf> {
    let path = environment.directory.join(flags.cache_dir.as_deref().unwrap_or(Path::new(DEFAULT_CACHE_DIR)));
    if path.join("index.json").is_file() { vec![path] } else { Vec::new() }
}

/// Says what kiln does instead of what other flags ask for.
pub(super) fn notes(flags: &CacheFlags, environment: &Environment) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(path) = &flags.cache_dir
        && base_layouts(flags, environment).is_empty()
    {
        notes.push(format!(
            "--cache-dir: there are no images of the warmer's in {}; base images come from their registries",
            path.display()
        ));
    }
    match flags.cache_run_layers {
        Some(true) => notes.push("--cache-run-layers: with --cache, RUN is always cached".to_owned()),
        Some(false) => notes.push(
            "--cache-run-layers=false: every RUN runs, and no step is cached: making copies costs less than looking them up"
                .to_owned(),
        ),
        None => {}
    }
    if flags.no_push_cache == Some(true) && flags.cache != Some(true) {
        notes.push("--no-push-cache: there is no cache without --cache".to_owned());
    }
    if flags.cache_copy_layers.is_some() {
        notes.push(
            "--cache-copy-layers: with --cache, COPY and ADD are cached as RUN is; the registry mounts their layers, nothing is uploaded twice"
                .to_owned(),
        );
    }
    notes
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::environment::tests::environment;
    use crate::cli::executor::args::ExecutorCli;

    fn setup(words: &[&str], names: &[&str]) -> Result<CacheSetup, ExecutorError> {
        let cli = ExecutorCli::try_parse_from(["executor"].iter().chain(words)).unwrap();
        let names: Vec<Reference> = names.iter().map(|name| name.parse().unwrap()).collect();
        cache_setup(&cli.build.cache, &names, &environment(&[]))
    }

    fn registry(text: &str) -> CachePlace {
        CachePlace::Registry(text.parse().unwrap())
    }

    #[test]
    fn there_is_no_cache_without_the_flag() {
        assert!(setup(&["--cache-repo=r.io/c"], &["r.io/a:1"]).unwrap().is_empty());
        assert!(setup(&["--cache=false", "--cache-repo=r.io/c"], &["r.io/a:1"]).unwrap().is_empty());
        assert!(setup(&["--cache-repo=R"], &[]).is_err());
        assert!(setup(&["--cache-ttl=x"], &[]).is_err());
        assert!(setup(&["--cache-ttl=-1h"], &[]).is_err());
    }

    #[test]
    fn the_cache_is_beside_the_image_unless_it_is_named() {
        let beside = setup(&["--cache"], &["r.io/team/app:1", "r.io/other:1"]).unwrap();
        assert_eq!(beside.sources, [(registry("r.io/team/app/cache"), false)]);
        assert_eq!(beside.sinks, [(registry("r.io/team/app/cache"), CacheMode::Max)]);
        assert_eq!(beside.most_age, Some(Duration::from_secs(336 * 3600)));
        let named = setup(&["--cache", "--cache-repo=r.io/c", "--no-push-cache"], &["r.io/a:1"]).unwrap();
        assert_eq!((named.sources, named.sinks), (vec![(registry("r.io/c"), false)], Vec::new()));
        let local = setup(&["--cache", "--cache-repo=oci:/c"], &[]).unwrap();
        assert_eq!(local.sources, [(CachePlace::Local("/c".into()), false)]);
        assert!(matches!(setup(&["--cache"], &[]), Err(ExecutorError::NoCacheRepository)));
        assert!(setup(&["--cache", "--cache-run-layers=false"], &["r.io/a:1"]).unwrap().is_empty());
    }
}
