//! Where else an image may be pulled from: mirrors of any registry, by prefix.

use crate::oci::{Reference, ReferenceError};

/// Rules that lead pulls elsewhere; pushes never follow them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MirrorRules {
    /// The rules; for a repository, the one with the longest matching prefix holds.
    pub rules: Vec<MirrorRule>,
    /// Whether the registry that was named is never asked when a rule matches
    /// (`--skip-default-registry-fallback`).
    pub no_fallback: bool,
}

/// One rule: repositories below `prefix` are looked for at `locations` first, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirrorRule {
    /// `host[:port][/path]` of what is mirrored; `*.example.com` matches any host below.
    pub prefix: String,
    /// Where to look.
    pub locations: Vec<MirrorLocation>,
    /// Whether the registry that was named is not asked after these (containers-registries.conf's
    /// `location`).
    pub no_fallback: bool,
    /// Where it is written that nothing below the prefix may be pulled or pushed, if it is
    /// (containers-registries.conf's `blocked`).
    pub blocked: Option<String>,
}

/// One place to look: `host[:port][/path]` that takes the prefix's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirrorLocation {
    /// `host[:port][/path]`.
    pub location: String,
    /// Which references may be asked for here.
    pub pull_from: PullFrom,
}

/// Which references a mirror is asked for (containers-registries.conf, `pull-from-mirror`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PullFrom {
    /// All.
    #[default]
    All,
    /// Those pinned to a digest.
    DigestOnly,
    /// Those by tag.
    TagOnly,
}

/// A repository that can't be looked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlaceError {
    /// It is blocked.
    #[error("`{prefix}` is blocked by {origin}")]
    Blocked {
        /// The prefix that is.
        prefix: String,
        /// File and line.
        origin: String,
    },
    /// A mirror and the rest of the name make no reference.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
}

/// A rule or location that can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid mirror `{text}`: {reason}")]
pub struct MirrorError {
    /// The text.
    pub text: String,
    /// What is wrong with it.
    pub reason: String,
}

impl MirrorRule {
    /// Makes the rule that `prefix` is also at `location`.
    pub fn new(prefix: &str, location: &str) -> Self {
        Self::of(prefix, vec![MirrorLocation::new(location)])
    }

    /// Makes the rule that `prefix` is at these locations, and at the registry itself.
    pub fn of(prefix: &str, locations: Vec<MirrorLocation>) -> Self {
        Self { prefix: prefix.to_owned(), locations, no_fallback: false, blocked: None }
    }
}

impl MirrorLocation {
    /// Makes a location for references of all kinds; a scheme or a slash at the end goes.
    pub fn new(location: &str) -> Self {
        let location = location.split_once("://").map_or(location, |(_, rest)| rest);
        Self { location: location.trim_end_matches('/').to_owned(), pull_from: PullFrom::All }
    }
}

impl MirrorRules {
    /// Adds `--registry-mirror`: `[REGISTRY=]HOST[/PATH][,HOST[/PATH]]`, docker.io without a registry.
    pub fn add_mirror(&mut self, text: &str) -> Result<(), MirrorError> {
        let (prefix, locations) = text.split_once('=').unwrap_or(("docker.io", text));
        locations.split(',').try_for_each(|location| self.add(prefix, location, text))
    }

    /// Puts other rules before these: their locations are asked first.
    pub fn put_before(&mut self, others: Self) {
        self.no_fallback |= others.no_fallback;
        for mut other in others.rules {
            match self.rules.iter_mut().find(|rule| rule.prefix == other.prefix) {
                Some(rule) => {
                    other.locations.append(&mut rule.locations);
                    rule.locations = other.locations;
                }
                None => self.rules.push(other),
            }
        }
    }

