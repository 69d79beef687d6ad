//! Dead letters for people: read in every form that they are written in, picked, and sent back. [`letter`] says what one is,
//! [`filter`] which are meant, [`redrive`] what is sent back, [`checkpoint`] what already was.

pub mod letter;
pub mod filter;
pub mod show;
pub mod redrive;
pub mod checkpoint;

pub use self::{
    filter::Filter,
    letter::{Form, Letter, Letters, Pointer},
};
