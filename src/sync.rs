//! What clients are kept in sync by: the newest events of one topic, by user, with a position in the log that a client can take up again.

pub mod feed;
pub mod position;
pub mod token;

mod reading;

pub use reading::follow;
