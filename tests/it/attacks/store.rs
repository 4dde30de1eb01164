//! The store on a machine with several users, and what images and records claim about themselves.
