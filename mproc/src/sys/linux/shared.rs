//! Memory that several processes write: a file without a name that grows and never shrinks, and mappings of its parts.

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, FcntlArg, SealFlag, fallocate, fcntl};
use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::unistd::ftruncate;

use super::descriptor::above_stdio;
use super::memory::file_size_limit;

/// The unit in which such files are allocated, mapped and given back.
pub(crate) const PAGE: usize = 4096;

/// 256 KiB: as much as is allocated in one call. A signal interrupts an allocation and undoes it, so a long one would never end
/// under a storm of them.
const STEP: u64 = 256 * 1024;

/// A new file of `length` bytes, all of them allocated, which nobody can ever shrink: so no mapping of it can fault.
pub(crate) fn shared_file(length: u64) -> io::Result<OwnedFd> {
    sparse_file(length, length)
}

/// As above, with memory behind the first `present` bytes. Whoever writes elsewhere has to [`allocate`] it first.
pub(crate) fn sparse_file(length: u64, present: u64) -> io::Result<OwnedFd> {
    let fd = memfd_create(
        c"mproc",
        MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING,
    )?;
    let fd = above_stdio(fd)?;
    allocate(fd.as_fd(), 0, present)?;
    if length > present {
        if length > file_size_limit() {
            return Err(io::Error::from_raw_os_error(libc::EFBIG));
        }
        ftruncate(fd.as_fd(), length as i64)?;
    }
    fcntl(
        fd.as_fd(),
        FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL),
    )?;
    Ok(fd)
}

/// The size of a file that another process sent, if nobody can shrink it.
pub(crate) fn shared_file_size(fd: BorrowedFd<'_>) -> io::Result<u64> {
    let seals = fcntl(fd, FcntlArg::F_GET_SEALS).map_err(|_| not_ours())?;
    if !SealFlag::from_bits_retain(seals).contains(SealFlag::F_SEAL_SHRINK) {
        return Err(not_ours());
    }
    size(fd)
}

fn not_ours() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "memory received from another process could be shrunk under its readers",
    )
}

/// The size of a file in bytes.
pub(crate) fn size(fd: BorrowedFd<'_>) -> io::Result<u64> {
    Ok(nix::sys::stat::fstat(fd)?.st_size as u64)
}

/// What tells a file from all others that are there.
pub(crate) fn file_identity(fd: BorrowedFd<'_>) -> io::Result<(u64, u64)> {
    let stat = nix::sys::stat::fstat(fd)?;
    Ok((stat.st_dev, stat.st_ino))
}

/// How many bytes of a file have memory behind them.
pub(crate) fn allocated(fd: BorrowedFd<'_>) -> io::Result<u64> {
    // Blocks of 512 bytes, whatever the page.
    Ok(nix::sys::stat::fstat(fd)?.st_blocks as u64 * 512)
}

/// How large a file may be made by this process: the kernel answers more with a signal that kills.
pub(crate) fn largest_file() -> u64 {
    file_size_limit()
}

/// Puts memory behind a part of the file, and extends the file to hold it.
pub(crate) fn allocate(fd: BorrowedFd<'_>, offset: u64, length: u64) -> io::Result<()> {
    if offset + length > file_size_limit() {
        return Err(io::Error::from_raw_os_error(libc::EFBIG));
    }
    allocate_by(FallocateFlags::empty(), fd, offset, length)
}

/// Puts memory behind all of the file that has none yet.
pub(crate) fn fill(fd: BorrowedFd<'_>) -> io::Result<()> {
    allocate_by(FallocateFlags::FALLOC_FL_KEEP_SIZE, fd, 0, size(fd)?)
}

