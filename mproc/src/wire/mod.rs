//! Values as bytes and descriptors, and packets that carry both.
//!
//! `wire` knows no message types: what a packet means is its users' business.

mod brief;
pub(crate) mod codec;
mod error;
pub(crate) mod handles;
pub(crate) mod message;
mod strict;
pub(crate) mod unique;

pub(crate) use brief::Brief;
pub(crate) use error::WireError;
pub(crate) use handles::Handles;
pub(crate) use message::{Message, Outgoing, decode_parts, encode_parts};
pub(crate) use unique::Unique;
