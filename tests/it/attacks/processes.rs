//! A step's processes: all of them end with the step, nobody else's do, and killing kiln gains nothing.
