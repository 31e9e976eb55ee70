//! The part of the kernel in [`futex.rs`](super::futex) as a model checker sees it: sleeping and waking on words, and what is done
//! for a thread that dies. After kernel/futex/core.c (`handle_futex_death`) and waitwake.c.
//!
//! A model consists of processes of one thread each. When all that live are asleep, nothing will ever happen again: then those
//! whose deadline comes some time are woken, and if there are none, the model [ends](Outcome) and tells who slept on what.
//! So a model needs no end of its own, and a lost wake-up is one who sleeps although what it waits for is the case.
//!
//! Processes die by unwinding, at the step that they are told, which is before something they would have changed. Nothing that
//! matters may have a destructor that changes shared words.

use std::cell::{Cell, RefCell};
use std::io;
use std::marker::PhantomData;
use std::panic::Location;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use loom::sync::atomic::{Ordering, fence};

use super::poll::Deadline;
use crate::shm::atomic::Word;

pub(crate) const WAITERS: u32 = 0x8000_0000;
pub(crate) const OWNER: u32 = 0x3fff_ffff;
pub(crate) const OWNER_DIED: u32 = 0x4000_0000;

/// As in `futex.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Woken {
    Perhaps,
    TimedOut,
}

/// Why a process stops in the middle.
enum Stop {
    Death,
    End,
}

#[derive(Default)]
struct Process {
    thread: Option<loom::thread::Thread>,
    pending: Option<Word<'static>>,
    /// Words in its list of robust locks.
    linked: Vec<Word<'static>>,
    /// Addresses of what it sleeps on. Empty: it is awake.
    asleep_on: Vec<usize>,
    has_deadline: bool,
    timed_out: bool,
    /// It does nothing any more unless it is woken.
    rests: bool,
    /// After how many steps it dies.
    steps: Option<usize>,
    died: bool,
    /// Dead, or at its end.
    gone: bool,
}

#[derive(Default)]
struct Kernel {
    processes: Vec<Process>,
    ended: bool,
    told: Vec<String>,
}

thread_local! {
    // Of the thread in which loom runs all those of a model.
    static KERNEL: RefCell<Kernel> = RefCell::default();
    static LOCK: RefCell<Option<Arc<loom::sync::Mutex<()>>>> = const { RefCell::new(None) };
}

loom::thread_local! {
    static OWN: Cell<Option<usize>> = Cell::new(None);
}

fn own() -> Option<usize> {
    OWN.with(Cell::get)
}

fn kernel<T>(act: impl FnOnce(&mut Kernel) -> T) -> T {
    KERNEL.with_borrow_mut(act)
}

/// Does something that no other process sees half done.
pub(super) fn alone<T>(act: impl FnOnce() -> T) -> T {
    let lock = LOCK.with_borrow(|lock| Arc::clone(lock.as_ref().expect("a model runs")));
    let _guard = lock.lock().expect("nothing panics under it");
    act()
}

/// How a model ended.
pub(crate) struct Outcome {
    /// The addresses on which each process slept at the end; nothing for those that came to their end.
    pub(crate) asleep: Vec<Vec<usize>>,
    /// Whether each of them died.
    pub(crate) died: Vec<bool>,
}

/// What one process of a model does, and after how many steps it dies, if it does.
pub(crate) type Part = (Box<dyn FnOnce() + Send>, Option<usize>);

/// Runs processes until each has ended, died, or sleeps for ever. Within `loom::model`, once.
pub(crate) fn run(parts: Vec<Part>) -> Outcome {
    LOCK.set(Some(Arc::new(loom::sync::Mutex::new(()))));
    kernel(|kernel| {
        *kernel = Kernel::default();
        for (_, steps) in &parts {
            kernel.processes.push(Process {
                steps: *steps,
                ..Process::default()
            });
        }
    });
    let threads: Vec<_> = parts
        .into_iter()
        .enumerate()
        .map(|(index, (act, _))| loom::thread::spawn(move || live(index, act)))
        .collect();
    for thread in threads {
        thread.join().expect("panics end the model");
    }
    LOCK.set(None);
    // With that of each process: what they left is seen.
    fence(Ordering::SeqCst);
    kernel(|kernel| Outcome {
        asleep: kernel
            .processes
            .iter_mut()
            .map(|process| std::mem::take(&mut process.asleep_on))
            .collect(),
        died: kernel
            .processes
            .iter()
            .map(|process| process.died)
            .collect(),
    })
}

fn live(index: usize, act: Box<dyn FnOnce() + Send>) {
    OWN.with(|own| own.set(Some(index)));
    kernel(|kernel| kernel.processes[index].thread = Some(loom::thread::current()));
    let ended = catch_unwind(AssertUnwindSafe(act));
    fence(Ordering::SeqCst);
    if let Err(stop) = ended {
        match stop.downcast_ref() {
            Some(Stop::Death) => look_after(index),
            Some(Stop::End) => return,
            None => resume_unwind(stop),
        }
    }
    alone(|| {
        kernel(|kernel| kernel.processes[index].gone = true);
        super::event::hang_up(index);
    });
    rests(index);
}

