//! Turning decisions about entries into canonical changes.
