//! Finds out what works here, by doing it in throw-away processes.

use std::path::Path;

use serde::{Deserialize, Serialize};

/// What one probe found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Name of the probe: `mount namespace`, `overlay`, …
    pub name: String,
    /// Whether it worked.
    pub works: bool,
    /// What the system said if it did not: `EPERM (operation not permitted) at mount tmpfs`.
    pub detail: String,
    /// What it means for a build, in a sentence.
    pub meaning: String,
}

/// What every probe found; made once per process.
#[derive(Debug, Clone, Default)]
pub struct Probes {
    /// All findings, in the order in which they are worth reading.
    pub findings: Vec<Finding>,
}

/// Probes what works here; `work_dir` is where overlays would have their upper directories.
///
/// Takes 20 to 130 ms. Never fails: what cannot be probed does not work.
pub fn probe(work_dir: Option<&Path>) -> Probes {
    let _ = work_dir;
    todo!()
}

/// What `kiln doctor` shows: every probe, and what would be chosen.
pub fn doctor(work_dir: Option<&Path>) -> Vec<Finding> {
    let _ = work_dir;
    todo!()
}
