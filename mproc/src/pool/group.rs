//! Where tasks resolve: the outcomes of one call, or of one map.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::task::Waker;
use std::time::{Duration, Instant};

use super::lock;
use crate::entry::Call;
use crate::error::{Error, Result};
use crate::wire::Message;

/// A task's value, still encoded, or why there is none.
pub(super) type Resolution = Result<Message>;

/// One call, from submission to its resolution.
pub(super) struct Task {
    pub(super) call: Call<()>,
    pub(super) group: Arc<Group>,
    pub(super) index: usize,
    pub(super) retries: u32,
    pub(super) timeout: Option<Duration>,
}

impl Task {
    pub(super) fn resolve(self, resolution: Resolution) {
        self.group.resolve(self.index, resolution);
    }
}

#[derive(Default)]
pub(super) struct Group {
    state: Mutex<State>,
    changed: Condvar,
    /// Whoever asked is not interested any more: what has not begun need not begin.
    cancelled: AtomicBool,
}

#[derive(Default)]
struct State {
    resolved: BTreeMap<usize, Resolution>,
    count: usize,
    wakers: Vec<Waker>,
}

impl Group {
    fn resolve(&self, index: usize, resolution: Resolution) {
        let mut state = lock(&self.state);
        let earlier = state.resolved.insert(index, resolution);
        debug_assert!(earlier.is_none(), "a task resolves once");
        state.count += 1;
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        self.changed.notify_all();
        for waker in wakers {
            // A waker is code of users, and what panics in it is no reason to stop driving.
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| waker.wake()));
        }
    }

    pub(super) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// How many tasks have resolved.
    pub(super) fn count(&self) -> usize {
        lock(&self.state).count
    }

    /// Asks to be woken by the next resolution, unless `count` tasks have resolved.
    pub(super) fn poll(&self, count: usize, waker: &Waker) -> bool {
        let mut state = lock(&self.state);
        if state.count >= count {
            return true;
        }
        if !state.wakers.iter().any(|known| known.will_wake(waker)) {
            state.wakers.push(waker.clone());
        }
        false
    }

    /// Waits until `count` tasks have resolved. False: the time is over.
    pub(super) fn wait(&self, count: usize, limit: Option<Duration>) -> bool {
        self.wait_for(limit, |state| (state.count >= count).then_some(()))
            .is_some()
    }

    /// Takes the resolution of one task, when it is there.
    pub(super) fn take(&self, index: usize, limit: Option<Duration>) -> Option<Resolution> {
        self.wait_for(limit, |state| state.resolved.remove(&index))
    }

    /// Takes any resolution, when there is one.
    pub(super) fn take_any(&self, limit: Option<Duration>) -> Option<Resolution> {
        self.wait_for(limit, |state| {
            state.resolved.pop_first().map(|(_, resolution)| resolution)
        })
    }

    /// Takes what is there, in order.
    pub(super) fn take_all(&self) -> BTreeMap<usize, Resolution> {
        std::mem::take(&mut lock(&self.state).resolved)
    }

    fn wait_for<T>(
        &self,
        limit: Option<Duration>,
        mut look: impl FnMut(&mut State) -> Option<T>,
    ) -> Option<T> {
        // A limit that is too far away to be a moment is none.
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        let mut state = lock(&self.state);
        loop {
            if let Some(found) = look(&mut state) {
                return Some(found);
            }
            state = match deadline {
                None => self
                    .changed
                    .wait(state)
                    .unwrap_or_else(std::sync::PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.checked_duration_since(Instant::now())?;
                    let waited = self.changed.wait_timeout(state, left);
                    waited.unwrap_or_else(std::sync::PoisonError::into_inner).0
                }
            };
        }
    }
}

/// What a task gives whose value does not decode.
pub(super) fn decode<R: serde::de::DeserializeOwned>(resolution: Resolution) -> Result<R> {
    resolution?.decode().map_err(|error| {
        let text = "a task returned a value that could not be decoded";
        Error::new(crate::ErrorKind::Decode, text).caused_by(error)
    })
}
