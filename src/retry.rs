//! Backoff schedules: (attempt, failure) to the next delay, or exhausted. Pure.
