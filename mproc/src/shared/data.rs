//! A number of plain values in a shared file, as one process has them mapped.
//!
//! # Invariants
//!
//! 1. The mapping is at least as long as the elements, its file cannot shrink, and all of it has memory: so no access to it faults. (A
//!    file with a name cannot be kept from shrinking by its own user, or root, who could end this process as well; no way of mproc's does it.)
//! 2. The first element is at the beginning of a page, and no element type is aligned to more than that.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Fd;
use crate::sys::{self, PAGE, SharedMapping};

/// Elements of one type behind `offset` in a file.
pub(super) struct Data<T> {
    file: Arc<OwnedFd>,
    offset: u64,
    length: usize,
    mapping: SharedMapping,
    values: PhantomData<fn() -> T>,
}

impl<T: 'static> Data<T> {
    /// Zeroes, in a file of their own.
    pub(super) fn new(length: usize) -> io::Result<Self> {
        let file = sys::shared_file(Self::bytes(length)?)?;
        Self::map(Arc::new(file), 0, length)
    }

    /// As many bytes as a file has for so many elements: whole pages, and at least one.
    pub(super) fn bytes(length: usize) -> io::Result<u64> {
        let too_long = || {
            let text = format!(
                "{length} elements of {} bytes are more than there is room for",
                size_of::<T>()
            );
            io::Error::new(io::ErrorKind::OutOfMemory, text)
        };
        let bytes = length.checked_mul(size_of::<T>()).ok_or_else(too_long)?;
        let pages = bytes
            .max(1)
            .checked_next_multiple_of(PAGE)
            .ok_or_else(too_long)?;
        match i64::try_from(pages) {
            Ok(_) => Ok(pages as u64),
            Err(_) => Err(too_long()),
        }
    }

    /// Those behind `offset`, which is a multiple of the page, in a file that somebody else may have made.
    pub(super) fn map(file: Arc<OwnedFd>, offset: u64, length: usize) -> io::Result<Self> {
        Self::map_named(file, offset, length, false)
    }

    /// As above, in a file that may have a name.
    pub(super) fn map_named(
        file: Arc<OwnedFd>,
        offset: u64,
        length: usize,
        named: bool,
    ) -> io::Result<Self> {
        const { assert!(align_of::<T>() <= PAGE) };
        let invalid = |text| io::Error::new(io::ErrorKind::InvalidData, text);
        let bytes = Self::bytes(length)?;
        let size = sys::steady_file_size(file.as_fd(), named)?;
        // Not rounded to pages: a file that others made may end within one, whose rest is there, too.
        let needed = (length * size_of::<T>()) as u64;
        let end = offset.checked_add(needed);
        if !offset.is_multiple_of(PAGE as u64) || end.is_none_or(|end| end > size) {
            return Err(invalid(
                "shared memory that is shorter than what is to be in it",
            ));
        }
        // What has no memory behind it would get it when it is touched, or a signal that kills where there is none.
        if sys::allocated(file.as_fd())? < needed {
            return Err(invalid("shared memory with holes in it"));
        }
        let mapping = SharedMapping::new(file.as_fd(), offset, bytes as usize, true, false)?;
        Ok(Self {
            file,
            offset,
            length,
            mapping,
            values: PhantomData,
        })
    }

    pub(super) fn file(&self) -> &Arc<OwnedFd> {
        &self.file
    }

    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// The first of [`len`](Self::len) elements, aligned. Other processes may write them at any time.
    pub(super) fn first(&self) -> NonNull<T> {
        self.mapping.address().cast()
    }
}

/// Where the elements are. Decoded, it is what another process says.
#[derive(Serialize, Deserialize)]
struct Travelling {
    file: Fd,
    offset: u64,
    length: u64,
}

impl<T> Serialize for Data<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Travelling {
            file: Fd::shared(Arc::clone(&self.file)),
            offset: self.offset,
            length: self.length as u64,
        }
        .serialize(serializer)
    }
}

impl<'de, T: 'static> Deserialize<'de> for Data<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let travelling = Travelling::deserialize(deserializer)?;
        let length = usize::try_from(travelling.length).map_err(D::Error::custom)?;
        Self::map(travelling.file.into_shared(), travelling.offset, length)
            .map_err(D::Error::custom)
    }
}
