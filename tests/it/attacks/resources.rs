//! Without threads, memory or space: a clear error, and never a success.
