//! Anonymous memory that travels: written once, sealed, mapped by whoever gets the descriptor.

use std::fs::File;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use super::descriptor::above_stdio;

/// Memory under construction; a `Write` that appends.
pub(crate) struct Memfd {
    file: File,
    length: u64,
    limit: u64,
}

impl Memfd {
    pub(crate) fn new() -> io::Result<Self> {
        let fd = memfd_create(
            c"mproc",
            MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING,
        )?;
        Ok(Self {
            file: File::from(above_stdio(fd)?),
            length: 0,
            limit: file_size_limit(),
        })
    }

    /// Ends the writing for everybody: nobody can change or shrink the bytes from here on, so reading them is never a
    /// data race and never a SIGBUS.
    pub(crate) fn seal(self) -> io::Result<OwnedFd> {
        let seals = SealFlag::F_SEAL_WRITE
            | SealFlag::F_SEAL_SHRINK
            | SealFlag::F_SEAL_GROW
            | SealFlag::F_SEAL_SEAL;
        fcntl(self.file.as_fd(), FcntlArg::F_ADD_SEALS(seals))?;
        Ok(self.file.into())
    }
}

impl Write for Memfd {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // The kernel answers a write past RLIMIT_FSIZE with SIGXFSZ, which kills; so look before.
        if self.length + bytes.len() as u64 > self.limit {
            return Err(io::Error::from_raw_os_error(libc::EFBIG));
        }
        let written = self.file.write(bytes)?;
        self.length += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(super) fn file_size_limit() -> u64 {
    let mut limit = libc::rlimit {
        rlim_cur: libc::RLIM_INFINITY,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: `limit` lives through the call.
    unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &mut limit) };
    limit.rlim_cur
}

/// A sealed memfd, mapped to read. Derefs to its bytes.
pub(crate) struct SealedBytes {
    map: Option<Map>,
}

impl SealedBytes {
    /// Maps what a peer sent. It is checked to be sealed and as long as claimed: the peer may be broken or hostile.
    pub(crate) fn map(fd: BorrowedFd<'_>, length: usize) -> io::Result<Self> {
        let invalid = |text| io::Error::new(io::ErrorKind::InvalidData, text);
        let seals = SealFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GET_SEALS)?);
        if !seals.contains(SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SHRINK) {
            return Err(invalid(
                "memory received from another process is not sealed",
            ));
        }
        let found = nix::sys::stat::fstat(fd)?;
        if usize::try_from(found.st_size) != Ok(length) {
            return Err(invalid(
                "memory received from another process has another length than it claims",
            ));
        }
        // Reading a hole allocates it: a terabyte of nothing costs its sender nothing, and its reader a terabyte. What was
        // written has all its blocks (of 512 bytes, whatever the page), swapped out or not.
        if found.st_blocks.saturating_mul(512) < found.st_size {
            return Err(invalid(
                "memory received from another process has holes in it",
            ));
        }
        Ok(Self {
            map: NonZeroUsize::new(length)
                .map(|length| Map::new(fd, length))
                .transpose()?,
        })
    }
}

impl Deref for SealedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let Some(map) = &self.map else { return &[] };
        // SAFETY:
        // - mapped: `map` lives as long as `self`.
        // - inside: the file is `length` bytes long (checked in `map`) and cannot shrink (sealed).
        // - bytes:  any byte is a `u8`.
        // - others: F_SEAL_WRITE forbids writing to everybody, and the kernel refuses it while a writable mapping exists.
        unsafe { std::slice::from_raw_parts(map.address.as_ptr().cast(), map.length.get()) }
    }
}

/// A read-only shared mapping.
pub(crate) struct Map {
    address: NonNull<libc::c_void>,
    length: NonZeroUsize,
}

// SAFETY: a mapping belongs to the process and not to a thread, and this one is only read.
unsafe impl Send for Map {}
// SAFETY: as above.
unsafe impl Sync for Map {}

impl Map {
    fn new(fd: BorrowedFd<'_>, length: NonZeroUsize) -> io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice disturbs nothing that exists.
        let address = unsafe {
            mmap(
                None,
                length,
                ProtFlags::PROT_READ,
                MapFlags::MAP_SHARED,
                fd,
                0,
            )?
        };
        Ok(Self { address, length })
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: made by `new` with this length, and nothing borrows from it any more.
        let _ = unsafe { munmap(self.address, self.length.get()) };
    }
}
