//! Values and arrays in memory that processes share, with a lock and without, and blobs that never change.

mod array;
mod bytes;
mod data;
mod list;
mod memory;
mod raw;
mod segment;
mod tear;
mod value;

pub use array::{Array, ArrayGuard};
pub use bytes::SharedBytes;
pub use list::{Shareable, ShareableList, ShareableListGuard};
pub use memory::{Abandoned, Atomic, SharedMemory};
pub use raw::{Element, RawArray, RawValue, Scalar};
pub use value::{Value, ValueGuard};
