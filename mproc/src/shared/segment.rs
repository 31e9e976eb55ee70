//! A file with a name, and who made it: the last page, behind the memory itself, says it.
//!
//! What lies in front of that page begins at the beginning of the file, so that programs that know nothing of mproc find it where they look
//! for it, and those of mproc can attach to what others made.
//!
//! # Who has it
//!
//! Each open file of it holds a lock of the kernel's on one byte, shared, for as long as any descriptor of it is open: so it is known whether
//! anybody has it attached, whatever deaths there were. Who takes a name away from the dead holds that lock alone meanwhile, and
//! compares once more, so that a name is never taken from another file that has got it since.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::sys::{self, Birth, Deadline, PAGE};

/// What the memory holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Contents {
    /// Bytes.
    Memory = 1,
    /// A list with its lock.
    List = 2,
}

/// The last page's first words.
const WORDS: usize = 8;
const MAGIC: u64 = u64::from_le_bytes(*b"mproc/1\0");

/// Where, far behind everything, the byte is that those lock who have the memory.
const BYTE: u64 = 1 << 60;

/// And that which those lock who take its name away.
const NAME: u64 = BYTE + 1;

/// Says who made the memory, and what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Label {
    pub(super) contents: Contents,
    /// In bytes, without the last page.
    pub(super) length: u64,
    pub(super) creator: Birth,
}

impl Label {
    fn to_bytes(self) -> [u8; WORDS * 8] {
        let creator = self.creator;
        let words: [u64; WORDS] = [
            MAGIC,
            self.contents as u64,
            self.length,
            u64::from(creator.process),
            creator.start,
            creator.process_namespace,
            creator.time_namespace,
            0,
        ];
        let mut bytes = [0; WORDS * 8];
        for (to, word) in bytes.chunks_exact_mut(8).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// `None`: it is none of ours.
    fn from_bytes(bytes: &[u8; WORDS * 8]) -> Option<Self> {
        let (words, _) = bytes.as_chunks::<8>();
        let word = |index: usize| u64::from_le_bytes(words[index]);
        let contents = match word(1) {
            1 => Contents::Memory,
            2 => Contents::List,
            _ => return None,
        };
        (word(0) == MAGIC).then_some(Self {
            contents,
            length: word(2),
            creator: Birth {
                process: u32::try_from(word(3)).ok()?,
                start: word(4),
                process_namespace: word(5),
                time_namespace: word(6),
            },
        })
    }

    /// That of this file, if it has one that fits it.
    pub(super) fn read(file: &OwnedFd) -> io::Result<Option<Self>> {
        let size = sys::size(file.as_fd())?;
        let Some(length) = size.checked_sub(PAGE as u64) else {
            return Ok(None);
        };
        let mut bytes = [0; WORDS * 8];
        sys::read_at(file.as_fd(), length, &mut bytes)?;
        let label = Self::from_bytes(&bytes);
        Ok(label.filter(|label| {
            // A file of none still has a page.
            let pages = label.length.max(1).checked_next_multiple_of(PAGE as u64);
            pages == Some(length)
        }))
    }
}

/// Refuses what cannot be a name, or would be one somewhere else.
pub(super) fn check_name(name: &str) -> io::Result<()> {
    let wrong = match name {
        "" => "it is empty",
        "." | ".." => "it is a folder's",
        _ if name.contains('/') => {
            "it contains a `/`; names of shared memory are those of files in one folder"
        }
        _ if name.contains('\0') => "it contains a NUL",
        _ if name.len() > 255 => "it is longer than 255 bytes",
        _ => return Ok(()),
    };
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("{name:?} cannot be a name of shared memory: {wrong}"),
    ))
}

/// A new file for `length` bytes, zeroes, with room for a label behind them. It has no name yet.
pub(super) fn new(length: u64) -> io::Result<OwnedFd> {
    let pages = length
        .max(1)
        .checked_next_multiple_of(PAGE as u64)
        .and_then(|pages| pages.checked_add(PAGE as u64))
        .filter(|&pages| i64::try_from(pages).is_ok())
        .ok_or(io::ErrorKind::OutOfMemory)?;
    let file = sys::file_to_name(pages)?;
    // Before it has its name, so that nobody finds it without its owner.
    take_part(&file)?;
    Ok(file)
}

/// Labels it and gives it its name: from here on it is there for everybody, whole.
pub(super) fn publish(
    file: &OwnedFd,
    name: &str,
    contents: Contents,
    length: u64,
) -> io::Result<()> {
    let label = Label {
        contents,
        length,
        creator: Birth::own()?,
    };
    let at = sys::size(file.as_fd())? - PAGE as u64;
    sys::write_at(file.as_fd(), at, &label.to_bytes())?;
    sys::give_name(file.as_fd(), name)
}

/// How long a name may be in the course of being taken away, which is a matter of microseconds, unless whoever does it was stopped.
const PATIENCE: Duration = Duration::from_secs(1);

const STOPPED: &str =
    "for a second, a process has been about to take its name away; perhaps it was stopped";

/// The file of this name, with this process as one of those who have it.
pub(super) fn open(name: &str) -> io::Result<OwnedFd> {
    let deadline = Deadline::after(PATIENCE);
    loop {
        let file = sys::open_name(name)?;
        let took_part = take_part(&file)?;
        // Looked at again, since it may have lost its name between the two.
        if took_part && sys::identity_of_name(name)? == sys::file_identity(file.as_fd())? {
            return Ok(file);
        }
        // Its name is being taken away, or has been given to another.
        if deadline.is_over() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, STOPPED));
        }
        std::thread::sleep(Duration::from_micros(50));
    }
}

