//! Values and arrays in memory that processes share, with a lock and without, and blobs that never change.

mod array;
mod bytes;
mod data;
mod raw;
mod value;

pub use array::{Array, ArrayGuard};
pub use bytes::SharedBytes;
pub use raw::{RawArray, RawValue, Scalar};
pub use value::{Value, ValueGuard};
