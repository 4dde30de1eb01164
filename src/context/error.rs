//! What can go wrong with contexts and remote sources.

use std::io;
use std::path::PathBuf;

use super::object::ObjectError;
use crate::layer::LayerError;
use crate::threads::Refused;

/// A failure to read a pattern, a context or a remote source. URLs are without credentials.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// A line of an ignore file is `!` and nothing else.
    #[error("illegal exclusion pattern: \"!\"")]
    LoneExclamation,
    /// A pattern of an ignore file, of `--exclude` or of a source is malformed.
    #[error("invalid pattern `{pattern}`: {reason}")]
    Pattern {
        /// Which.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An ignore file is not UTF-8.
    #[error("invalid ignore file: line {line} is not UTF-8")]
    IgnoreNotText {
        /// Its line, from 1.
        line: usize,
    },
    /// A file or directory of a context cannot be read or written.
    #[error("cannot {action} `{}`", path.display())]
    File {
        /// What was tried, as a verb.
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// What came over a stream is neither a tar archive nor a Dockerfile.
    #[error("the build context is neither a tar archive nor a Dockerfile: {reason}")]
    NotAContext {
        /// Why.
        reason: String,
    },
    /// The stream of a context broke off.
    #[error("cannot read the build context")]
    Stream {
        /// The reader's answer.
        source: io::Error,
    },
    /// The archive of a context cannot be unpacked.
    #[error("cannot unpack the build context")]
    Unpack {
        /// Why.
        source: LayerError,
    },
    /// A checksum names another algorithm than sha256.
    #[error("unsupported digest algorithm")]
    ChecksumAlgorithm {
        /// As written.
        checksum: String,
    },
    /// A checksum is not `sha256:` and 64 hexadecimal digits.
    #[error("invalid checksum digest format")]
    ChecksumFormat {
        /// As written.
        checksum: String,
    },
    /// The hexadecimal part of a checksum is too short or too long.
    #[error("invalid checksum digest length")]
    ChecksumLength {
        /// As written.
        checksum: String,
    },
    /// A download is not what its checksum says.
    #[error("digest mismatch {found}: {expected}")]
    ChecksumMismatch {
        /// What was downloaded.
        found: String,
        /// What was asked for.
        expected: String,
    },
    /// The client itself cannot be set up: a bad certificate or proxy.
    #[error("cannot set up downloads: {reason}")]
    Client {
        /// Why.
        reason: String,
    },
    /// The system refused a thread for downloads.
    #[error("cannot set up downloads")]
    Refused(#[from] Refused),
    /// A URL cannot be understood.
    #[error("invalid URL `{url}`: {reason}")]
    Url {
        /// Which.
        url: String,
        /// Why.
        reason: String,
    },
    /// A server answered with a status that is no success.
    #[error("cannot download `{url}`: invalid response status {status}")]
    Status {
        /// From where.
        url: String,
        /// The status.
        status: u16,
    },
    /// A server could not be reached.
    #[error("cannot download `{url}`: {reason}")]
    Download {
        /// From where.
        url: String,
        /// Why, all causes in one line.
        reason: String,
    },
    /// A server did not take an upload.
    #[error("cannot upload to `{url}`: {reason}")]
    Upload {
        /// Where to.
        url: String,
        /// Why, all causes in one line.
        reason: String,
    },
    /// The text of a git source is contradictory or has an option nobody knows; the text is BuildKit's.
    #[error("{reason}")]
    GitText {
        /// The source as written.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An object of an object store cannot be had.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// There is no `git` program.
    #[error("cannot check out `{url}`: the `git` program is not installed")]
    GitMissing {
        /// What was to be checked out.
        url: String,
    },
    /// The `git` program failed.
    #[error("cannot check out `{url}`: `git {command}` failed: {output}")]
    Git {
        /// What was to be checked out.
        url: String,
        /// The subcommand.
        command: String,
        /// The end of what it wrote.
        output: String,
    },
    /// A repository lacks the branch, tag or commit.
    #[error("repository does not contain ref `{reference}`: `{url}`")]
    GitReference {
        /// Where it was looked for.
        url: String,
        /// Which.
        reference: String,
    },
    /// The commit is not the one that was asked for; the text is BuildKit's.
    #[error("expected checksum to match {expected}, got {found}")]
    GitChecksum {
        /// What was asked for.
        expected: String,
        /// What the reference leads to.
        found: String,
    },
    /// A checksum is no commit hash; the text is BuildKit's.
    #[error("invalid checksum {checksum}, expected hex commit hash")]
    GitChecksumFormat {
        /// As written.
        checksum: String,
    },
    /// A subdirectory is not in the commit.
    #[error("`{subdir}` is not a directory of commit {commit} of `{url}`")]
    GitSubdir {
        /// The repository.
        url: String,
        /// The commit.
        commit: String,
        /// Which.
        subdir: String,
    },
}

impl ContextError {
    /// Says which `action` failed on `path`.
    pub(super) fn file<'a>(
        action: &'static str,
        path: &'a std::path::Path,
    ) -> impl FnOnce(io::Error) -> Self + use<'a> {
        move |source| Self::File { action, path: path.to_path_buf(), source }
    }

    /// Says what the user can do about it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Object(error) => return error.hint().map(str::to_owned),
            Self::LoneExclamation => "write the path to bring back behind the `!`, or remove the line",
            Self::Pattern { .. } => "put a backslash before a `[` or `\\` that means itself",
            Self::IgnoreNotText { .. } => "save the file as UTF-8; PowerShell's `>` writes UTF-16",
            Self::NotAContext { .. } => {
                "send a tar archive (plain, gzip, bzip2, xz or zstd), or only a Dockerfile"
            }
            Self::ChecksumAlgorithm { .. } | Self::ChecksumFormat { .. } | Self::ChecksumLength { .. } => {
                "write `sha256:` and the 64 hexadecimal digits that `sha256sum` prints"
            }
            Self::ChecksumMismatch { .. } => {
                "the file at the URL is not the one the checksum was taken of; if that is expected, update the checksum"
            }
            Self::Status { status: 401 | 403, .. } => {
                "pass credentials as `--secret id=HTTP_AUTH_TOKEN_<host>` or `--secret id=HTTP_AUTH_HEADER_<host>`"
            }
            Self::Git { output, .. }
                if output.contains("could not read Username") || output.contains("Authentication failed") =>
            {
                "pass the credential as `--secret id=GIT_AUTH_TOKEN.HOST,…`, HOST as in the address"
            }
            Self::GitMissing { .. } => "install git, or put the files into the build context",
            Self::GitReference { .. } => {
                "name an existing branch or tag, or the full hash of a commit that the server lets be fetched"
            }
            Self::GitChecksumFormat { .. } => {
                "write the hash of the commit; seven or more of its first digits will do"
            }
            Self::File { .. }
            | Self::Stream { .. }
            | Self::Unpack { .. }
            | Self::Client { .. }
            | Self::Refused(_)
            | Self::Url { .. }
            | Self::Status { .. }
            | Self::Download { .. }
            | Self::Upload { .. }
            | Self::GitText { .. }
            | Self::Git { .. }
            | Self::GitChecksum { .. }
            | Self::GitSubdir { .. } => return None,
        };
        Some(hint.to_owned())
    }
}