/// Makes this open file one of those who have the memory. `false`: somebody is taking its name away.
pub(super) fn take_part(file: &OwnedFd) -> io::Result<bool> {
    sys::lock_byte(file.as_fd(), BYTE, false)
}

/// Takes the name away, if it still is that of this file.
pub(super) fn unlink(file: &OwnedFd, name: &str) -> io::Result<()> {
    // With an open file of its own, since those who share one share its locks. Otherwise two who do this at the same time could take
    // the name from another file, which has got it between the look of the second and its deed.
    unlink_by(&sys::reopen(file.as_fd())?, name)
}

/// As above, by an open file that nobody else has.
fn unlink_by(alone: &OwnedFd, name: &str) -> io::Result<()> {
    let deadline = Deadline::after(PATIENCE);
    while !sys::lock_byte(alone.as_fd(), NAME, true)? {
        if deadline.is_over() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, STOPPED));
        }
        std::thread::sleep(Duration::from_micros(50));
    }
    if sys::identity_of_name(name)? != sys::file_identity(alone.as_fd())? {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            "the name has been taken away from it, and given to other memory",
        ));
    }
    sys::take_name(name)
}

/// As above, for the public handles.
pub(super) fn unlink_named(file: &OwnedFd, name: Option<&str>) -> Result<()> {
    let Some(name) = name else {
        let error = io::Error::new(io::ErrorKind::NotFound, "it has none");
        return Err(Error::io(
            "the name of shared memory could not be taken away",
            error,
        ));
    };
    unlink(file, name).map_err(|error| {
        let text = format!("the name {name:?} of shared memory could not be taken away");
        Error::io(text, error)
    })
}

/// Memory whose creator is dead.
pub(super) struct Orphan {
    pub(super) name: String,
    pub(super) label: Label,
    /// Of its file, which is not kept open: there may be more than descriptors.
    identity: (u64, u64),
}

/// The file of a name that was there a moment ago. `None`: it has gone, or is not for us.
fn look_at(name: &str) -> io::Result<Option<OwnedFd>> {
    match sys::open_name(name) {
        Ok(file) => Ok(Some(file)),
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::InvalidData => Ok(None),
            _ => Err(error),
        },
    }
}

impl Orphan {
    /// All there are that this process may look at.
    pub(super) fn find() -> io::Result<Vec<Self>> {
        let mut found = Vec::new();
        for name in sys::names()? {
            let Some(file) = look_at(&name)? else {
                continue;
            };
            let label = match Label::read(&file) {
                Ok(Some(label)) => label,
                Ok(None) => continue,
                // It has just become shorter, which ours never do.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => continue,
                Err(error) => return Err(error),
            };
            if label.creator.has_ended()? == Some(true) {
                found.push(Self {
                    name,
                    label,
                    identity: sys::file_identity(file.as_fd())?,
                });
            }
        }
        Ok(found)
    }

    /// Its file, if the name still is its.
    fn file(&self) -> io::Result<Option<OwnedFd>> {
        match look_at(&self.name)? {
            Some(file) if sys::file_identity(file.as_fd())? == self.identity => Ok(Some(file)),
            _ => Ok(None),
        }
    }

    /// Whether a process has it attached.
    pub(super) fn is_attached(&self) -> io::Result<bool> {
        match self.file()? {
            Some(file) => sys::is_byte_locked(file.as_fd(), BYTE),
            None => Ok(false),
        }
    }

    /// Takes its name away, unless somebody has it. Returns whether it did.
    pub(super) fn unlink(&self) -> io::Result<bool> {
        let Some(file) = self.file()? else {
            return Ok(false);
        };
        if !sys::lock_byte(file.as_fd(), BYTE, true)? {
            return Ok(false);
        }
        // Nobody attaches from here on, and nobody else takes this one's name.
        match unlink_by(&file, &self.name) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_come_back_and_noise_is_none() {
        let label = Label {
            contents: Contents::List,
            length: 12_345,
            creator: Birth::own().unwrap(),
        };
        assert_eq!(Label::from_bytes(&label.to_bytes()), Some(label));
        assert_eq!(Label::from_bytes(&[0; WORDS * 8]), None);
        for at in 0..16 {
            let mut bytes = label.to_bytes();
            bytes[at] ^= 0x40;
            assert_eq!(Label::from_bytes(&bytes), None);
        }
    }

    /// Whoever takes a name away and is stopped meanwhile keeps nobody waiting for long.
    #[test]
    fn a_name_that_is_being_taken_away_is_an_error_in_the_end() {
        let name = format!("mproc-unit-{}", std::process::id());
        let file = new(8).unwrap();
        publish(&file, &name, Contents::Memory, 8).unwrap();
        let stopped = sys::open_name(&name).unwrap();
        sys::unlock_byte(file.as_fd(), BYTE);
        assert!(sys::lock_byte(stopped.as_fd(), BYTE, true).unwrap());
        assert_eq!(open(&name).unwrap_err().kind(), io::ErrorKind::TimedOut);
        drop(stopped);
        let opened = open(&name).unwrap();
        unlink(&opened, &name).unwrap();
        assert_eq!(open(&name).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn this_process_has_not_ended() {
        let own = Birth::own().unwrap();
        assert_eq!(own.has_ended().unwrap(), Some(false));
        let earlier = Birth {
            start: own.start - 1,
            ..own
        };
        assert_eq!(earlier.has_ended().unwrap(), Some(true));
        let elsewhere = Birth {
            process_namespace: 1,
            ..own
        };
        assert_eq!(elsewhere.has_ended().unwrap(), None);
    }
}
