//! Other people's image layouts: directories and archives, read only.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::index::{INDEX_FILE, LAYOUT_FILE, name_of, parse_index};
use super::{BlobError, BlobSource, WHOLE_LIMIT_BYTES, checked_digest, read_whole};
use crate::oci::{Descriptor, Digest, annotation};
use crate::stream::{Codec, VerifyReader};
use crate::tree::regular;

/// An OCI image layout (image-spec `image-layout.md`), a directory or an uncompressed tar, that is only read.
///
/// It may be anybody's: blobs are verified, names in an archive are only compared, never followed.
#[derive(Debug)]
pub struct Layout {
    path: PathBuf,
    place: Place,
    manifests: Vec<Descriptor>,
}

#[derive(Debug)]
enum Place {
    Directory,
    Archive { file: Arc<File>, members: BTreeMap<PathBuf, Member> },
}

/// Where a file's bytes are in an archive.
#[derive(Debug, Clone, Copy)]
struct Member {
    offset: u64,
    size_bytes: u64,
}

/// A file of the layout, open.
struct OpenMember {
    reader: Box<dyn Read + Send>,
    size_bytes: u64,
}

/// A file's bytes in an archive. Reads at a position, so that any number of them share one open file.
#[derive(Debug)]
struct MemberReader {
    file: Arc<File>,
    position: u64,
    end: u64,
}

impl Read for MemberReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.position).unwrap_or(usize::MAX);
        let length = buf.len().min(left);
        let read = self.file.read_at(&mut buf[..length], self.position)?;
        self.position += read as u64;
        Ok(read)
    }
}

impl Layout {
    /// Opens the layout at `path`.
    pub fn open(path: &Path) -> Result<Self, BlobError> {
        let metadata = fs::metadata(path).map_err(|error| BlobError::io("open", path, error))?;
        let place = if metadata.is_dir() { Place::Directory } else { open_archive(path)? };
        let mut layout = Self { path: path.to_owned(), place, manifests: Vec::new() };
        let marker = layout.read_file(LAYOUT_FILE)?;
        let version = serde_json::from_slice::<serde_json::Value>(&marker).ok();
        let version = version.as_ref().and_then(|marker| marker.get("imageLayoutVersion")?.as_str());
        if version.is_none_or(|version| !version.starts_with("1.")) {
            return Err(layout.not_a_layout(format!(
                "expected `imageLayoutVersion` 1 in `{LAYOUT_FILE}`, found {}",
                version.map_or_else(|| "none".to_owned(), |version| format!("`{version}`"))
            )));
        }
        let index = layout.read_file(INDEX_FILE)?;
        let parsed = parse_index(&index);
        layout.manifests = parsed.map_err(|error| layout.not_a_layout(format!("`{INDEX_FILE}`: {error}")))?.1;
        Ok(layout)
    }

    /// Returns the manifests and indexes that `index.json` lists, in its order, annotations included.
    pub fn manifests(&self) -> &[Descriptor] {
        &self.manifests
    }

    /// Finds an entry of `index.json` by tag (`org.opencontainers.image.ref.name` or `io.containerd.image.name`) or
    /// digest; without a name, the only entry, or else the one tagged `latest`.
    pub fn find(&self, name: Option<&str>) -> Option<&Descriptor> {
        let Some(name) = name else {
            return match &self.manifests[..] {
                [only] => Some(only),
                _ => self.find(Some("latest")),
            };
        };
        let tagged = |descriptor: &&Descriptor| {
            let annotations = descriptor.annotations().as_ref();
            let tag = annotations.and_then(|annotations| annotations.get(annotation::REF_NAME));
            tag.is_some_and(|tag| tag == name) || name_of(descriptor) == Some(name)
        };
        let by_digest = |descriptor: &&Descriptor| AsRef::<str>::as_ref(descriptor.digest()) == name;
        self.manifests.iter().find(tagged).or_else(|| self.manifests.iter().find(by_digest))
    }

