//! Steps, run for real in whatever this machine (or `KILN_TEST_ISOLATION`) offers.

mod in_place;
mod mounts;
mod running;
pub(crate) mod support;
