//! Build contexts: where the files come from that `COPY` and `ADD` copy.
//!
//! A context is a tree ([`ContextTree`]) with the patterns that hide a part of it ([`Ignore`]). It is a directory of
//! this machine, a tar archive (here, at a URL or in an object store), or the checkout of a git repository; the
//! sources of `ADD` may also be downloads.
//! Nothing here copies into an image, and nothing here reads the environment: proxies, sockets and certificates are
//! passed in.

mod dockerfile;
mod error;
mod git;
pub mod glob;
mod http;
mod ignore;
#[cfg(test)]
mod loopback;
mod object;
mod source;
mod tree;

pub use dockerfile::{find_dockerfile, find_ignore};
pub use error::ContextError;
pub use git::{
    Checkout, CheckoutOptions, GitServer, GitSource, GitState, checkout, checkout_with, git_state,
    parse_git_context, parse_git_source,
};
pub use http::{Download, Fetch, Fetched, HttpFetch, HttpOptions, Proxies, download, validate_checksum};
pub use ignore::Ignore;
pub use object::{
    AzureAccess, AzureCredentials, GoogleAccess, GoogleCredentials, Hidden, ObjectAccess, ObjectError,
    ObjectSource, S3Access, S3Credentials,
};
pub use source::{SourceKind, classify_source};
pub use tree::{Archive, ContextTree, open_directory, open_stream};
