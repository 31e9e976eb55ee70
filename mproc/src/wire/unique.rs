//! Handles that move with a message, and their way back.
//!
//! A pipe's end is unique: two processes that both read from it would tear each other's messages apart. Sending it moves it, then,
//! but serde lends what it serializes, and whether the message will ever be sent is known much later. So the end is
//! *parked* when it is serialized: it leaves its value and waits in the message, and whoever made the message decides.
//!
//! # State
//!
//! | of the value | of the parking | meaning                          | what the value's user sees |
//! |--------------|----------------|----------------------------------|----------------------------|
//! | `Here`       |                | never serialized, or back again  | the end                    |
//! | `Away`       | `Waiting`      | in a message that is not sent    | it has been sent           |
//! | `Away`       | `Returned`     | the message came to nothing      | the end, fetched back      |
//! | `Away`       | `Left`         | the message was sent             | it has been sent           |
//! | `Gone`       |                | taken out for good               | it has been sent           |
//!
//! Only [`Moved`] leads out of `Waiting`: dropping it returns what it holds, so that every error path and every unwinding
//! does; [`Moved::commit`] lets go of it. A value that is dropped while its end is away has nothing to do with the end any
//! more: then a returned end is simply closed.
//!
//! A message inside a message is parked like an end, and when the outer one has been sent, what moved with the inner one has
//! been as well.

use std::cell::RefCell;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::ser::Error as _;
use serde::{Serialize, Serializer};

use super::handles;

/// Something that waits in a message for what becomes of it. [`Moved`] calls one of the two, once.
pub(super) trait Parked: Send + Sync {
    /// The message has been sent.
    fn leave(&self);
    /// The message came to nothing.
    fn return_home(&self);
}

/// What has moved into a message. Unless it is [committed](Self::commit), it comes back when this is dropped.
#[derive(Default)]
#[must_use = "what has moved comes back unless it is committed"]
pub(crate) struct Moved(Vec<Arc<dyn Parked>>);

impl Moved {
    pub(super) fn push(&mut self, parked: Arc<dyn Parked>) {
        self.0.push(parked);
    }

    /// Whether the message carries nothing unique.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The message has been sent: what moved is gone from here, and closed.
    #[inline]
    pub(crate) fn commit(mut self) {
        for parked in std::mem::take(&mut self.0) {
            parked.leave();
        }
    }
}

impl Drop for Moved {
    #[inline]
    fn drop(&mut self) {
        for parked in &self.0 {
            parked.return_home();
        }
    }
}

impl fmt::Debug for Moved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} moved", self.0.len())
    }
}

/// Where an end waits while its message is under way.
pub(super) struct Parking<E> {
    place: Mutex<Place<E>>,
    /// How the end is let go of once the message has been sent.
    let_go: fn(E),
}

enum Place<E> {
    Waiting(E),
    Returned(E),
    Left,
}

impl<E> Parking<E> {
    fn place(&self) -> MutexGuard<'_, Place<E>> {
        // OK because nothing that can panic runs while it is held.
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the end out, if it has come back.
    fn fetch(&self) -> Fetched<E> {
        let mut place = self.place();
        match std::mem::replace(&mut *place, Place::Left) {
            Place::Returned(end) => Fetched::Back(end),
            Place::Left => Fetched::Never,
            waiting => {
                *place = waiting;
                Fetched::NotYet
            }
        }
    }
}

enum Fetched<E> {
    Back(E),
    NotYet,
    Never,
}

impl<E: Send> Parked for Parking<E> {
    fn leave(&self) {
        let mut place = self.place();
        // One that has returned by itself, because it could not be serialized after all, stays where it is.
        if let Place::Waiting(_) = &*place
            && let Place::Waiting(end) = std::mem::replace(&mut *place, Place::Left)
        {
            // Closing may take its time, and may run whatever an end runs when it is dropped.
            drop(place);
            (self.let_go)(end);
        }
    }

    fn return_home(&self) {
        let mut place = self.place();
        *place = match std::mem::replace(&mut *place, Place::Left) {
            Place::Waiting(end) => Place::Returned(end),
            other => other,
        };
    }
}

