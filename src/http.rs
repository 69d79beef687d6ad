//! HTTP listeners of both roles.
