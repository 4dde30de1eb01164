//! Which caches a build has.

use std::time::Duration;

use super::RequestError;
use crate::cache::CacheMode;
use crate::cli::args::CacheArgs;
use crate::cli::environment::Environment;
use crate::cli::values::{CacheOption, CachePlace, CacheUse, parse_age, parse_cache};

/// The caches of a build, still to be opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CacheSetup {
    /// Where results of steps are looked for, in this order, and whether each layer is read before its record counts.
    pub sources: Vec<(CachePlace, bool)>,
    /// Where they are kept.
    pub sinks: Vec<(CachePlace, CacheMode)>,
    /// Whether what is found is used: not with `--no-cache`.
    pub use_hits: bool,
    /// What was made longer ago is not used.
    pub most_age: Option<Duration>,
    /// Where cache mounts are restored from, in this order.
    pub mounts_from: Vec<CacheOption>,
    /// Where they are saved.
    pub mounts_to: Vec<CacheOption>,
}

impl CacheSetup {
    /// Tells whether a build has any of these at all.
    pub fn is_empty(&self) -> bool {
        self.sources.is_empty()
            && self.sinks.is_empty()
            && self.mounts_from.is_empty()
            && self.mounts_to.is_empty()
    }
}

/// Reads the options of `kiln build`: kiln's own store comes first, unless it is left out.
pub fn cache_setup(
    args: &CacheArgs,
    no_cache: bool,
    environment: &Environment,
) -> Result<CacheSetup, RequestError> {
    let from = options(CacheUse::From, &args.cache_from, environment)?;
    let to = options(CacheUse::To, &args.cache_to, environment)?;
    let mounts = |kind, texts: &[String]| -> Result<Vec<CacheOption>, RequestError> {
        Ok(options(kind, texts, environment)?.into_iter().flatten().collect())
    };
    // `type=none` is read as no place at all.
    let with_own = |options: &[Option<CacheOption>]| {
        let own =
            CacheOption { place: CachePlace::Own, mode: CacheMode::Max, verify: false, most_bytes: None };
        let leaves_out = options.iter().any(Option::is_none);
        let others = options.iter().flatten().cloned();
        (!leaves_out).then_some(own).into_iter().chain(others).collect::<Vec<_>>()
    };
    Ok(CacheSetup {
        sources: with_own(&from).into_iter().map(|option| (option.place, option.verify)).collect(),
        sinks: with_own(&to).into_iter().map(|option| (option.place, option.mode)).collect(),
        use_hits: !no_cache,
        most_age: args.cache_ttl.as_deref().map(|text| parse_age("--cache-ttl", text)).transpose()?,
        mounts_from: mounts(CacheUse::MountsFrom, &args.cache_mounts_from)?,
        mounts_to: mounts(CacheUse::MountsTo, &args.cache_mounts_to)?,
    })
}

/// Reads one option as often as it was given; directories are the user's.
fn options(
    kind: CacheUse,
    texts: &[String],
    environment: &Environment,
) -> Result<Vec<Option<CacheOption>>, RequestError> {
    let read = |text: &String| {
        let mut option = parse_cache(kind, text)?;
        if let Some(CacheOption { place: CachePlace::Local(path), .. }) = &mut option {
            *path = environment.directory.join(&*path);
        }
        Ok(option)
    };
    // docker takes an empty value for none: pipelines give one where a variable is not set.
    texts.iter().filter(|text| !text.is_empty()).map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::environment::tests::environment;

    fn setup(from: &[&str], to: &[&str]) -> CacheSetup {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let args = CacheArgs { cache_from: texts(from), cache_to: texts(to), ..CacheArgs::default() };
        cache_setup(&args, false, &environment(&[])).unwrap()
    }

    #[test]
    fn the_store_is_a_cache_unless_it_is_left_out() {
        let repository = || CachePlace::Registry("r.io/c".parse().unwrap());
        let plain = setup(&[], &[]);
        assert_eq!(
            (plain.sources, plain.sinks),
            (vec![(CachePlace::Own, false)], vec![(CachePlace::Own, CacheMode::Max)])
        );
        let from = ["type=registry,ref=r.io/c,verify=true", ""];
        let both = setup(&from, &["type=registry,ref=r.io/c,mode=min"]);
        assert_eq!(both.sources, [(CachePlace::Own, false), (repository(), true)]);
        assert_eq!(both.sinks, [(CachePlace::Own, CacheMode::Max), (repository(), CacheMode::Min)]);
        let without = setup(&["type=none", "r.io/c"], &["type=none"]);
        assert_eq!((without.sources, without.sinks), (vec![(repository(), false)], Vec::new()));
    }
}
