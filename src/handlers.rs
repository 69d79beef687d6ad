//! The handler kinds that configuration can bind.
