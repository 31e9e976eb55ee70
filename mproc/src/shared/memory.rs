//! Plain memory that processes share, with a name or without.

use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicI8, AtomicI16, AtomicI32, AtomicI64, AtomicIsize, AtomicU8, AtomicU16, AtomicU32,
    AtomicU64, AtomicUsize,
};

use bytemuck::Pod;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::data::Data;
use super::segment::{self, Contents, Label, Orphan};
use super::tear;
use crate::Fd;
use crate::error::{Error, Result};
use crate::sys;

/// A block of bytes that processes and threads share.
///
/// A *shared* handle: clones, and what arrives when it is sent, are the same memory.
///
/// # With a name, and without
///
/// [`new`](Self::new) makes memory without a name. It reaches other processes as an argument, a result, or in a message, and goes with the last who has
/// it: there is nothing to clean up, whoever is killed. It is sealed: no process can make it shorter under another.
///
/// [`create`](Self::create) makes memory with a name, for processes that start later or know nothing of each other, and for programs in other languages:
/// it is a file in `/dev/shm`, with the bytes at its beginning, which POSIX's `shm_open` and Python's `SharedMemory(name=…)` find (they see one
/// page more, in which mproc notes who made it). Only the user who made it may open it (`0600`). It stays until
/// somebody calls [`unlink`](Self::unlink), or until the system stops: **no process's exit takes it away**, not that of who attached to it, and not
/// that of who made it. What the dead have left is found by [`abandoned`](Self::abandoned) and removed by [`unlink_abandoned`](Self::unlink_abandoned).
/// Memory with a name cannot be sealed: a program of the same user could shorten the file, after which looking at what is gone ends a process by SIGBUS. Nothing
/// in mproc does; but between those who do not trust each other, use memory without a name.
///
/// # Several at once
///
/// There is no lock in it. [`atomic`](Self::atomic) lends atomics, which are all that different processes need to agree on something;
/// [`read_at`](Self::read_at), [`write_at`](Self::write_at), [`read`](Self::read) and [`write`](Self::write) copy, and what is written meanwhile *may
/// tear*: each aligned eight bytes are of one instant, and no more. A [`Lock`](crate::Lock) beside it keeps others away. Slices of it are `unsafe`, since nobody can
/// know who writes.
///
/// # If a peer dies
///
/// What it had written is there, and nothing else happens.
///
/// # Examples
///
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering};
///
/// use mproc::SharedMemory;
///
/// #[mproc::entry]
/// fn greet(memory: &SharedMemory) {
///     memory.write_at(8, b"hello");
///     memory.atomic::<AtomicU64>(0).store(5, Ordering::Release);
/// }
///
/// # fn main() -> mproc::Result<()> {
/// let memory = SharedMemory::new(4096)?;
/// greet::spawn(&memory)?.join()?;
/// let length = memory.atomic::<AtomicU64>(0).load(Ordering::Acquire);
/// assert_eq!(memory.to_vec_at(8, length as usize), b"hello");
/// # Ok(())
/// # }
/// ```
///
/// By name:
///
/// ```
/// use mproc::SharedMemory;
///
/// #[mproc::entry]
/// fn shout(name: &str) -> mproc::Result<(), mproc::Failure> {
///     let memory = SharedMemory::attach(name)?;
///     let mut text = memory.to_vec();
///     text.make_ascii_uppercase();
///     memory.write_at(0, &text);
///     Ok(())
/// }
///
/// # fn main() -> mproc::Result<()> {
/// let name = format!("example-{}", std::process::id());
/// let memory = SharedMemory::create(&name, 5)?;
/// memory.write_at(0, b"hello");
/// shout::spawn(&name)?.join()?.unwrap();
/// assert_eq!(memory.to_vec(), b"HELLO");
/// memory.unlink()?;
/// assert!(SharedMemory::attach(&name).is_err());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SharedMemory(Arc<Inner>);

struct Inner {
    data: Data<u8>,
    name: Option<Box<str>>,
}

fn not_made(error: io::Error) -> Error {
    Error::io("shared memory could not be made", error)
}

impl SharedMemory {
    /// So many zeroes, without a name. All the memory is allocated here.
    ///
    /// # Errors
    ///
    /// If there is no memory, no room for a descriptor or an address (`RLIMIT_AS`), or a limit of file sizes (`RLIMIT_FSIZE`) is in the way.
    pub fn new(length: usize) -> Result<Self> {
        let data = Data::new(length).map_err(not_made)?;
        Ok(Self(Arc::new(Inner { data, name: None })))
    }

