//! No progress at all: for scripts that want the digest alone. Errors are rendered elsewhere.

use super::View;
use crate::event::{Event, Report};

/// Shows nothing.
pub(super) struct Quiet;

impl Report for Quiet {
    fn report(&self, _event: Event) {}
}

impl View for Quiet {
    fn finish(&self) {}
}
