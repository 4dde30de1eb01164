//! What can go wrong with whole images.

use std::path::PathBuf;

use crate::blob::BlobError;
use crate::oci::{Digest, Platform};
use crate::output::OutputError;
use crate::registry::RegistryError;

/// A failure to read, merge or move whole images.
#[derive(Debug, thiserror::Error)]
pub enum ImagesError {
    /// A registry failed or refused.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A store or layout failed.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// A layout could not be written, or an image of it not be read.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// A manifest, index or config is not one.
    #[error("the {what} of `{name}` cannot be read: {reason}")]
    Malformed {
        /// The image.
        name: String,
        /// `manifest`, `index`, `config`.
        what: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// An index of which not every image is here.
    #[error("`{name}` is not complete: its image for {platform} is not here")]
    Incomplete {
        /// The index.
        name: String,
        /// Whose image is missing.
        platform: String,
    },
    /// Two images of an index are for the same platform.
    #[error("`{second}` is for {platform}, and so is `{first}`")]
    SamePlatform {
        /// The platform.
        platform: Box<Platform>,
        /// What was there first.
        first: String,
        /// What came later.
        second: String,
    },
    /// Something that needs an index was given something else.
    #[error("`{name}` is not an index: it is a `{found}`")]
    NotAnIndex {
        /// What was given.
        name: String,
        /// Its media type.
        found: String,
    },
    /// No entry of the index is what was asked for.
    #[error("no entry `{wanted}` in the index: it has {}", present.join(", "))]
    NoEntry {
        /// What was looked for.
        wanted: String,
        /// What there is.
        present: Vec<String>,
    },
    /// Several entries of the index are what was asked for.
    #[error("`{wanted}` could be several entries of the index: {}", found.join(", "))]
    SeveralEntries {
        /// What was looked for.
        wanted: String,
        /// What it could be.
        found: Vec<String>,
    },
    /// Docker's manifests have no place for annotations.
    #[error("`{name}` is in docker's format, which has no annotations")]
    NoAnnotations {
        /// The image.
        name: String,
    },
    /// A tag was meant, and none was named.
    #[error("`{name}` names no tag to remove")]
    NoTag {
        /// The repository.
        name: String,
    },
    /// What is to be removed is needed by others.
    #[error(
        "`{name}` is `{digest}`, which this registry can only remove as a whole, and {} would lose it, too",
        needed(tags, indexes)
    )]
    Shared {
        /// What was to be removed.
        name: String,
        /// What it stands for.
        digest: Digest,
        /// Other tags that stand for it.
        tags: Vec<String>,
        /// Tags of indexes that point to it.
        indexes: Vec<String>,
    },
    /// A file of this machine cannot be handled.
    #[error("cannot {action} `{}`", path.display())]
    File {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A file of an artifact has a name that leads elsewhere.
    #[error("the artifact has a file called `{title}`: expected a relative path without `..`")]
    BadTitle {
        /// Its title.
        title: String,
    },
    /// The archive of a directory cannot be unpacked.
    #[error("cannot unpack `{}`: {reason}", path.display())]
    Unpack {
        /// The directory.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// An index of nothing.
    #[error("an index needs at least one image")]
    Empty,
}

fn needed(tags: &[String], indexes: &[String]) -> String {
    let list = |names: &[String]| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let plural = |count: usize| if count == 1 { "" } else { "s" };
    let tags = (!tags.is_empty()).then(|| format!("the tag{} {}", plural(tags.len()), list(tags)));
    let indexes = (!indexes.is_empty())
        .then(|| format!("the index{} {}", if indexes.len() == 1 { "" } else { "es" }, list(indexes)));
    let all: Vec<String> = tags.into_iter().chain(indexes).collect();
    all.join(" and ")
}

impl ImagesError {
    /// Returns what the user can do about it.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Registry(error) => return error.hint(),
            Self::Blob(error) => return error.hint().map(str::to_owned),
            Self::Output(error) => return error.hint(),
            Self::Incomplete { .. } => {
                "choose an image that is here with `--platform`, or bring the others with `kiln warm \
                 --all-platforms`"
            }
            Self::SamePlatform { .. } => {
                "leave one of them out, let the later replace the earlier with `--replace`, or say what one is \
                 for with `--platform IMAGE=OS/ARCH/VARIANT`"
            }
            Self::File { source, .. } if source.kind() == std::io::ErrorKind::AlreadyExists => {
                "remove it, choose another directory with `--output`, or leave `--keep-old-files` out"
            }
            Self::NoTag { .. } => "name one: `registry.example.com/app:1.0`",
            Self::Shared { .. } => {
                "pass `--force` to lose them all; to lose this tag alone, let it stand for something else first (`kiln \
                 tag OTHER THIS`), and remove that"
            }
            Self::NoAnnotations { .. } => {
                "annotate the index (`index:KEY=VALUE`) or its entry (`manifest-descriptor:KEY=VALUE`) instead"
            }
            _ => return None,
        };
        Some(text.to_owned())
    }
}