    /// So many zeroes, with a name that no other has. All the memory is allocated here. Nobody finds it half made, and who is killed in here leaves nothing.
    ///
    /// The name is that of a file: one to 255 bytes without `/` and NUL.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new), if `/dev/shm` is full (`ENOSPC`), and if the name is no name or is taken
    /// ([`io_error`](Error::io_error) is then of the kind `AlreadyExists`).
    pub fn create(name: &str, length: usize) -> Result<Self> {
        Self::try_create(name, length)
            .map_err(|error| Error::io(format!("shared memory {name:?} could not be made"), error))
    }

    fn try_create(name: &str, length: usize) -> io::Result<Self> {
        segment::check_name(name)?;
        let file = Arc::new(segment::new(length as u64)?);
        let data = Data::map_named(Arc::clone(&file), 0, length, true)?;
        segment::publish(&file, name, Contents::Memory, length as u64)?;
        let name = Some(name.into());
        Ok(Self(Arc::new(Inner { data, name })))
    }

    /// The memory of this name, with the length that it was made with.
    ///
    /// What no mproc made can be attached to as well; it is as long as its file.
    ///
    /// # Errors
    ///
    /// If there is none ([`io_error`](Error::io_error) is then of the kind `NotFound`), if it is another user's or open to others, or is a
    /// [`ShareableList`](crate::ShareableList).
    pub fn attach(name: &str) -> Result<Self> {
        Self::try_attach(name).map_err(|error| {
            let text = format!("shared memory {name:?} could not be attached to");
            Error::io(text, error)
        })
    }

    fn try_attach(name: &str) -> io::Result<Self> {
        segment::check_name(name)?;
        let file = segment::open(name)?;
        let length = match Label::read(&file)? {
            Some(label) if label.contents != Contents::Memory => {
                let text = "it is a list: use `ShareableList::attach`";
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
            Some(label) => label.length,
            None => {
                // It is looked at BEFORE it is given memory: that of others is not ours to fill.
                let size = sys::steady_file_size(file.as_fd(), true)?;
                // Other programs leave it to the first who writes, or who is killed since there is none.
                sys::fill(file.as_fd())?;
                size
            }
        };
        let length = usize::try_from(length).map_err(io::Error::other)?;
        let data = Data::map_named(Arc::new(file), 0, length, true)?;
        let name = Some(name.into());
        Ok(Self(Arc::new(Inner { data, name })))
    }

    /// Takes the name away. Those who have the memory keep it, also by this handle, and can go on sending it; nobody attaches to it any more.
    ///
    /// # Errors
    ///
    /// If it has no name, or has lost it already ([`io_error`](Error::io_error) is then of the kind `NotFound`), also if other memory
    /// has got that name since.
    pub fn unlink(&self) -> Result<()> {
        segment::unlink_named(self.0.data.file(), self.name())
    }

    /// The name it was created with, without a folder; `None` if it has none. It says nothing about whether it has been unlinked since.
    pub fn name(&self) -> Option<&str> {
        self.0.name.as_deref()
    }

    /// The process that created it, while it has a name; `None` for what is not mproc's. Another process may have got the number since.
    pub fn creator_id(&self) -> Option<u32> {
        self.name()?;
        let label = Label::read(self.0.data.file()).ok()??;
        Some(label.creator.process)
    }

    /// Memory, and lists, with names whose creators are dead: of this user; for root, of everybody.
    ///
    /// A creator of which this process cannot know whether it is dead, since it lives in another process namespace (another container that shares
    /// `/dev/shm`), does not count as dead.
    ///
    /// # Errors
    ///
    /// If `/dev/shm` cannot be read.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> mproc::Result<()> {
    /// for left in mproc::SharedMemory::abandoned()? {
    ///     println!("{left:?}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn abandoned() -> Result<Vec<Abandoned>> {
        let orphans = Orphan::find().map_err(not_searched)?;
        Ok(orphans.into_iter().map(Abandoned).collect())
    }

