//! Nonsense in shared memory, for the tests of whoever reads it: words that another process may have put there, and a count of
//! what is allocated meanwhile.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::memory::{Memory, PageOfWords, Segment};
use crate::sys::PAGE;

/// Counts the largest piece of memory that a thread asked for.
struct Counting;

thread_local! {
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: does what `System` does.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        // SAFETY: the caller's.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

fn count(size: usize) {
    let _ = LARGEST.try_with(|largest| largest.set(largest.get().max(size)));
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Reproducible dice.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.any() % bound.max(1)
    }

    pub(crate) fn any(&mut self) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
}

/// Runs `round` with dice of many seeds. MPROC_STRESS is for long, or that many times as long as usually; MPROC_SEED is one seed.
///
/// # Panics
///
/// If a round panics, asks for more memory at once than `most` bytes, or takes longer than any deadline in it.
pub(crate) fn rounds(
    name: &str,
    short: u64,
    long: u64,
    most: usize,
    mut round: impl FnMut(&mut Dice),
) {
    let dose = match std::env::var("MPROC_STRESS").map(|times| times.parse::<u64>()) {
        Err(_) => short,
        Ok(Ok(times @ 2..)) => short.saturating_mul(times).min(long),
        Ok(_) => long,
    };
    let only = std::env::var("MPROC_SEED")
        .ok()
        .map(|seed| seed.parse().expect("a number"));
    let seeds = match only {
        Some(seed) => seed..seed + 1,
        None => 0..dose,
    };
    let (begun, watch) = std::sync::mpsc::channel::<u64>();
    let name = name.to_string();
    let watchdog = std::thread::spawn({
        let name = name.clone();
        move || {
            let mut seed = 0;
            loop {
                match watch.recv_timeout(Duration::from_secs(20)) {
                    Ok(next) => seed = next,
                    Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => return,
                    Err(_) => {
                        eprintln!("{name} hangs with MPROC_SEED={seed}");
                        std::process::abort();
                    }
                }
            }
        }
    });
    for seed in seeds {
        begun.send(seed).expect("the watchdog listens");
        LARGEST.set(0);
        let start = Instant::now();
        let failed =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| round(&mut Dice::new(seed))));
        let largest = LARGEST.get();
        assert!(failed.is_ok(), "{name} panics with MPROC_SEED={seed}");
        assert!(
            largest <= most,
            "{name}: {largest} bytes at once with MPROC_SEED={seed}"
        );
        let took = start.elapsed();
        assert!(
            took < Duration::from_secs(10),
            "{name}: {took:?} with MPROC_SEED={seed}"
        );
    }
    drop(begun);
    watchdog.join().expect("the watchdog returns");
}

/// The page of words as plain numbers.
fn numbers<Words: PageOfWords>(memory: &Memory<Words>) -> &[AtomicU64] {
    let page = std::ptr::from_ref(memory.words()).cast::<AtomicU64>();
    // SAFETY: a whole page is mapped, for as long as `memory` lives; any bytes are a number, and others change them
    // atomically.
    unsafe { std::slice::from_raw_parts(page, PAGE / 8) }
}

/// Writes nonsense over some words of the page and of the first pages behind it: some of it mere noise, some of it nearly right.
pub(crate) fn scribble<Words: PageOfWords>(memory: &Memory<Words>, dice: &mut Dice) {
    let page = numbers(memory);
    let used = size_of::<Words>().min(PAGE) as u64 / 8;
    for _ in 0..1 + dice.below(4) {
        // Most words are of no use to anybody; the first few of each line are.
        let index = (dice.below(used.div_ceil(16)) * 16 + dice.below(6)).min(used - 1) as usize;
        let value = plausible(dice, &page[index]);
        let other = page[dice.below(used) as usize].load(Ordering::SeqCst);
        let value = if dice.below(8) == 0 { other } else { value };
        page[index].store(value, Ordering::SeqCst);
    }
    let pages = 1 + dice.below(4) as u32;
    let Ok(view) = memory.view(Segment { first: 1, pages }, true) else {
        return;
    };
    for _ in 0..dice.below(6) {
        let near_the_front = if dice.below(4) > 0 {
            64
        } else {
            u64::from(pages) * PAGE as u64 / 8
        };
        let position = PAGE as u64 + 8 * dice.below(near_the_front);
        let Some(to) = view.at(position, 8) else {
            continue;
        };
        // SAFETY: eight bytes inside the mapping, aligned, which others change atomically or know to be anybody's.
        let to = unsafe { to.cast::<AtomicU64>().as_ref() };
        to.store(header(dice, to), Ordering::SeqCst);
    }
}

fn plausible(dice: &mut Dice, word: &AtomicU64) -> u64 {
    let now = word.load(Ordering::SeqCst);
    match dice.below(9) {
        0 => dice.any(),
        1 => dice.below(4),
        2 => u64::MAX - dice.below(4),
        3 => now ^ 1 << dice.below(64),
        4 => now.wrapping_add(dice.below(64)).wrapping_sub(32),
        // A segment.
        5 => dice.below(6) << 32 | dice.below(6),
        // A mark.
        6 => (PAGE as u64 / 8 + dice.below(600)) | (dice.below(5) << 34),
        7 => (now & ((1 << 34) - 1)) | (dice.any() << 34),
        _ => now.rotate_left(32),
    }
}

fn header(dice: &mut Dice, word: &AtomicU64) -> u64 {
    let length = match dice.below(4) {
        0 => 8,
        1 => dice.below(64),
        2 => dice.below(1 << 14),
        _ => dice.below(1 << 40),
    };
    let kind = if dice.below(3) == 0 {
        0xff
    } else {
        dice.below(9)
    };
    let handles = if dice.below(4) == 0 {
        dice.below(400)
    } else {
        0
    };
    match dice.below(3) {
        0 => plausible(dice, word),
        _ => length | kind << 40 | handles << 48,
    }
}