/// Where a unique thing is.
enum State<E> {
    Here(E),
    Away(Arc<Parking<E>>),
    Gone,
}

/// Why something unique could not be moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotMoved {
    /// It is in a message already, or has been sent.
    AlreadySent,
    /// No message is being encoded on this thread.
    OutsideMessage,
}

impl<E> State<E> {
    #[inline]
    fn here(&mut self) -> Option<&mut E> {
        if let Self::Away(_) = self {
            self.fetch();
        }
        match self {
            Self::Here(end) => Some(end),
            _ => None,
        }
    }

    /// Takes the end back if its message has come to nothing.
    #[cold]
    fn fetch(&mut self) {
        if let Self::Away(parking) = self {
            match parking.fetch() {
                Fetched::Back(end) => *self = Self::Here(end),
                Fetched::NotYet => {}
                Fetched::Never => *self = Self::Gone,
            }
        }
    }

    fn take(&mut self) -> Option<E> {
        self.here()?;
        match std::mem::replace(self, Self::Gone) {
            Self::Here(end) => Some(end),
            _ => unreachable!("it was here"),
        }
    }
}

impl<E: Send + 'static> State<E> {
    /// Parks the end with the message being encoded on this thread. Gives what `describe` says of it.
    fn park<V>(
        &mut self,
        describe: impl FnOnce(&E) -> V,
        let_go: fn(E),
    ) -> Result<(V, Arc<Parking<E>>), NotMoved> {
        let end = self.here().ok_or(NotMoved::AlreadySent)?;
        if !handles::is_attaching() {
            return Err(NotMoved::OutsideMessage);
        }
        let description = describe(end);
        let end = self.take().ok_or(NotMoved::AlreadySent)?;
        let parking = Arc::new(Parking {
            place: Mutex::new(Place::Waiting(end)),
            let_go,
        });
        *self = Self::Away(Arc::clone(&parking));
        handles::move_along(parking.clone());
        Ok((description, parking))
    }
}

/// One end of something that only one process may hold: it moves with the message that it is serialized into.
///
/// Usable by one thread at a time, like what it holds: `Send`, not `Sync`.
pub(crate) struct Unique<E>(RefCell<State<E>>);

impl<E: Send + 'static> Unique<E> {
    pub(crate) fn new(end: E) -> Self {
        Self(RefCell::new(State::Here(end)))
    }

    /// The end, or `None` if it has been sent.
    #[inline]
    pub(crate) fn get_mut(&mut self) -> Option<&mut E> {
        self.0.get_mut().here()
    }

    /// Looks at the end, or gives `None` if it has been sent. `look` may look at it again, and must not serialize it.
    #[inline]
    pub(crate) fn with<R>(&self, look: impl FnOnce(&E) -> R) -> Option<R> {
        if matches!(*self.0.borrow(), State::Away(_)) {
            self.0.borrow_mut().fetch();
        }
        match &*self.0.borrow() {
            State::Here(end) => Some(look(end)),
            State::Away(_) | State::Gone => None,
        }
    }

    /// Moves the end into the message that is being encoded on this thread. What `describe` says of it is serialized in its
    /// place, and may attach descriptors.
    pub(crate) fn serialize_with<S: Serializer, V: Serialize>(
        &self,
        serializer: S,
        describe: impl FnOnce(&E) -> V,
    ) -> Result<S::Ok, S::Error> {
        let parked = self.0.borrow_mut().park(describe, drop);
        let (description, parking) = parked.map_err(|reason| match reason {
            NotMoved::AlreadySent => S::Error::custom(ALREADY_SENT),
            NotMoved::OutsideMessage => S::Error::custom(handles::OUTSIDE),
        })?;
        let serialized = description.serialize(serializer);
        if serialized.is_err() {
            // Whoever serializes may go on without it.
            parking.return_home();
        }
        serialized
    }
}

const ALREADY_SENT: &str =
    "this end of a pipe has already been sent; it is unique and moves to where it is sent";

/// Something that may be used once, for users that share it: clones of a call.
pub(crate) struct Single<E>(Mutex<State<E>>);

