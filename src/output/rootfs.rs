//! The image's files themselves, as a directory or a plain tar: no manifest, no layers.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::file::{Sink, check_directory};
use super::{BuildResult, Destination, OpenStdout, Output, OutputError, OutputParts, Receipt};
use crate::layer::{Change, ChangeSet, LayerError, Node, NodeKind, TarOptions, write_tar};
use crate::oci::Layer;
use crate::tree::{Entry, FileKind, RootDir, Walk, copy_tree};

/// The files below a directory; what is there already stays unless it has the same name.
pub(super) struct RootfsDirectory {
    path: PathBuf,
}

impl RootfsDirectory {
    /// Creates the directory, or checks the one that is there.
    pub(super) fn open(path: &Path) -> Result<Self, OutputError> {
        check_directory(path)?;
        Ok(Self { path: path.to_owned() })
    }
}

impl Output for RootfsDirectory {
    fn name(&self) -> String {
        format!("directory {}", self.path.display())
    }

    fn layer_ready(&self, _layer: &Layer) {}

    fn needs_tree(&self) -> bool {
        true
    }

    fn commit(&self, result: &BuildResult) -> Result<Receipt, OutputError> {
        let Some(tree) = &result.tree else { return Err(OutputError::NoTree { output: self.name() }) };
        let fail = |source| OutputError::write(&self.path, source);
        let into = RootDir::open(&self.path).map_err(fail)?;
        copy_tree(tree, Path::new(""), &into, Path::new("")).map_err(fail)?;
        Ok(Receipt {
            name: "directory".to_owned(),
            digest: None,
            size_bytes: 0,
            tags: Vec::new(),
            location: self.path.display().to_string(),
        })
    }
}

/// The files in a tar.
pub(super) struct RootfsArchive {
    destination: Destination,
    stdout: OpenStdout,
}

impl RootfsArchive {
    /// Checks the destination.
    pub(super) fn open(destination: &Destination, parts: &OutputParts) -> Result<Self, OutputError> {
        destination.check()?;
        Ok(Self { destination: destination.clone(), stdout: parts.stdout.clone() })
    }
}

impl Output for RootfsArchive {
    fn name(&self) -> String {
        format!("tar {}", self.destination.display())
    }

    fn layer_ready(&self, _layer: &Layer) {}

    fn needs_tree(&self) -> bool {
        true
    }

    fn commit(&self, result: &BuildResult) -> Result<Receipt, OutputError> {
        let Some(tree) = &result.tree else { return Err(OutputError::NoTree { output: self.name() }) };
        let fail = |source| self.destination.write_error(source);
        let changes = whole_tree(tree).map_err(fail)?;
        let mut out = Counting { sink: Sink::open(&self.destination, &self.stdout)?, bytes: 0 };
        write_tar(changes, &TarOptions::default(), &mut out).map_err(OutputError::Archive)?;
        out.sink.finish()?;
        Ok(Receipt {
            name: "tar".to_owned(),
            digest: None,
            size_bytes: out.bytes,
            tags: Vec::new(),
            location: self.destination.display(),
        })
    }
}

/// Lists a whole tree as changes to an empty one; a file's further names are links to its first.
fn whole_tree(tree: &Arc<RootDir>) -> io::Result<ChangeSet> {
    let walk = Walk::new(tree, "")?;
    let root = Arc::clone(tree);
    let mut first_names: BTreeMap<(u64, u64), PathBuf> = BTreeMap::new();
    let mut change = move |entry: Entry| -> Result<Option<Change>, LayerError> {
        let Entry { path, metadata } = entry;
        let Some(mut node) = Node::from_tree(&root, path.clone(), &metadata)? else { return Ok(None) };
        if metadata.nlink > 1 && metadata.kind != FileKind::Directory {
            match first_names.get(&(metadata.dev, metadata.ino)) {
                Some(first) => node.kind = NodeKind::HardLink { target: first.clone() },
                None => {
                    first_names.insert((metadata.dev, metadata.ino), path.clone());
                }
            }
        }
        Ok(Some(Change::Upsert { path, node }))
    };
    let place = tree.path().to_owned();
    Ok(Box::new(walk.filter_map(move |entry| match entry {
        Ok(entry) => change(entry).transpose(),
        Err(source) => Some(Err(LayerError::Read { path: place.clone(), source })),
    })))
}

/// Counts what goes into a sink.
struct Counting {
    sink: Sink,
    bytes: u64,
}

impl Write for Counting {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.sink.write(bytes)?;
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}
