//! `containers-registries.conf` (version 2), as podman, buildah and skopeo read it: mirrors, places that
//! stand in for others, plain HTTP, and what is blocked.
//!
//! The one file of `$CONTAINERS_REGISTRIES_CONF`, else the user's, else the system's; then `*.conf` in the
//! `registries.conf.d` beside it, in byte order, where a later `[[registry]]` replaces an earlier one of the
//! same prefix. What means nothing to a Dockerfile is known and left alone: a short name is Docker Hub's, as in
//! docker, so `unqualified-search-registries`, `short-name-mode` and `[aliases]` change nothing. Anything
//! unknown is an error, for a rule that is misread leads a pull to the wrong place.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

use crate::cli::environment::Environment;
use crate::registry::{
    AuthFile, MirrorLocation, MirrorRule, MirrorRules, PullFrom, RegistryConfig, Secret, Sides,
};

/// A file that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum RegistriesConfError {
    /// It can't be read.
    #[error("cannot read `{path}`")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// It says something that can't be right.
    #[error("`{path}` line {line}: {reason}")]
    Content {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Document {
    #[serde(default)]
    registry: Vec<Spanned<Registry>>,
    #[serde(default)]
    credential_helpers: Vec<String>,
    // Version 1, to be refused by name.
    registries: Option<Spanned<toml::Value>>,
    // What a Dockerfile's names do not depend on.
    #[serde(rename = "unqualified-search-registries")]
    _search: Option<Vec<String>>,
    #[serde(rename = "short-name-mode")]
    _short_names: Option<String>,
    #[serde(rename = "aliases")]
    _aliases: Option<BTreeMap<String, String>>,
    // About storage that fetches layers lazily: kiln has none.
    #[serde(rename = "additional-layer-store-auth-helper")]
    _layer_store_helper: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Registry {
    prefix: Option<String>,
    location: Option<String>,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    blocked: bool,
    #[serde(default)]
    mirror_by_digest_only: bool,
    #[serde(default)]
    mirror: Vec<Spanned<Mirror>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Mirror {
    location: String,
    #[serde(default)]
    insecure: bool,
    pull_from_mirror: Option<String>,
}

/// What the files say together.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    rules: BTreeMap<String, MirrorRule>,
    /// Hosts that plain HTTP is spoken with, by the prefix that says so.
    insecure: BTreeMap<String, Vec<(String, Sides)>>,
    helpers: Option<(PathBuf, Vec<String>)>,
}

/// One file that is being read.
struct Source<'a> {
    path: &'a Path,
    text: &'a str,
}

/// Adds what the machine's files say.
pub(super) fn read(
    config: &mut RegistryConfig,
    environment: &Environment,
) -> Result<(), RegistriesConfError> {
    read_files(config, &files(environment)?)
}

/// Lists the files that hold, the main one first.
fn files(environment: &Environment) -> Result<Vec<PathBuf>, RegistriesConfError> {
    if let Some(path) = environment.named("CONTAINERS_REGISTRIES_CONF") {
        return Ok(vec![path]);
    }
    let user = ["registries.conf", "registries.conf.d"]
        .map(|name| environment.in_config(Path::new("containers").join(name)));
    let system = ["/etc/containers/registries.conf", "/etc/containers/registries.conf.d"]
        .map(|path| environment.own(path));
    let mut files = Vec::new();
    // A file of the user's own stands for the system's, and so do its drop-ins.
    let places = if user[0].exists() { vec![user] } else { vec![system, user] };
    files.extend(places.iter().map(|[file, _]| file.clone()).find(|path| path.exists()));
    for [_, directory] in &places {
        files.extend(drop_ins(directory)?);
    }
    Ok(files)
}

fn drop_ins(directory: &Path) -> Result<Vec<PathBuf>, RegistriesConfError> {
    let fail = |source| RegistriesConfError::Read { path: directory.to_owned(), source };
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(fail(error)),
    };
    let paths: Result<Vec<PathBuf>, io::Error> = entries.map(|entry| Ok(entry?.path())).collect();
    let mut paths = paths.map_err(fail)?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "conf"));
    paths.sort();
    Ok(paths)
}