    /// Reads a manifest, index or config whole (64 MiB at most), verified.
    pub fn read(&self, descriptor: &Descriptor) -> Result<Vec<u8>, BlobError> {
        read_whole(self, descriptor, &self.path.display().to_string())
    }

    fn not_a_layout(&self, problem: String) -> BlobError {
        BlobError::NotALayout { path: self.path.clone(), problem }
    }

    /// Opens a file of the layout; `None` if there is none.
    fn open_member(&self, name: &Path) -> Result<Option<OpenMember>, BlobError> {
        match &self.place {
            Place::Directory => {
                let path = self.path.join(name);
                let opened = regular::open_follow(&path).and_then(|file| Ok((file.metadata()?, file)));
                match opened {
                    Ok((metadata, file)) => {
                        Ok(Some(OpenMember { reader: Box::new(file), size_bytes: metadata.len() }))
                    }
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                    Err(error) => Err(BlobError::io("open", &path, error)),
                }
            }
            Place::Archive { file, members } => Ok(members.get(name).map(|member| {
                let end = member.offset + member.size_bytes;
                let reader = MemberReader { file: Arc::clone(file), position: member.offset, end };
                OpenMember { reader: Box::new(reader), size_bytes: member.size_bytes }
            })),
        }
    }

    fn read_file(&self, name: &str) -> Result<Vec<u8>, BlobError> {
        let Some(OpenMember { reader, size_bytes }) = self.open_member(Path::new(name))? else {
            return Err(self.not_a_layout(format!("there is no `{name}`")));
        };
        if size_bytes > WHOLE_LIMIT_BYTES {
            return Err(self.not_a_layout(format!("`{name}` has {size_bytes} bytes")));
        }
        let mut bytes = Vec::new();
        let path = self.path.join(name);
        reader
            .take(WHOLE_LIMIT_BYTES)
            .read_to_end(&mut bytes)
            .map_err(|error| BlobError::io("read", &path, error))?;
        Ok(bytes)
    }
}

fn blob_name(digest: &Digest) -> PathBuf {
    Path::new("blobs/sha256").join(digest.hex())
}

/// Notes where the files of an archive are, without reading them.
fn open_archive(path: &Path) -> Result<Place, BlobError> {
    let failed = |error| BlobError::io("read", path, error);
    let not_a_layout = |problem: String| BlobError::NotALayout { path: path.to_owned(), problem };
    let mut file = regular::open_follow(path).map_err(failed)?;
    let mut start = [0; 10];
    let length = file.read_at(&mut start, 0).map_err(failed)?;
    let codec = Codec::detect(&start[..length]);
    if codec != Codec::Plain {
        return Err(not_a_layout(format!("it is compressed ({codec:?})")));
    }
    let mut archive = tar::Archive::new(&mut file);
    let mut members = BTreeMap::new();
    let damaged = |error: io::Error| not_a_layout(format!("damaged archive: {error}"));
    for entry in archive.entries_with_seek().map_err(damaged)? {
        let entry = entry.map_err(damaged)?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let name = entry.path().map_err(damaged)?;
        let name = name.components().filter(|part| *part != Component::CurDir).collect();
        members.insert(name, Member { offset: entry.raw_file_position(), size_bytes: entry.size() });
    }
    Ok(Place::Archive { file: Arc::new(file), members })
}

impl BlobSource for Layout {
    fn open(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send>, BlobError> {
        let digest = checked_digest(descriptor)?;
        match self.open_member(&blob_name(&digest))? {
            Some(member) => Ok(Box::new(VerifyReader::new(member.reader, digest, descriptor.size()))),
            None => Err(BlobError::NotFound { digest, place: self.path.display().to_string() }),
        }
    }

    fn contains(&self, digest: &Digest) -> Result<bool, BlobError> {
        Ok(self.open_member(&blob_name(digest))?.is_some())
    }
}