    /// Removes the memory, and the lists, with names whose creators are dead and that no process has attached by mproc. Returns the names.
    ///
    /// A service calls it when it starts, and finds `/dev/shm` as empty as it should be, whatever happened to its last life. What other
    /// processes have is left to them, and so is what is not mproc's. (Programs that are not mproc's are not seen to have something attached; they keep the memory, without the name.)
    ///
    /// # Errors
    ///
    /// If `/dev/shm` cannot be read or changed. What can be removed is removed all the same, and named in the error.
    #[doc(alias = "resource_tracker")]
    pub fn unlink_abandoned() -> Result<Vec<String>> {
        let mut unlinked = Vec::new();
        let mut failed = None;
        for orphan in Orphan::find().map_err(not_searched)? {
            match orphan.unlink() {
                Ok(true) => unlinked.push(orphan.name),
                Ok(false) => {}
                Err(error) => failed = failed.or(Some((orphan.name, error))),
            }
        }
        match failed {
            None => Ok(unlinked),
            Some((name, error)) => {
                let text = format!(
                    "shared memory {name:?} of the dead could not be removed, of which {unlinked:?} were"
                );
                Err(Error::io(text, error))
            }
        }
    }

    /// How many bytes there are.
    #[doc(alias = "size")]
    pub fn len(&self) -> usize {
        self.0.data.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where the bytes from `offset` are, of which there are `length`.
    #[track_caller]
    fn at(&self, offset: usize, length: usize) -> *mut u8 {
        let end = offset.checked_add(length);
        assert!(
            end.is_some_and(|end| end <= self.len()),
            "{length} bytes from offset {offset} of shared memory of {} bytes",
            self.len()
        );
        self.as_ptr().wrapping_add(offset)
    }

    /// Copies the bytes from `offset` on into `bytes`. What others write meanwhile may arrive in part.
    ///
    /// # Panics
    ///
    /// If there are not as many.
    #[track_caller]
    pub fn read_at(&self, offset: usize, bytes: &mut [u8]) {
        let from = self.at(offset, bytes.len());
        // SAFETY: inside the mapping, as just compared, by invariant 1 of `Data`; private memory is apart from it.
        unsafe { tear::load(from, bytes.as_mut_ptr(), bytes.len()) };
    }

    /// Copies the bytes to `offset` and on. Who reads meanwhile may get a part of them.
    ///
    /// # Panics
    ///
    /// If there is no room for all.
    #[track_caller]
    pub fn write_at(&self, offset: usize, bytes: &[u8]) {
        let to = self.at(offset, bytes.len());
        // SAFETY: as in `read_at`.
        unsafe { tear::store(bytes.as_ptr(), to, bytes.len()) };
    }

    /// A copy of `length` bytes from `offset` on, as [`read_at`](Self::read_at) makes it.
    ///
    /// # Panics
    ///
    /// If there are not as many.
    #[track_caller]
    pub fn to_vec_at(&self, offset: usize, length: usize) -> Vec<u8> {
        let from = self.at(offset, length);
        let mut bytes = Vec::with_capacity(length);
        // SAFETY: as in `read_at`; the vector has that much room, and all of it is written.
        unsafe {
            tear::load(from, bytes.as_mut_ptr(), length);
            bytes.set_len(length);
        }
        bytes
    }

    /// A copy of all bytes.
    pub fn to_vec(&self) -> Vec<u8> {
        self.to_vec_at(0, self.len())
    }

    /// A copy of the value at `offset`, aligned or not. If somebody writes it meanwhile, it may be torn.
    ///
    /// # Panics
    ///
    /// If it would reach beyond the end.
    #[track_caller]
    pub fn read<T: Pod>(&self, offset: usize) -> T {
        let mut value = T::zeroed();
        self.read_at(offset, bytemuck::bytes_of_mut(&mut value));
        value
    }

    /// Copies a value to `offset`, aligned or not. Who reads it meanwhile may get a part of it.
    ///
    /// # Panics
    ///
    /// If it would reach beyond the end.
    #[track_caller]
    pub fn write<T: Pod>(&self, offset: usize, value: T) {
        self.write_at(offset, bytemuck::bytes_of(&value));
    }

    /// The bytes at `offset` as an atomic, which other processes may use at the same time.
    ///
    /// An atomic is as wide wherever it is used: atomics of different widths over the same bytes, or copies of them meanwhile, see parts of each other.
    ///
    /// # Panics
    ///
    /// If it would reach beyond the end, or `offset` is not a multiple of its size.
    #[track_caller]
    pub fn atomic<A: Atomic>(&self, offset: usize) -> &A {
        let size = size_of::<A>();
        let at = self.at(offset, size);
        assert!(
            offset.is_multiple_of(size),
            "offset {offset} of an atomic of {size} bytes is not a multiple of its size"
        );
        // SAFETY:
        // - mapped: the mapping lives as long as `self`, which is borrowed.
        // - inside: just compared; the first byte is at the beginning of a page, so it is aligned as its offset is.
        // - bytes:  any are a valid atomic integer (`Atomic` is sealed).
        // - others: use atomics, or are other processes.
        unsafe { &*at.cast::<A>() }
    }

    /// Where the first byte is. It is at the beginning of a page, and stays there as long as a clone of this handle does.
    ///
    /// Reading or writing through it is `unsafe`: other threads and processes may do so at any time.
    pub fn as_ptr(&self) -> *mut u8 {
        self.0.data.first().as_ptr()
    }

    /// All bytes as a slice: for code that wants one, and memory that is large.
    ///
    /// # Safety
    ///
    /// As long as it lives, no process writes any of the bytes, and no thread of this one: by a lock, or because nobody has the memory yet, or any more.
    pub unsafe fn as_slice(&self) -> &[u8] {
        // SAFETY: mapped as long as `self` and so long, by invariant 1 of `Data`; any bytes are `u8`; the caller keeps others away.
        unsafe { std::slice::from_raw_parts(self.as_ptr(), self.len()) }
    }

    /// All bytes as a slice to write.
    ///
    /// # Safety
    ///
    /// As long as it lives, no process reads or writes any of the bytes, and no thread of this one, other than through it.
    #[expect(
        clippy::mut_from_ref,
        reason = "what is shared cannot be borrowed mutably; that is why it is unsafe"
    )]
    pub unsafe fn as_mut_slice(&self) -> &mut [u8] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.as_ptr(), self.len()) }
    }
}

