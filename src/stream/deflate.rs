//! One block of a gzip stream.
