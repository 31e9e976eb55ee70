//! Shared memory that has a name: files of `/dev/shm`, where POSIX shared memory lies on Linux.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, FcntlArg, OFlag, SealFlag, fcntl, open};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, lstat};
use nix::unistd::linkat;

use super::descriptor::above_stdio;
use super::process::effective_user;
use super::shared::{allocate, shared_file_size};

const FOLDER: &str = "/dev/shm";

fn path(name: &str) -> PathBuf {
    Path::new(FOLDER).join(name)
}

fn again<T>(mut call: impl FnMut() -> nix::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            other => return Ok(other?),
        }
    }
}

/// A new file there of `length` bytes, all of them allocated, that only this user may open, and that has no name yet: whoever is
/// killed before it gets one leaves nothing.
pub(crate) fn file_to_name(length: u64) -> io::Result<OwnedFd> {
    let flags = OFlag::O_TMPFILE | OFlag::O_RDWR | OFlag::O_CLOEXEC;
    let file = again(|| open(FOLDER, flags, Mode::S_IRUSR | Mode::S_IWUSR))?;
    let file = above_stdio(file)?;
    allocate(file.as_fd(), 0, length)?;
    Ok(file)
}

/// Gives it its name, at once and whole; `EEXIST` if the name is taken.
pub(crate) fn give_name(file: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    let unnamed = format!("/proc/self/fd/{}", file.as_raw_fd());
    again(|| {
        linkat(
            AT_FDCWD,
            unnamed.as_str(),
            AT_FDCWD,
            &path(name),
            AtFlags::AT_SYMLINK_FOLLOW,
        )
    })
}

/// The file of this name, if it is a file.
pub(crate) fn open_name(name: &str) -> io::Result<OwnedFd> {
    // Somebody may have put a fifo or a link there.
    let flags = OFlag::O_RDWR | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let no_memory = || {
        io::Error::new(
            io::ErrorKind::InvalidData,
            "what has this name is no memory",
        )
    };
    let opened = again(|| match open(&path(name), flags, Mode::empty()) {
        // A link.
        Err(Errno::ELOOP) => Ok(None),
        opened => opened.map(Some),
    });
    let file = above_stdio(opened?.ok_or_else(no_memory)?)?;
    if !is_file(&fstat(&file)?) {
        return Err(no_memory());
    }
    Ok(file)
}

/// What [`file_identity`](super::shared::file_identity) says of the file that has this name now.
pub(crate) fn identity_of_name(name: &str) -> io::Result<(u64, u64)> {
    let stat = again(|| lstat(&path(name)))?;
    Ok((stat.st_dev, stat.st_ino))
}

/// Takes the name away. The memory goes with the last who has it.
pub(crate) fn take_name(name: &str) -> io::Result<()> {
    std::fs::remove_file(path(name))
}

/// The names there that belong to files of this user; of everybody's, if that is root.
pub(crate) fn names() -> io::Result<Vec<String>> {
    let user = effective_user();
    let mut names = Vec::new();
    for entry in std::fs::read_dir(FOLDER)? {
        // What is no text is not ours, nor is what has gone meanwhile.
        let Ok(name) = entry?.file_name().into_string() else {
            continue;
        };
        let found = lstat(&path(&name));
        if found.is_ok_and(|stat| is_file(&stat) && (user == 0 || stat.st_uid == user)) {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn is_file(stat: &FileStat) -> bool {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG
}

/// The size of a file that cannot be shrunk, or, if `named`, one that only this user, or root, can shrink: files with names cannot be sealed.
pub(crate) fn steady_file_size(fd: BorrowedFd<'_>, named: bool) -> io::Result<u64> {
    if !named {
        return shared_file_size(fd);
    }
    let seals = fcntl(fd, FcntlArg::F_GET_SEALS).unwrap_or(0);
    let sealed = SealFlag::from_bits_retain(seals).contains(SealFlag::F_SEAL_SHRINK);
    let stat = fstat(fd)?;
    let ours = is_file(&stat) && [0, effective_user()].contains(&stat.st_uid);
    let open_to_others = stat.st_mode & 0o077 != 0;
    if !sealed && (!ours || open_to_others) {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "other users could shrink this memory under its readers: it is not this user's alone",
        ));
    }
    Ok(stat.st_size as u64)
}

/// A process, and nothing else that has its number later or elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Birth {
    pub(crate) process: u32,
    /// In ticks after the system's start.
    pub(crate) start: u64,
    /// Where the number is one.
    pub(crate) process_namespace: u64,
    /// Where the time is one.
    pub(crate) time_namespace: u64,
}

