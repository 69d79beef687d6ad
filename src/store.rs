//! Stores of what happened: Redis, and one in memory.
