//! Tests of the language as a whole; each file's own tests stand beside it.

mod agree;
mod dump;
mod errors;
mod fixtures;
mod model;
mod properties;
