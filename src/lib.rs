//! kiln builds container images from Dockerfiles without a daemon.

pub mod blob;
pub mod build;
pub mod cache;
pub mod cli;
pub mod context;
pub mod dockerfile;
pub mod event;
pub mod layer;
pub mod oci;
pub mod output;
pub mod plan;
pub mod registry;
pub mod rootfs;
pub mod sandbox;
pub mod snapshot;
pub mod stream;
pub mod tree;
