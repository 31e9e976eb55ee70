//! The stage: one clock for all processes, cores to stand on, memory to share, and a gate that opens for everybody at once.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::Ordering::{Acquire, Release, SeqCst};
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::time::Duration;

use mproc::Fd;
use nix::libc;

/// A core, or wherever the scheduler likes.
pub(crate) type Core = Option<usize>;

/// The two cores on which the sides of a two-sided measurement stand.
pub(crate) fn two_cores() -> [Core; 2] {
    let set = affinity();
    // SAFETY: the set is initialized.
    let mut cores = (0..1024).filter(|&core| unsafe { libc::CPU_ISSET(core, &set) });
    let first = cores.next();
    [first, cores.next().or(first)]
}

/// Nanoseconds of the monotonic clock, which is the same in all processes.
pub(crate) fn now() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` lives through the call.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Nanoseconds that a word takes from one core to the other and back: it tells whether they share a cache. On a virtual machine that changes while it runs. 0: there
/// is only one core.
pub(crate) fn distance([one, other]: [Core; 2]) -> f64 {
    const TRIPS: u64 = 5000;
    if one == other {
        return 0.0;
    }
    let word = AtomicU64::new(0);
    let wait_for = |value| {
        while word.load(Acquire) != value {
            std::hint::spin_loop();
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _standing = Standing::on(other);
            for trip in 0..TRIPS {
                wait_for(2 * trip + 1);
                word.store(2 * trip + 2, Release);
            }
        });
        let _standing = Standing::on(one);
        let mut start = 0;
        for trip in 0..TRIPS {
            if trip == TRIPS / 10 {
                start = now(); // Both are there.
            }
            word.store(2 * trip + 1, Release);
            wait_for(2 * trip + 2);
        }
        nanoseconds_each(start, now(), TRIPS - TRIPS / 10)
    })
}

/// Nanoseconds since `start`, per `count`.
pub(crate) fn nanoseconds_each(start: u64, end: u64, count: u64) -> f64 {
    end.saturating_sub(start) as f64 / count as f64
}

/// CPU time that another process has used so far.
pub(crate) fn cpu_time_of(process: u32) -> Duration {
    let mut clock = 0;
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: both places live through the calls.
    unsafe {
        assert_eq!(libc::clock_getcpuclockid(process as i32, &mut clock), 0);
        assert_eq!(libc::clock_gettime(clock, &mut time), 0);
    }
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn affinity() -> libc::cpu_set_t {
    // SAFETY: a set of processors is bits, of which none is set here, and lives through the call.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::sched_getaffinity(0, size_of_val(&set), &mut set);
        set
    }
}

/// Keeps the calling thread on one core until dropped.
pub(crate) struct Standing(libc::cpu_set_t);

impl Standing {
    pub(crate) fn on(core: Core) -> Self {
        let before = affinity();
        if let Some(core) = core {
            // SAFETY: as in `affinity`.
            unsafe {
                let mut set: libc::cpu_set_t = std::mem::zeroed();
                libc::CPU_SET(core, &mut set);
                libc::sched_setaffinity(0, size_of_val(&set), &set);
            }
        }
        Self(before)
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        // SAFETY: the set was the thread's own.
        unsafe { libc::sched_setaffinity(0, size_of_val(&self.0), &self.0) };
    }
}

/// Memory that several processes have mapped, all of it present from the start.
pub(crate) struct Shared {
    start: NonNull<u8>,
    length: usize,
    fd: OwnedFd,
}

// SAFETY: an address range; who reads and writes what is its users' business, by atomics and the indices they guard.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    pub(crate) fn new(length: usize) -> Self {
        // SAFETY: the name is a C string; what is returned is checked and ours.
        let fd = unsafe {
            let number = libc::memfd_create(c"floor".as_ptr(), libc::MFD_CLOEXEC);
            assert!(number >= 0, "a memfd");
            OwnedFd::from_raw_fd(number)
        };
        // SAFETY: sets the size of a file that nobody has mapped yet.
        let sized = unsafe { libc::ftruncate(fd.as_raw_fd(), length as i64) };
        assert_eq!(sized, 0, "room");
        Self::map(fd, length)
    }

    /// Maps what another process made.
    pub(crate) fn open(fd: Fd) -> Self {
        let fd: OwnedFd = fd.into_inner().expect("the only holder");
        let length = nix::sys::stat::fstat(&fd)
            .expect("its length")
            .st_size
            .unsigned_abs();
        Self::map(fd, length as usize)
    }

    fn map(fd: OwnedFd, length: usize) -> Self {
        // SAFETY: a new mapping, at a place the kernel chooses.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_POPULATE,
                fd.as_raw_fd(),
                0,
            )
        };
        assert_ne!(start, libc::MAP_FAILED, "a mapping");
        let start = NonNull::new(start.cast()).expect("not at zero");
        Self { start, length, fd }
    }

    /// The same memory, to be given to another process.
    pub(crate) fn fd(&self) -> Fd {
        Fd::from(self.fd.try_clone().expect("a descriptor"))
    }

    /// The address of byte `offset`.
    pub(crate) fn at<T>(&self, offset: usize) -> *mut T {
        assert!(offset < self.length && offset.is_multiple_of(align_of::<T>()));
        // SAFETY: inside of the mapping.
        unsafe { self.start.as_ptr().add(offset).cast() }
    }

    /// An atomic at byte `offset`; `T` must be an atomic integer.
    pub(crate) fn atomic<T>(&self, offset: usize) -> &T {
        assert!(offset + size_of::<T>() <= self.length);
        // SAFETY: mapped for as long as `self`, aligned and inside, valid for any bytes because it is an atomic integer.
        unsafe { &*self.at(offset) }
    }

    /// Bytes from `offset` to the end.
    pub(crate) fn length_from(&self, offset: usize) -> usize {
        self.length - offset
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: nothing borrows from `self` any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

/// Where processes say that they are ready, and learn that it has begun.
pub(crate) struct Gate(Shared);

impl Gate {
    pub(crate) fn new() -> Self {
        Self(Shared::new(4096))
    }

    pub(crate) fn open(fd: Fd) -> Self {
        Self(Shared::open(fd))
    }

    pub(crate) fn fd(&self) -> Fd {
        self.0.fd()
    }

    fn word(&self, number: usize) -> &AtomicU32 {
        self.0.atomic(number * 64)
    }

    /// Says that the caller is about to begin.
    pub(crate) fn ready(&self) {
        self.word(0).fetch_add(1, SeqCst);
    }

    /// Says that the caller is ready and waits for the others.
    pub(crate) fn enter(&self) {
        self.ready();
        while self.word(1).load(SeqCst) == 0 {
            std::thread::yield_now();
        }
    }

    /// Waits until `count` are ready. The caller must not stand on one of their cores before.
    pub(crate) fn wait_for(&self, count: u32) {
        while self.word(0).load(SeqCst) < count {
            std::thread::yield_now();
        }
    }

    /// Opens for `count` at once; returns when.
    pub(crate) fn open_for(&self, count: u32) -> u64 {
        self.wait_for(count);
        let start = now();
        self.word(1).store(1, SeqCst);
        start
    }

    /// Counts those who are done; true for the last of `of`.
    pub(crate) fn is_last(&self, of: u32) -> bool {
        self.word(2).fetch_add(1, SeqCst) + 1 == of
    }
}

/// How many descriptors were opened since `before`, and how many bytes of memory or disk stand behind them.
pub(crate) fn memory_of_descriptors(before: &[String]) -> (usize, u64) {
    let new: Vec<_> = descriptors()
        .into_iter()
        .filter(|number| !before.contains(number))
        .collect();
    let blocks = new
        .iter()
        .filter_map(|number| std::fs::File::open(format!("/proc/self/fd/{number}")).ok())
        .filter_map(|file| nix::sys::stat::fstat(file.as_fd()).ok())
        .map(|stat| stat.st_blocks.unsigned_abs() * 512)
        .sum();
    (new.len(), blocks)
}

/// The descriptors that are open here.
pub(crate) fn descriptors() -> Vec<String> {
    let entries = std::fs::read_dir("/proc/self/fd").expect("Linux has it");
    let mut names: Vec<_> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    // The directory itself was open while it was read.
    names.retain(|name| std::fs::metadata(format!("/proc/self/fd/{name}")).is_ok());
    names
}
