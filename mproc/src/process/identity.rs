//! Who this process is: its name, its place in the tree, its parent.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use super::record::Person;
use crate::error::{Error, ErrorKind, Result};
use crate::sys;

/// Set once, at boot, in processes that mproc started.
static ME: OnceLock<Me> = OnceLock::new();

/// How many processes this one has described, started or not. As in Python, names count descriptions.
static DESCRIBED: AtomicU32 = AtomicU32::new(0);

/// Processes that start processes are stopped here. No program needs as many generations; a chain that runs away does.
const MAX_DEPTH: usize = 64;

struct Me {
    person: Person,
    line: OwnedFd,
}

/// Makes this process the child that its parent described.
pub(crate) fn become_child(person: Person, line: OwnedFd) {
    // OK to ignore: a process boots once.
    let _ = ME.set(Me { person, line });
}

/// The place in the tree and the default name of the next child.
pub(super) fn next_child() -> (Vec<u32>, String) {
    let mut path = ME
        .get()
        .map(|me| me.person.path.clone())
        .unwrap_or_default();
    path.push(DESCRIBED.fetch_add(1, Relaxed) + 1); // one atomic, and only its count matters
    let numbers: Vec<String> = path.iter().map(u32::to_string).collect();
    (path, format!("Process-{}", numbers.join(":")))
}

pub(super) fn check_depth(path: &[u32]) -> Result<()> {
    if path.len() <= MAX_DEPTH {
        return Ok(());
    }
    let text = format!(
        "processes have started processes {MAX_DEPTH} deep, which looks like a chain without an end; nothing was started"
    );
    Err(Error::new(ErrorKind::TooDeep, text))
}

/// This process, as mproc's parent or child knows it.
#[derive(Clone, Copy)]
pub struct CurrentProcess(Option<&'static Me>);

/// This process: its name, id, and whether it is a daemon.
///
/// # Examples
///
/// ```
/// #[mproc::entry]
/// fn who() -> String { mproc::current_process().name().to_owned() }
///
/// # fn main() -> mproc::Result<()> {
/// assert_eq!(mproc::current_process().name(), "MainProcess");
/// assert_eq!(who::process().name("greeter").start()?.join()?, "greeter");
/// # Ok(())
/// # }
/// ```
pub fn current_process() -> CurrentProcess {
    CurrentProcess(ME.get())
}

impl CurrentProcess {
    /// `MainProcess`, or the name that the parent gave.
    pub fn name(&self) -> &'static str {
        self.0.map_or("MainProcess", |me| &me.person.name)
    }

    /// The process id.
    #[doc(alias = "pid")]
    pub fn id(&self) -> u32 {
        sys::process_id()
    }

    /// Whether the parent terminates this process when it ends itself, instead of waiting for it.
    pub fn daemon(&self) -> bool {
        self.0.is_some_and(|me| me.person.daemon)
    }
}

impl fmt::Debug for CurrentProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "<Process({}, started, pid={}{})>",
            self.name(),
            self.id(),
            if self.daemon() { ", daemon" } else { "" }
        )
    }
}

/// The process that started this one.
#[derive(Clone, Copy)]
pub struct ParentProcess(&'static Me);

/// The process that started this one through mproc; `None` in the main process.
///
/// # Examples
///
/// ```
/// #[mproc::entry]
/// fn parent() -> u32 { mproc::parent_process().unwrap().id() }
///
/// # fn main() -> mproc::Result<()> {
/// assert!(mproc::parent_process().is_none());
/// assert_eq!(parent::spawn()?.join()?, std::process::id());
/// # Ok(())
/// # }
/// ```
pub fn parent_process() -> Option<ParentProcess> {
    ME.get().map(ParentProcess)
}

impl ParentProcess {
    /// The parent's name.
    pub fn name(&self) -> &'static str {
        &self.0.person.parent.name
    }

    /// The parent's process id. Once the parent has ended, another process may get the number.
    #[doc(alias = "pid")]
    pub fn id(&self) -> u32 {
        self.0.person.parent.id
    }

    /// Whether the parent still runs. Only a detached child lives to see that it does not.
    pub fn is_alive(&self) -> bool {
        !sys::is_hung_up(self.0.line.as_fd())
    }

    /// Waits for the end of the parent, `timeout` at most. Returns whether it has ended.
    ///
    /// # Errors
    ///
    /// If the system refuses to wait.
    #[doc(alias = "join")]
    pub fn wait_timeout(&self, timeout: Duration) -> Result<bool> {
        sys::wait_readable(self.as_fd(), sys::Deadline::after(timeout))
            .map_err(|error| Error::io("waiting for the parent process failed", error))
    }
}

/// Readable, and hung up, once the parent has ended.
impl AsFd for ParentProcess {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.line.as_fd()
    }
}

impl fmt::Debug for ParentProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.is_alive() {
            "started"
        } else {
            "stopped"
        };
        write!(
            f,
            "<ParentProcess({}, {state}, pid={})>",
            self.name(),
            self.id()
        )
    }
}
