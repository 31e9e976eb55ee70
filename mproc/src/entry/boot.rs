//! The first thing that happens in a process: is this the program, or a child that is to run one call?
//!
//! A child is this program, executed again with the same arguments, and with one more environment variable, the *mark*,
//! which names two inherited descriptors. Boot removes the mark before any code of the user runs, so that neither the user nor
//! what the child starts sees it. A child never leaves boot: it runs its call and exits, and user `main` never begins.
//!
//! | process        | mark         | who boots                                     | then                                |
//! |----------------|--------------|-----------------------------------------------|-------------------------------------|
//! | the program    | none         | `main!` or `freeze_support`                   | children may be started             |
//! | its child      | `main`       | the same, reached because `main` begins there | runs the call, exits                |
//! | a test binary  | none         | nobody: `main` is the harness's               | children may be started             |
//! | its child      | `harness`    | the constructor of the cargo feature `test`   | runs the call, exits before `main`  |
//! | neither        | none         | nobody                                        | a start is an error, nothing starts |
//!
//! # Who may set the mark
//!
//! The mark makes a process run any entry with any arguments. Who controls the environment of an ordinary program can do
//! worse; of a set-user-id program he must not. So boot asks the control socket for the user who made it, and refuses
//! one that is not the user this process runs as.

use std::ffi::CString;
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::call::Resolved;
use super::registry::{self, Served};
use crate::error::{Error, ErrorKind, Result};
use crate::process::panics;
use crate::process::record::{ReceivedRecord, Refusal, kind};
use crate::sys;
use crate::wire::{Message, WireError};

/// The name of the environment variable that tells a child what it is.
pub(crate) const MARK: &str = "__MPROC_CHILD";

/// Whether `main!` or `freeze_support` has run in this process, or it is a child.
static BOOTED: AtomicBool = AtomicBool::new(false);

/// Whether this process is a child that the constructor booted: then `main` is the harness's in its own children, too.
static IN_HARNESS: AtomicBool = AtomicBool::new(false);

/// Who will boot a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dispatch {
    Main,
    Harness,
}

/// What the mark says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    dispatch: Dispatch,
    control: RawFd,
    line: RawFd,
}

