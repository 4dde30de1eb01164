//! What the integration tests share: the kiln under test, real registries and engines, base images, readers.
//!
//! Nothing here uses the kiln library: what kiln wrote is read by other people's programs or by the small
//! reader in `image`, so that one mistake cannot hide in both.

macro_rules! require {
    ($($need:expr),+ $(,)?) => {
        if let Err(missing) = crate::support::need::check(&[$($need),+]) {
            eprintln!("skipped: {missing}");
            return;
        }
    };
}

pub(crate) mod base;
pub(crate) mod container;
pub(crate) mod context;
pub(crate) mod distribution;
pub(crate) mod emulators;
pub(crate) mod engine;
pub(crate) mod guard;
pub(crate) mod image;
pub(crate) mod kiln;
pub(crate) mod need;
pub(crate) mod own_image;
pub(crate) mod program;
#[path = "registry/mod.rs"]
pub(crate) mod server;

pub(crate) use context::Context;
pub(crate) use distribution::Registry;
pub(crate) use image::Image;
pub(crate) use kiln::Kiln;
pub(crate) use program::{Outcome, finish, run};
