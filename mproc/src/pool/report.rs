//! What a task says of itself while it runs, and who hears what becomes of a call on the way.
//!
//! A task that is at work has its worker's mouth: the ring to the parent belongs to whoever calls [`report`], from any thread of the task, and goes back
//! to the worker when the task ends. So reports and outcomes come in one order, and what a task said before it was killed is there.
//! A report takes no room that an outcome may need: it is dropped while the parent has not read half of the ring.

use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};

use super::local::kind;
use super::lock;
use super::ring::{Memory, Place, ROOM};

/// How far a task of a pool has come, as it says [itself](report).
///
/// `Display` shows the task's number, the part, and the text: `3: 40% loading`.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    index: usize,
    fraction: f64,
    text: String,
}

impl Report {
    /// From a worker, which may say anything.
    pub(super) fn read(index: usize, payload: &[u8]) -> Option<Self> {
        let (fraction, text) = payload.split_first_chunk()?;
        let fraction = f64::from_ne_bytes(*fraction);
        Some(Self {
            index,
            // Not a number is nothing.
            fraction: if fraction > 0.0 {
                fraction.min(1.0)
            } else {
                0.0
            },
            text: String::from_utf8_lossy(text).into_owned(),
        })
    }

    /// The number of the task among those of its call: that of the item in a map. Zero where there is one task only.
    pub fn index(&self) -> usize {
        self.index
    }

    /// What part of it is done: from 0 to 1, whatever it said.
    pub fn fraction(&self) -> f64 {
        self.fraction
    }

    /// What it said beside that.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = 100.0 * self.fraction;
        write!(f, "{}: {percent:.0}% {}", self.index, self.text)
    }
}

/// Says how far the task has come that runs in this process, and something beside it: from 0 to 1, and text of which 1000 bytes are sent at
/// most.
///
/// Whoever called hears it by [`Calls::on_report`](crate::Calls::on_report), or sees it on the bar of `Calls::progress`. If nobody listens, or
/// if this process is no worker of a pool that executes a task, or reads so slowly that it has much to read already, nothing happens, and this gives false. It
/// never waits, and costs about as much as a short message.
///
/// All threads of the task may report. What they say after its end is not heard, and where the one who hears is much slower than they are, not everything is.
///
/// # If a peer dies
///
/// What was reported before the worker was killed is heard, and then the error of its task.
///
/// # Examples
///
/// ```
/// use std::sync::atomic::{AtomicUsize, Ordering};
///
/// #[mproc::entry]
/// fn download(parts: u32) -> u32 {
///     for part in 0..parts {
///         mproc::report(f64::from(part) / f64::from(parts), "downloading");
///     }
///     parts
/// }
///
/// # fn main() -> mproc::Result<()> {
/// static HEARD: AtomicUsize = AtomicUsize::new(0);
/// let pool = mproc::Pool::new(1)?;
/// let calls = pool.calls().on_report(|report| {
///     assert_eq!(report.text(), "downloading");
///     HEARD.fetch_add(1, Ordering::Relaxed);
/// });
/// calls.map::<download>([2, 3])?;
/// # pool.join();
/// assert_eq!(HEARD.load(Ordering::Relaxed), 5);
/// assert!(!mproc::report(0.5, "nobody is told: this is no task of a pool"));
/// # Ok(())
/// # }
/// ```
pub fn report(fraction: f64, text: &str) -> bool {
    match &mut *lock(&MOUTH) {
        Some(mouth) => mouth.say(fraction, text),
        None => false,
    }
}

/// The worker's, while a task runs to which somebody listens.
static MOUTH: Mutex<Option<Mouth>> = Mutex::new(None);

/// What is needed to speak to the parent.
pub(super) struct Mouth {
    pub(super) memory: &'static Memory,
    pub(super) outgoing: Place,
    pub(super) line: Arc<OwnedFd>,
    /// A process that a task forked has all of this, too, and is not to write.
    pub(super) owner: u32,
}

/// Lends it to the task that begins.
pub(super) fn lend(mouth: Mouth) {
    *lock(&MOUTH) = Some(mouth);
}

/// Takes the place in the ring back.
pub(super) fn take_back() -> Option<Place> {
    lock(&MOUTH).take().map(|mouth| mouth.outgoing)
}

/// So much of a text is sent.
const LONGEST: usize = 1000;

impl Mouth {
    fn say(&mut self, fraction: f64, text: &str) -> bool {
        let outcomes = self.memory.outcomes();
        if outcomes.unread(&self.outgoing) > ROOM as u64 / 2 || std::process::id() != self.owner {
            return false;
        }
        let text = &text[..text.floor_char_boundary(LONGEST)];
        let parts: [&[u8]; 2] = [&fraction.to_ne_bytes(), text.as_bytes()];
        let pushed = outcomes.push(&mut self.outgoing, kind::REPORT, &parts);
        if !matches!(pushed, Ok(true)) {
            return false;
        }
        outcomes.wake_reader(&self.outgoing, self.line.as_fd(), true, true);
        true
    }
}

/// Somebody who hears what becomes of a call on the way. Called without a lock, from any thread, perhaps after the call has ended.
pub(super) trait Observer: Send + Sync {
    /// So many tasks there will be.
    fn expects(&self, _total: usize) {}
    /// Whether it wants to hear of resolutions.
    fn counts(&self) -> bool {
        false
    }
    /// So many tasks have resolved in all. Perhaps less than it has heard of already.
    fn resolved(&self, _in_all: usize) {}
    fn reported(&self, _report: &Report) {}
    /// Nobody waits any more, and so many have resolved. Perhaps several times, and before it hears of that in another thread.
    fn finished(&self, _in_all: usize) {}
}

/// What happened.
pub(super) enum Event {
    Expects(usize),
    Resolved(usize),
    Finished(usize),
}

impl Event {
    pub(super) fn tell(&self, observer: &dyn Observer) {
        match self {
            Self::Expects(total) => observer.expects(*total),
            Self::Resolved(in_all) => observer.resolved(*in_all),
            Self::Finished(in_all) => observer.finished(*in_all),
        }
    }
}

/// A function of users.
pub(super) struct ReportTo<F>(pub(super) F);

impl<F: Fn(&Report) + Send + Sync> Observer for ReportTo<F> {
    fn reported(&self, report: &Report) {
        (self.0)(report);
    }
}
