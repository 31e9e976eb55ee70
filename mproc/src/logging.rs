//! The `log` records of children, in the parent's logger.
//!
//! Off until [`log_to_stderr`] or [`forward_logs`] is called. Then children get the write end of one packet socket, and a
//! thread here hands what arrives to this process's logger. A packet is whole or not there, so a child that is killed leaves
//! no half line; what it logged before is in the socket and is not lost. Grandchildren write to the same socket.

use std::cell::RefCell;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use log::{Level, LevelFilter, Log, Metadata};
use serde::{Deserialize, Serialize};

use crate::Fd;
use crate::error::{Error, Result};
use crate::process::record::Person;
use crate::sys::{self, Deadline};
use crate::wire::Message;

/// What a child is told about logging.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Forwarding {
    level: usize,
    socket: Fd,
}

/// The socket that records go into: in the program that forwards, and in its descendants.
static SOCKET: OnceLock<Fd> = OnceLock::new();

/// Whether this process's logger is one of those here; set by the first who tries to make it so.
static LOGGER_IS_OURS: OnceLock<bool> = OnceLock::new();

/// How far the forwarding thread has come; only in the process that has it.
static READER: OnceLock<Reader> = OnceLock::new();

struct Reader {
    process: u32,
    thread: std::thread::ThreadId,
    asked: Mutex<u64>,
    answered: Mutex<u64>,
    moved: Condvar,
}

const RECORD: u8 = 1;
const FLUSH: u8 = 2;

#[derive(Serialize, Deserialize)]
struct Record {
    process: String,
    level: usize,
    target: String,
    module_path: Option<String>,
    file: Option<String>,
    line: Option<u32>,
    text: String,
}

/// Prints log records up to `level` to stderr, those of this process and of its children, as `[INFO/Process-1] text`.
///
/// mproc's own events are among them, with target `mproc`: at `Info` that a child calls its function and exits with which
/// code, at `Debug` more. Installs a logger for the `log` crate and starts the thread of [`forward_logs`]. In a child whose
/// records are forwarded already, it only sets the level.
///
/// # Errors
///
/// If the program has installed another logger: keep that and call [`forward_logs`]. If the system refuses a thread or socket.
///
/// # Examples
///
/// ```
/// #[mproc::entry]
/// fn work() { log::info!("working") }
///
/// # fn main() -> mproc::Result<()> {
/// mproc::log_to_stderr(log::LevelFilter::Info)?;
/// work::spawn()?.join()?;
/// // [INFO/Process-1] child process calling …::work
/// // [INFO/Process-1] working
/// // [INFO/Process-1] process exiting with exitcode 0
/// # Ok(())
/// # }
/// ```
pub fn log_to_stderr(level: LevelFilter) -> Result<()> {
    if !LOGGER_IS_OURS.get_or_init(|| log::set_logger(get_logger()).is_ok()) {
        let text = "this program has installed another logger; call `mproc::forward_logs` to get children's records into it";
        return Err(Error::new(crate::ErrorKind::Io, text));
    }
    log::set_max_level(level);
    forward_logs()
}

/// The logger of [`log_to_stderr`], to be combined with others. It prints whatever it is given.
pub fn get_logger() -> &'static dyn Log {
    &StderrLogger
}

/// From here on, `log` records of children that are started go to the logger of this process, whichever that is.
///
/// Starts a thread, `mproc-log`, that receives them. Children log up to the `log::max_level()` that is set here when they
/// are started. Where the logger is not mproc's own, the text begins with the process name: `Process-1: …`. Waiting for a child
/// also waits for the records it wrote. In a child whose records are forwarded the logger is taken: a `set_logger` there fails.
///
/// Calling it again, or in a child, changes nothing.
///
/// # If a peer dies
///
/// What a killed child logged before arrives.
///
/// # Errors
///
/// If the system refuses a thread or socket.
pub fn forward_logs() -> Result<()> {
    static STARTING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    if SOCKET.get().is_some() {
        return Ok(());
    }
    let refused = |error| Error::io("records of children cannot be received", error);
    let (ours, theirs) = sys::seqpacket_pair().map_err(refused)?;
    let thread = std::thread::Builder::new().name("mproc-log".into());
    let handle = thread.spawn(move || receive(&ours)).map_err(refused)?;
    let _ = READER.set(Reader {
        process: sys::process_id(),
        thread: handle.thread().id(),
        asked: Mutex::new(0),
        answered: Mutex::new(0),
        moved: Condvar::new(),
    });
    let _ = SOCKET.set(Fd::from(theirs));
    Ok(())
}

pub(crate) fn for_child() -> Option<Forwarding> {
    let socket = SOCKET.get()?.clone();
    Some(Forwarding {
        level: log::max_level() as usize,
        socket,
    })
}

/// Sends this process's records to whom its parent says.
pub(crate) fn become_child(person: &Person) {
    let Some(Forwarding { level, socket }) = &person.logging else {
        return;
    };
    if SOCKET.set(socket.clone()).is_ok() && log::set_logger(&ForwardingLogger).is_ok() {
        let _ = LOGGER_IS_OURS.set(true);
        log::set_max_level(filter(*level));
    }
}