    /// Adds `--registry-map` (kaniko): `a=b;a=c;d=e`.
    pub fn add_map(&mut self, text: &str) -> Result<(), MirrorError> {
        for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
            let (prefix, location) = part.split_once('=').ok_or_else(|| MirrorError {
                text: part.to_owned(),
                reason: "expected `registry=mirror`".to_owned(),
            })?;
            self.add(prefix, location, part)?;
        }
        Ok(())
    }

    fn add(&mut self, prefix: &str, location: &str, text: &str) -> Result<(), MirrorError> {
        let (prefix, location) = (prefix.trim().trim_end_matches('/'), location.trim());
        let fail = |reason: String| MirrorError { text: text.to_owned(), reason };
        if location.starts_with("http://") {
            let hint =
                "expected `HOST[:PORT][/PATH]`; for plain HTTP, pass `--insecure-registry` with its host";
            return Err(fail(hint.to_owned()));
        }
        let location = MirrorLocation::new(location);
        if prefix.is_empty() || location.location.is_empty() {
            return Err(fail("expected a registry and its mirror".to_owned()));
        }
        // Whatever the repository, this must be able to begin a reference.
        join(&location.location, "x").map_err(|error| fail(error.to_string()))?;
        let prefix = if prefix == "index.docker.io" { "docker.io" } else { prefix };
        match self.rules.iter_mut().find(|rule| rule.prefix == prefix) {
            Some(rule) => rule.locations.push(location),
            None => self.rules.push(MirrorRule::of(prefix, vec![location])),
        }
        Ok(())
    }

    /// Fails if `reference` is blocked.
    pub fn check(&self, reference: &Reference) -> Result<(), PlaceError> {
        self.rule_for(reference).map(drop)
    }

    /// Returns the rule that holds for `reference`, and what is left of its repository below the prefix.
    fn rule_for(&self, reference: &Reference) -> Result<Option<(&MirrorRule, String)>, PlaceError> {
        let best = self
            .rules
            .iter()
            .filter_map(|rule| Some((rule, remainder(&rule.prefix, reference)?)))
            .max_by_key(|(rule, _)| rule.prefix.len());
        match best {
            Some((MirrorRule { prefix, blocked: Some(origin), .. }, _)) => {
                Err(PlaceError::Blocked { prefix: prefix.clone(), origin: origin.clone() })
            }
            best => Ok(best),
        }
    }

    /// Returns where to look for `reference`, best first; the last is usually the reference itself.
    pub fn candidates(&self, reference: &Reference) -> Result<Vec<Reference>, PlaceError> {
        let Some((rule, rest)) = self.rule_for(reference)? else { return Ok(vec![reference.clone()]) };
        let mut found = Vec::new();
        for location in &rule.locations {
            let fits = match location.pull_from {
                PullFrom::All => true,
                PullFrom::DigestOnly => reference.digest().is_some(),
                PullFrom::TagOnly => reference.digest().is_none(),
            };
            if fits {
                let (registry, repository) = join(&location.location, &rest)?;
                found.push(Reference::new(
                    &registry,
                    &repository,
                    reference.tag(),
                    reference.digest().cloned(),
                )?);
            }
        }
        // `location` takes the registry's place; a flag against falling back is about mirrors that are asked.
        if !(self.no_fallback || rule.no_fallback) || found.is_empty() {
            found.push(reference.clone());
        }
        // A registry mirrored onto itself need not be asked twice.
        let mut seen = std::collections::BTreeSet::new();
        found.retain(|candidate| seen.insert(candidate.clone()));
        Ok(found)
    }
}

/// Returns what is left of the repository below `prefix`, if it is below it.
fn remainder(prefix: &str, reference: &Reference) -> Option<String> {
    if let Some(domain) = prefix.strip_prefix("*.") {
        let below = reference.registry().strip_suffix(domain)?.strip_suffix('.')?;
        return (!below.is_empty()).then(|| reference.repository().to_owned());
    }
    let name = reference.name();
    let rest = name.strip_prefix(prefix)?;
    if rest.is_empty() { Some(String::new()) } else { rest.strip_prefix('/').map(str::to_owned) }
}

