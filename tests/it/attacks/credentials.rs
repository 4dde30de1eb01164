//! Credentials and secrets are out of every step's reach, and come back only where they were.
