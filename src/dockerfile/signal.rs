//! The signals of `STOPSIGNAL`.

/// A text that names no signal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid signal: {text}")]
pub struct SignalError {
    /// The text.
    pub text: String,
}

/// Checks an expanded `STOPSIGNAL`: a Linux name with or without `SIG`, in any case, or a number.
pub fn validate_signal(_text: &str) -> Result<(), SignalError> {
    todo!()
}
