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
//! Descriptors are held in `Arc`: attaching one makes no new descriptor, so hundreds in one message cost none. A message
//! without any costs two writes of a byte; whatever lists are needed are made when something is attached first.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::LocalKey;

use super::unique::{Moved, Parked};

/// The descriptors of one message, in the order of their numbers.
pub(crate) type Handles = Vec<Arc<OwnedFd>>;

/// What is attached to one message so far.
#[derive(Default)]
pub(crate) struct Attached(Option<Box<Lists>>);

#[derive(Default)]
struct Lists {
    handles: Handles,
    /// A descriptor that is attached again keeps its number: clones of a handle are one descriptor on the other side, too, and
    /// cost one there.
    numbers: BTreeMap<*const OwnedFd, u32>,
    moved: Moved,
}

impl Attached {
    /// The descriptors.
    #[inline]
    pub(crate) fn handles(&self) -> &[Arc<OwnedFd>] {
        match &self.0 {
            Some(lists) => &lists.handles,
            None => &[],
        }
    }

    /// Whether nothing is.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The message has been sent: what moved is gone from here. Otherwise it comes back when this is dropped.
    #[inline(always)]
    pub(crate) fn commit(self) {
        // Nothing is left to be dropped where there is nothing.
        if let Some(lists) = ManuallyDrop::new(self).0.take() {
            let moved = lists.moved;
            moved.commit();
        }
    }

    /// The descriptors, and what has been moved into the message.
    pub(crate) fn into_parts(self) -> (Handles, Moved) {
        match self.0 {
            Some(lists) => (lists.handles, lists.moved),
            None => Default::default(),
        }
    }
}

thread_local! {
    static ENCODING: Cell<Innermost> = const { Cell::new(Innermost::None) };
    #[expect(clippy::vec_box, reason = "it leaves its scope as a box, with the message")]
    static ATTACHED: RefCell<Vec<Box<Lists>>> = const { RefCell::new(Vec::new()) };
    static DECODING: Cell<Innermost> = const { Cell::new(Innermost::None) };
    static PROVIDED: RefCell<Vec<Handles>> = const { RefCell::new(Vec::new()) };
}

/// Runs `encode`; handles serialized inside attach themselves to `attached`.
#[inline(always)]
pub(crate) fn attaching<T>(attached: &mut Attached, encode: impl FnOnce() -> T) -> T {
    let own = if attached.is_empty() {
        None
    } else {
        attached.0.take()
    };
    let scope = Scope::<Encoding>::enter(own);
    let result = encode();
    if let Some(own) = scope.leave() {
        attached.0 = Some(own);
    }
    result
}

/// Runs `decode`; handles deserialized inside claim from `handles`.
#[inline(always)]
pub(crate) fn providing<T>(handles: &mut Handles, decode: impl FnOnce() -> T) -> T {
    let own = if handles.is_empty() {
        None
    } else {
        Some(std::mem::take(handles))
    };
    let scope = Scope::<Decoding>::enter(own);
    let result = decode();
    if let Some(own) = scope.leave() {
        *handles = own;
    }
    result
}

/// Does something to the message being encoded on this thread. `None` outside one.
fn with_attached<T>(change: impl FnOnce(&mut Lists) -> T) -> Option<T> {
    let change = |contents: &RefCell<Vec<Box<Lists>>>| {
        let mut contents = contents.borrow_mut();
        match ENCODING.get() {
            Innermost::None => return None,
            Innermost::Empty => {
                contents.push(Box::default());
                ENCODING.set(Innermost::Filled);
            }
            Innermost::Filled => {}
        }
        contents.last_mut().map(|lists| change(lists))
    };
    ATTACHED.try_with(change).ok().flatten()
}

/// Adds a descriptor to the message being encoded on this thread. Gives its number, or `None` outside one.
pub(crate) fn attach(fd: Arc<OwnedFd>) -> Option<u32> {
    with_attached(|lists| {
        let next = u32::try_from(lists.handles.len()).ok()?;
        // Those that are numbered are held by `handles`, so no two have one address.
        let number = *lists.numbers.entry(Arc::as_ptr(&fd)).or_insert(next);
        if number == next {
            lists.handles.push(fd);
        }
        Some(number)
    })
    .flatten()
}

/// Whether something can be attached: a message is being encoded on this thread.
pub(crate) fn is_attaching() -> bool {
    // Messages are sent while a thread ends, too, by exit handlers: there the lists are gone, and no handle can travel.
    ENCODING.get() != Innermost::None && ATTACHED.try_with(|_| ()).is_ok()
}

/// Whether no message is being encoded on this thread, so that whatever would attach itself says that it cannot.
pub(crate) fn is_outside() -> bool {
    ENCODING.get() == Innermost::None
}

/// Has the message being encoded on this thread decide about something that moves with it. Outside a message, it stays.
pub(super) fn move_along(parked: Arc<dyn Parked>) {
    let _ = with_attached(|lists| lists.moved.push(parked));
}