fn read_files(config: &mut RegistryConfig, files: &[PathBuf]) -> Result<(), RegistriesConfError> {
    let mut found = Found::default();
    for path in files {
        let text = fs::read_to_string(path)
            .map_err(|source| RegistriesConfError::Read { path: path.clone(), source })?;
        found.add(&Source { path, text: &text })?;
    }
    for (host, sides) in found.insecure.into_values().flatten() {
        config.host_mut(&host).waived.insecure |= sides;
    }
    let rules: Vec<MirrorRule> = found.rules.into_values().filter(says_something).collect();
    config.mirrors.put_before(MirrorRules { rules, no_fallback: false });
    if let Some((path, helpers)) = found.helpers {
        config.credentials.files.extend(helpers.iter().map(|name| {
            // As if docker's config.json named it for every registry.
            let text = serde_json::json!({ "credsStore": name }).to_string();
            AuthFile { origin: path.display().to_string(), text: Secret::new(text) }
        }));
    }
    Ok(())
}

fn says_something(rule: &MirrorRule) -> bool {
    rule.blocked.is_some() || !rule.locations.is_empty()
}

impl Source<'_> {
    fn line(&self, offset: usize) -> usize {
        self.text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
    }

    fn fail(&self, offset: usize, reason: impl Into<String>) -> RegistriesConfError {
        RegistriesConfError::Content {
            path: self.path.to_owned(),
            line: self.line(offset),
            reason: reason.into(),
        }
    }

    fn parse(&self) -> Result<Document, RegistriesConfError> {
        let document: Document = toml::from_str(self.text).map_err(|error| {
            self.fail(error.span().map_or(0, |span| span.start), error.message().replace('\n', " "))
        })?;
        match &document.registries {
            Some(old) => Err(self.fail(
                old.span().start,
                "`[registries]` is the format of version 1: write a `[[registry]]` table for each registry",
            )),
            None => Ok(document),
        }
    }
}

impl Found {
    fn add(&mut self, source: &Source<'_>) -> Result<(), RegistriesConfError> {
        let document = source.parse()?;
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        for table in document.registry {
            let start = table.span().start;
            let (prefix, rule, insecure) = read_registry(source, start, table.into_inner())?;
            // Within one file two tables of one prefix contradict each other; a later file replaces.
            if let Some(first) = seen.insert(prefix.clone(), source.line(start)) {
                return Err(source.fail(start, format!("`{prefix}` has a table at line {first} already")));
            }
            self.insecure.insert(prefix.clone(), insecure);
            self.rules.insert(prefix, rule);
        }
        let own = ["containers-auth.json", ""];
        let helpers: Vec<String> =
            document.credential_helpers.into_iter().filter(|name| !own.contains(&name.as_str())).collect();
        if !helpers.is_empty() {
            self.helpers = Some((source.path.to_owned(), helpers));
        }
        Ok(())
    }
}

type Read = (String, MirrorRule, Vec<(String, Sides)>);

fn read_registry(source: &Source<'_>, at: usize, table: Registry) -> Result<Read, RegistriesConfError> {
    let fail = |reason: String| source.fail(at, reason);
    let prefix = match (&table.prefix, &table.location) {
        (Some(prefix), _) if !prefix.is_empty() => prefix.clone(),
        (_, Some(location)) => location.clone(),
        _ => return Err(fail("expected a `prefix` or a `location`, found neither".to_owned())),
    };
    let prefix = checked(&prefix).map_err(fail)?;
    let location = table.location.filter(|location| !location.is_empty());
    let location = location.map(|text| checked(&text)).transpose().map_err(fail)?;
    let mut insecure = Vec::new();
    let mut locations = Vec::new();
    for mirror in table.mirror {
        let at = mirror.span().start;
        let mirror = mirror.into_inner();
        let place = checked(&mirror.location).map_err(|reason| source.fail(at, reason))?;
        if mirror.insecure {
            insecure.push((host(&place), Sides::PULL));
        }
        let pull_from = pull_from(table.mirror_by_digest_only, mirror.pull_from_mirror.as_deref())
            .map_err(|reason| source.fail(at, reason))?;
        locations.push(MirrorLocation { pull_from, ..MirrorLocation::new(&place) });
    }
    let stands_in = location.as_ref().is_some_and(|location| *location != prefix);
    if table.insecure {
        // Pushes go where the name says, pulls to the location.
        insecure.push((host(location.as_ref().unwrap_or(&prefix)), Sides::PULL));
        insecure.push((host(&prefix), Sides::BOTH));
    }
    if stands_in {
        locations.extend(location.as_deref().map(MirrorLocation::new));
    }
    let blocked = table.blocked.then(|| format!("`{}` line {}", source.path.display(), source.line(at)));
    let rule = MirrorRule { no_fallback: stands_in, blocked, ..MirrorRule::of(&prefix, locations) };
    Ok((prefix, rule, insecure))
}

