//! Merging, without a registry.