impl Birth {
    /// That of this process.
    pub(crate) fn own() -> io::Result<Self> {
        let process = std::process::id();
        Ok(Self {
            process,
            start: start_of(process)?.ok_or(io::ErrorKind::NotFound)?,
            process_namespace: namespace("pid")?,
            time_namespace: namespace("time")?,
        })
    }

    /// Whether that process has ended; `None` if it cannot be known from here.
    pub(crate) fn has_ended(&self) -> io::Result<Option<bool>> {
        let here = namespace("pid")? == self.process_namespace
            && namespace("time")? == self.time_namespace;
        if !here {
            return Ok(None);
        }
        Ok(Some(start_of(self.process)? != Some(self.start)))
    }
}

/// Where this process's number, and those of its threads, are its; 0 if that cannot be found out.
pub(crate) fn number_space() -> u32 {
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    // With the process that found it out: in the child of a `fork` it may be another.
    static KNOWN: AtomicU64 = AtomicU64::new(0);
    let (known, process) = (KNOWN.load(Relaxed), std::process::id());
    if (known >> 32) as u32 == process {
        return known as u32;
    }
    let space = namespace("pid").unwrap_or(0) as u32;
    KNOWN.store(u64::from(process) << 32 | u64::from(space), Relaxed);
    space
}

fn namespace(kind: &str) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    match std::fs::metadata(format!("/proc/self/ns/{kind}")) {
        Ok(found) => Ok(found.ino()),
        // Kernels can be built without some.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

/// Whether a process is at its end, or about to be: its first thread exits (`PF_EXITING`, include/linux/sched.h), or is told to (each thread of a process that ends
/// gets a SIGKILL of its own).
pub(super) fn is_ending(process: u32) -> bool {
    const EXITING: u64 = 0x4;
    const KILL: u64 = 1 << (nix::libc::SIGKILL - 1);
    let read = |file| std::fs::read_to_string(format!("/proc/{process}/{file}"));
    let (Ok(stat), Ok(status)) = (read("stat"), read("status")) else {
        return true;
    };
    // Field 9, where the state is field 3.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let flags = fields.split_ascii_whitespace().nth(6);
    let exits = flags.and_then(|flags| flags.parse::<u64>().ok());
    let told = |line: &str| {
        let pending = line
            .strip_prefix("SigPnd:")
            .or(line.strip_prefix("ShdPnd:"));
        let signals = pending.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
        signals.is_some_and(|signals| signals & KILL != 0)
    };
    exits.is_none_or(|flags| flags & EXITING != 0) || status.lines().any(told)
}

/// When a process began; `None` if there is no such process, or nothing but its status is left. proc_pid_stat(5), field 22
pub(super) fn start_of(process: u32) -> io::Result<Option<u64>> {
    let mut stat = String::new();
    match File::open(format!("/proc/{process}/stat"))
        .and_then(|mut file| file.read_to_string(&mut stat))
    {
        Ok(_) => {}
        Err(error)
            if error.kind() == io::ErrorKind::NotFound
                || error.raw_os_error() == Some(Errno::ESRCH as i32) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error),
    }
    // The name in parentheses may contain anything, so look behind the last one.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next();
    if matches!(state, Some("Z" | "X")) {
        return Ok(None);
    }
    let start = fields.nth(18).and_then(|field| field.parse().ok());
    start
        .map(Some)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/…/stat is too short"))
}
