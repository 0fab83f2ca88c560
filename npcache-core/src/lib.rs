//! A persistent memo table for functions that return n-dimensional numeric arrays.

mod dtype;
mod error;

pub use dtype::{DType, Descr};
pub use error::{Error, Result, Unstored};
