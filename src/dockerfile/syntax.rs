//! (skeleton)

use super::{Dockerfile, Instruction, ParseError};

pub(super) fn parse(_name: &str, _bytes: &[u8]) -> Result<Dockerfile, ParseError> {
    todo!()
}

pub(super) fn parse_trigger(_text: &str, _escape: char) -> Result<Instruction, ParseError> {
    todo!()
}
