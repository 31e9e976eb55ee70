//! Lists of plain values of several kinds that processes share: Python's `ShareableList`.
//!
//! # Layout
//!
//! A lock's page, and behind it words of eight bytes, all of them written under the lock:
//!
//! ```text
//! count │ committed, slot, tag │ place, capacity of each slot │ tag of each slot │ the journal's bytes │ the slots
//! ```
//!
//! A tag is the kind of a value and, for texts and bytes, how long it is. Counts, places and capacities never change.
//!
//! # Dying
//!
//! | state          | meaning                             | changed by   | if that process dies here                              |
//! |----------------|-------------------------------------|--------------|--------------------------------------------------------|
//! | `committed` 0  | the slots are right                 | a change     | what it had in the journal is as if it had never been  |
//! | `committed` 1  | the journal holds a value whole, which its slot may lack | the same change | the next one under the lock copies it once more |
//!
//! So a change is there whole or not at all, and nobody has to be told of a dead owner.
//!
//! # Ordering
//!
//! All of it is between lock and unlock, which order it among those who live. *journal*: `committed` is stored after the journal's bytes, and cleared after
//! the slot's. Who finds it after a death has taken the lock from the kernel, and sees what the dead thread had stored.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::data::Data;
use super::segment::{self, Contents, Label};
use super::tear;
use crate::Fd;
use crate::error::{Error, ErrorKind, Result};
use crate::lock::{AcquireError, Held};
use crate::sync::lock::{LockCore, Patience};
use crate::sys::PAGE;

/// A value in a [`ShareableList`].
///
/// Made from what it is by `into()`: integers of up to 64 bits, floats, `bool`, texts, bytes, and `Option`s of them; `()` is `None`.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Shareable {
    /// Nothing.
    #[default]
    None,
    /// True or false.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A float.
    Float(f64),
    /// A text.
    Str(String),
    /// Bytes.
    Bytes(Vec<u8>),
}

macro_rules! from {
    ($($from:ty => $variant:ident, $value:ident => $expression:expr;)*) => {$(
        impl From<$from> for Shareable {
            fn from($value: $from) -> Self {
                Self::$variant($expression)
            }
        }
    )*};
}

from! {
    bool => Bool, value => value;
    i8 => Int, value => value.into();
    i16 => Int, value => value.into();
    i32 => Int, value => value.into();
    i64 => Int, value => value;
    u8 => Int, value => value.into();
    u16 => Int, value => value.into();
    u32 => Int, value => value.into();
    f32 => Float, value => value.into();
    f64 => Float, value => value;
    &str => Str, value => value.into();
    &String => Str, value => value.clone();
    String => Str, value => value;
    &[u8] => Bytes, value => value.into();
    Vec<u8> => Bytes, value => value;
}

impl<const N: usize> From<&[u8; N]> for Shareable {
    fn from(bytes: &[u8; N]) -> Self {
        Self::Bytes(bytes.to_vec())
    }
}

impl From<()> for Shareable {
    fn from((): ()) -> Self {
        Self::None
    }
}

impl<T: Into<Self>> From<Option<T>> for Shareable {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::None, Into::into)
    }
}

impl Shareable {
    /// The integer, if it is one.
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(value) => Some(*value),
            _ => None,
        }
    }

    /// The float, if it is one.
    pub fn as_float(&self) -> Option<f64> {
        match self {
            Self::Float(value) => Some(*value),
            _ => None,
        }
    }

    /// The `bool`, if it is one.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// The text, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Str(value) => Some(value),
            _ => None,
        }
    }

    /// The bytes, if it is some.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Bytes(value) => Some(value),
            _ => None,
        }
    }

    /// Its kind and length as a tag, and its bytes.
    fn encode<T>(&self, with: impl FnOnce(u64, &[u8]) -> T) -> T {
        let tag = |kind, length| kind | (length as u64) << 8;
        match self {
            Self::None => with(NONE, &[]),
            Self::Bool(value) => with(BOOL, &u64::from(*value).to_ne_bytes()),
            Self::Int(value) => with(INT, &value.to_ne_bytes()),
            Self::Float(value) => with(FLOAT, &value.to_ne_bytes()),
            Self::Str(value) => with(tag(STR, value.len()), value.as_bytes()),
            Self::Bytes(value) => with(tag(BYTES, value.len()), value),
        }
    }

    /// `None`: no value of ours looks like that.
    fn decode(tag: u64, bytes: Vec<u8>) -> Option<Self> {
        let word = || Some(u64::from_ne_bytes(bytes.first_chunk().copied()?));
        Some(match tag & KIND {
            NONE => Self::None,
            BOOL => Self::Bool(word()? != 0),
            INT => Self::Int(word()? as i64),
            FLOAT => Self::Float(f64::from_bits(word()?)),
            STR => Self::Str(String::from_utf8(bytes).ok()?),
            BYTES => Self::Bytes(bytes),
            _ => return None,
        })
    }

    /// How many bytes a slot has that is made for it: a little more than it needs, as in Python.
    fn room(&self) -> usize {
        match self {
            Self::Str(value) => (value.len() / 8 + 1) * 8,
            Self::Bytes(value) => (value.len() / 8 + 1) * 8,
            _ => 8,
        }
    }
}

