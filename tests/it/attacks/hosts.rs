//! What leaves for other hosts, and what hosts and names can do to kiln.
