//! The integration tests: the kiln binary against real registries, engines and image readers.
//!
//! One binary, a module for each topic. `tests/support` holds what they share. A test whose program or
//! privilege is missing says so and passes; `KILN_TEST_REQUIRE=all` (set by `.ci/run`) makes it fail.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up should stop")]
#![expect(clippy::disallowed_methods, reason = "and so should one that is refused a thread")]

#[path = "../support/mod.rs"]
#[macro_use]
mod support;

mod artifacts;
mod attacks;
mod cache;
mod cache_explain;
mod cache_keys;
mod cache_mounts;
mod checks;
mod cleanup;
mod clouds;
mod commits;
mod containers;
mod copying;
mod credentials;
mod debian;
mod diff;
mod documented;
mod errors;
mod examples;
mod floors;
mod fuzz;
mod golden;
mod in_place;
mod indexes;
mod instructions;
mod kaniko;
mod kaniko_flags;
mod linked;
mod objects;
mod offline;
mod outputs;
mod registries;
mod reproducible;
mod runners;
mod store;
mod support_works;
mod verify;
