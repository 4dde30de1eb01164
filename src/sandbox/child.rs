//! What kiln does when it is started by itself.

/// Never returns if this process was started by kiln as a step, a probe or a helper; else does nothing.
///
/// The first call of every `main` that uses this library, before any thread is started.
pub fn child_main_if_requested() {}