const KIND: u64 = 0xff;
const NONE: u64 = 0;
const BOOL: u64 = 1;
const INT: u64 = 2;
const FLOAT: u64 = 3;
const STR: u64 = 4;
const BYTES: u64 = 5;

/// As many bytes as a value of this tag has.
fn length_of(tag: u64) -> u64 {
    match tag & KIND {
        NONE => 0,
        STR | BYTES => tag >> 8,
        _ => 8,
    }
}

/// A list of a fixed number of plain values, of several kinds, that processes and threads share.
///
/// A *shared* handle: clones, and what arrives when it is sent, are the same list. A value can be replaced by one of another kind; a text, or bytes, by longer ones as
/// far as there is room in their place, which has what the first value needed, rounded up to the next multiple of eight bytes that is more.
///
/// Each call takes the lock of the list for a moment. [`lock`](Self::lock) takes it for longer, for what belongs together, like adding to a number.
///
/// Like [`SharedMemory`](crate::SharedMemory) it has no name, and goes with the last who has it, unless it is made by [`create`](Self::create), and then all
/// that is said there of names holds here, too.
///
/// Unlike Python's, texts and bytes come back as they were (Python strips zeroes from their ends), room is counted in bytes as well as values are, and what
/// does not fit leaves its neighbours alone.
///
/// # If a peer dies
///
/// A change is there whole or not at all, at whatever instant the process that makes it is killed, and nobody is kept waiting: the next one under the lock
/// finishes it.
///
/// # Examples
///
/// ```
/// use mproc::{Shareable, ShareableList};
///
/// #[mproc::entry]
/// fn grow(list: &ShareableList) -> mproc::Result<(), mproc::Failure> {
///     let mut list = list.lock()?;
///     let number = list.get(1)?.as_int().unwrap();
///     list.set(1, number + 1)?;
///     list.set(2, "dry ice")?;
///     Ok(())
/// }
///
/// # fn main() -> mproc::Result<()> {
/// let list = ShareableList::new([Shareable::from(1.5), 41.into(), "howdy".into(), None::<i64>.into()])?;
/// grow::spawn(&list)?.join()?.unwrap();
/// assert_eq!(list.to_vec()?, [Shareable::from(1.5), 42.into(), "dry ice".into(), ().into()]);
/// assert!(list.set(2, "longer than there is room").is_err());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ShareableList(Arc<Inner>);

struct Inner {
    lock: Arc<LockCore>,
    data: Data<u64>,
    slots: Box<[Slot]>,
    name: Option<Box<str>>,
}

/// Where a value is, in words, as it was when the list was opened: nobody can change it any more.
#[derive(Clone, Copy)]
struct Slot {
    place: usize,
    capacity: usize,
}

/// The first words.
const COUNT: usize = 0;
const COMMITTED: usize = 1;
const SLOT: usize = 2;
const TAG: usize = 3;
const TABLE: usize = 4;

fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

impl ShareableList {
    /// A list of these values, without a name.
    ///
    /// # Errors
    ///
    /// As [`SharedMemory::new`](crate::SharedMemory::new).
    pub fn new(values: impl IntoIterator<Item = impl Into<Shareable>>) -> Result<Self> {
        let values: Vec<Shareable> = values.into_iter().map(Into::into).collect();
        Self::make(&values, |length| {
            LockCore::create(false, false, length).map(Arc::new)
        })
        .map(Self::of)
        .map_err(|error| Error::io("a list could not be made", error))
    }

