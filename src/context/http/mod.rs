//! Files over HTTP: what `ADD https://…` and contexts at a URL are made of.

mod answer;
mod client;
mod download;

use std::io::Read;

pub use client::{HttpFetch, HttpOptions, Proxies};
pub use download::{Download, download, validate_checksum};

use super::{ContextError, ObjectSource};

/// How files are downloaded.
pub trait Fetch: Send + Sync {
    /// Begins to download; a status that is no success is an error.
    fn get(&self, url: &str, headers: &[(String, String)]) -> Result<Fetched, ContextError>;

    /// Uploads a small text with PUT.
    fn put(&self, url: &str, content_type: &'static str, body: &[u8]) -> Result<(), ContextError>;

    /// Begins to download an object of an object store.
    fn object(&self, source: &ObjectSource) -> Result<Fetched, ContextError>;
}

/// An answer whose body is still to be read.
pub struct Fetched {
    /// The body.
    pub reader: Box<dyn Read + Send>,
    /// Where redirects led to.
    pub final_url: String,
    /// `Last-Modified`, in seconds since 1970.
    pub last_modified: Option<i64>,
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// The name in `Content-Disposition`.
    pub file_name: Option<String>,
    /// `Content-Length`.
    pub size_bytes: Option<u64>,
}