/// Whether a process is dead, or at its end.
pub(super) fn is_gone(process: usize) -> bool {
    kernel(|kernel| kernel.processes[process].gone)
}

impl Process {
    fn sleeps(&self) -> bool {
        !self.asleep_on.is_empty()
    }

    fn wake(&mut self) {
        self.asleep_on.clear();
        self.rests = false;
        self.thread.as_ref().expect("it runs").unpark();
    }
}

/// One process less that could do something.
fn rests(index: usize) {
    kernel(|kernel| {
        kernel.processes[index].rests = true;
        if !kernel.processes.iter().all(|process| process.rests) {
            return;
        }
        let mut time_passes = false;
        for process in &mut kernel.processes {
            if process.sleeps() && process.has_deadline {
                process.timed_out = true;
                process.wake();
                time_passes = true;
            }
        }
        if !time_passes {
            kernel.ended = true;
            for process in kernel.processes.iter().filter(|process| process.sleeps()) {
                process.thread.as_ref().expect("it runs").unpark();
            }
        }
    });
}

/// Tells what happened, one line a step, if MPROC_TRACE is set.
pub(crate) fn tell() {
    kernel(|kernel| {
        for line in &kernel.told {
            eprintln!("{line}");
        }
    });
}

fn note(what: impl FnOnce() -> String) {
    static WANTED: OnceLock<bool> = OnceLock::new();
    if *WANTED.get_or_init(|| std::env::var_os("MPROC_TRACE").is_some()) {
        let own = own();
        kernel(|kernel| kernel.told.push(format!("{own:?} {}", what())));
    }
}

/// A step before which the process may die.
#[track_caller]
pub(crate) fn may_die() {
    let Some(own) = own() else { return };
    let caller = Location::caller();
    note(|| format!("{}:{}", caller.file(), caller.line()));
    let dies = kernel(|kernel| {
        let process = &mut kernel.processes[own];
        match &mut process.steps {
            Some(0) if !process.died => {
                process.died = true;
                true
            }
            Some(steps) => {
                *steps = steps.saturating_sub(1);
                false
            }
            None => false,
        }
    });
    if dies {
        note(|| "dies".into());
        resume_unwind(Box::new(Stop::Death));
    }
}

/// What the kernel does for a thread that died: `handle_futex_death` for the word of the operation under way.
fn look_after(index: usize) {
    alone(|| {
        let (linked, pending) = kernel(|kernel| {
            let process = &mut kernel.processes[index];
            process.asleep_on.clear();
            (std::mem::take(&mut process.linked), process.pending)
        });
        for word in linked {
            if pending.is_some_and(|pending| pending.address() == word.address()) {
                continue; // It comes last.
            }
            let value = word.value();
            note(|| format!("has linked: {value:x}"));
            if value & OWNER == id(index) {
                word.set(value & WAITERS | OWNER_DIED);
                if value & WAITERS != 0 {
                    wake_asleep(word.address(), 1);
                }
            }
        }
        let Some(word) = pending else { return };
        let value = word.value();
        note(|| format!("is looked after: {value:x}"));
        if value & OWNER == 0 {
            wake_asleep(word.address(), 1);
        } else if value & OWNER == id(index) {
            word.set(value & WAITERS | OWNER_DIED);
            if value & WAITERS != 0 {
                wake_asleep(word.address(), 1);
            }
        }
    });
}

pub(super) fn wake_asleep(address: usize, count: u32) -> usize {
    kernel(|kernel| {
        let mut woken = 0;
        for process in &mut kernel.processes {
            if woken < count as usize && process.asleep_on.contains(&address) {
                process.wake();
                woken += 1;
            }
        }
        woken
    })
}

/// As in `futex.rs`.
pub(crate) fn wake(word: Word<'_>, count: u32) -> usize {
    if own().is_none() {
        return 0; // What was set up for a model is dropped.
    }
    may_die();
    alone(|| {
        let woken = wake_asleep(word.address(), count);
        note(|| format!("woke {woken}"));
        woken
    })
}

