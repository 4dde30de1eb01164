//! A cache never gives another image than a build without it would.
