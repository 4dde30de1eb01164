//! Which directories of a build context reach the build.
//!
//! BuildKit sends only what the instructions name. A wildcard that matches nothing copies nothing, but the directory
//! it looks in has to have arrived: with `COPY conf/*.conf /etc/` and no such file, nothing named `conf` did, and the
//! step fails. kiln has the whole context at hand, so it asks the question explicitly.

use super::Build;
use super::copy::{CopyError, CopyRoot, clean};
use super::error::Problem;
use crate::context::glob;
use crate::dockerfile::mount::{MountKind, parse_mount};
use crate::dockerfile::{InstructionKind, Source};

impl Build<'_> {
    /// Refuses a wildcard in the main context that matches nothing, unless something else in the Dockerfile brings the
    /// directory in front of the wildcard.
    pub(super) fn refuse_unsent(&self, from: &CopyRoot, pattern: &str) -> Result<(), Problem> {
        let cleaned = clean(pattern, false);
        let parts = components(&cleaned);
        let literal = parts.iter().take_while(|part| !glob::has_wildcard(part)).count();
        if literal == 0 || literal == parts.len() || !from.resolve(pattern)?.is_empty() {
            return Ok(());
        }
        let directory = &parts[..literal];
        if self.named_in_context().iter().any(|other| brings(from, other, directory)) {
            return Ok(());
        }
        Err(CopyError::NothingThere { directory: directory.join("/"), pattern: pattern.to_owned() }.into())
    }

    /// Lists what the instructions of the build name in the main context, as it is written.
    fn named_in_context(&self) -> Vec<String> {
        let mut named = Vec::new();
        for id in &self.plan.reachable {
            for step in &self.plan.stages[id.0].steps {
                match &step.kind {
                    InstructionKind::Copy(copy) if copy.from.is_none() => named.extend(paths(&copy.sources)),
                    InstructionKind::Add(add) => named.extend(paths(&add.sources)),
                    InstructionKind::Run(run) => {
                        named.extend(run.mounts.iter().filter_map(|raw| mounted(raw)))
                    }
                    _ => {}
                }
            }
        }
        named
    }
}

fn paths(sources: &[Source]) -> impl Iterator<Item = String> {
    sources.iter().filter_map(|source| match source {
        Source::Path(path) => Some(path.clone()),
        Source::Heredoc(_) => None,
    })
}

fn mounted(raw: &str) -> Option<String> {
    match parse_mount(raw, &mut |text| Ok(text.to_owned())).ok()?.kind {
        MountKind::Bind { from: None, source } => Some(source),
        _ => None,
    }
}

fn components(path: &str) -> Vec<&str> {
    path.split('/').filter(|part| !part.is_empty()).collect()
}

/// Tells whether the source `other` makes `directory` arrive: as itself, as part of something above it, or with an
/// entry inside. A source with a variable might.
fn brings(from: &CopyRoot, other: &str, directory: &[&str]) -> bool {
    if other.contains('$') {
        return true;
    }
    let cleaned = clean(other, false);
    let parts = components(&cleaned);
    let leads_there =
        parts.iter().zip(directory).all(|(part, name)| glob::match_component(part, name.as_ref()));
    leads_there
        && (parts.len() <= directory.len() || from.resolve(other).is_ok_and(|found| !found.is_empty()))
}
