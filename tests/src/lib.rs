//! What mproc's tests have in common.
//!
//! A test waits for conditions and never for time; what bounds it is the [`watchdog`], which ends a hung test by name.

use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// Ends the process, with the name of the test and its children still alive, if the guard is not dropped in `limit`.
#[must_use = "the watchdog barks when the guard still lives"]
pub fn watchdog(test: &'static str, limit: Duration) -> impl Drop {
    struct Guard(Option<std::sync::mpsc::Sender<()>>);
    impl Drop for Guard {
        fn drop(&mut self) {
            self.0.take();
        }
    }
    let (sender, receiver) = std::sync::mpsc::channel::<()>();
    thread::spawn(move || {
        // A sender that was dropped is an error at once; only a guard that still lives lets the time run out.
        if receiver.recv_timeout(limit) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            eprintln!(
                "watchdog: `{test}` has not ended in {limit:?}; children: {:?}",
                mproc::active_children()
            );
            std::process::abort();
        }
    });
    Guard(Some(sender))
}

/// Waits until `condition` holds. There is no upper bound here: that is the watchdog's.
pub fn eventually(mut condition: impl FnMut() -> bool) {
    let mut pause = Duration::from_micros(50);
    while !condition() {
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// How often a stress test repeats: `short` in `cargo test`, `long` when `MPROC_STRESS` is set.
pub fn dose(short: usize, long: usize) -> usize {
    if std::env::var_os("MPROC_STRESS").is_some() {
        long
    } else {
        short
    }
}

/// The numbers of this process's open descriptors, in order, without the one that reads the list.
pub fn descriptors() -> Vec<i32> {
    descriptors_of(std::process::id())
}

/// The numbers of a process's open descriptors, in order.
pub fn descriptors_of(pid: u32) -> Vec<i32> {
    let own = pid == std::process::id();
    let mut numbers: Vec<i32> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("/proc is mounted")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    if own {
        // The directory itself was open while it was read, and is closed by now.
        numbers.retain(|number| {
            Path::new(&format!("/proc/self/fd/{number}"))
                .read_link()
                .is_ok()
        });
    }
    numbers.sort_unstable();
    numbers
}

/// The state letter of a process in the kernel's table (`R`, `S`, `Z` for a zombie …), or `None` if it is not there.
pub fn state_of(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may contain anything, so look behind the last one.
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

/// Whether a process runs: it is in the table and no zombie (an orphan may wait there for pid 1 to collect it).
pub fn runs(pid: u32) -> bool {
    state_of(pid).is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

/// The children of a process, zombies included.
pub fn children_of(pid: u32) -> Vec<u32> {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    let lists =
        tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("children")).ok());
    lists
        .flat_map(|list| {
            list.split_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect::<Vec<u32>>()
        })
        .collect()
}

/// A command that runs one of this package's programs (`src/bin/`).
pub fn program(path: &str) -> Command {
    Command::new(path)
}

/// Random enough for moments and sizes, and reproducible from the seed that a failing test prints.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// Seeded from the clock; the seed is printed.
    pub fn new(test: &str) -> Self {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(1, |now| now.as_nanos() as u64);
        eprintln!("{test}: seed {now}");
        Self(now | 1)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % bound.max(1)
    }

    /// A time below `bound`, spent spinning, so that moments of microseconds are met.
    pub fn pause(&mut self, bound: Duration) {
        let end = Instant::now() + Duration::from_nanos(self.below(bound.as_nanos() as u64));
        while Instant::now() < end {
            std::hint::spin_loop();
        }
    }
}
