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
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::LocalKey;

/// The descriptors of one message, in the order of their numbers.
pub(crate) type Handles = Vec<Arc<OwnedFd>>;

/// What is attached so far. A descriptor that is attached again keeps its number: clones of a handle are one descriptor on the
/// other side, too, and cost one there.
struct Attached {
    handles: Handles,
    numbers: BTreeMap<*const OwnedFd, u32>,
}

thread_local! {
    static ATTACHED: RefCell<Option<Attached>> = const { RefCell::new(None) };
    static PROVIDED: RefCell<Option<Handles>> = const { RefCell::new(None) };
}

/// Runs `encode`; handles serialized inside attach themselves to `handles`.
pub(crate) fn attaching<T>(handles: &mut Handles, encode: impl FnOnce() -> T) -> T {
    let numbers = handles.iter().map(Arc::as_ptr).zip(0..).collect();
    let own = Attached {
        handles: std::mem::take(handles),
        numbers,
    };
    let scope = Scope::enter(&ATTACHED, own);
    let result = encode();
    *handles = scope.leave().map(|own| own.handles).unwrap_or_default();
    result
}

/// Runs `decode`; handles deserialized inside claim from `handles`.
pub(crate) fn providing<T>(handles: &mut Handles, decode: impl FnOnce() -> T) -> T {
    let scope = Scope::enter(&PROVIDED, std::mem::take(handles));
    let result = decode();
    *handles = scope.leave().unwrap_or_default();
    result
}

/// Adds a descriptor to the message being encoded on this thread. Gives its number, or `None` outside one.
pub(crate) fn attach(fd: Arc<OwnedFd>) -> Option<u32> {
    let attach = |scope: &RefCell<Option<Attached>>| {
        let mut scope = scope.borrow_mut();
        let Attached { handles, numbers } = scope.as_mut()?;
        let next = u32::try_from(handles.len()).ok()?;
        // Those that are numbered are held by `handles`, so no two have one address.
        let number = *numbers.entry(Arc::as_ptr(&fd)).or_insert(next);
        if number == next {
            handles.push(fd);
        }
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

type Cell<T> = LocalKey<RefCell<Option<T>>>;

/// A scope that is open. Dropping it, on unwinding too, puts the outer one back.
///
/// Messages are sent while a thread ends, too, by exit handlers: there the cells are gone, and no handle can travel.
struct Scope<T: 'static> {
    cell: &'static Cell<T>,
    outer: Option<T>,
}

impl<T> Scope<T> {
    fn enter(cell: &'static Cell<T>, own: T) -> Self {
        let outer = cell
            .try_with(|cell| cell.replace(Some(own)))
            .unwrap_or_default();
        Self { cell, outer }
    }

    fn leave(self) -> Option<T> {
        self.cell.try_with(RefCell::take).unwrap_or_default()
    }
}

impl<T> Drop for Scope<T> {
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
    fn a_clone_keeps_the_number() {
        let mut handles = Handles::new();
        let (one, other) = (descriptor(), descriptor());
        attaching(&mut handles, || {
            assert_eq!(attach(Arc::clone(&one)), Some(0))
        });
        attaching(&mut handles, || {
            assert_eq!(attach(other), Some(1));
            assert_eq!(attach(one), Some(0));
        });
        assert_eq!(handles.len(), 2);
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
