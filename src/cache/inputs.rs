//! What went into a key, in a form that can be kept in a record and compared.

use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::key::{Frame, Framer, Key};
use crate::oci::Digest;
use crate::tree::{Device, FileKind};

/// With more files than these a record keeps their number and their digest as a whole: it stays below a few MiB.
pub const MOST_FILES_KEPT: usize = 20_000;

/// Everything that went into a key, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Inputs(pub Vec<Input>);

/// One part of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// What it is: `instruction`, `ENV`, `files of .`.
    pub name: String,
    /// Its value.
    pub value: InputValue,
}

/// The value of a part of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InputValue {
    /// A text.
    Text(String),
    /// Bytes, by their digest.
    Bytes(Digest),
    /// Texts in order.
    List(Vec<String>),
    /// Another key.
    Key(Key),
    /// Files.
    Files(FileInputs),
}

impl Inputs {
    /// Returns the value of the first part with this name.
    pub fn get(&self, name: &str) -> Option<&InputValue> {
        self.0.iter().find(|input| input.name == name).map(|input| &input.value)
    }

    /// Leaves out lists of files that are too long to keep; their digests and counts stay.
    pub(super) fn trim(&mut self) {
        for input in &mut self.0 {
            if let InputValue::Files(files) = &mut input.value
                && files.files.len() > MOST_FILES_KEPT
            {
                files.files = Vec::new();
            }
        }
    }
}

/// Files that a step takes: everything of them that can reach a layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileInputs {
    tree: Digest,
    count: u64,
    size_bytes: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    files: Vec<FileInput>,
}

impl FileInputs {
    /// Takes files in any order.
    pub fn new(mut files: Vec<FileInput>) -> Self {
        files.sort_by(|one, other| one.path.as_os_str().as_bytes().cmp(other.path.as_os_str().as_bytes()));
        let mut framer = Framer::new(b"kiln files 1");
        framer.number(Frame::List, files.len() as u64);
        files.iter().for_each(|file| file.hash(&mut framer));
        let size_bytes = files.iter().map(|file| file.size_bytes).sum();
        let tree = Digest::from_sha256(framer.finish());
        Self { tree, count: files.len() as u64, size_bytes, files }
    }

    /// Returns the digest of all of it.
    pub fn tree(&self) -> &Digest {
        &self.tree
    }

    /// Returns how many files there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Returns how many bytes they have together.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Returns the files, by path; `None` if there are too many of them for the record this came from.
    pub fn files(&self) -> Option<&[FileInput]> {
        (self.files.len() as u64 == self.count).then_some(&self.files)
    }
}

/// One file that a step takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "FileJson", into = "FileJson")]
pub struct FileInput {
    /// Its path, as the step names it.
    pub path: PathBuf,
    /// Its type.
    pub kind: FileKind,
    /// Its permission bits.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// The digest of a file's data or of a link's target.
    pub content: Option<Digest>,
    /// The digest of its extended attributes, if it has any.
    pub xattrs: Option<Digest>,
    /// The length of a file's data or of a link's target.
    pub size_bytes: u64,
}

impl FileInput {
    fn hash(&self, framer: &mut Framer) {
        framer.frame(Frame::Name, self.path.as_os_str().as_bytes());
        framer.frame(Frame::Kind, kind_text(self.kind).as_bytes());
        for number in [u64::from(self.mode), u64::from(self.uid), u64::from(self.gid), self.size_bytes] {
            framer.number(Frame::Member, number);
        }
        for digest in [&self.content, &self.xattrs] {
            match digest {
                Some(digest) => framer.frame(Frame::Bytes, digest.as_str().as_bytes()),
                None => framer.number(Frame::Absent, 0),
            }
        }
    }
}

/// A file in a record: a short list instead of an object, for there are thousands of them.
#[derive(Serialize, Deserialize)]
struct FileJson(PathJson, String, u32, u32, u32, u64, Option<Digest>, Option<Digest>);

/// A path is text wherever it can be.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum PathJson {
    Text(String),
    Bytes(Vec<u8>),
}

impl From<FileInput> for FileJson {
    fn from(file: FileInput) -> Self {
        let path = match String::from_utf8(file.path.into_os_string().into_vec()) {
            Ok(text) => PathJson::Text(text),
            Err(error) => PathJson::Bytes(error.into_bytes()),
        };
        let kind = kind_text(file.kind);
        Self(path, kind, file.mode, file.uid, file.gid, file.size_bytes, file.content, file.xattrs)
    }
}

impl TryFrom<FileJson> for FileInput {
    type Error = String;

    fn try_from(json: FileJson) -> Result<Self, String> {
        let FileJson(path, kind, mode, uid, gid, size_bytes, content, xattrs) = json;
        let path = match path {
            PathJson::Text(text) => PathBuf::from(text),
            PathJson::Bytes(bytes) => PathBuf::from(std::ffi::OsString::from_vec(bytes)),
        };
        let kind = kind_of(&kind).ok_or_else(|| format!("`{kind}` is no type of file"))?;
        Ok(Self { path, kind, mode, uid, gid, content, xattrs, size_bytes })
    }
}

/// Writes a type as `ls` does, with the number of a device node.
fn kind_text(kind: FileKind) -> String {
    match kind {
        FileKind::File => "-".to_owned(),
        FileKind::Directory => "d".to_owned(),
        FileKind::Symlink => "l".to_owned(),
        FileKind::CharDevice(device) => format!("c{}:{}", device.major, device.minor),
        FileKind::BlockDevice(device) => format!("b{}:{}", device.major, device.minor),
        FileKind::Fifo => "p".to_owned(),
        FileKind::Socket => "s".to_owned(),
    }
}

fn kind_of(text: &str) -> Option<FileKind> {
    let device = |text: &str| {
        let (major, minor) = text.split_once(':')?;
        Some(Device { major: major.parse().ok()?, minor: minor.parse().ok()? })
    };
    match text {
        "-" => Some(FileKind::File),
        "d" => Some(FileKind::Directory),
        "l" => Some(FileKind::Symlink),
        "p" => Some(FileKind::Fifo),
        "s" => Some(FileKind::Socket),
        _ => match text.split_at_checked(1)? {
            ("c", rest) => Some(FileKind::CharDevice(device(rest)?)),
            ("b", rest) => Some(FileKind::BlockDevice(device(rest)?)),
            _ => None,
        },
    }
}