/// Puts a location and the rest of a repository together: registry and repository. The first component of a
/// location is always a host.
fn join(location: &str, rest: &str) -> Result<(String, String), ReferenceError> {
    let (host, path) = location.split_once('/').unwrap_or((location, ""));
    let parts: Vec<&str> = [path, rest].into_iter().filter(|part| !part.is_empty()).collect();
    let repository = parts.join("/");
    // A host without dot or port (`mirror`) would be read as a part of the repository.
    let looks_like_a_host = host.contains(['.', ':']) || host == "localhost" || host.starts_with('[');
    let host = if looks_like_a_host { host.to_owned() } else { format!("{host}:443") };
    Reference::new(&host, &repository, None, None)?;
    Ok((host, repository))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(rules: &MirrorRules, reference: &str) -> Vec<String> {
        let reference: Reference = reference.parse().unwrap();
        rules.candidates(&reference).unwrap().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn without_rules_there_is_one_place() {
        assert_eq!(candidates(&MirrorRules::default(), "debian:12"), ["docker.io/library/debian:12"]);
    }

    #[test]
    fn hub_mirrors_come_first_and_hub_last() {
        let mut rules = MirrorRules::default();
        rules.add_mirror("mirror.gcr.io").unwrap();
        rules.add_mirror("https://harbor.corp/proxy/").unwrap();
        assert_eq!(
            candidates(&rules, "debian:12"),
            [
                "mirror.gcr.io/library/debian:12",
                "harbor.corp/proxy/library/debian:12",
                "docker.io/library/debian:12"
            ]
        );
        assert_eq!(candidates(&rules, "ghcr.io/a/b"), ["ghcr.io/a/b:latest"]);
        rules.no_fallback = true;
        assert_eq!(candidates(&rules, "x/y:1").len(), 2);
    }

    #[test]
    fn any_registry_and_any_prefix_can_be_mirrored() {
        let mut rules = MirrorRules::default();
        rules.add_map("ghcr.io=m.corp/ghcr;ghcr.io/team=n.corp;quay.io=m.corp/quay").unwrap();
        assert_eq!(candidates(&rules, "ghcr.io/team/app:1")[0], "n.corp/app:1");
        assert_eq!(candidates(&rules, "ghcr.io/teams/app:1")[0], "m.corp/ghcr/teams/app:1");
        assert_eq!(candidates(&rules, "quay.io/x/y:1")[0], "m.corp/quay/x/y:1");
    }

    #[test]
    fn wildcards_match_hosts_below() {
        let rules =
            MirrorRules { rules: vec![MirrorRule::new("*.corp.example", "cache.corp")], no_fallback: true };
        assert_eq!(candidates(&rules, "a.b.corp.example/x:1"), ["cache.corp/x:1"]);
        assert_eq!(candidates(&rules, "a.corp.example/x:1"), ["cache.corp/x:1"]);
        assert_eq!(candidates(&rules, "corp.example/x:1"), ["corp.example/x:1"]);
        assert_eq!(candidates(&rules, "evilcorp.example/x:1"), ["evilcorp.example/x:1"]);
    }

    #[test]
    fn a_mirror_can_be_for_digests_alone() {
        let mut rule = MirrorRule::new("docker.io", "m.corp");
        rule.locations[0].pull_from = PullFrom::DigestOnly;
        let rules = MirrorRules { rules: vec![rule], no_fallback: false };
        assert_eq!(candidates(&rules, "debian:12"), ["docker.io/library/debian:12"]);
        let digest = crate::oci::Digest::of(b"x");
        assert_eq!(
            candidates(&rules, &format!("debian@{digest}"))[0],
            format!("m.corp/library/debian@{digest}")
        );
    }

    #[test]
    fn what_is_blocked_is_looked_for_nowhere() {
        let mut rules = MirrorRules::default();
        rules.add_mirror("m.corp").unwrap();
        let blocked =
            MirrorRule { blocked: Some("r.conf:3".to_owned()), ..MirrorRule::of("docker.io/bad", vec![]) };
        rules.rules.push(blocked);
        assert_eq!(candidates(&rules, "good/app:1").len(), 2);
        let error = rules.candidates(&"bad/app:1".parse().unwrap()).unwrap_err();
        assert_eq!(error.to_string(), "`docker.io/bad` is blocked by r.conf:3");
        assert!(rules.check(&"bad/app:1".parse().unwrap()).is_err());
    }

    #[test]
    fn rules_of_the_command_line_come_before_those_of_files() {
        let mut rules =
            MirrorRules { rules: vec![MirrorRule::new("docker.io", "file.corp")], no_fallback: false };
        let mut flags = MirrorRules::default();
        flags.add_mirror("one.corp,two.corp").unwrap();
        flags.add_map("ghcr.io=three.corp").unwrap();
        rules.put_before(flags);
        assert_eq!(
            candidates(&rules, "x/y:1"),
            ["one.corp/x/y:1", "two.corp/x/y:1", "file.corp/x/y:1", "docker.io/x/y:1"]
        );
        assert_eq!(candidates(&rules, "ghcr.io/x/y:1")[0], "three.corp/x/y:1");
    }

    #[test]
    fn bad_mirrors_are_refused() {
        let mut rules = MirrorRules::default();
        for text in ["", "docker.io=", "=x", "docker.io=UPPER/Case", "a b", "http://m.corp", "a.io=b.io,"] {
            assert!(rules.add_mirror(text).is_err(), "{text}");
        }
        assert!(rules.add_map("docker.io").is_err());
    }
}
