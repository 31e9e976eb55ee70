//! A shared file as lanes use it: a first page of words, and segments that come and go behind it.
//!
//! Nothing in here trusts what another process wrote: a segment is mapped only if the file is that long, and the file cannot
//! shrink, so a pointer into a mapping never faults; and a message is copied only if there is memory behind it, so a hole that
//! claims to be a terabyte costs its reader nothing.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;

use crate::sys::{self, PAGE, SharedMapping};

/// A part of the file: whole pages, packed into one word so that it is read and written at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    /// In pages from the file's beginning.
    pub(crate) first: u32,
    /// In pages.
    pub(crate) pages: u32,
}

impl Segment {
    pub(crate) fn to_word(self) -> u64 {
        u64::from(self.first) << 32 | u64::from(self.pages)
    }

    pub(crate) fn from_word(word: u64) -> Self {
        Self {
            first: (word >> 32) as u32,
            pages: word as u32,
        }
    }

    /// In bytes from the file's beginning.
    pub(crate) fn start(self) -> u64 {
        u64::from(self.first) * PAGE as u64
    }

    pub(crate) fn length(self) -> u64 {
        u64::from(self.pages) * PAGE as u64
    }

    pub(crate) fn end(self) -> u64 {
        self.start() + self.length()
    }
}

/// The file, or a part of it, with its first page mapped as a `Words`.
pub(crate) struct Memory<Words> {
    file: Arc<OwnedFd>,
    /// Where the part begins. Everything else is counted from there.
    base: u64,
    #[cfg(not(mproc_model))]
    first: SharedMapping,
    #[cfg(not(mproc_model))]
    words: std::marker::PhantomData<Words>,
    /// A model's words are made, not found.
    #[cfg(mproc_model)]
    words: Arc<Words>,
}

/// Words that may be mapped over any bytes: atomics only.
///
/// # Safety
///
/// Any bytes are a valid value, other processes may change them at any time, and the type fits a page and its alignment.
#[cfg(not(mproc_model))]
pub(crate) unsafe trait PageOfWords {}

/// As above.
///
/// # Safety
///
/// As above.
#[cfg(mproc_model)]
pub(crate) unsafe trait PageOfWords: Default {}

impl<Words: PageOfWords> Memory<Words> {
    /// A new file: a page of zeroes and, behind it, `segment`, with memory behind all of it.
    pub(crate) fn create(segment: Segment) -> io::Result<Self> {
        let file = sys::shared_file(segment.end())?;
        Self::map(Arc::new(file), 0)
    }