    /// A list of these values, with a name that no other list or memory has, see [`SharedMemory::create`](crate::SharedMemory::create).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn create(
        name: &str,
        values: impl IntoIterator<Item = impl Into<Shareable>>,
    ) -> Result<Self> {
        let values: Vec<Shareable> = values.into_iter().map(Into::into).collect();
        let create = || {
            segment::check_name(name)?;
            let mut inner = Self::make(&values, |length| {
                LockCore::create_in(Arc::new(segment::new(PAGE as u64 + length)?))
            })?;
            let length = PAGE as u64 + inner.data.len() as u64 * 8;
            segment::publish(inner.lock.file(), name, Contents::List, length)?;
            inner.name = Some(name.into());
            Ok(inner)
        };
        create()
            .map(Self::of)
            .map_err(|error| Error::io(format!("list {name:?} could not be made"), error))
    }

    /// The list of this name.
    ///
    /// # Errors
    ///
    /// If there is none ([`io_error`](Error::io_error) is then of the kind `NotFound`), if it is another user's, or is no list.
    pub fn attach(name: &str) -> Result<Self> {
        let attach = || {
            segment::check_name(name)?;
            let file = segment::open(name)?;
            match Label::read(&file)? {
                Some(label) if label.contents == Contents::List => {
                    let words = (label.length.saturating_sub(PAGE as u64) / 8) as usize;
                    Inner::open(Arc::new(file), words, Some(name.into()))
                }
                _ => Err(invalid("it is no list: use `SharedMemory::attach`")),
            }
        };
        attach()
            .map(Self::of)
            .map_err(|error| Error::io(format!("list {name:?} could not be attached to"), error))
    }

    fn of(inner: Inner) -> Self {
        Self(Arc::new(inner))
    }

    fn make(
        values: &[Shareable],
        create: impl FnOnce(u64) -> io::Result<Arc<LockCore>>,
    ) -> io::Result<Inner> {
        let rooms: Vec<usize> = values.iter().map(|value| value.room() / 8).collect();
        let journal = rooms.iter().copied().max().unwrap_or(0);
        let mut place = TABLE + 3 * rooms.len() + journal;
        let slots: Box<[Slot]> = rooms
            .into_iter()
            .map(|capacity| {
                let slot = Slot { place, capacity };
                place += capacity;
                slot
            })
            .collect();
        let length = Data::<u64>::bytes(place)?;
        let lock = create(length)?;
        let data = Data::map_named(Arc::clone(lock.file()), PAGE as u64, place, true)?;
        let inner = Inner {
            lock,
            data,
            slots,
            name: None,
        };
        inner.word(COUNT).store(inner.slots.len() as u64, SeqCst);
        for (index, slot) in inner.slots.iter().enumerate() {
            let entry = TABLE + 2 * index;
            inner.word(entry).store(slot.place as u64, SeqCst);
            inner.word(entry + 1).store(slot.capacity as u64, SeqCst);
        }
        for (index, value) in values.iter().enumerate() {
            value.encode(|tag, bytes| {
                inner.store_bytes(inner.slots[index].place, bytes);
                inner.tag(index).store(tag, SeqCst);
            });
        }
        Ok(inner)
    }

    /// Takes the name away, see [`SharedMemory::unlink`](crate::SharedMemory::unlink).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn unlink(&self) -> Result<()> {
        segment::unlink_named(self.0.lock.file(), self.name())
    }

    /// The name it was created with; `None` if it has none.
    pub fn name(&self) -> Option<&str> {
        self.0.name.as_deref()
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.0.slots.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many bytes the text, or the bytes, at this index can have.
    ///
    /// # Panics
    ///
    /// If there is no value at this index.
    #[track_caller]
    pub fn capacity(&self, index: usize) -> usize {
        let slot = self.0.slots.get(index);
        let slot = slot.unwrap_or_else(|| panic!("index {index} of a list of {}", self.len()));
        slot.capacity * 8
    }

    /// Locks the list, for several things that belong together. Waits while somebody else holds its lock.
    ///
    /// That an owner of the lock died is nothing to be told of: what it was changing has been mended.
    ///
    /// # Errors
    ///
    /// If the calling thread has it locked already ([`Deadlock`](ErrorKind::Deadlock)), or cannot hold more locks.
    pub fn lock(&self) -> Result<ShareableListGuard<'_>> {
        self.lock_within(Patience::FOREVER)
    }

    /// Locks the list if nobody holds its lock.
    ///
    /// # Errors
    ///
    /// As [`lock`](Self::lock), and [`WouldBlock`](ErrorKind::WouldBlock).
    pub fn try_lock(&self) -> Result<ShareableListGuard<'_>> {
        self.lock_within(Patience::None)
    }

    /// Locks the list if its lock is to be had in time.
    ///
    /// # Errors
    ///
    /// As [`lock`](Self::lock), and [`Timeout`](ErrorKind::Timeout), never early.
    pub fn lock_timeout(&self, timeout: Duration) -> Result<ShareableListGuard<'_>> {
        self.lock_within(Patience::of(timeout))
    }

    fn lock_within(&self, patience: Patience) -> Result<ShareableListGuard<'_>> {
        let held = match Held::acquire(&self.0.lock, patience) {
            Ok(held) => held,
            Err(AcquireError::OwnerDied { guard, .. }) => guard,
            Err(error) => return Err(error.into()),
        };
        self.0.finish();
        Ok(ShareableListGuard {
            _held: held,
            list: &self.0,
        })
    }

    /// The value at this index.
    ///
    /// # Errors
    ///
    /// As [`lock`](Self::lock) and [`ShareableListGuard::get`].
    pub fn get(&self, index: usize) -> Result<Shareable> {
        self.lock()?.get(index)
    }

    /// Replaces the value at this index, by one of any kind.
    ///
    /// # Errors
    ///
    /// As [`lock`](Self::lock) and [`ShareableListGuard::set`].
    pub fn set(&self, index: usize, value: impl Into<Shareable>) -> Result<()> {
        self.lock()?.set(index, value)
    }

    /// All values, of one instant.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn to_vec(&self) -> Result<Vec<Shareable>> {
        self.lock()?.to_vec()
    }

    /// How often there is a value like this.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn count(&self, value: impl Into<Shareable>) -> Result<usize> {
        let value = value.into();
        Ok(self.to_vec()?.iter().filter(|one| **one == value).count())
    }

    /// Where the first value like this is.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    #[doc(alias = "index")]
    pub fn position(&self, value: impl Into<Shareable>) -> Result<Option<usize>> {
        let value = value.into();
        Ok(self.to_vec()?.iter().position(|one| *one == value))
    }
}

