//! What later jobs of a pipeline read: the files, or addresses, that the digest and the names go to.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::args::OutputFlags;
use crate::build::{BuildError, Problem};
use crate::cli::commands::build::write_file;
use crate::cli::environment::Environment;
use crate::cli::fail::Failure;
use crate::cli::request::is_remote;
use crate::context::{ContextError, Fetch};
use crate::oci::{Digest, Reference};

/// Where results go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Results {
    /// The digest alone.
    pub digest: Option<Sink>,
    /// `name@digest`, a line for each destination.
    pub name: Option<Sink>,
    /// `name:tag@digest`, a line for each destination.
    pub name_tag: Option<Sink>,
    /// `BUILDER_OUTPUT`: a directory where Google's Cloud Build looks for what was pushed.
    pub builder_output: Option<PathBuf>,
}

/// Where one of them goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Sink {
    /// A file.
    File(PathBuf),
    /// A URL that takes a PUT.
    Url(String),
}

impl Results {
    /// Reads the flags.
    pub(super) fn of(flags: &OutputFlags, environment: &Environment) -> Self {
        let sink = |text: &Option<String>| match text.as_deref() {
            None | Some("") => None,
            Some(url) if is_remote(url) => Some(Sink::Url(url.to_owned())),
            Some(path) => Some(Sink::File(environment.directory.join(path))),
        };
        Self {
            digest: sink(&flags.digest_file),
            name: sink(&flags.image_name_with_digest_file),
            name_tag: sink(&flags.image_name_tag_with_digest_file),
            builder_output: environment
                .set_var("BUILDER_OUTPUT")
                .map(|path| environment.directory.join(path)),
        }
    }

    /// Tells whether anything goes over the network.
    pub(super) fn need_network(&self) -> bool {
        [&self.digest, &self.name, &self.name_tag]
            .into_iter()
            .flatten()
            .any(|sink| matches!(sink, Sink::Url(_)))
    }

    /// Delivers them. `fetch` is there if [`Results::need_network`] says so.
    pub(super) fn write(
        &self,
        names: &[Reference],
        pushed: bool,
        digest: &Digest,
        fetch: Option<&dyn Fetch>,
    ) -> Result<(), Failure> {
        let lines = |line: &dyn Fn(&Reference) -> String| -> String { names.iter().map(line).collect() };
        let tag = |name: &Reference| name.tag().unwrap_or("latest").to_owned();
        let texts = [
            (&self.digest, digest.to_string()),
            (&self.name, lines(&|name| format!("{}@{digest}\n", shown(name)))),
            (&self.name_tag, lines(&|name| format!("{}:{}@{digest}\n", shown(name), tag(name)))),
        ];
        for (sink, text) in texts {
            match sink {
                None => {}
                Some(Sink::File(path)) => write_with_parents(path, &text)?,
                Some(Sink::Url(url)) => {
                    let fetch = fetch.expect("there is a client where a result goes over the network");
                    fetch.put(url, "text/plain", text.as_bytes()).map_err(upload_failure)?;
                }
            }
        }
        match &self.builder_output {
            Some(directory) if pushed => {
                let line = |name: &Reference| {
                    let name = format!("{}:{}", shown(name), tag(name));
                    format!("{}\n", json!({"name": name, "digest": digest}))
                };
                write_with_parents(&directory.join("images"), &lines(&line))
            }
            _ => Ok(()),
        }
    }
}

fn upload_failure(error: ContextError) -> Failure {
    Failure::from(BuildError::from(Problem::from(error)))
}

/// Writes a file, in a directory that need not be there yet: kaniko makes it.
fn write_with_parents(path: &Path, text: &str) -> Result<(), Failure> {
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs::create_dir_all(parent).map_err(|source| Failure::File {
            action: "create the directory",
            path: parent.to_owned(),
            source,
        })?;
    }
    write_file(path, text)
}

/// Returns a repository as kaniko writes it: Docker Hub is `index.docker.io`.
fn shown(name: &Reference) -> String {
    match name.registry() {
        "docker.io" => format!("index.docker.io/{}", name.repository()),
        _ => name.name(),
    }
}
