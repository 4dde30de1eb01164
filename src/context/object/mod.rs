//! Objects in S3, Google Cloud Storage and Azure's blob storage: build contexts that are one archive in a bucket.
//!
//! What an object is ([`ObjectSource`]) comes with how it may be read; both are found out by the caller, who reads
//! files and variables. The protocols are the `object_store` crate's, the connections kiln's own.

mod error;
mod open;

use std::fmt;

pub use error::ObjectError;
pub(super) use open::open;

/// An object, and how it may be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectSource {
    /// The name it is shown by: its URL as it was given.
    pub url: String,
    /// The bucket, for Azure the container.
    pub bucket: String,
    /// The object's name in it.
    pub key: String,
    /// Where it is and who asks.
    pub access: ObjectAccess,
}

/// A store, with what it wants to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ObjectAccess {
    /// Amazon's, or one that speaks its protocol.
    S3(S3Access),
    /// Google's.
    Google(GoogleAccess),
    /// Azure's.
    Azure(AzureAccess),
}

/// How S3 is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Access {
    /// Another endpoint than Amazon's, with its scheme.
    pub endpoint: Option<String>,
    /// Whether the bucket is named in the path, not in the host.
    pub path_style: bool,
    /// The region.
    pub region: String,
    /// Who asks.
    pub credentials: S3Credentials,
}

/// Who asks S3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum S3Credentials {
    /// A key.
    Key {
        /// Its id.
        id: String,
        /// The key.
        secret: Hidden,
        /// The session it belongs to.
        session: Option<Hidden>,
    },
    /// A role, for a token in a file.
    WebIdentity {
        /// The file.
        token_file: String,
        /// The role.
        role: String,
        /// The session's name.
        session_name: Option<String>,
    },
    /// A task of Amazon's container service.
    Task {
        /// The path at the service's fixed address.
        path: String,
    },
    /// A pod of Amazon's Kubernetes service.
    Pod {
        /// The agent's URL.
        url: String,
        /// The file of the token.
        token_file: String,
    },
    /// The machine's own role.
    Instance {
        /// Another address of its service.
        endpoint: Option<String>,
    },
}

/// How Google's store is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoogleAccess {
    /// An emulator's URL. It is asked without credentials.
    pub emulator: Option<String>,
    /// Who asks.
    pub credentials: GoogleCredentials,
}

/// Who asks Google.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GoogleCredentials {
    /// The machine's own account.
    Machine,
    /// A service account, whose key is in this file.
    ServiceAccount(String),
    /// A user, whose token is in this file.
    User(String),
}

/// How Azure's store is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AzureAccess {
    /// The account.
    pub account: String,
    /// The account's URL.
    pub endpoint: String,
    /// Who asks.
    pub credentials: AzureCredentials,
}

/// Who asks Azure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AzureCredentials {
    /// The account's key.
    Key(Hidden),
    /// An application, for a token in a file.
    Workload {
        /// Its id.
        client: String,
        /// Its directory.
        tenant: String,
        /// The file.
        token_file: String,
        /// Another authority than the public cloud's.
        authority: Option<String>,
    },
    /// An application with a password.
    Application {
        /// Its id.
        client: String,
        /// Its directory.
        tenant: String,
        /// The password.
        secret: Hidden,
        /// Another authority than the public cloud's.
        authority: Option<String>,
    },
}

/// A text that is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Hidden(pub String);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}
