//! Picks the front door and exits with its code.

fn main() {}
