//! Artifacts as files: from this machine into a manifest, and back, as `oras` lays them out
//! (titles are annotations of the blobs; a directory is a gzipped tar that is marked as such).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::num::NonZeroUsize;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::ImagesError;
use crate::blob::{BlobError, BlobSource, Store};
use crate::layer::{ApplyOptions, Owners, TarReader, Whiteouts, apply_tar};
use crate::oci::{Descriptor, Digest, annotation, descriptor, descriptor_digest};
use crate::stream::{Compression, Compressor, Counted, HashingWriter, auto_decoder, hash_all};
use crate::tree::RootDir;

/// Media type of a file that nothing else is said of.
const PLAIN_FILE: &str = "application/octet-stream";
/// Media type of a directory.
const DIRECTORY: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// Marks a blob as an archive of a directory.
const UNPACK: &str = "io.deis.oras.content.unpack";
/// The digest of that archive before it was compressed.
const UNPACKED_DIGEST: &str = "io.deis.oras.content.digest";
/// Bytes copied at a time.
const BUFFER_BYTES: usize = 256 << 10;

/// Files of this machine, as blobs.
pub struct Files {
    /// Holds the archives of directories.
    store: Arc<Store>,
    files: BTreeMap<Digest, PathBuf>,
}

impl Files {
    /// Begins without any file.
    pub fn new(store: Arc<Store>) -> Self {
        Self { store, files: BTreeMap::new() }
    }

    /// Adds a file or directory under a title, and describes it.
    pub fn add(
        &mut self,
        path: &Path,
        title: Option<&str>,
        media_type: Option<&str>,
    ) -> Result<Descriptor, ImagesError> {
        let failed = |source| ImagesError::File { action: "read", path: path.to_owned(), source };
        let mut annotations = BTreeMap::new();
        if let Some(title) = title {
            annotations.insert(annotation::TITLE.to_owned(), title.to_owned());
        }
        let mut described = if fs::metadata(path).map_err(failed)?.is_dir() {
            let name = title.unwrap_or("content").to_owned();
            let (blob, unpacked) = self.archive(path, &name).map_err(failed)?;
            annotations.insert(UNPACK.to_owned(), "true".to_owned());
            annotations.insert(UNPACKED_DIGEST.to_owned(), unpacked.to_string());
            descriptor(media_type.unwrap_or(DIRECTORY), &blob.0, blob.1)
        } else {
            let hash = |file| hash_all(file, &mut vec![0; BUFFER_BYTES]);
            let Counted { digest, size_bytes } = File::open(path).and_then(hash).map_err(failed)?;
            self.files.insert(digest.clone(), path.to_owned());
            descriptor(media_type.unwrap_or(PLAIN_FILE), &digest, size_bytes)
        };
        if !annotations.is_empty() {
            described.set_annotations(Some(annotations.into_iter().collect()));
        }
        Ok(described)
    }

    /// Puts a directory into the store as a gzipped tar: the same files make the same bytes.
    fn archive(&self, directory: &Path, name: &str) -> io::Result<((Digest, u64), Digest)> {
        let writer = self.store.writer().map_err(io::Error::other)?;
        let threads = NonZeroUsize::MIN;
        let compressor = Compressor::new(writer, Compression::gzip(), threads)?;
        let mut tar = tar::Builder::new(HashingWriter::new(compressor));
        tar.mode(tar::HeaderMode::Deterministic);
        tar.follow_symlinks(false);
        append(&mut tar, directory, Path::new(name))?;
        let (compressor, counted) = tar.into_inner()?.finish();
        let blob = compressor.finish()?.commit(None).map_err(io::Error::other)?;
        Ok(((blob.digest, blob.size_bytes), counted.digest))
    }
}

/// Appends what is in a directory, in byte order.
fn append<W: Write>(tar: &mut tar::Builder<W>, from: &Path, name: &Path) -> io::Result<()> {
    tar.append_dir(name, from)?;
    let mut entries = fs::read_dir(from)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = name.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            append(tar, &entry.path(), &name)?;
        } else {
            tar.append_path_with_name(entry.path(), &name)?;
        }
    }
    Ok(())
}