/// Takes a prefix or location without what may stand around it; `docker.io` goes by one name.
fn checked(text: &str) -> Result<String, String> {
    let text = text.trim_end_matches('/');
    if text.is_empty() || text.contains("://") || text.contains(char::is_whitespace) {
        return Err(format!("expected `HOST[:PORT][/PATH]`, found `{text}`"));
    }
    Ok(match text.strip_prefix("index.docker.io") {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => format!("docker.io{rest}"),
        _ => text.to_owned(),
    })
}

fn host(place: &str) -> String {
    place.split('/').next().unwrap_or(place).to_owned()
}

fn pull_from(by_digest_only: bool, text: Option<&str>) -> Result<PullFrom, String> {
    match (by_digest_only, text) {
        (true, Some(_)) => Err("`pull-from-mirror` contradicts `mirror-by-digest-only`".to_owned()),
        (true, None) | (false, Some("digest-only")) => Ok(PullFrom::DigestOnly),
        (false, None | Some("all" | "")) => Ok(PullFrom::All),
        (false, Some("tag-only")) => Ok(PullFrom::TagOnly),
        (false, Some(other)) => Err(format!(
            "expected `all`, `digest-only` or `tag-only` for `pull-from-mirror`, found `{other}`"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::environment::tests::environment;
    use crate::oci::Reference;

    fn config(texts: &[&str]) -> Result<RegistryConfig, RegistriesConfError> {
        let directory = tempfile::tempdir().unwrap();
        let mut files = Vec::new();
        for (number, text) in texts.iter().enumerate() {
            files.push(directory.path().join(format!("{number}.conf")));
            fs::write(&files[number], text).unwrap();
        }
        let mut config = RegistryConfig::default();
        read_files(&mut config, &files).map(|()| config)
    }

    fn places(config: &RegistryConfig, reference: &str) -> Vec<String> {
        let reference: Reference = reference.parse().unwrap();
        config.mirrors.candidates(&reference).unwrap().iter().map(ToString::to_string).collect()
    }

    const FULL: &str = r#"
unqualified-search-registries = ["quay.io"]
short-name-mode = "enforcing"
credential-helpers = ["containers-auth.json", "ecr-login"]

[[registry]]
location = "docker.io"
[[registry.mirror]]
location = "mirror.corp:5000/hub"
insecure = true
[[registry.mirror]]
location = "digests.corp"
pull-from-mirror = "digest-only"

[[registry]]
prefix = "old.corp/team"
location = "new.corp/moved"

[[registry]]
prefix = "*.lab.corp"
insecure = true
mirror-by-digest-only = true
[[registry.mirror]]
location = "cache.corp"

[[registry]]
prefix = "evil.example"
blocked = true

[aliases]
"debian" = "quay.io/debian/debian"
"#;

    #[test]
    fn a_full_file_is_understood() {
        let config = config(&[FULL]).unwrap();
        assert_eq!(
            places(&config, "debian:12"),
            ["mirror.corp:5000/hub/library/debian:12", "docker.io/library/debian:12"]
        );
        let digest = crate::oci::Digest::of(b"x");
        assert_eq!(places(&config, &format!("debian@{digest}")).len(), 3);
        // A location takes the place of the prefix; the old name is not asked.
        assert_eq!(places(&config, "old.corp/team/app:1"), ["new.corp/moved/app:1"]);
        assert_eq!(places(&config, "old.corp/teams/app:1"), ["old.corp/teams/app:1"]);
        assert_eq!(places(&config, "a.lab.corp/x:1"), ["a.lab.corp/x:1"]);
        assert_eq!(places(&config, &format!("a.lab.corp/x@{digest}"))[0], format!("cache.corp/x@{digest}"));
        let blocked = config.mirrors.candidates(&"evil.example/x:1".parse().unwrap()).unwrap_err();
        assert!(blocked.to_string().contains("0.conf` line 26"), "{blocked}");
        assert_eq!(config.host("mirror.corp:5000").waived.insecure, Sides::PULL);
        assert_eq!(config.host("a.lab.corp").waived.insecure, Sides::BOTH);
        assert_eq!(config.host("digests.corp").waived.insecure, Sides::default());
        assert_eq!(config.credentials.files.len(), 1);
        assert!(config.credentials.files[0].text.reveal().contains("ecr-login"));
    }

    #[test]
    fn a_later_file_replaces_a_table_of_the_same_prefix() {
        let first =
            "[[registry]]\nprefix='docker.io'\ninsecure=true\n[[registry.mirror]]\nlocation='a.corp'\n";
        let second = "[[registry]]\nprefix='docker.io'\n[[registry.mirror]]\nlocation='b.corp'\n";
        let config = config(&[first, second]).unwrap();
        assert_eq!(places(&config, "x/y:1"), ["b.corp/x/y:1", "docker.io/x/y:1"]);
        assert_eq!(config.host("docker.io").waived.insecure, Sides::default());
    }

    #[test]
    fn mistakes_are_named_with_file_and_line() {
        for (text, line, reason) in [
            ("\n[[registry]\n", 2, "unclosed"),
            ("[[registry]]\nprefix = 'a.io'\ninsecur = true\n", 3, "unknown field `insecur`"),
            ("a = 1\n", 1, "unknown field `a`"),
            ("\n\n[[registry]]\ninsecure = true\n", 3, "found neither"),
            ("[[registry]]\nlocation = 'https://a.io'\n", 1, "expected `HOST"),
            ("[[registry]]\nlocation='a.io'\n[[registry]]\nlocation='a.io'\n", 3, "line 1 already"),
            ("[[registry]]\nlocation='a.io'\nblocked='yes'\n", 3, "expected a boolean"),
            (
                "[[registry]]\nlocation='a.io'\n[[registry.mirror]]\nlocation='m'\npull-from-mirror='x'\n",
                3,
                "`digest-only`",
            ),
            ("[registries.insecure]\nregistries = ['a.io']\n", 1, "version 1"),
        ] {
            let error = config(&[text]).unwrap_err();
            let RegistriesConfError::Content { line: found, reason: why, path } = &error else {
                panic!("{error:?}")
            };
            assert!(path.ends_with("0.conf"));
            assert!(why.contains(reason), "{text:?}: {why}");
            assert_eq!(*found, line, "{text:?}: {error}");
        }
    }

    #[test]
    fn the_users_file_stands_for_the_systems_and_a_variable_for_both() {
        let home = tempfile::tempdir().unwrap();
        let place = home.path().join(".config/containers");
        fs::create_dir_all(place.join("registries.conf.d")).unwrap();
        for name in ["registries.conf", "registries.conf.d/20.conf", "registries.conf.d/10.conf"] {
            fs::write(place.join(name), "").unwrap();
        }
        fs::write(place.join("registries.conf.d/README"), "no").unwrap();
        let environment = environment(&[("HOME", home.path().to_str().unwrap())]);
        let names: Vec<_> = files(&environment)
            .unwrap()
            .iter()
            .map(|path| path.strip_prefix(&place).unwrap().to_owned())
            .collect();
        let expected = ["registries.conf", "registries.conf.d/10.conf", "registries.conf.d/20.conf"];
        assert_eq!(names, expected.map(PathBuf::from));
        let mut named = environment;
        named.variables.insert("CONTAINERS_REGISTRIES_CONF".into(), "r.conf".into());
        assert_eq!(files(&named).unwrap(), [PathBuf::from("/work/r.conf")]);
        let error = read(&mut RegistryConfig::default(), &named).unwrap_err();
        assert!(error.to_string().contains("/work/r.conf"), "{error}");
    }
}