impl<E: Send + 'static> Single<E> {
    pub(crate) fn new(it: E) -> Self {
        Self(Mutex::new(State::Here(it)))
    }

    fn state(&self) -> MutexGuard<'_, State<E>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes it, unless it has been used.
    pub(crate) fn take(&self) -> Option<E> {
        self.state().take()
    }

    /// Looks at it, unless it has been used.
    pub(crate) fn with<R>(&self, look: impl FnOnce(&E) -> R) -> Option<R> {
        self.state().here().map(|it| look(it))
    }

    /// Moves it into the message that is being encoded on this thread, to be serialized as what `describe` says of it.
    /// `let_go` gets it once that message has been sent.
    pub(crate) fn park<V>(
        &self,
        describe: impl FnOnce(&E) -> V,
        let_go: fn(E),
    ) -> Result<V, NotMoved> {
        let (description, _) = self.state().park(describe, let_go)?;
        Ok(description)
    }
}

/// An end of nothing in particular, for the tests of what carries such ends.
#[cfg(test)]
pub(crate) mod fake {
    use std::os::fd::OwnedFd;
    use std::sync::Weak;

    use serde::{Deserialize, Deserializer};

    use super::*;
    use crate::Fd;

    pub(crate) struct End(pub(crate) Unique<Arc<OwnedFd>>);

    impl End {
        /// An end, and what tells whether its descriptor is open.
        pub(crate) fn new() -> (Self, Weak<OwnedFd>) {
            let file = std::fs::File::open("/dev/null").expect("/dev/null opens");
            let fd = Arc::new(OwnedFd::from(file));
            let open = Arc::downgrade(&fd);
            (Self(Unique::new(fd)), open)
        }

        pub(crate) fn is_here(&self) -> bool {
            self.0.with(|_| ()).is_some()
        }
    }

