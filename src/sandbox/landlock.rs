//! Keeping a step's signals away from kiln where the step sees it in `/proc`.
//!
//! Landlock's signal scope (Linux 6.12): what a step starts can signal what the step has started, and nobody else, whatever way
//! a signal takes: kill(2) and its relatives, queues, process and thread ids, pidfds, `F_SETOWN`. It restricts nothing
//! else. It takes SYS_ADMIN in the user namespace, or `no_new_privs`.

use std::io;

use super::sys;

/// Puts this process, and all that it starts, into a scope of its own.
pub(super) fn keep_signals_inside() -> io::Result<()> {
    sys::restrict_signals()
}

/// Tells whether the kernel can.
pub(super) fn is_there() -> bool {
    sys::landlock_version().is_ok_and(|version| version >= sys::LANDLOCK_SCOPES_VERSION)
}