/// How long [`flush`] waits for a logger that hangs: records may then come late, but a wait for a child ends.
const PATIENCE: Duration = Duration::from_secs(10);

/// Waits until every record that is in the socket now has been handed to the logger, until the deadline.
pub(crate) fn flush(deadline: Deadline) {
    let (Some(reader), Some(socket)) = (READER.get(), SOCKET.get()) else {
        return;
    };
    // A copy of this process made by `fork` has no such thread, and that thread itself must not wait for itself.
    if reader.process != sys::process_id() || reader.thread == std::thread::current().id() {
        return;
    }
    let deadline = deadline.within(PATIENCE);
    let ticket = loop {
        // Sent under the lock, so that tickets arrive in order; and without waiting, so that nobody waits for the lock.
        let mut asked = reader.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let ticket = *asked + 1;
        let Ok(message) = Message::of(&ticket) else {
            return;
        };
        match message.send(socket.as_fd(), FLUSH, false) {
            Ok(()) => {
                *asked = ticket;
                break ticket;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
        drop(asked);
        if !deadline.sleep(Duration::from_millis(1)) {
            return;
        }
    };
    let answered = reader
        .answered
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    let remaining = deadline.remaining().unwrap_or(PATIENCE);
    let _ = reader
        .moved
        .wait_timeout_while(answered, remaining, |answered| *answered < ticket);
}

fn receive(socket: &OwnedFd) {
    let mut failures = 0;
    loop {
        match Message::receive(socket.as_fd(), 1, true) {
            Ok(Some((RECORD, message))) => {
                if let Ok(record) = message.decode::<Record>() {
                    // A logger that panics costs its record, and not this thread, without which all that follow are lost.
                    let logged = catch_unwind(AssertUnwindSafe(|| hand_over(&record)));
                    // Dropping a payload may panic again.
                    logged.unwrap_or_else(std::mem::forget);
                }
            }
            Ok(Some((FLUSH, message))) => {
                if let (Ok(ticket), Some(reader)) = (message.decode::<u64>(), READER.get()) {
                    let mut answered = reader
                        .answered
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner);
                    *answered = ticket.max(*answered);
                    drop(answered);
                    reader.moved.notify_all();
                }
            }
            Ok(Some(_)) => {}
            Ok(None) => return,
            // A record that does not arrive whole costs itself alone. More in a row than the socket holds mean that somebody
            // has closed it under us.
            Err(_) => {
                failures += 1;
                if failures > 1000 {
                    return;
                }
                continue;
            }
        }
        failures = 0;
    }
}

thread_local! {
    /// Whose record is being logged, if it is not our own.
    static ORIGIN: RefCell<Option<String>> = const { RefCell::new(None) };
}

fn hand_over(record: &Record) {
    let Some(level) = filter(record.level).to_level() else {
        return;
    };
    // Our own logger prints the name in the brackets; any other one sees it in the text.
    let ours = std::ptr::addr_eq(log::logger(), get_logger());
    let process = if ours { "" } else { &record.process };
    let separator = if ours { "" } else { ": " };
    ORIGIN.set(Some(record.process.clone()));
    log::logger().log(
        &log::Record::builder()
            .args(format_args!("{process}{separator}{}", record.text))
            .level(level)
            .target(&record.target)
            .module_path(record.module_path.as_deref())
            .file(record.file.as_deref())
            .line(record.line)
            .build(),
    );
    ORIGIN.set(None);
}

fn filter(level: usize) -> LevelFilter {
    LevelFilter::iter().nth(level).unwrap_or(LevelFilter::Trace)
}

struct StderrLogger;

impl Log for StderrLogger {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        // The cell is gone when an exit handler logs; then it is a record of our own.
        let origin = ORIGIN
            .try_with(|origin| origin.borrow().clone())
            .unwrap_or_default();
        let process = origin
            .as_deref()
            .unwrap_or_else(|| crate::current_process().name());
        // One write, so that lines of several processes stay whole. Nobody is left to tell if it fails.
        let line = format!("[{}/{process}] {}\n", record.level(), record.args());
        let _ = io::stderr().write_all(line.as_bytes());
    }

    fn flush(&self) {}
}

struct ForwardingLogger;

impl Log for ForwardingLogger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &log::Record<'_>) {
        let Some(socket) = SOCKET.get() else { return };
        let record = Record {
            process: crate::current_process().name().to_owned(),
            level: record.level() as usize,
            target: record.target().to_owned(),
            module_path: record.module_path().map(str::to_owned),
            file: record.file().map(str::to_owned),
            line: record.line(),
            text: record.args().to_string(),
        };
        // A program that forwarded and is gone reads no more.
        if let Ok(message) = Message::of(&record) {
            let _ = message.send(socket.as_fd(), RECORD, true);
        }
    }

    fn flush(&self) {}
}

const _: () = assert!(Level::Error as usize == 1, "levels travel as their numbers");
