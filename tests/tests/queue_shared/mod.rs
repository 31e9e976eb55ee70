//! Words in memory that all processes of a test share: what a killed process did is known up to the instruction.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use mproc::Fd;
use nix::libc;
use serde::{Deserialize, Serialize};

/// A slice of words. A clone, and what arrives in another process, are the same words.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "Fd", into = "Fd")]
pub(crate) struct Words(Arc<Mapping>);

struct Mapping {
    fd: Fd,
    start: *const AtomicU64,
    count: usize,
}

// SAFETY: shared are only the words, which are atomic.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Words {
    /// All are zero, and need no memory until they are touched.
    pub(crate) fn new(count: usize) -> Self {
        // SAFETY: the name is a C string.
        let number = unsafe { libc::memfd_create(c"words of a test".as_ptr(), libc::MFD_CLOEXEC) };
        assert!(number >= 0, "{}", io::Error::last_os_error());
        // SAFETY: the descriptor was made here and belongs to nobody else.
        let file = File::from(unsafe { OwnedFd::from_raw_fd(number) });
        file.set_len(8 * count as u64).expect("has no limit here");
        Self::try_from(Fd::from(file)).expect("can be mapped")
    }
}

impl TryFrom<Fd> for Words {
    type Error = io::Error;

    fn try_from(fd: Fd) -> io::Result<Self> {
        let file: File = fd.as_fd().try_clone_to_owned()?.into();
        let length = file.metadata()?.len() as usize;
        // SAFETY: a new mapping, at an address that the kernel chooses.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                fd.as_fd().as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self(Arc::new(Mapping {
            fd,
            start: start.cast(),
            count: length / 8,
        })))
    }
}

impl From<Words> for Fd {
    fn from(words: Words) -> Self {
        words.0.fd.clone()
    }
}

impl Deref for Words {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        // SAFETY: the mapping lives as long as `self`, nothing makes the file shorter, and all access is atomic.
        unsafe { std::slice::from_raw_parts(self.0.start, self.0.count) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped in `try_from` with this length; slices borrow the owner of the mapping.
        unsafe { libc::munmap(self.start.cast_mut().cast(), 8 * self.count) };
    }
}
