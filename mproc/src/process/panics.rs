//! A panic in a child, kept with its context for the parent.
//!
//! A hook is put in front of the one that prints, so a child's stderr shows a panic as always. With unwinding, what the
//! hook kept is sent by boot when the panic has reached it, so one that the function caught is nobody's business. Where
//! the process is about to abort, the hook sends it itself: in builds with `panic = "abort"`, and for panics that std does not
//! let unwind.

use std::any::Any;
use std::backtrace::Backtrace;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::PanicHookInfo;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread::{self, ThreadId};

use super::record::kind;
use crate::error::Panic;
use crate::wire::Message;

/// The control socket, for the hook.
static CONTROL: OnceLock<OwnedFd> = OnceLock::new();

/// The last panic on the thread that runs the entry.
static LAST: Mutex<Option<Panic>> = Mutex::new(None);

/// Installs the hook. The control socket stays open for the rest of the process.
pub(crate) fn watch(control: OwnedFd) -> BorrowedFd<'static> {
    let control = CONTROL.get_or_init(|| control).as_fd();
    let entry_thread = thread::current().id();
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        note(info, entry_thread);
        print(info);
    }));
    control
}

fn note(info: &PanicHookInfo<'_>, entry_thread: ThreadId) {
    let on_entry_thread = thread::current().id() == entry_thread;
    let message = message_of(info.payload());
    let aborts = cfg!(panic = "abort") || CANNOT_UNWIND.contains(&message.as_str());
    if !on_entry_thread && !aborts {
        return;
    }
    let panic = Panic {
        message,
        location: info.location().map(ToString::to_string),
        backtrace: backtrace(),
        thread: if on_entry_thread {
            "main".to_owned()
        } else {
            thread::current().name().unwrap_or("<unnamed>").to_owned()
        },
    };
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if !aborts {
        *last = Some(panic);
        return;
    }
    // A panic that may not unwind is mostly the second one; what the first one said is the cause.
    let panic = match last.take() {
        Some(first) if !cfg!(panic = "abort") => Panic {
            message: format!("{}, then: {}", first.message, panic.message),
            ..first
        },
        _ => panic,
    };
    if let (Some(control), Ok(message)) = (CONTROL.get(), Message::of(&panic)) {
        // Never waits: a process that aborts does not hang on a parent that does not read.
        let _ = message.send(control.as_fd(), kind::PANIC, false);
    }
}

/// What std says when it aborts after the hook instead of unwinding (`core::panicking`).
const CANNOT_UNWIND: [&str; 2] = [
    "panic in a function that cannot unwind",
    "panic in a destructor during cleanup",
];

/// The panic that reached boot.
pub(crate) fn take(payload: &(dyn Any + Send)) -> Panic {
    let last = LAST.lock().unwrap_or_else(PoisonError::into_inner).take();
    // Nothing is there after `resume_unwind`, which calls no hook, and when the function has installed a hook of its own.
    last.unwrap_or_else(|| Panic {
        message: message_of(payload),
        location: None,
        backtrace: None,
        thread: "main".to_owned(),
    })
}

fn message_of(payload: &dyn Any) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "a panic whose payload is no text".to_owned()
    }
}

fn backtrace() -> Option<String> {
    if std::env::var_os("RUST_BACKTRACE").is_some_and(|value| value == "0") {
        return None;
    }
    Some(Backtrace::force_capture().to_string())
}