impl Inner {
    /// A list that somebody else made, who may be anybody.
    fn open(file: Arc<OwnedFd>, words: usize, name: Option<Box<str>>) -> io::Result<Self> {
        let named = name.is_some();
        let data = Data::map_named(Arc::clone(&file), PAGE as u64, words, named)?;
        let lock = match named {
            true => LockCore::open_named(file)?,
            false => LockCore::open(file)?,
        };
        let mut inner = Self {
            lock,
            data,
            slots: Box::default(),
            name,
        };
        let wrong = || invalid("shared memory that is no list");
        if words < TABLE {
            return Err(wrong());
        }
        let count = usize::try_from(inner.word(COUNT).load(SeqCst)).map_err(|_| wrong())?;
        if count > (words - TABLE) / 3 {
            return Err(wrong());
        }
        let slots = (0..count).map(|index| {
            let entry = TABLE + 2 * index;
            let place = usize::try_from(inner.word(entry).load(SeqCst)).ok()?;
            let capacity = usize::try_from(inner.word(entry + 1).load(SeqCst)).ok()?;
            let end = place.checked_add(capacity)?;
            (place >= TABLE + 3 * count && end <= words).then_some(Slot { place, capacity })
        });
        let slots: Option<Box<[Slot]>> = slots.collect();
        let slots = slots.ok_or_else(wrong)?;
        let longest = slots.iter().map(|slot| slot.capacity).max().unwrap_or(0);
        if slots
            .iter()
            .any(|slot| slot.place < TABLE + 3 * count + longest)
        {
            return Err(wrong());
        }
        inner.slots = slots;
        Ok(inner)
    }

    fn word(&self, index: usize) -> &AtomicU64 {
        assert!(index < self.data.len());
        // SAFETY:
        // - mapped: `data` lives as long as `self`.
        // - inside: just compared, and aligned, by invariants 1 and 2 of `Data`.
        // - bytes:  any are a valid atomic integer.
        // - others: use atomics, or are other processes.
        unsafe { self.data.first().cast::<AtomicU64>().add(index).as_ref() }
    }