    /// A part of a file that is there already: a page of zeroes and, behind it, `segment`. Parts are [`SPAN`](super::lane::SPAN) apart, with
    /// nothing in between but a hole. Whatever was there is gone.
    pub(crate) fn create_at(file: Arc<OwnedFd>, base: u64, segment: Segment) -> io::Result<Self> {
        if base + segment.end() > sys::largest_file() {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!(
                    "the limit of file sizes (RLIMIT_FSIZE) is below the {} GiB that this needs in addresses, not in memory",
                    (base + segment.end()).div_ceil(1 << 30)
                ),
            ));
        }
        sys::punch(file.as_fd(), base, super::lane::SPAN)?;
        sys::allocate(file.as_fd(), base, segment.end())?;
        Self::map(file, base)
    }

    /// A part that another process made.
    pub(crate) fn open_at(file: Arc<OwnedFd>, base: u64) -> io::Result<Self> {
        if sys::size(file.as_fd())? < base + PAGE as u64 {
            return Err(invalid("a part of shared memory that does not exist"));
        }
        Self::map(file, base)
    }

    /// Gives the memory of the whole part back. What is mapped of it reads as zeroes.
    pub(crate) fn give_back(&self) {
        // OK to ignore: it goes with the file at the latest.
        let _ = sys::punch(self.fd(), self.base, super::lane::SPAN);
    }

    /// Stores a word at this position, where it may not be mapped.
    pub(crate) fn store(&self, position: u64, word: u64) -> io::Result<()> {
        sys::write_at(self.fd(), self.base + position, &word.to_ne_bytes())
    }

    /// A file that another process made.
    pub(crate) fn open(file: Arc<OwnedFd>) -> io::Result<Self> {
        let size = sys::shared_file_size(file.as_fd())?;
        if size < PAGE as u64 {
            return Err(invalid("shared memory that is too short"));
        }
        Self::map(file, 0)
    }

    #[cfg(not(mproc_model))]
    fn map(file: Arc<OwnedFd>, base: u64) -> io::Result<Self> {
        const { assert!(size_of::<Words>() <= PAGE && align_of::<Words>() <= PAGE) };
        let first = SharedMapping::new(file.as_fd(), base, PAGE, true, true)?;
        Ok(Self {
            file,
            base,
            first,
            words: std::marker::PhantomData,
        })
    }

    #[cfg(not(mproc_model))]
    #[inline]
    pub(crate) fn words(&self) -> &Words {
        // SAFETY:
        // - mapped: `first` lives as long as `self`, and the file, which is at least a page long, cannot shrink.
        // - inside: `map` has compared sizes; a mapping begins at a page.
        // - bytes:  `PageOfWords`: any are valid.
        // - others: `PageOfWords`: they are atomics.
        unsafe { self.first.address().cast().as_ref() }
    }

    #[cfg(mproc_model)]
    fn map(file: Arc<OwnedFd>, base: u64) -> io::Result<Self> {
        Ok(Self {
            file,
            base,
            words: Arc::default(),
        })
    }

    /// The same memory, as another process of a model has it.
    #[cfg(mproc_model)]
    pub(crate) fn elsewhere(&self) -> Self {
        Self {
            file: Arc::clone(&self.file),
            base: self.base,
            words: Arc::clone(&self.words),
        }
    }

    #[cfg(mproc_model)]
    pub(crate) fn words(&self) -> &Words {
        &self.words
    }

    pub(crate) fn file(&self) -> &Arc<OwnedFd> {
        &self.file
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Puts memory behind a segment of our own choice.
    pub(crate) fn allocate(&self, segment: Segment) -> io::Result<()> {
        sys::allocate(self.fd(), self.base + segment.start(), segment.length())
    }

    /// Gives the memory from page `from` to page `to` back.
    pub(crate) fn release(&self, from: u32, to: u32) {
        let length = u64::from(to.saturating_sub(from)) * PAGE as u64;
        // OK to ignore: what could not be given back is used again or goes with the file.
        let _ = sys::punch(self.fd(), self.base + u64::from(from) * PAGE as u64, length);
    }

    /// The length in pages.
    pub(crate) fn pages(&self) -> u32 {
        let size = sys::size(self.fd()).unwrap_or(0);
        // Other parts may lie behind this one.
        let size = size.saturating_sub(self.base).min(super::lane::SPAN);
        u32::try_from(size / PAGE as u64).unwrap_or(u32::MAX)
    }

    /// As long as it may become.
    pub(crate) fn longest(&self) -> u64 {
        let largest = sys::largest_file().saturating_sub(self.base);
        largest.min(super::lane::SPAN)
    }

    /// Maps a segment that somebody else may have named.
    pub(crate) fn view(&self, segment: Segment, writable: bool) -> io::Result<View> {
        if segment.first == 0
            || segment.pages == 0
            || self.base + segment.end() > sys::size(self.fd())?
        {
            return Err(invalid("a segment of shared memory that does not exist"));
        }
        let length = usize::try_from(segment.length()).map_err(|_| invalid("too much memory"))?;
        // A short one is mapped whole, which costs less than a fault for each page.
        let present = segment.pages <= 1024;
        let mapping = SharedMapping::new(
            self.fd(),
            self.base + segment.start(),
            length,
            writable,
            present,
        )?;
        Ok(View { segment, mapping })
    }

    /// Whether there is memory for `length` bytes behind the file. Reading a hole allocates it, and a hole costs its maker
    /// nothing.
    pub(crate) fn holds(&self, length: u64) -> bool {
        sys::allocated(self.fd()).is_ok_and(|allocated| allocated >= length)
    }
}

fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// A segment, mapped.
pub(crate) struct View {
    segment: Segment,
    mapping: SharedMapping,
}

impl View {
    pub(crate) fn segment(&self) -> Segment {
        self.segment
    }

    /// Where byte `position` of the file is, if `length` bytes from there are inside.
    #[inline]
    pub(crate) fn at(&self, position: u64, length: u64) -> Option<NonNull<u8>> {
        let offset = position.checked_sub(self.segment.start())?;
        if offset.checked_add(length)? > self.mapping.length() as u64 {
            return None;
        }
        // SAFETY: inside the mapping, as just compared.
        Some(unsafe { self.mapping.address().add(offset as usize) })
    }
}