/// Why [`claim`] has nothing to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unclaimed {
    /// No message is being decoded on this thread.
    OutsideMessage,
    /// The message has no such descriptor: its bytes are broken.
    NoSuchHandle,
}

/// What is said of a handle that is serialized or deserialized where there is no message.
pub(crate) const OUTSIDE: &str = "a handle (descriptor, pipe, queue, lock, …) travels only in arguments, results and \
                                  messages of mproc: as bytes it would mean nothing to another process";

/// A descriptor of the message being decoded on this thread.
pub(crate) fn claim(number: u32) -> Result<Arc<OwnedFd>, Unclaimed> {
    let claim = |contents: &RefCell<Vec<Handles>>| {
        let contents = contents.borrow();
        let handles = match DECODING.get() {
            Innermost::None => return Err(Unclaimed::OutsideMessage),
            Innermost::Empty => None,
            Innermost::Filled => contents.last(),
        };
        handles
            .and_then(|handles| handles.get(number as usize))
            .cloned()
            .ok_or(Unclaimed::NoSuchHandle)
    };
    PROVIDED
        .try_with(claim)
        .unwrap_or(Err(Unclaimed::OutsideMessage))
}

/// What the innermost open scope of a thread has.
///
/// Apart from the contents, because it is all that a message without handles touches, and it needs no destructor, which
/// would have to be registered for each thread and asked about each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Innermost {
    /// There is no scope.
    None,
    /// No contents.
    Empty,
    /// The last contents on the stack.
    Filled,
}

/// The scopes of one direction. A type, so that an open scope carries no more than what was before it.
trait Scopes {
    type Contents: 'static;
    const INNERMOST: &'static LocalKey<Cell<Innermost>>;
    const CONTENTS: &'static LocalKey<RefCell<Vec<Self::Contents>>>;
}

struct Encoding;

impl Scopes for Encoding {
    type Contents = Box<Lists>;
    const INNERMOST: &'static LocalKey<Cell<Innermost>> = &ENCODING;
    const CONTENTS: &'static LocalKey<RefCell<Vec<Box<Lists>>>> = &ATTACHED;
}

struct Decoding;

impl Scopes for Decoding {
    type Contents = Handles;
    const INNERMOST: &'static LocalKey<Cell<Innermost>> = &DECODING;
    const CONTENTS: &'static LocalKey<RefCell<Vec<Handles>>> = &PROVIDED;
}

/// A scope that is open. Dropping it, on unwinding too, puts the outer one back.
struct Scope<S: Scopes> {
    outer: Innermost,
    of: PhantomData<S>,
}

// What a message without handles takes is inlined by force, and small enough for it: it is more than half of what it takes to encode a number.
impl<S: Scopes> Scope<S> {
    #[inline(always)]
    fn enter(own: Option<S::Contents>) -> Self {
        let state = match own {
            Some(own) => Self::push(own),
            None => Innermost::Empty,
        };
        Self {
            outer: S::INNERMOST.replace(state),
            of: PhantomData,
        }
    }

    #[inline(always)]
    fn leave(self) -> Option<S::Contents> {
        ManuallyDrop::new(self).close()
    }

    #[inline(always)]
    fn close(&self) -> Option<S::Contents> {
        match S::INNERMOST.replace(self.outer) {
            Innermost::Filled => Self::pop(),
            Innermost::Empty | Innermost::None => None,
        }
    }

    #[inline(never)]
    fn push(own: S::Contents) -> Innermost {
        match S::CONTENTS.try_with(|contents| contents.borrow_mut().push(own)) {
            Ok(()) => Innermost::Filled,
            Err(_) => Innermost::Empty,
        }
    }

    #[inline(never)]
    fn pop() -> Option<S::Contents> {
        let pop = |contents: &RefCell<Vec<S::Contents>>| contents.borrow_mut().pop();
        S::CONTENTS.try_with(pop).unwrap_or_default()
    }
}

impl<S: Scopes> Drop for Scope<S> {
    #[inline]
    fn drop(&mut self) {
        drop(self.close());
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
        let mut outer = Attached::default();
        attaching(&mut outer, || {
            assert_eq!(attach(descriptor()), Some(0));
            let mut inner = Attached::default();
            attaching(&mut inner, || assert_eq!(attach(descriptor()), Some(0)));
            assert_eq!(inner.into_parts().0.len(), 1);
            let unwound = std::panic::catch_unwind(|| {
                attaching(&mut Attached::default(), || panic!("in a Serialize impl"))
            });
            assert!(unwound.is_err());
            assert_eq!(attach(descriptor()), Some(1));
        });
        assert_eq!(outer.into_parts().0.len(), 2);
        assert_eq!(attach(descriptor()), None);
    }

    #[test]
    fn a_clone_keeps_the_number() {
        let mut attached = Attached::default();
        let (one, other) = (descriptor(), descriptor());
        attaching(&mut attached, || {
            assert_eq!(attach(Arc::clone(&one)), Some(0))
        });
        attaching(&mut attached, || {
            assert_eq!(attach(other), Some(1));
            assert_eq!(attach(one), Some(0));
        });
        assert_eq!(attached.into_parts().0.len(), 2);
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