impl BlobSource for Files {
    fn open(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send>, BlobError> {
        let digest = descriptor_digest(descriptor);
        match self.files.get(&digest) {
            // What changed since it was hashed is noticed by whoever uploads it.
            Some(path) => {
                let failed = |error| BlobError::Source {
                    digest: digest.clone(),
                    place: path.display().to_string(),
                    source: Box::new(error),
                };
                let file = File::open(path).map_err(|error: io::Error| failed(error))?;
                Ok(Box::new(crate::stream::VerifyReader::new(file, digest.clone(), descriptor.size())))
            }
            None => BlobSource::open(self.store.as_ref(), descriptor),
        }
    }

    fn contains(&self, digest: &Digest) -> Result<bool, BlobError> {
        Ok(self.files.contains_key(digest) || self.store.has(digest))
    }
}

/// Whose the unpacked files are, and what happens to those that are there.
#[derive(Debug, Clone, Copy)]
pub struct Unpacking {
    /// User and group of what is unpacked.
    pub owner: (u32, u32),
    /// Whether a file that is there is an error.
    pub keep_old: bool,
}

/// Writes an artifact's blob below `root` under its title (its digest, if it has none) and returns the path
/// there. A file appears when it is complete and verified; a title that leads elsewhere is an error.
pub fn write_file(
    root: &RootDir,
    descriptor: &Descriptor,
    source: &dyn BlobSource,
    how: Unpacking,
) -> Result<PathBuf, ImagesError> {
    let digest = descriptor_digest(descriptor);
    let said = descriptor.annotations().as_ref();
    let title = said.and_then(|all| all.get(annotation::TITLE)).map(String::as_str);
    let path = PathBuf::from(title.unwrap_or(digest.hex()));
    let is_inside = path.components().all(|part| matches!(part, Component::Normal(_)));
    if !is_inside || path.as_os_str().is_empty() {
        return Err(ImagesError::BadTitle { title: path.display().to_string() });
    }
    let shown = root.path().join(&path);
    let failed = |source: io::Error| ImagesError::File { action: "write", path: shown.clone(), source };
    if how.keep_old && root.exists(&path).map_err(failed)? {
        return Err(failed(io::ErrorKind::AlreadyExists.into()));
    }
    let parent = path.parent().unwrap_or(Path::new("")).to_owned();
    let mut reader = source.open(descriptor)?;
    root.create_dir_all(&parent, 0o755, &mut |_| {}).map_err(failed)?;
    let temporary = parent.join(format!(".kiln-{}", digest.short()));
    root.remove_all(&temporary).map_err(failed)?;
    let written = (|| {
        let mut file = root.create_file(&temporary, 0o644)?;
        io::copy(&mut BufReader::with_capacity(BUFFER_BYTES, &mut reader), &mut file)?;
        file.flush()
    })();
    let is_directory = said.and_then(|all| all.get(UNPACK)).is_some_and(|value| value == "true");
    let placed = written.map_err(failed).and_then(|()| {
        if is_directory {
            unpack(root, &temporary, how)
                .map_err(|reason| ImagesError::Unpack { path: shown.clone(), reason })
        } else {
            root.rename(&temporary, &path).map_err(failed)
        }
    });
    if is_directory || placed.is_err() {
        root.remove_all(&temporary).map_err(failed)?;
    }
    placed.map(|()| path)
}

/// Unpacks the archive of a directory, which has the directory's name inside.
fn unpack(root: &RootDir, archive: &Path, how: Unpacking) -> Result<(), String> {
    let said = |error: &dyn std::error::Error| error.to_string();
    let file = root.open_file(archive).map_err(|error| said(&error))?;
    let (_, tar) =
        auto_decoder(BufReader::with_capacity(BUFFER_BYTES, file)).map_err(|error| said(&error))?;
    let (uid, gid) = how.owner;
    let options = ApplyOptions { whiteouts: Whiteouts::Literal, owners: Owners::Set { uid, gid } };
    apply_tar(TarReader::new(tar), root, Path::new(""), &options).map(drop).map_err(|error| said(&error))
}
