//! The port specifications of `EXPOSE`.

/// A port specification that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct PortError {
    /// BuildKit's text.
    pub message: String,
}

/// Parses expanded words into sorted, distinct `port/protocol` texts, ranges written out.
pub fn parse_ports(_words: &[String]) -> Result<Vec<String>, PortError> {
    todo!()
}
