//! The engine: from a [`Request`] to an image.

mod request;

pub use request::{
    ContextSource, DockerfileSource, Entitlement, NamedContext, NetworkMode, Request, SecretSource, SshSource,
};
