//! The front doors: arguments in, exit code out. The only place that prints, reads the environment, exits.
//!
//! `args` is what was typed, `request` what it means; `wire` opens the sockets; `commands` do the work;
//! `progress` shows it and `fail` says what went wrong.

pub mod args;
pub mod environment;
pub mod progress;
pub mod request;
pub mod tags;
pub mod values;