    fn tag(&self, index: usize) -> &AtomicU64 {
        self.word(TABLE + 2 * self.slots.len() + index)
    }

    /// Where the journal's bytes begin.
    fn journal(&self) -> usize {
        TABLE + 3 * self.slots.len()
    }

    /// Copies bytes to a word and on.
    fn store_bytes(&self, place: usize, bytes: &[u8]) {
        assert!(place + bytes.len().div_ceil(8) <= self.data.len());
        // SAFETY: inside the mapping, as just compared, and apart from the private bytes.
        unsafe {
            let to = self.data.first().as_ptr().add(place);
            tear::store(bytes.as_ptr(), to.cast(), bytes.len());
        }
    }

    /// Copies bytes from a word and on.
    fn load_bytes(&self, place: usize, length: usize) -> Vec<u8> {
        assert!(place + length.div_ceil(8) <= self.data.len());
        let mut bytes = vec![0; length];
        // SAFETY: as above.
        unsafe {
            let from = self.data.first().as_ptr().add(place).cast_const();
            tear::load(from.cast(), bytes.as_mut_ptr(), length);
        }
        bytes
    }

    /// Finishes a change that a dead process had begun. The lock is held.
    fn finish(&self) {
        if self.word(COMMITTED).load(SeqCst) == 0 {
            return;
        }
        let tag = self.word(TAG).load(SeqCst);
        let index = usize::try_from(self.word(SLOT).load(SeqCst)).ok();
        let slot = index.and_then(|index| Some((index, self.slots.get(index)?)));
        // Otherwise somebody wrote here who is none of us.
        if let Some((index, slot)) = slot
            && length_of(tag) <= slot.capacity as u64 * 8
        {
            let bytes = self.load_bytes(self.journal(), length_of(tag) as usize);
            self.apply(index, tag, &bytes);
        }
        self.word(COMMITTED).store(0, SeqCst);
    }

    fn apply(&self, index: usize, tag: u64, bytes: &[u8]) {
        self.store_bytes(self.slots[index].place, bytes);
        self.tag(index).store(tag, SeqCst);
    }

    /// Replaces a value for which there is room. The lock is held.
    fn change(&self, index: usize, tag: u64, bytes: &[u8]) {
        self.store_bytes(self.journal(), bytes);
        self.word(SLOT).store(index as u64, SeqCst);
        self.word(TAG).store(tag, SeqCst);
        self.word(COMMITTED).store(1, SeqCst);
        self.apply(index, tag, bytes);
        self.word(COMMITTED).store(0, SeqCst);
    }
}

/// A locked [`ShareableList`]. Unlocks it when dropped.
#[must_use = "the list is unlocked when the guard is dropped"]
pub struct ShareableListGuard<'a> {
    _held: Held<'a>,
    list: &'a Inner,
}

impl ShareableListGuard<'_> {
    fn slot(&self, index: usize) -> Result<Slot> {
        self.list.slots.get(index).copied().ok_or_else(|| {
            let length = self.list.slots.len();
            Error::new(
                ErrorKind::OutOfRange,
                format!("there is no index {index} in a list of {length}"),
            )
        })
    }

    /// The value at this index.
    ///
    /// # Errors
    ///
    /// If there is none ([`OutOfRange`](ErrorKind::OutOfRange)), or a process that does not keep to the rules has written something else there
    /// ([`Decode`](ErrorKind::Decode)).
    pub fn get(&self, index: usize) -> Result<Shareable> {
        let slot = self.slot(index)?;
        let tag = self.list.tag(index).load(SeqCst);
        let length = usize::try_from(length_of(tag)).ok();
        length
            .filter(|length| *length <= slot.capacity * 8)
            .and_then(|length| Shareable::decode(tag, self.list.load_bytes(slot.place, length)))
            .ok_or_else(|| {
                Error::new(
                    ErrorKind::Decode,
                    format!("what is at index {index} of the list is no value"),
                )
            })
    }

    /// Replaces the value at this index, by one of any kind.
    ///
    /// # Errors
    ///
    /// If there is none ([`OutOfRange`](ErrorKind::OutOfRange)), or the new one is longer than there is room ([`TooLong`](ErrorKind::TooLong)): then the old one is still
    /// there.
    pub fn set(&mut self, index: usize, value: impl Into<Shareable>) -> Result<()> {
        let room = self.slot(index)?.capacity * 8;
        value.into().encode(|tag, bytes| {
            if bytes.len() > room {
                let length = bytes.len();
                let text = format!(
                    "{length} bytes are too many for index {index} of the list, where there is room for {room}; make the list with a longer value there"
                );
                return Err(Error::new(ErrorKind::TooLong, text));
            }
            self.list.change(index, tag, bytes);
            Ok(())
        })
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.list.slots.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All values.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn to_vec(&self) -> Result<Vec<Shareable>> {
        (0..self.len()).map(|index| self.get(index)).collect()
    }
}

