//! A panic in a child, kept with its context for the parent.
//!
//! A hook is put in front of the one that prints, so a child's stderr shows a panic as always. With unwinding, what the
//! hook kept is sent by boot when the panic has reached it, so one that the function caught is nobody's business. Where
//! the process is about to abort, the hook sends it itself: in builds with `panic = "abort"`, and for panics that std does not
//! let unwind.

use std::any::Any;
use std::backtrace::Backtrace;
use std::cell::RefCell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::PanicHookInfo;
use std::sync::OnceLock;
use std::thread::{self, ThreadId};

use super::record::kind;
use crate::error::Panic;
use crate::sys;
use crate::wire::Message;

/// The control socket, for the hook, and the process that it was made for.
static CONTROL: OnceLock<(OwnedFd, u32)> = OnceLock::new();

thread_local! {
    /// The last panic but one on this thread, and the last one.
    static NOTED: RefCell<[Option<Noted>; 2]> = const { RefCell::new([None, None]) };
}

/// A panic as the hook saw it. Its backtrace has no names yet: finding them takes long, and most panics are caught.
struct Noted {
    message: String,
    location: Option<String>,
    backtrace: Option<Backtrace>,
    thread: String,
}

impl Noted {
    fn into_panic(self) -> Panic {
        Panic {
            message: self.message,
            location: self.location,
            backtrace: self.backtrace.map(|backtrace| backtrace.to_string()),
            thread: self.thread,
        }
    }
}

/// Installs the hook. The control socket stays open for the rest of the process.
pub(crate) fn watch(control: OwnedFd) -> BorrowedFd<'static> {
    let (control, _) = CONTROL.get_or_init(|| (control, sys::process_id()));
    let control = control.as_fd();
    let entry_thread = thread::current().id();
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        note(info, entry_thread);
        print(info);
    }));
    control
}

/// Whether the function has forked, and this is the copy: what becomes of it is not what the parent asked for.
pub(crate) fn in_forked_copy() -> bool {
    CONTROL
        .get()
        .is_some_and(|(_, owner)| *owner != sys::process_id())
}

fn note(info: &PanicHookInfo<'_>, entry_thread: ThreadId) {
    let noted = Noted {
        message: message_of(info.payload()),
        location: info.location().map(ToString::to_string),
        backtrace: backtrace(),
        thread: if thread::current().id() == entry_thread {
            "main".to_owned()
        } else {
            thread::current().name().unwrap_or("<unnamed>").to_owned()
        },
    };
    let cannot_unwind = CANNOT_UNWIND.iter().position(|text| *text == noted.message);
    if !cfg!(panic = "abort") && cannot_unwind.is_none() {
        // OK to ignore: a thread that ends has lost its cell, and with it whoever could be told.
        let _ = NOTED.try_with(|cell| {
            let mut cell = cell.borrow_mut();
            let [earlier, last] = &mut *cell;
            *earlier = last.replace(noted);
        });
        return;
    }
    // What is noted now says only that the process aborts; the panics that led to it are the cause.
    let [earlier, last] = NOTED.try_with(RefCell::take).unwrap_or_default();
    let panic = match (cannot_unwind, earlier, last) {
        (Some(DURING_CLEANUP), Some(first), Some(second)) => Noted {
            message: format!("{}, then: {}", first.message, second.message),
            ..first
        },
        (Some(_), _, Some(last)) => last,
        _ => noted,
    };
    if in_forked_copy() {
        return;
    }
    if let (Some((control, _)), Ok(message)) = (CONTROL.get(), Message::of(&panic.into_panic())) {
        // Never waits: a process that aborts does not hang on a parent that does not read.
        let _ = message.send(control.as_fd(), kind::PANIC, false);
    }
}

/// What std says when it aborts after the hook instead of unwinding (`core::panicking`).
const CANNOT_UNWIND: [&str; 2] = [
    "panic in a function that cannot unwind",
    "panic in a destructor during cleanup",
];

/// The second of these: there was a panic that unwound, and another in a destructor that it ran.
const DURING_CLEANUP: usize = 1;

/// The panic that reached boot.
pub(crate) fn take(payload: &(dyn Any + Send)) -> Panic {
    let message = message_of(payload);
    let [_, last] = NOTED.try_with(RefCell::take).unwrap_or_default();
    // Nothing is there, or another panic that was caught, after `resume_unwind`, which calls no hook, and when the function
    // has installed a hook of its own.
    let last = last.filter(|last| last.message == message);
    last.map(Noted::into_panic).unwrap_or_else(|| Panic {
        message,
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

fn backtrace() -> Option<Backtrace> {
    let off = std::env::var_os("RUST_BACKTRACE").is_some_and(|value| value == "0");
    (!off).then(Backtrace::force_capture)
}
