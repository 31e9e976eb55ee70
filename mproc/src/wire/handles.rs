//! How a descriptor travels inside a serialized value.
//!
//! serde knows bytes only. So whoever encodes a message opens a *scope* on its thread; a handle that is serialized inside
//! attaches its descriptor to the scope and writes the number it got; the descriptors travel beside the bytes. Decoding
//! opens a scope that provides them, and a handle claims its own by number. Outside any scope (a handle given to
//! `serde_json`, say) there is nothing to attach to, and serializing is an error that says so. After the design of
//! unix-ipc, whose scopes nest in the same way: <https://docs.rs/unix-ipc>.
//!
//! Scopes nest because a `Serialize` impl may itself encode a message. A scope is left on unwinding too.
//!
//! Descriptors are held in `Arc`: attaching one makes no new descriptor, so hundreds in one message cost none.

use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// The descriptors of one message, in the order of their numbers.
pub(crate) type Handles = Vec<Arc<OwnedFd>>;

thread_local! {
    static ATTACHED: RefCell<Option<Handles>> = const { RefCell::new(None) };
    static PROVIDED: RefCell<Option<Handles>> = const { RefCell::new(None) };
}

/// Runs `encode`; handles serialized inside attach themselves to `handles`.
pub(crate) fn attaching<T>(handles: &mut Handles, encode: impl FnOnce() -> T) -> T {
    let scope = Scope::enter(&ATTACHED, handles);
    let result = encode();
    scope.leave(handles);
    result
}

/// Runs `decode`; handles deserialized inside claim from `handles`.
pub(crate) fn providing<T>(handles: &mut Handles, decode: impl FnOnce() -> T) -> T {
    let scope = Scope::enter(&PROVIDED, handles);
    let result = decode();
    scope.leave(handles);
    result
}

/// Adds a descriptor to the message being encoded on this thread. Gives its number, or `None` outside one.
pub(crate) fn attach(fd: Arc<OwnedFd>) -> Option<u32> {
    let attach = |scope: &RefCell<Option<Handles>>| {
        let mut scope = scope.borrow_mut();
        let handles = scope.as_mut()?;
        let number = u32::try_from(handles.len()).ok()?;
        handles.push(fd);
        Some(number)
    };
    ATTACHED.try_with(attach).ok().flatten()
}

/// Why [`claim`] has nothing to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unclaimed {
    /// No message is being decoded on this thread.
    OutsideMessage,
    /// The message has no such descriptor: its bytes are broken.
    NoSuchHandle,
}

/// A descriptor of the message being decoded on this thread.
pub(crate) fn claim(number: u32) -> Result<Arc<OwnedFd>, Unclaimed> {
    let claim = |scope: &RefCell<Option<Handles>>| {
        let scope = scope.borrow();
        let handles = scope.as_ref().ok_or(Unclaimed::OutsideMessage)?;
        handles
            .get(number as usize)
            .cloned()
            .ok_or(Unclaimed::NoSuchHandle)
    };
    PROVIDED
        .try_with(claim)
        .unwrap_or(Err(Unclaimed::OutsideMessage))
}

type Cell = std::thread::LocalKey<RefCell<Option<Handles>>>;

/// A scope that is open. Dropping it, on unwinding too, puts the outer one back.
///
/// Messages are sent while a thread ends, too, by exit handlers: there the cells are gone, and no handle can travel.
struct Scope {
    cell: &'static Cell,
    outer: Option<Handles>,
}

impl Scope {
    fn enter(cell: &'static Cell, handles: &mut Handles) -> Self {
        let outer = cell
            .try_with(|cell| cell.replace(Some(std::mem::take(handles))))
            .unwrap_or_default();
        Self { cell, outer }
    }

    fn leave(self, handles: &mut Handles) {
        if let Ok(Some(own)) = self.cell.try_with(RefCell::take) {
            *handles = own;
        }
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        let outer = self.outer.take();
        // OK to ignore: where there is no cell, there was no outer scope.
        let _ = self.cell.try_with(|cell| cell.replace(outer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor() -> Arc<OwnedFd> {
        Arc::new(
            std::fs::File::open("/dev/null")
                .expect("/dev/null opens")
                .into(),
        )
    }

    #[test]
    fn outside_a_scope_there_is_nothing_to_attach_to() {
        assert_eq!(attach(descriptor()), None);
        assert_eq!(claim(0).unwrap_err(), Unclaimed::OutsideMessage);
    }

    #[test]
    fn scopes_nest_and_are_left_when_unwinding() {
        let mut outer = Handles::new();
        attaching(&mut outer, || {
            assert_eq!(attach(descriptor()), Some(0));
            let mut inner = Handles::new();
            attaching(&mut inner, || assert_eq!(attach(descriptor()), Some(0)));
            assert_eq!(inner.len(), 1);
            let unwound = std::panic::catch_unwind(|| {
                attaching(&mut Handles::new(), || panic!("in a Serialize impl"))
            });
            assert!(unwound.is_err());
            assert_eq!(attach(descriptor()), Some(1));
        });
        assert_eq!(outer.len(), 2);
        assert_eq!(attach(descriptor()), None);
    }

    #[test]
    fn a_number_that_was_not_sent_is_an_error() {
        let mut handles = vec![descriptor()];
        providing(&mut handles, || {
            assert!(claim(0).is_ok());
            assert_eq!(claim(1).unwrap_err(), Unclaimed::NoSuchHandle);
        });
    }
}