/// With the values, if nobody holds the lock.
impl fmt::Debug for ShareableList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_tuple("ShareableList");
        if let Some(name) = self.name() {
            shown.field(&name);
        }
        match self.try_lock().and_then(|guard| guard.to_vec()) {
            Ok(values) => shown.field(&values).finish(),
            Err(_) => shown.field(&format_args!("{} values", self.len())).finish(),
        }
    }
}

impl fmt::Debug for ShareableListGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut list = f.debug_list();
        for index in 0..self.len() {
            match self.get(index) {
                Ok(value) => list.entry(&value),
                Err(_) => list.entry(&format_args!("no value")),
            };
        }
        list.finish()
    }
}

/// What travels.
#[derive(Serialize, Deserialize)]
struct Travelling {
    file: Fd,
    words: u64,
    name: Option<Box<str>>,
}

impl Serialize for ShareableList {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let file = self.0.lock.file_to_send().map_err(S::Error::custom)?;
        Travelling {
            file: Fd::shared(file),
            words: self.0.data.len() as u64,
            name: self.0.name.clone(),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ShareableList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Travelling { file, words, name } = Travelling::deserialize(deserializer)?;
        if let Some(name) = &name {
            segment::check_name(name).map_err(D::Error::custom)?;
        }
        let words = usize::try_from(words).map_err(D::Error::custom)?;
        let inner = Inner::open(file.into_shared(), words, name).map_err(D::Error::custom)?;
        Ok(Self::of(inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As if the process had been killed after each store of a change.
    #[test]
    fn a_change_is_there_whole_or_not_at_all() {
        let old = || [Shareable::from("old text"), 7.into()];
        let new = Shareable::from("new");
        for steps in 0..=6 {
            let list = ShareableList::new(old()).unwrap();
            let inner = &list.0;
            new.encode(|tag, bytes| {
                let mut stores: Vec<Box<dyn Fn()>> = vec![
                    Box::new(|| inner.store_bytes(inner.journal(), bytes)),
                    Box::new(|| inner.word(SLOT).store(0, SeqCst)),
                    Box::new(move || inner.word(TAG).store(tag, SeqCst)),
                    Box::new(|| inner.word(COMMITTED).store(1, SeqCst)),
                    Box::new(|| inner.store_bytes(inner.slots[0].place, bytes)),
                    Box::new(move || inner.tag(0).store(tag, SeqCst)),
                ];
                stores.drain(..steps).for_each(|store| store());
            });
            let expected = if steps < 4 {
                old()
            } else {
                [new.clone(), 7.into()]
            };
            assert_eq!(list.to_vec().unwrap(), expected, "after {steps} stores");
            assert_eq!(inner.word(COMMITTED).load(SeqCst), 0);
        }
    }

    /// Whoever has the memory writes anything into it: values may be lost or be others, and nothing worse.
    #[test]
    fn a_hostile_peer_can_change_the_values_and_no_more() {
        let mut random = 0x9E37_79B9_7F4A_7C15_u64;
        let mut next = move || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random
        };
        let values = || [Shareable::from("a text"), 7.into(), b"bytes".into()];
        for _ in 0..2000 {
            let list = ShareableList::new(values()).unwrap();
            let inner = &list.0;
            for _ in 0..next() % 8 {
                let place = next() as usize % inner.data.len();
                let value = match next() % 3 {
                    0 => next(),
                    1 => next() % 64,
                    _ => next() % 1024,
                };
                inner.word(place).store(value, SeqCst);
            }
            for index in 0..4 {
                let _ = list.get(index);
                let _ = list.set(index, "x");
            }
            // As it would be decoded by another process.
            if let Ok(opened) = Inner::open(Arc::clone(inner.lock.file()), inner.data.len(), None) {
                let opened = ShareableList::of(opened);
                let _ = opened.to_vec();
                let _ = opened.set(0, 1);
            }
        }
    }
}
