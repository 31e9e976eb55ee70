//! Results of an input of any length, one after the other.

use std::fmt;
use std::iter;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::calls::Calls;
use super::calls::{Cutter, exactly};
use super::group::{Group, decode};
use crate::entry::Unary;
use crate::error::{Error, ErrorKind, Result};

/// What both kinds have in common: the input, and how far it has been taken.
pub(super) struct Stream<'p, E, I> {
    calls: Calls<'p>,
    /// `None` once it has ended.
    items: Option<I>,
    group: Arc<Group>,
    cutter: Option<Cutter<E>>,
    /// How many items were taken from the input, and called.
    called: usize,
    given: usize,
    /// Why no more is taken; told after what was.
    stopped: Option<Error>,
}

impl<'p, E: Unary, I: Iterator<Item = E::Arg>> Stream<'p, E, I> {
    pub(super) fn new(calls: Calls<'p>, items: I, in_order: bool) -> Self {
        let group = Group::stream(in_order);
        calls.observe(&group, exactly(&items));
        Self {
            calls,
            items: Some(items),
            group,
            cutter: None,
            called: 0,
            given: 0,
            stopped: None,
        }
    }

    /// Takes as much of the input as is bounded.
    fn fill(&mut self) -> Result<()> {
        let chunk = self.calls.chunk()?.unwrap_or(1);
        let bound = self.calls.bound().max(chunk);
        let cutter = match &mut self.cutter {
            Some(cutter) => cutter,
            none => none.insert(self.calls.cutter::<E>(&self.group, chunk)),
        };
        let Some(items) = &mut self.items else {
            return Ok(());
        };
        if cutter.next - self.given + chunk > bound {
            return Ok(());
        }
        while cutter.next - self.given < bound {
            let added = match items.next() {
                // One by one: whatever the input does, those before are there.
                Some(item) => cutter.fill(&mut iter::once(E::alone(item))).map(drop),
                None => {
                    self.items = None;
                    break;
                }
            };
            if let Err(error) = added {
                // What is before it is still called.
                self.items = None;
                self.stopped = Some(error);
                break;
            }
        }
        cutter.cut();
        if !cutter.ready.is_empty() {
            // Only now: a pool that takes no more is of no interest to an input that has ended.
            self.calls.shared.submit(cutter.ready.drain(..), true)?;
        }
        self.called = cutter.next;
        Ok(())
    }

    fn next(&mut self, limit: Option<Duration>) -> Option<Result<E::Output>>
    where
        E::Output: DeserializeOwned,
    {
        if self.items.is_some()
            && let Err(error) = self.fill()
        {
            self.items = None;
            self.stopped = Some(error);
        }
        if self.given == self.called {
            self.group.finish_observers();
            return self.stopped.take().map(Err);
        }
        let group = &self.group;
        let mut value = group.take_next();
        if value.is_none() {
            self.calls.shared.wait(Some(group), limit, |_| {
                // It is asked again when it was.
                value = value.take().or_else(|| group.take_next());
                value.is_some()
            });
        }
        Some(match value {
            Some(value) => {
                self.given += 1;
                decode(value)
            }
            None => {
                let text = "no item is ready in this time; the tasks go on";
                Err(Error::new(ErrorKind::Timeout, text))
            }
        })
    }
}

/// What has not begun need not begin.
impl<E, I> Drop for Stream<'_, E, I> {
    fn drop(&mut self) {
        self.group.finish_observers();
        if self.called > self.group.resolved() {
            // What is running goes on.
            self.calls.shared.change(|dispatcher| {
                dispatcher.withdraw(&self.group);
                dispatcher.feed();
            });
        }
    }
}

/// Results in the order of the items; made by [`Calls::imap`].
#[must_use = "nothing is taken from the input before results are asked for"]
pub struct Imap<'p, E, I>(pub(super) Stream<'p, E, I>);

/// Results as they are ready; made by [`Calls::imap_unordered`].
#[must_use = "nothing is taken from the input before results are asked for"]
pub struct ImapUnordered<'p, E, I>(pub(super) Stream<'p, E, I>);

impl<E: Unary, I: Iterator<Item = E::Arg>> Imap<'_, E, I>
where
    E::Output: DeserializeOwned,
{
    /// The next result, if it is there in time; `None` at the end.
    ///
    /// # Errors
    ///
    /// [`Timeout`](ErrorKind::Timeout), after which the same result can be waited for again; otherwise those of the item.
    pub fn next_timeout(&mut self, timeout: Duration) -> Option<Result<E::Output>> {
        self.0.next(Some(timeout))
    }
}

impl<E: Unary, I: Iterator<Item = E::Arg>> ImapUnordered<'_, E, I>
where
    E::Output: DeserializeOwned,
{
    /// The next result, if one is there in time; `None` at the end.
    ///
    /// # Errors
    ///
    /// As [`Imap::next_timeout`].
    pub fn next_timeout(&mut self, timeout: Duration) -> Option<Result<E::Output>> {
        self.0.next(Some(timeout))
    }
}

impl<E: Unary, I: Iterator<Item = E::Arg>> Iterator for Imap<'_, E, I>
where
    E::Output: DeserializeOwned,
{
    type Item = Result<E::Output>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next(None)
    }
}

impl<E: Unary, I: Iterator<Item = E::Arg>> Iterator for ImapUnordered<'_, E, I>
where
    E::Output: DeserializeOwned,
{
    type Item = Result<E::Output>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next(None)
    }
}

impl<E, I> fmt::Debug for Imap<'_, E, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Imap")
    }
}

impl<E, I> fmt::Debug for ImapUnordered<'_, E, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ImapUnordered")
    }
}