    impl Serialize for End {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            self.0
                .serialize_with(serializer, |fd| Fd::shared(Arc::clone(fd)))
        }
    }

    impl<'de> Deserialize<'de> for End {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let fd = Fd::deserialize(deserializer)?;
            Ok(Self(Unique::new(fd.into_shared())))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::fake::End;
    use super::*;
    use crate::wire::{decode_parts, encode_parts};

    /// A value that is not serialized: it refuses, or panics.
    struct Not {
        panics: bool,
    }

    impl Serialize for Not {
        fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            assert!(!self.panics, "in a Serialize impl");
            Err(S::Error::custom("it refuses"))
        }
    }

    fn refused<T: Serialize>(value: &T) -> String {
        match encode_parts(value, &mut Vec::new()) {
            Ok(_) => panic!("it was encoded"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn an_end_is_away_with_its_message_and_comes_back_with_it() {
        let (mut end, _) = End::new();
        for _ in 0..3 {
            assert!(end.0.get_mut().is_some());
            let parts = encode_parts(&end, &mut Vec::new()).unwrap();
            assert!(!end.is_here());
            assert!(end.0.get_mut().is_none());
            drop(parts);
        }
        assert!(end.is_here());
        assert!(end.0.get_mut().is_some());
    }

    #[test]
    fn an_end_that_was_sent_is_closed_here() {
        let (mut end, open) = End::new();
        let (handles, moved) = encode_parts(&end, &mut Vec::new()).unwrap().into_parts();
        drop(handles);
        assert_eq!(open.strong_count(), 1);
        moved.commit();
        assert_eq!(open.strong_count(), 0);
        assert!(!end.is_here());
        assert!(end.0.get_mut().is_none());
        assert!(refused(&end).contains(ALREADY_SENT));
    }

    #[test]
    fn an_end_moves_once() {
        let (end, _) = End::new();
        assert!(refused(&(&end, &end)).contains(ALREADY_SENT));
        assert!(end.is_here(), "the first of the two came back");
        let parts = encode_parts(&end, &mut Vec::new()).unwrap();
        assert!(refused(&end).contains(ALREADY_SENT));
        drop(parts);
        assert!(encode_parts(&end, &mut Vec::new()).is_ok());
    }

    #[test]
    fn what_follows_it_may_fail() {
        let (end, open) = End::new();
        let mut bytes = vec![1, 2, 3];
        assert!(encode_parts(&(&end, Not { panics: false }), &mut bytes).is_err());
        assert_eq!(bytes, [1, 2, 3]);
        assert!(end.is_here());
        let unwound = catch_unwind(AssertUnwindSafe(|| {
            encode_parts(&(&end, Not { panics: true }), &mut Vec::new()).is_ok()
        }));
        assert!(unwound.is_err());
        assert!(end.is_here());
        assert_eq!(open.strong_count(), 1);
    }

    #[test]
    fn a_message_inside_a_message_gives_back_its_own() {
        struct Nesting<'a>(&'a End, &'a End);

        impl Serialize for Nesting<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let inner = encode_parts(&(self.1, Not { panics: false }), &mut Vec::new());
                assert!(inner.is_err());
                assert!(self.1.is_here());
                assert!(!self.0.is_here());
                serializer.serialize_unit()
            }
        }

        let ((outer, _), (inner, _)) = (End::new(), End::new());
        let (_, moved) = encode_parts(&(&outer, Nesting(&outer, &inner)), &mut Vec::new())
            .unwrap()
            .into_parts();
        moved.commit();
        assert!(!outer.is_here());
        assert!(inner.is_here());
    }

    #[test]
    fn a_description_that_fails_leaves_the_end_where_it_is() {
        struct Tolerant<'a>(&'a Unique<u8>);

        impl Serialize for Tolerant<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut json = Vec::new();
                let mut other = serde_json::Serializer::new(&mut json);
                let failed = self.0.serialize_with(&mut other, |_| Not { panics: false });
                assert!(failed.is_err());
                serializer.serialize_unit()
            }
        }

        let end = Unique::new(7);
        let (_, moved) = encode_parts(&Tolerant(&end), &mut Vec::new())
            .unwrap()
            .into_parts();
        moved.commit();
        assert_eq!(end.with(|end| *end), Some(7));
    }

    #[test]
    fn outside_a_message_nothing_moves() {
        let (end, _) = End::new();
        let error = serde_json::to_string(&end).unwrap_err().to_string();
        assert!(error.contains(handles::OUTSIDE), "{error}");
        assert!(end.is_here());
    }

    #[test]
    fn an_end_without_its_value_goes_with_the_message() {
        for sent in [false, true] {
            let (end, open) = End::new();
            let (handles, moved) = encode_parts(&end, &mut Vec::new()).unwrap().into_parts();
            drop(end);
            drop(handles);
            assert_eq!(open.strong_count(), 1, "the message may still be sent");
            if sent {
                moved.commit();
            } else {
                drop(moved);
            }
            assert_eq!(open.strong_count(), 0);
        }
    }

    #[test]
    fn what_arrives_is_an_end() {
        let (end, open) = End::new();
        let mut bytes = Vec::new();
        let (mut handles, moved) = encode_parts(&("text", &end), &mut bytes)
            .unwrap()
            .into_parts();
        moved.commit();
        let (text, arrived): (String, End) = decode_parts(&bytes, &mut handles).unwrap();
        assert_eq!(text, "text");
        assert!(arrived.is_here());
        drop(arrived);
        assert_eq!(open.strong_count(), 0);
    }

    #[test]
    fn a_value_that_is_not_read_to_its_end_is_refused_and_closed() {
        let (end, open) = End::new();
        let mut bytes = Vec::new();
        let (mut handles, moved) = encode_parts(&(1_u8, end), &mut bytes).unwrap().into_parts();
        moved.commit();
        let error = decode_parts::<u8>(&bytes, &mut handles)
            .unwrap_err()
            .to_string();
        assert!(error.contains("4 bytes are left over"), "{error}");
        assert_eq!(open.strong_count(), 0);
    }

    #[test]
    fn a_message_may_be_decided_by_another_thread() {
        let (mut end, _) = End::new();
        let (_, moved) = encode_parts(&end, &mut Vec::new()).unwrap().into_parts();
        std::thread::spawn(|| drop(moved)).join().unwrap();
        assert!(end.0.get_mut().is_some());
    }
}
