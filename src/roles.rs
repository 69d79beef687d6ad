//! Assembles a role from its parts and runs it.
