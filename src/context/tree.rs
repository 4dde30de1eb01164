//! Contexts on disk: a directory as it is, or an archive unpacked into one.

use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use super::{ContextError, Ignore};
use crate::layer::{ApplyOptions, Owners, TarReader, Whiteouts, apply_tar};
use crate::stream::{Codec, auto_decoder};
use crate::tree::{FileKind, RootDir, Walk};

/// A Dockerfile of this length is none.
const DOCKERFILE_LIMIT_BYTES: u64 = 1 << 20;

/// The unit of a tar archive.
const BLOCK_BYTES: usize = 512;

/// A tree to copy from.
#[derive(Debug, Clone)]
pub struct ContextTree {
    /// The files.
    pub root: Arc<RootDir>,
    /// What of them is hidden.
    pub ignore: Arc<Ignore>,
    /// Its own time, in seconds since 1970: of the commit, of the download, or of an archive's newest file. A
    /// directory has none.
    pub time: Option<i64>,
    /// The commit it was checked out from.
    pub commit: Option<String>,
    /// What an archive asked for that could not be had, such as device nodes: for the caller to report.
    pub warnings: Vec<String>,
}

/// What a stream turned out to be.
#[derive(Debug)]
pub enum Archive {
    /// A tar archive, now unpacked. Nothing is hidden: the ignore file is for the caller to find.
    Tree(ContextTree),
    /// A Dockerfile and nothing else.
    Dockerfile(Vec<u8>),
}

/// Takes a directory of this machine for a context.
pub fn open_directory(dir: &Path, ignore: Arc<Ignore>) -> Result<ContextTree, ContextError> {
    let root = RootDir::open(dir).map_err(ContextError::file("open the build context", dir))?;
    Ok(ContextTree { root: Arc::new(root), ignore, time: None, commit: None, warnings: Vec::new() })
}

/// Unpacks a tar archive, compressed or not, below the directory `into`; anything else is taken for a Dockerfile.
///
/// The files belong to this process, whatever the archive says: owners do not matter in a build context.
pub fn open_stream(reader: impl Read + Send, into: &Path) -> Result<Archive, ContextError> {
    let stream = |source| ContextError::Stream { source };
    let (codec, mut decoded) = auto_decoder(reader).map_err(stream)?;
    let mut start = Vec::with_capacity(BLOCK_BYTES);
    (&mut decoded).take(BLOCK_BYTES as u64).read_to_end(&mut start).map_err(stream)?;
    if !is_tar_block(&start) {
        return match codec {
            Codec::Plain => lone_dockerfile(start, decoded),
            codec => Err(ContextError::NotAContext {
                reason: format!("there is no tar archive in its {} compression", codec_name(codec)),
            }),
        };
    }
    let mut tar = io::Cursor::new(start).chain(decoded);
    fs::create_dir_all(into).map_err(ContextError::file("create the directory", into))?;
    let mut tree = open_directory(into, Arc::new(Ignore::none()))?;
    let owners =
        Owners::Set { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() };
    let options = ApplyOptions { whiteouts: Whiteouts::Literal, owners };
    let applied = apply_tar(TarReader::new(&mut tar), &tree.root, Path::new(""), &options)
        .map_err(|source| ContextError::Unpack { source })?;
    // Whoever writes the archive into a pipe must not be cut off in its padding.
    io::copy(&mut tar, &mut io::sink()).map_err(stream)?;
    tree.warnings.extend(applied.warnings.iter().map(|warning| {
        format!(
            "`{}` of the build context lacks its {}: {}",
            warning.path.display(),
            warning.what,
            warning.error
        )
    }));
    tree.time = newest_file(&tree.root).map_err(ContextError::file("read the build context", into))?;
    Ok(Archive::Tree(tree))
}

fn lone_dockerfile(mut text: Vec<u8>, rest: impl Read) -> Result<Archive, ContextError> {
    rest.take(DOCKERFILE_LIMIT_BYTES + 1 - text.len() as u64)
        .read_to_end(&mut text)
        .map_err(|source| ContextError::Stream { source })?;
    let not_a_context = |reason: &str| Err(ContextError::NotAContext { reason: reason.to_owned() });
    if text.contains(&0) {
        return not_a_context("it is not text");
    }
    if text.len() as u64 > DOCKERFILE_LIMIT_BYTES {
        return not_a_context("it is longer than 1 MiB");
    }
    Ok(Archive::Dockerfile(text))
}

/// Tells whether this is a tar header, by its checksum, or the block of zeros that ends an archive.
fn is_tar_block(block: &[u8]) -> bool {
    const CHECKSUM: std::ops::Range<usize> = 148..156;
    if block.len() < BLOCK_BYTES {
        return false;
    }
    if block.iter().all(|byte| *byte == 0) {
        return true;
    }
    let digits: Vec<u8> = block[CHECKSUM].iter().copied().filter(|byte| !matches!(byte, b' ' | 0)).collect();
    let stored = std::str::from_utf8(&digits).ok().and_then(|digits| i64::from_str_radix(digits, 8).ok());
    let blanked =
        || block.iter().enumerate().map(|(index, byte)| if CHECKSUM.contains(&index) { b' ' } else { *byte });
    let unsigned: i64 = blanked().map(i64::from).sum();
    // As some old programs sum.
    let signed: i64 = blanked().map(|byte| i64::from(byte.cast_signed())).sum();
    stored.is_some_and(|stored| stored == unsigned || stored == signed)
}

fn codec_name(codec: Codec) -> &'static str {
    match codec {
        Codec::Plain => "missing",
        Codec::Gzip => "gzip",
        Codec::Bzip2 => "bzip2",
        Codec::Xz => "xz",
        Codec::Zstd => "zstd",
    }
}

/// Returns the youngest regular file's time.
fn newest_file(root: &RootDir) -> io::Result<Option<i64>> {
    let mut newest = None;
    for entry in Walk::new(root, "")? {
        let entry = entry?;
        if entry.metadata.kind == FileKind::File {
            newest = newest.max(Some(entry.metadata.mtime.seconds));
        }
    }
    Ok(newest)
}

#[cfg(test)]
mod tests;
