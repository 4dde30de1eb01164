//! What an image is called: explicit tags stay, names without one get the commit.

use crate::oci::{Reference, ReferenceError};

/// The commit a build is made from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Commit {
    /// Its whole id.
    pub id: String,
    /// Its short id where the CI system has one of its own (`CI_COMMIT_SHORT_SHA`).
    pub short: Option<String>,
    /// Whether tracked files have changes that are not committed.
    pub dirty: bool,
    /// Where the sources are, without credentials.
    pub source: Option<String>,
    /// The committer's time, in seconds since 1970.
    pub time: Option<i64>,
}

/// Characters of a commit id in a tag, as GitLab has them.
const SHORT: usize = 8;

impl Commit {
    /// Returns the tag for this commit: `1a2b3c4d`, or `1a2b3c4d-dirty`.
    pub fn tag(&self) -> String {
        let short = self.short.as_deref().unwrap_or_else(|| self.id.get(..SHORT).unwrap_or(&self.id));
        if self.dirty { format!("{short}-dirty") } else { short.to_owned() }
    }
}

/// Names the image `text`; without tag and digest its tag is the commit, outside of git `latest`.
pub fn name(text: &str, commit: Option<&Commit>) -> Result<Reference, ReferenceError> {
    let reference: Reference = text.parse()?;
    match (reference.tag(), reference.digest()) {
        (None, None) => {
            let tag = commit.map_or_else(|| "latest".to_owned(), Commit::tag);
            reference.with_tag(&tag)
        }
        _ => Ok(reference),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(dirty: bool) -> Commit {
        Commit { id: "0123456789abcdef0123456789abcdef01234567".into(), dirty, ..Commit::default() }
    }

    #[test]
    fn a_name_without_a_tag_gets_the_commit() {
        let full = |text: &str, commit: Option<&Commit>| name(text, commit).unwrap().to_string();
        assert_eq!(full("r.io/app", Some(&commit(false))), "r.io/app:01234567");
        assert_eq!(full("r.io/app", Some(&commit(true))), "r.io/app:01234567-dirty");
        assert_eq!(full("r.io/app", None), "r.io/app:latest");
        assert_eq!(full("r.io:5000/app:1", Some(&commit(true))), "r.io:5000/app:1");
        let ci = Commit { short: Some("0123456".into()), ..commit(false) };
        assert_eq!(full("r.io/app", Some(&ci)), "r.io/app:0123456");
        let digest = format!("r.io/app@{}", crate::oci::Digest::of(b""));
        assert_eq!(full(&digest, Some(&ci)), digest);
    }
}