impl Mark {
    pub(crate) fn new(dispatch: Dispatch, control: BorrowedFd<'_>, line: BorrowedFd<'_>) -> Self {
        Self {
            dispatch,
            control: control.as_raw_fd(),
            line: line.as_raw_fd(),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let dispatch = match parts.next()? {
            "main" => Dispatch::Main,
            "harness" => Dispatch::Harness,
            _ => return None,
        };
        let control = parts.next()?.parse().ok()?;
        let line = parts.next()?.parse().ok()?;
        (parts.next().is_none() && control > 2 && line > 2 && control != line).then_some(Self {
            dispatch,
            control,
            line,
        })
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dispatch = match self.dispatch {
            Dispatch::Main => "main",
            Dispatch::Harness => "harness",
        };
        write!(f, "{dispatch}:{}:{}", self.control, self.line)
    }
}

/// How a child that is started now will be booted.
pub(crate) fn dispatch_of_children() -> Result<Dispatch> {
    // A merged doctest is run by a harness whose own `main` comes first in a child as well, and would run all of them.
    let harness = cfg!(feature = "test");
    let in_harness = || {
        !BOOTED.load(Relaxed)
            || IN_HARNESS.load(Relaxed)
            || std::env::var_os("RUSTDOC_DOCTEST_RUN_NB_TEST").is_some()
    };
    // A mark that nobody took: this is a child that runs its program from the beginning, and must not multiply.
    let unbooted_child = std::env::var_os(MARK).is_some();
    if harness && !unbooted_child && in_harness() {
        return Ok(Dispatch::Harness);
    }
    if BOOTED.load(Relaxed) && !unbooted_child {
        return Ok(Dispatch::Main);
    }
    let text = "a process was to be started before mproc had booted, and its child would have run this program from its \
                beginning; write `mproc::main!` around `fn main` (or call `mproc::freeze_support()` in its first line), or, \
                for tests, enable mproc's feature `test` in your dev-dependency; nothing was started";
    Err(Error::new(ErrorKind::NotBooted, text))
}

/// Boots: in a child, runs its call and exits; in the program, allows processes to be started from here on.
///
/// For the first line of a hand-written `main`; [`main!`](crate::main) calls it. Python's function of that name, but not
/// optional: without it, starting a process is an error. Calling it again changes nothing.
///
/// Whatever runs before it runs in every child too, threads and constructors included.
///
/// # Panics
///
/// It does not, but ends the program with a message and exit code 1 if two entries carry the same explicit name.
///
/// # Examples
///
/// ```
/// #[mproc::entry]
/// fn double(x: i64) -> i64 { 2 * x }
///
/// fn main() -> mproc::Result<()> {
///     mproc::freeze_support();
///     assert_eq!(double::spawn(21)?.join()?, 42);
///     Ok(())
/// }
/// ```
pub fn freeze_support() {
    if BOOTED.load(Relaxed) {
        return;
    }
    if let Some(mark) = take_mark(Dispatch::Main) {
        run_child(&mark);
    }
    if let Err(error) = registry::check() {
        die(&error.to_string());
    }
    BOOTED.store(true, Relaxed);
}

/// Takes the mark out of the environment, if it is there and meant for this kind of boot.
pub(super) fn take_mark(dispatch: Dispatch) -> Option<Mark> {
    let text = std::env::var_os(MARK)?;
    let Some(mark) = text.to_str().and_then(Mark::parse) else {
        die(&format!(
            "the environment variable {MARK} is set, but not by mproc: {}",
            text.display()
        ))
    };
    if mark.dispatch != dispatch {
        return None;
    }
    // SAFETY: boot comes first: in `main!` before user code, in the harness before `main`. A program whose constructors start
    // threads that read the environment while `main` begins is at odds with every use of `setenv`; std's lock covers the
    // rest.
    unsafe { std::env::remove_var(MARK) };
    Some(mark)
}

/// Runs the call that this process was started for, and exits.
pub(super) fn run_child(mark: &Mark) -> ! {
    let (control, line) = match adopt(mark) {
        Ok(descriptors) => descriptors,
        Err(text) => die(&text),
    };
    BOOTED.store(true, Relaxed);
    IN_HARNESS.store(mark.dispatch == Dispatch::Harness, Relaxed);
    name_after_program();
    let record = match Message::receive(control.as_fd(), usize::MAX, true) {
        Ok(Some((kind::RECORD, message))) => message.decode::<ReceivedRecord>(),
        Ok(Some(_)) => Err(WireError::Unexpected("not a record".into())),
        // The parent is gone, and with it everybody who would want to know.
        Ok(None) => std::process::exit(1),
        Err(error) => Err(error.into()),
    };
    let ReceivedRecord { person, call } = match record {
        Ok(record) => record,
        Err(error) => {
            let error = Error::new(
                ErrorKind::Decode,
                "the record of its parent could not be decoded",
            )
            .caused_by(error);
            std::process::exit(refuse(control.as_fd(), &error));
        }
    };
    crate::logging::become_child(&person);
    crate::process::become_child(person, line);
    let control = panics::watch(control);

    let exit_code = match call.resolve() {
        Ok(call) => answer(call, control),
        Err(error) => refuse(control, &error),
    };
    log::info!(target: "mproc", "process exiting with exitcode {exit_code}");
    std::process::exit(exit_code)
}

/// Runs the call, and tells the parent what came of it. Gives the exit code.
fn answer(call: Resolved, control: BorrowedFd<'_>) -> i32 {
    log::info!(target: "mproc", "child process calling {}", call.short_name());
    // OK to assert: nothing of what the call leaves behind is looked at but the panic.
    let payload = match catch_unwind(AssertUnwindSafe(|| call.serve())) {
        Ok(Ok(Served {
            value: Ok(value),
            exit_code,
        })) => {
            reply(control, kind::VALUE, &value);
            return exit_code;
        }
        Ok(Ok(Served {
            value: Err(error), ..
        })) => {
            let error = Error::new(ErrorKind::Encode, "the result cannot be sent").caused_by(error);
            return refuse(control, &error);
        }
        Ok(Err(error)) => return refuse(control, &error),
        Err(payload) => payload,
    };
    let panic = panics::take(&*payload);
    // Dropping a payload may panic again, and there is nothing left to gain from it.
    std::mem::forget(payload);
    if let Ok(message) = Message::of(&panic) {
        reply(control, kind::PANIC, &message);
    }
    PANICKED
}

/// What std exits with after a panic in `main`.
const PANICKED: i32 = 101;

/// Takes over the inherited descriptors, if they are what the mark says and come from our own user.
fn adopt(mark: &Mark) -> std::result::Result<(OwnedFd, OwnedFd), String> {
    // SAFETY: the numbers come from our parent, which opened them for us and for nobody else in this process. If the mark
    // lied, they are closed, or belong to something opened before boot: the checks below end the process then, by `exit`, so
    // that nothing is closed twice.
    let (control, line) = unsafe {
        (
            OwnedFd::from_raw_fd(mark.control),
            OwnedFd::from_raw_fd(mark.line),
        )
    };
    let checked = sys::peer_user(control.as_fd()).and_then(|user| {
        sys::set_close_on_exec(control.as_fd())?;
        sys::set_close_on_exec(line.as_fd())?;
        Ok(user)
    });
    let refused = match checked {
        Ok(user) if user == sys::effective_user() => return Ok((control, line)),
        Ok(user) => format!(
            "user {user} set the environment variable {MARK} for a program that runs as another user"
        ),
        Err(error) => format!(
            "the environment variable {MARK} names descriptors that mproc did not make: {error}"
        ),
    };
    std::mem::forget((control, line));
    Err(refused)
}

/// `exec` of `/proc/self/exe` leaves the name `exe` in `ps`, `top` and `pkill`; the program has a better one.
fn name_after_program() {
    let name = sys::program_arguments().into_iter().next();
    let name = name.as_deref().and_then(|path| Path::new(path).file_name());
    if let Some(name) = name.and_then(|name| CString::new(name.as_bytes()).ok()) {
        sys::set_thread_name(&name);
    }
}

fn reply(control: BorrowedFd<'_>, kind: u8, message: &Message) {
    if panics::in_forked_copy() {
        return;
    }
    if let Err(error) = message.send(control, kind, true) {
        // A parent that is gone is no news. Descriptors that are too many are, and a text is small enough to get through.
        let error = Error::new(ErrorKind::Encode, "the result cannot be sent").caused_by(error);
        if let Ok(message) = Message::of(&Refusal::new(&error)) {
            let _ = message.send(control, kind::REFUSAL, true);
        }
    }
}

/// Tells the parent why there is no value. Gives the exit code.
fn refuse(control: BorrowedFd<'_>, error: &Error) -> i32 {
    if let Ok(message) = Message::of(&Refusal::new(error)) {
        reply(control, kind::REFUSAL, &message);
    }
    1
}

fn die(text: &str) -> ! {
    eprintln!("mproc: {text}");
    std::process::exit(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_as_it_was_written() {
        for dispatch in [Dispatch::Main, Dispatch::Harness] {
            let mark = Mark {
                dispatch,
                control: 7,
                line: 12,
            };
            assert_eq!(Mark::parse(&mark.to_string()), Some(mark));
        }
    }

    #[test]
    fn what_is_no_mark_is_refused() {
        for text in [
            "",
            "main",
            "main:3",
            "main:3:4:5",
            "main:1:4",
            "main:4:4",
            "other:3:4",
            "main:x:4",
            "main:-3:4",
        ] {
            assert_eq!(Mark::parse(text), None, "{text}");
        }
    }
}
