//! Why a step was not in a cache.
