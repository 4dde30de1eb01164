//! Base images, made without kiln and served by the shared registry.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::distribution::Registry;
use super::program::run;

/// A reference to a small image with a shell: busybox.
pub(crate) fn busybox() -> &'static str {
    static REFERENCE: OnceLock<String> = OnceLock::new();
    REFERENCE.get_or_init(|| publish("busybox"))
}

/// A reference to Debian stable with a working apt.
pub(crate) fn debian() -> &'static str {
    static REFERENCE: OnceLock<String> = OnceLock::new();
    REFERENCE.get_or_init(|| publish("debian"))
}

/// The OCI layout of a base image, its image tagged `latest`. Made once for each checkout.
pub(crate) fn layout(kind: &str) -> PathBuf {
    let layout = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bases").join(kind);
    let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/base-image");
    run(Command::new(tool).arg(kind).arg(&layout)).ok();
    layout
}

fn publish(kind: &str) -> String {
    let registry = Registry::shared();
    registry.push(&layout(kind), "latest", &format!("{kind}:latest"));
    registry.image(&format!("{kind}:latest"))
}
