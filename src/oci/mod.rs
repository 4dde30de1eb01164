//! Image vocabulary: digests, descriptors, manifests, image configs, platforms and references.
//!
//! Pure values and their text forms. Nothing here reads a file or a socket.
//! Descriptors, manifests and indexes are `oci-spec`'s; the image config is ours, because a config
//! must survive a round trip with every field a base image brought (OCI image-spec, `config.md`).

mod config;
mod digest;
mod image;
mod platform;
mod reference;

pub use config::{Empty, Healthcheck, History, ImageConfig, RootFs, RunConfig};
pub use digest::{ChainId, DiffId, Digest, DigestError};
pub use image::{
    Image, Layer, ManifestFormat, annotation, canonical_json, descriptor, descriptor_digest, media_type,
};
pub use oci_spec::image::{Descriptor, ImageIndex, ImageManifest, MediaType};
pub use platform::{Platform, PlatformError};
pub use reference::{Reference, ReferenceError};