fn allocate_by(
    flags: FallocateFlags,
    fd: BorrowedFd<'_>,
    offset: u64,
    length: u64,
) -> io::Result<()> {
    if length >= LARGE && available_memory().is_some_and(|available| length > available) {
        return Err(io::Error::from_raw_os_error(libc::ENOMEM));
    }
    let end = offset + length;
    let mut at = offset;
    while at < end {
        let step = STEP.min(end - at);
        match fallocate(fd, flags, at as i64, step as i64) {
            Ok(()) => at += step,
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// 64 MiB: from here on a request is compared with the memory that there is. A nameless file has no limit of its own, and the kernel
/// answers who takes the last page by killing somebody.
const LARGE: u64 = 64 << 20;

/// How many bytes the kernel thinks it can give before it swaps, and all that it can swap; `None` if it does not say. proc_meminfo(5)
fn available_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let kibibytes = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_ascii_whitespace().nth(1)?.parse().ok()
    };
    Some((kibibytes("MemAvailable")? + kibibytes("SwapFree")?) * 1024)
}

/// Reads a few bytes that lie inside the file.
pub(crate) fn read_at(fd: BorrowedFd<'_>, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
    loop {
        match nix::sys::uio::pread(fd, bytes, offset as i64) {
            Ok(read) if read == bytes.len() => return Ok(()),
            Ok(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Writes a few bytes that lie inside the file.
pub(crate) fn write_at(fd: BorrowedFd<'_>, offset: u64, bytes: &[u8]) -> io::Result<()> {
    loop {
        match nix::sys::uio::pwrite(fd, bytes, offset as i64) {
            Ok(written) if written == bytes.len() => return Ok(()),
            Ok(_) => return Err(io::ErrorKind::WriteZero.into()),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Gives the memory behind a part of the file back. It reads as zeroes from then on.
pub(crate) fn punch(fd: BorrowedFd<'_>, offset: u64, length: u64) -> io::Result<()> {
    if length == 0 {
        return Ok(());
    }
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    loop {
        match fallocate(fd, flags, offset as i64, length as i64) {
            Ok(()) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The same file, as an open file of its own: with its own locks.
pub(crate) fn reopen(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    use std::os::fd::AsRawFd;
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let file = File::options().read(true).write(true).open(path)?;
    above_stdio(file.into())
}

/// A part of a file, mapped to read, or to read and write. Others may change it at any time, so it is only a pointer.
pub(crate) struct SharedMapping {
    address: NonNull<u8>,
    length: NonZeroUsize,
}

// SAFETY: a mapping belongs to the process and not to a thread; what is done through the pointer is argued where it is done.
unsafe impl Send for SharedMapping {}
// SAFETY: as above.
unsafe impl Sync for SharedMapping {}

impl SharedMapping {
    /// Maps `length` bytes from `offset`, both multiples of [`PAGE`]. The caller has made sure that the file is that long and
    /// cannot shrink. `present` maps all pages at once instead of one by one when they are touched.
    pub(crate) fn new(
        fd: BorrowedFd<'_>,
        offset: u64,
        length: usize,
        writable: bool,
        present: bool,
    ) -> io::Result<Self> {
        let length = NonZeroUsize::new(length).ok_or(io::ErrorKind::InvalidInput)?;
        let mut protection = ProtFlags::PROT_READ;
        protection.set(ProtFlags::PROT_WRITE, writable);
        let mut flags = MapFlags::MAP_SHARED;
        flags.set(MapFlags::MAP_POPULATE, present);
        // SAFETY: a new mapping at an address of the kernel's choice disturbs nothing that exists.
        let address = unsafe { mmap(None, length, protection, flags, fd, offset as i64)? };
        Ok(Self {
            address: address.cast(),
            length,
        })
    }

    pub(crate) fn address(&self) -> NonNull<u8> {
        self.address
    }

    pub(crate) fn length(&self) -> usize {
        self.length.get()
    }
}

impl Drop for SharedMapping {
    fn drop(&mut self) {
        // SAFETY: made by `new` with this length; whoever used the address borrowed this value.
        let _ = unsafe { munmap(self.address.cast(), self.length.get()) };
    }
}

/// Puts memory behind the whole pages of private memory that is about to be written, so that writing it does not fault page by page.
/// Nothing but time depends on it.
pub(crate) fn populate(memory: &mut [std::mem::MaybeUninit<u8>]) {
    let before = memory.as_ptr().align_offset(PAGE);
    let length = memory.len().saturating_sub(before) / PAGE * PAGE;
    if length > 0 {
        let start = memory[before..].as_mut_ptr();
        // SAFETY: whole pages of memory that the caller may write to. They keep what they hold.
        // OK to ignore: then they are populated by writing them.
        let _ = unsafe { libc::madvise(start.cast(), length, libc::MADV_POPULATE_WRITE) };
    }
}

/// A lock of the kernel's on one byte of a file, which an open file holds until it is closed, by whatever death.
///
/// Taken shared by each who takes part, it tells whether somebody else does: then it cannot be had alone.
pub(crate) fn lock_byte(fd: BorrowedFd<'_>, offset: u64, alone: bool) -> io::Result<bool> {
    match fcntl(
        fd,
        FcntlArg::F_OFD_SETLK(&byte(
            offset,
            if alone { libc::F_WRLCK } else { libc::F_RDLCK },
        )),
    ) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Lets go of the byte.
pub(crate) fn unlock_byte(fd: BorrowedFd<'_>, offset: u64) {
    // OK to ignore: it goes with the descriptor at the latest.
    let _ = fcntl(fd, FcntlArg::F_OFD_SETLK(&byte(offset, libc::F_UNLCK)));
}

/// Whether somebody else holds the byte, shared or alone.
pub(crate) fn is_byte_locked(fd: BorrowedFd<'_>, offset: u64) -> io::Result<bool> {
    let mut lock = byte(offset, libc::F_WRLCK);
    fcntl(fd, FcntlArg::F_OFD_GETLK(&mut lock))?;
    Ok(lock.l_type != libc::F_UNLCK as libc::c_short)
}

fn byte(offset: u64, kind: libc::c_int) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: offset as libc::off_t,
        l_len: 1,
        l_pid: 0,
    }
}