fn not_searched(error: io::Error) -> Error {
    Error::io(
        "shared memory of the dead could not be looked for in /dev/shm",
        error,
    )
}

/// What [`SharedMemory::atomic`] lends: the atomic integers of the standard library.
#[expect(private_bounds, reason = "it is sealed")]
pub trait Atomic: Sealed {}

impl<A: Sealed> Atomic for A {}

/// Any bytes are a valid value, and its alignment is its size at most.
trait Sealed {}

macro_rules! atomics {
    ($($atomic:ty)*) => {$(
        impl Sealed for $atomic {}
        const _: () = assert!(align_of::<$atomic>() <= size_of::<$atomic>());
    )*};
}

atomics! {
    AtomicI8 AtomicI16 AtomicI32 AtomicI64 AtomicIsize AtomicU8 AtomicU16 AtomicU32 AtomicU64 AtomicUsize
}

/// Memory, or a list, with a name, whose creator is dead. See [`SharedMemory::abandoned`].
pub struct Abandoned(Orphan);

impl Abandoned {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// How many bytes it has.
    #[expect(clippy::len_without_is_empty, reason = "a fact and no container")]
    pub fn len(&self) -> usize {
        self.0.label.length as usize
    }

    /// The process that created it, and is dead.
    pub fn creator_id(&self) -> u32 {
        self.0.label.creator.process
    }

    /// Whether a process has it attached by mproc now.
    ///
    /// # Errors
    ///
    /// If the system does not say.
    pub fn is_attached(&self) -> Result<bool> {
        self.0.is_attached().map_err(not_searched)
    }

    /// Takes its name away, unless a process has it attached. Returns whether it did.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub fn unlink(self) -> Result<bool> {
        self.0.unlink().map_err(not_searched)
    }
}

impl fmt::Debug for Abandoned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, length, creator) = (self.name(), self.len(), self.creator_id());
        write!(f, "Abandoned({name:?}, {length} bytes, creator={creator})")
    }
}

impl fmt::Debug for SharedMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "SharedMemory({name:?}, {} bytes)", self.len()),
            None => write!(f, "SharedMemory({} bytes)", self.len()),
        }
    }
}

/// What travels: the file itself, so that what has been unlinked meanwhile still arrives.
#[derive(Serialize, Deserialize)]
struct Travelling {
    file: Fd,
    length: u64,
    name: Option<Box<str>>,
}

impl Serialize for SharedMemory {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Travelling {
            file: Fd::shared(Arc::clone(self.0.data.file())),
            length: self.len() as u64,
            name: self.0.name.clone(),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for SharedMemory {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Travelling { file, length, name } = Travelling::deserialize(deserializer)?;
        if let Some(name) = &name {
            segment::check_name(name).map_err(D::Error::custom)?;
        }
        let length = usize::try_from(length).map_err(D::Error::custom)?;
        let data = Data::map_named(file.into_shared(), 0, length, name.is_some())
            .map_err(D::Error::custom)?;
        Ok(Self(Arc::new(Inner { data, name })))
    }
}
