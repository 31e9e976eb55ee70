//! Results of an input of any length, one after the other.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::calls::Calls;
use super::group::{Group, Resolution, decode};
use super::shared::Batch;
use crate::entry::{self, Unary};
use crate::error::{Error, ErrorKind, Result};

/// What both kinds have in common: the input, and how far it has been taken.
pub(super) struct Stream<'p, E, I> {
    calls: Calls<'p>,
    /// `None` once it has ended.
    items: Option<I>,
    group: Arc<Group>,
    taken: usize,
    given: usize,
    /// Why no more is taken; told after what was.
    stopped: Option<Error>,
    entry: PhantomData<fn() -> E>,
}

impl<'p, E: Unary, I: Iterator<Item = E::Arg>> Stream<'p, E, I> {
    pub(super) fn new(calls: Calls<'p>, items: I) -> Self {
        Self {
            calls,
            items: Some(items),
            group: Arc::default(),
            taken: 0,
            given: 0,
            stopped: None,
            entry: PhantomData,
        }
    }

    /// Takes as much of the input as is bounded.
    fn fill(&mut self) -> Result<()> {
        let chunk = self.calls.chunk()?.unwrap_or(1);
        let bound = self.calls.bound().max(chunk);
        while self.items.is_some() && self.taken - self.given + chunk <= bound {
            let mut tasks = Vec::new();
            while tasks.len() < chunk
                && let Some(item) = self.items.as_mut().and_then(Iterator::next)
            {
                let call = entry::bind::<E>(E::alone(item));
                let index = self.taken + tasks.len();
                match call.check() {
                    Ok(()) => tasks.push(self.calls.task(&self.group, index, call)),
                    Err(error) => {
                        self.items = None;
                        self.stopped = Some(error);
                    }
                }
            }
            if tasks.len() < chunk {
                self.items = None;
            }
            if tasks.is_empty() {
                break;
            }
            let count = tasks.len();
            let batch = Batch {
                tasks,
                mergeable: true,
            };
            self.calls.shared.submit(std::iter::once(batch))?;
            self.taken += count;
        }
        Ok(())
    }

    fn next(
        &mut self,
        take: impl FnOnce(&Group, usize) -> Option<Resolution>,
    ) -> Option<Result<E::Output>>
    where
        E::Output: DeserializeOwned,
    {
        if self.items.is_some()
            && let Err(error) = self.fill()
        {
            self.items = None;
            self.stopped = Some(error);
        }
        if self.given == self.taken {
            return self.stopped.take().map(Err);
        }
        Some(match take(&self.group, self.given) {
            Some(resolution) => {
                self.given += 1;
                decode(resolution)
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
        self.group.cancel();
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
        self.0.next(|group, index| group.take(index, Some(timeout)))
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
        self.0.next(|group, _| group.take_any(Some(timeout)))
    }
}

impl<E: Unary, I: Iterator<Item = E::Arg>> Iterator for Imap<'_, E, I>
where
    E::Output: DeserializeOwned,
{
    type Item = Result<E::Output>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next(|group, index| group.take(index, None))
    }
}

impl<E: Unary, I: Iterator<Item = E::Arg>> Iterator for ImapUnordered<'_, E, I>
where
    E::Output: DeserializeOwned,
{
    type Item = Result<E::Output>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next(|group, _| group.take_any(None))
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
