//! Keys: framed hashes over everything that can reach a step. Pure.
//!
//! A key is a SHA-256 over a sequence of frames, each with its length first, so that no two different sequences of
//! parts have the same bytes: nothing is joined, nothing is escaped, order is part of it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::inputs::{FileInputs, Input, InputValue, Inputs};
use crate::oci::{DiffId, Digest};

/// Goes first into every key. Raised when the meaning of a part changes: then no old record fits any more.
const VERSION: &[u8] = b"kiln cache key 2";

/// The name of a record: what went into a step, as a hash.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Key([u8; 32]);

/// A text that is not a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid cache key `{text}`: expected 64 lower-case hex digits")]
pub struct KeyError {
    /// The offending text.
    pub text: String,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

impl FromStr for Key {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let invalid = || KeyError { text: text.to_owned() };
        if text.len() != 64 || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(invalid());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| invalid())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| invalid())?;
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Key {
    type Error = KeyError;

    fn try_from(text: String) -> Result<Self, KeyError> {
        text.parse()
    }
}

impl From<Key> for String {
    fn from(key: Key) -> Self {
        key.to_string()
    }
}

impl Key {
    /// Returns the hash behind the name.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// A hash of frames: each is its kind, its length and its bytes.
#[derive(Clone)]
pub(super) struct Framer(Sha256);

/// What a frame is: parts of different kinds never look alike.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(super) enum Frame {
    Version = 1,
    Kind,
    Name,
    Text,
    Bytes,
    List,
    Member,
    Key,
    Files,
    Absent,
}

impl Framer {
    pub(super) fn new(version: &[u8]) -> Self {
        let mut framer = Self(Sha256::new());
        framer.frame(Frame::Version, version);
        framer
    }

    /// Adds a frame.
    pub(super) fn frame(&mut self, frame: Frame, bytes: &[u8]) {
        self.number(frame, bytes.len() as u64);
        self.0.update(bytes);
    }

    /// Adds a number, such as how many frames of a list follow.
    pub(super) fn number(&mut self, frame: Frame, number: u64) {
        self.0.update([frame as u8]);
        self.0.update(number.to_le_bytes());
    }

    pub(super) fn finish(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}

/// Collects what goes into a key, part by part; the order of the parts is part of the key.
#[derive(Clone)]
pub struct KeyBuilder {
    framer: Framer,
    inputs: Vec<Input>,
}

impl KeyBuilder {
    /// Begins the key of a step of this kind: `run`, `copy`, `base`.
    pub fn new(kind: &str) -> Self {
        let mut framer = Framer::new(VERSION);
        framer.frame(Frame::Kind, kind.as_bytes());
        Self { framer, inputs: Vec::new() }
    }

    /// Adds a text.
    pub fn text(&mut self, name: &str, value: &str) -> &mut Self {
        self.add(name, InputValue::Text(value.to_owned()))
    }

    /// Adds bytes. Explanations show their digest only.
    pub fn bytes(&mut self, name: &str, value: &[u8]) -> &mut Self {
        self.add(name, InputValue::Bytes(Digest::of(value)))
    }

    /// Adds a list; its order matters.
    pub fn list(&mut self, name: &str, values: impl IntoIterator<Item = String>) -> &mut Self {
        self.add(name, InputValue::List(values.into_iter().collect()))
    }

    /// Adds another key: the parent step's, a source stage's.
    pub fn key(&mut self, name: &str, key: Key) -> &mut Self {
        self.add(name, InputValue::Key(key))
    }

    /// Adds files, with everything of them that can reach a layer.
    pub fn files(&mut self, name: &str, files: FileInputs) -> &mut Self {
        self.add(name, InputValue::Files(files))
    }

    /// Returns the key and what went into it.
    pub fn finish(self) -> (Key, Inputs) {
        (Key(self.framer.finish()), Inputs(self.inputs))
    }

    fn add(&mut self, name: &str, value: InputValue) -> &mut Self {
        self.framer.frame(Frame::Name, name.as_bytes());
        match &value {
            InputValue::Text(text) => self.framer.frame(Frame::Text, text.as_bytes()),
            InputValue::Bytes(digest) => self.framer.frame(Frame::Bytes, digest.as_str().as_bytes()),
            InputValue::List(values) => {
                self.framer.number(Frame::List, values.len() as u64);
                values.iter().for_each(|value| self.framer.frame(Frame::Member, value.as_bytes()));
            }
            InputValue::Key(key) => self.framer.frame(Frame::Key, key.as_bytes()),
            InputValue::Files(files) => self.framer.frame(Frame::Files, files.tree().as_str().as_bytes()),
        }
        self.inputs.push(Input { name: name.to_owned(), value });
        self
    }
}

/// The state of a tree: a hash over the diff ids of all its layers, the base's too, bottom first.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Chain(Digest);

impl Chain {
    /// Names the tree that `layers` make on top of each other; the tree of nothing has a name too.
    pub fn of(layers: &[DiffId]) -> Self {
        let mut framer = Framer::new(b"kiln chain 1");
        framer.number(Frame::List, layers.len() as u64);
        for layer in layers {
            framer.frame(Frame::Member, layer.digest().as_str().as_bytes());
        }
        Self(Digest::from_sha256(framer.finish()))
    }

    /// Reads a name that was written down.
    pub(super) fn from_digest(digest: Digest) -> Self {
        Self(digest)
    }

    /// Returns the hash.
    pub fn digest(&self) -> &Digest {
        &self.0
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Tells a step from all others across builds, whatever goes into it: for finding what it was before.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StepName {
    /// What is built: the destination's repository, or whatever stays the same between builds.
    pub project: String,
    /// The stage's name, or its number.
    pub stage: String,
    /// The step's number in its stage, from 1.
    pub number: usize,
}

impl StepName {
    /// Returns a hash of all of it, as 64 hex digits.
    pub fn id(&self) -> String {
        let mut framer = Framer::new(b"kiln step 1");
        framer.frame(Frame::Member, self.project.as_bytes());
        framer.frame(Frame::Member, self.stage.as_bytes());
        framer.number(Frame::Member, self.number as u64);
        Digest::from_sha256(framer.finish()).hex().to_owned()
    }
}

impl fmt::Display for StepName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step {} of stage `{}` of `{}`", self.number, self.stage, self.project)
    }
}
