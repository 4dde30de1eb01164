//! Locks between processes.
