//! `--chmod` of `COPY` and `ADD`: octal or symbolic modes.

use std::str::FromStr;

/// A parsed `--chmod`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chmod {
    /// Permission bits to set, `0..=0o7777`.
    Octal(u32),
    /// `u=rwX,go-w`: changes to the bits a file has.
    Symbolic(Vec<Clause>),
}

/// One clause of a symbolic mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clause {}

/// A text that is not a mode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777")]
pub struct ChmodError {
    /// The text.
    pub text: String,
}

impl FromStr for Chmod {
    type Err = ChmodError;

    fn from_str(_text: &str) -> Result<Self, ChmodError> {
        todo!()
    }
}

impl Chmod {
    /// Returns the permission bits (07777) that a file with the bits `mode` gets.
    pub fn apply(&self, _mode: u32, _is_directory: bool) -> u32 {
        todo!()
    }
}
