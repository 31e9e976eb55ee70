//! The end of the program: daemons are terminated, the others waited for.
//!
//! As in Python, and however the program ends: return, `Err`, a panic in `main`, `std::process::exit`. A handler is registered
//! with `atexit` at the first start of a process. After `abort` or a signal no handler runs; then the death lines end all
//! children that are not detached.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::child::snapshot;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::{self, Deadline};

static EXITING: AtomicBool = AtomicBool::new(false);

/// How long a terminated daemon may take to end before it is killed.
const DAEMON_GRACE: Duration = Duration::from_secs(5);

/// Registers the handler, once. Refuses when the program is ending: what would be started now, nobody would wait for.
pub(super) fn prepare() -> Result<()> {
    if EXITING.load(Relaxed) {
        return Err(Error::new(
            ErrorKind::Exiting,
            "the program is ending and starts no more processes",
        ));
    }
    static REGISTERED: Mutex<bool> = Mutex::new(false);
    let mut registered = REGISTERED.lock().unwrap_or_else(PoisonError::into_inner);
    if !*registered {
        sys::at_exit(end_children)
            .map_err(|error| Error::io("the exit handler could not be registered", error))?;
        *registered = true;
    }
    Ok(())
}

/// Whether the program is ending. The thread that ends it has lost its thread-locals, and loggers that use them panic.
pub(super) fn is_under_way() -> bool {
    EXITING.load(Relaxed)
}

/// In a process that was forked from this one the handler is inherited and finds no children.
extern "C" fn end_children() {
    EXITING.store(true, Relaxed);
    // Another thread may be in the middle of a start, so look again until nothing is left.
    loop {
        let mut children = snapshot();
        children.retain(|child| !child.detached && child.look().is_none());
        if children.is_empty() {
            break;
        }
        let (daemons, others): (Vec<_>, Vec<_>) =
            children.into_iter().partition(|child| child.daemon);
        // Errors are let pass: there is nobody left to tell, and the death lines are behind all this.
        for child in &daemons {
            let _ = child.signal(sys::SIGTERM);
        }
        // Nobody is left to write to them, or to read.
        others.iter().for_each(|child| child.close_pipes());
        for child in &others {
            let _ = child.wait(Deadline::NEVER);
        }
        let deadline = Deadline::after(DAEMON_GRACE);
        for child in &daemons {
            if let Ok(None) | Err(_) = child.wait(deadline) {
                let _ = child.signal(sys::SIGKILL);
                let _ = child.wait(Deadline::NEVER);
            }
        }
    }
    crate::logging::flush(Deadline::NEVER);
}