/// As in `futex.rs`.
pub(crate) fn wait_any(words: &[(Word<'_>, u32)], deadline: Deadline) -> io::Result<Woken> {
    let remaining = deadline.remaining();
    if remaining == Some(Duration::ZERO) {
        return Ok(Woken::TimedOut);
    }
    let is_as_expected = || {
        words
            .iter()
            .all(|(word, expected)| word.value() == *expected)
    };
    let addresses = words.iter().map(|(word, _)| word.address()).collect();
    Ok(sleep(is_as_expected, addresses, remaining.is_some()))
}

/// Sleeps until it is woken at one of these addresses, unless there is something other than expected.
pub(super) fn sleep(
    is_as_expected: impl FnOnce() -> bool,
    addresses: Vec<usize>,
    has_deadline: bool,
) -> Woken {
    let own = own().expect("only processes of a model sleep");
    let asleep = alone(|| {
        if !is_as_expected() {
            return false;
        }
        kernel(|kernel| {
            let process = &mut kernel.processes[own];
            process.asleep_on = addresses;
            process.has_deadline = has_deadline;
            process.timed_out = false;
        });
        true
    });
    note(|| format!("asleep: {asleep}"));
    if !asleep {
        return Woken::Perhaps;
    }
    // A signal may kill it asleep.
    alone(|| ());
    may_die();
    loop {
        let (ended, process) = kernel(|kernel| {
            let process = &kernel.processes[own];
            (kernel.ended, (process.sleeps(), process.timed_out))
        });
        match process {
            (_, true) => return Woken::TimedOut,
            (false, false) => return Woken::Perhaps,
            (true, false) if ended => resume_unwind(Box::new(Stop::End)),
            (true, false) => {}
        }
        rests(own);
        loom::thread::park();
    }
}

fn id(index: usize) -> u32 {
    index as u32 + 1
}

/// As in `futex.rs`.
#[derive(Clone, Copy)]
pub(crate) struct RobustThread(Option<usize>);

impl RobustThread {
    pub(crate) fn current() -> io::Result<Self> {
        Ok(Self(own()))
    }

    /// The one that sets a model up and looks at what is left is nobody's.
    pub(crate) fn id(self) -> u32 {
        self.0.map_or(OWNER, id)
    }

    pub(crate) fn pending(self, word: Word<'_>) -> Pending<'_> {
        // SAFETY: lengthened only for the kernel of this model, which uses it no longer than the process keeps what it is in;
        // and whoever dies keeps it until the model ends.
        let word = unsafe { std::mem::transmute::<Word<'_>, Word<'static>>(word) };
        let before = self
            .0
            .and_then(|own| kernel(|kernel| kernel.processes[own].pending.replace(word)));
        Pending {
            own: self.0,
            before,
            word: PhantomData,
        }
    }
}

/// As in `perch.rs`: here, a name for the word.
pub(crate) struct Perch(Word<'static>);

/// As in `perch.rs`.
#[derive(Debug)]
pub(crate) struct TooMany;

/// As in `perch.rs`.
#[derive(Debug)]
pub(crate) struct Usurped;

impl From<Usurped> for io::Error {
    fn from(_: Usurped) -> Self {
        unreachable!("nobody is hostile in a model")
    }
}

/// As in `futex.rs`.
pub(crate) const MOST_WORDS: usize = 128;

impl Perch {
    pub(crate) fn of(word: &crate::shm::atomic::AtomicU32) -> Self {
        let word = crate::shm::atomic::word(word);
        // SAFETY: as in `pending`.
        Self(unsafe { std::mem::transmute::<Word<'_>, Word<'static>>(word) })
    }

    pub(crate) fn is_linked_by(&self, thread: RobustThread) -> bool {
        thread.0.is_some_and(|own| {
            kernel(|kernel| {
                let mut linked = kernel.processes[own].linked.iter();
                linked.any(|word| word.address() == self.0.address())
            })
        })
    }
}

impl RobustThread {
    pub(crate) fn process(self) -> u32 {
        self.id()
    }

    pub(crate) fn owner(self) -> u64 {
        u64::from(self.id()) << 32
    }

    pub(crate) fn can_link(self) -> Result<(), TooMany> {
        Ok(())
    }

    pub(crate) fn link(self, perch: &Perch) -> Result<(), Usurped> {
        may_die();
        if let Some(own) = self.0 {
            kernel(|kernel| kernel.processes[own].linked.push(perch.0));
        }
        Ok(())
    }

    pub(crate) fn unlink(self, perch: &Perch) {
        may_die();
        if let Some(own) = self.0 {
            let other = |word: &Word<'_>| word.address() != perch.0.address();
            kernel(|kernel| kernel.processes[own].linked.retain(other));
        }
    }
}

/// As in `futex.rs`.
pub(crate) struct Pending<'w> {
    own: Option<usize>,
    before: Option<Word<'static>>,
    word: PhantomData<&'w ()>,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        let Some(own) = self.own else { return };
        kernel(|kernel| {
            let process = &mut kernel.processes[own];
            // The dead do nothing any more.
            if !process.died {
                process.pending = self.before;
            }
        });
    }
}

/// As in `futex.rs`. Processes of a model have one thread.
pub(crate) fn goes_on(_owner: u64) -> bool {
    false
}
