//! Registries for tests: Debian's `docker-registry`, and one of our own that fails on demand.
//!
//! Included by path, by the library's unit tests and by the integration tests alike.

#![allow(dead_code, unreachable_pub, clippy::print_stderr, reason = "each test binary uses a part of it")]

pub mod distribution;
pub mod fault;
pub mod http;
pub mod tokens;
