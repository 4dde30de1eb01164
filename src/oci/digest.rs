//! Content digests and the two identities derived from them.
//!
//! `Digest`, `DiffId` and `ChainId` are separate types on purpose: a layer has all three, they look the
//! same, and mixing them up yields an image that pulls but does not run.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// A content digest, `sha256:<64 lower-case hex digits>` (OCI image-spec, `descriptor.md#digests`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

/// A text that is not a digest kiln can verify.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid digest `{text}`: {}", expected(text))]
pub struct DigestError {
    /// The offending text.
    pub text: String,
}

/// Says what is wrong: another algorithm of the specification is no mistake, but nothing kiln can check.
fn expected(text: &str) -> &'static str {
    match text.split_once(':') {
        Some(("sha512", _)) => {
            "kiln verifies sha256 digests only; refer to this by its tag, or push it with sha256"
        }
        _ => "expected `sha256:` and 64 lower-case hex digits",
    }
}

impl Digest {
    /// Hashes `bytes` with SHA-256.
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_sha256(Sha256::digest(bytes).into())
    }

    /// Wraps a finished SHA-256.
    pub fn from_sha256(sum: [u8; 32]) -> Self {
        use fmt::Write as _;
        let mut text = String::with_capacity(71);
        text.push_str("sha256:");
        for byte in sum {
            write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        }
        Self(text)
    }

    /// Returns the 64 hex digits behind the algorithm.
    pub fn hex(&self) -> &str {
        &self.0["sha256:".len()..]
    }

    /// Returns the whole text, `sha256:…`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the first 12 hex digits, as people quote digests.
    pub fn short(&self) -> &str {
        &self.hex()[..12]
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let valid = text.strip_prefix("sha256:").is_some_and(|hex| {
            hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        });
        if valid { Ok(Self(text.to_owned())) } else { Err(DigestError { text: text.to_owned() }) }
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Self, DigestError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&Digest> for oci_spec::image::Digest {
    fn from(digest: &Digest) -> Self {
        digest.0.parse().expect("a sha256 digest is a digest")
    }
}

/// The digest of a layer's uncompressed tar (OCI image-spec, `config.md#layer-diffid`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DiffId(Digest);

impl DiffId {
    /// Declares that `digest` is of an uncompressed layer.
    pub fn new(digest: Digest) -> Self {
        Self(digest)
    }

    /// Returns the digest behind the identity.
    pub fn digest(&self) -> &Digest {
        &self.0
    }
}

impl fmt::Display for DiffId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The identity of a stack of layers (OCI image-spec, `config.md#layer-chainid`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ChainId(Digest);

impl ChainId {
    /// Puts `layer` on top of `below`; the bottom layer's chain id is its diff id.
    pub fn extend(below: Option<&Self>, layer: &DiffId) -> Self {
        match below {
            None => Self(layer.0.clone()),
            Some(below) => Self(Digest::of(format!("{} {}", below.0, layer.0).as_bytes())),
        }
    }

    /// Returns the digest behind the identity.
    pub fn digest(&self) -> &Digest {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn digest_of_nothing_is_the_well_known_one() {
        assert_eq!(Digest::of(b"").as_str(), EMPTY);
        assert_eq!(Digest::of(b"").short(), "e3b0c44298fc");
    }

    #[test]
    fn digest_refuses_other_shapes() {
        for text in ["", "sha256:", "sha512:00", &EMPTY[..70], &EMPTY.to_uppercase(), "sha256:../../x"] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
    }

    #[test]
    fn another_algorithm_is_named_as_one() {
        let text = format!("sha512:{}", "0".repeat(128));
        let error = text.parse::<Digest>().unwrap_err().to_string();
        assert!(error.contains("sha256 digests only"), "{error}");
        assert!("sha256:00".parse::<Digest>().unwrap_err().to_string().contains("64 lower-case"));
    }

    #[test]
    fn chain_id_of_one_layer_is_its_diff_id() {
        let layer = DiffId::new(Digest::of(b"a"));
        let one = ChainId::extend(None, &layer);
        assert_eq!(one.digest(), layer.digest());
        let two = ChainId::extend(Some(&one), &layer);
        assert_eq!(two.digest(), &Digest::of(format!("{layer} {layer}").as_bytes()));
    }
}
