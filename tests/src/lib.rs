//! What mproc's tests have in common.
//!
//! A test waits for conditions and never for time; what bounds it is the [`watchdog`], which ends a hung test by name.

pub mod facts;

use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
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
    let limit = limit * dose(1, 60) as u32;
    let (sender, receiver) = std::sync::mpsc::channel::<()>();
    thread::spawn(move || {
        // A sender that was dropped is an error at once; only a guard that still lives lets the time run out.
        if receiver.recv_timeout(limit) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            let text = format!(
                "watchdog: `{test}` has not ended in {limit:?}; children: {:?}\n",
                mproc::active_children()
            );
            // Past the harness, which would keep it for a report that never comes.
            let _ = std::io::stderr().write_all(text.as_bytes());
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

/// How often a stress test repeats: `short` in `cargo test`, `long` when `MPROC_STRESS` is set. If it is set to a number above 1, it is that many times `short`, and
/// no more than `long`.
pub fn dose(short: usize, long: usize) -> usize {
    let Some(stress) = std::env::var_os("MPROC_STRESS") else {
        return short;
    };
    match stress
        .to_str()
        .and_then(|times| times.parse::<usize>().ok())
    {
        Some(times @ 2..) => short.saturating_mul(times).min(long),
        _ => long,
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

/// A command that runs one of this package's programs (`src/bin/`), without what tests are told by their environment.
pub fn program(path: &str) -> Command {
    let mut command = Command::new(path);
    command.env_remove("MPROC_STRESS").env_remove("MPROC_SEED");
    command
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

    /// Others, which depend on these.
    pub fn split(&mut self) -> Self {
        Self(self.below(u64::MAX) | 1)
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

static INTERRUPTIONS: AtomicU64 = AtomicU64::new(0);

/// From here on a signal interrupts this process every 100 µs, and every system call that can be interrupted: its handler does not ask
/// for restarts. The process is best one of its own, since the storm lasts as long as it does.
pub fn storm() {
    use nix::libc;
    use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
    extern "C" fn count(_: libc::c_int) {
        INTERRUPTIONS.fetch_add(1, Relaxed);
    }
    let handler = SigHandler::Handler(count);
    let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler adds to an atomic, which is async-signal-safe.
    unsafe { sigaction(Signal::SIGALRM, &action) }.expect("SIGALRM can be handled");
    let every = libc::timeval {
        tv_sec: 0,
        tv_usec: 100,
    };
    let timer = libc::itimerval {
        it_interval: every,
        it_value: every,
    };
    // SAFETY: `timer` lives through the call, and the old value is not asked for.
    let result = unsafe { libc::setitimer(libc::ITIMER_REAL, &timer, std::ptr::null_mut()) };
    assert_eq!(result, 0, "a timer can be set");
}

/// How often this process has been interrupted by its [`storm`].
pub fn interruptions() -> u64 {
    INTERRUPTIONS.load(Relaxed)
}

/// Ends this process as a signal does that cannot be handled.
pub fn kill_myself() -> ! {
    nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).expect("a process may kill itself");
    unreachable!("nothing runs after SIGKILL")
}

/// A path in the temporary directory that nobody else uses. The file is deleted with the guard, if there is one.
#[derive(Debug)]
pub struct ScratchFile(std::path::PathBuf);

impl ScratchFile {
    /// No file is made.
    pub fn new(name: &str) -> Self {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Relaxed);
        let file = format!("mproc-tests-{}-{count}-{name}", std::process::id());
        Self(std::env::temp_dir().join(file))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// What it contains; nothing if it is not there.
    pub fn read(&self) -> String {
        std::fs::read_to_string(&self.0).unwrap_or_default()
    }

    /// Appends a line, as any number of processes may do at once.
    pub fn append_to(path: &Path, line: &str) {
        use std::io::Write;
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.append(true).create(true).open(path).expect("opens");
        file.write_all(format!("{line}\n").as_bytes())
            .expect("writes");
    }
}

impl Drop for ScratchFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Ends this process as the words say, without a panic.
pub fn end_badly(how: &str) {
    no_core_dump();
    let exit = |code: &str| std::process::exit(code.parse().expect("a number"));
    match how.split_once(' ') {
        Some(("exit", "7 in a thread")) => {
            let _ = thread::spawn(move || exit("7")).join();
        }
        Some(("exit", code)) => exit(code),
        _ => {}
    }
    match how {
        "abort" => std::process::abort(),
        // SAFETY: reading from address 8 is undefined behaviour for the compiler, but a volatile read is done as written,
        // and the kernel maps nothing there. What follows is the end of the process.
        "segmentation fault" => unsafe {
            std::ptr::with_exposed_provenance::<u64>(8).read_volatile();
        },
        "stack overflow" => overflow(0),
        "illegal instruction" => raise(nix::sys::signal::Signal::SIGILL),
        "sigterm" => raise(nix::sys::signal::Signal::SIGTERM),
        _ => panic!("no such end: {how}"),
    }
}

fn raise(signal: nix::sys::signal::Signal) {
    nix::sys::signal::raise(signal).expect("a process may signal itself");
}

#[expect(unconditional_recursion, reason = "that is its purpose")]
fn overflow(depth: u64) {
    let frame = std::hint::black_box([depth; 64]);
    overflow(frame[0] + 1);
    std::hint::black_box(frame);
}

/// A test that makes a process crash leaves no file behind.
pub fn no_core_dump() {
    use nix::sys::resource::{Resource, setrlimit};
    setrlimit(Resource::RLIMIT_CORE, 0, 0).expect("a limit can be lowered");
}

/// Lets signals end this process that it may have been started to ignore: by `nohup`, or in the background of a shell without job control.
pub fn heed_signals() {
    use nix::sys::signal::{SigHandler, Signal, signal};
    for number in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT] {
        // SAFETY: no code of ours runs on a signal.
        unsafe { signal(number, SigHandler::SigDfl) }.expect("a signal may do what it does");
    }
}

/// Calls `function` when this process ends by `exit`, before those that were registered earlier.
pub fn at_exit(function: extern "C" fn()) {
    // SAFETY: a plain function lives as long as the program.
    let result = unsafe { nix::libc::atexit(function) };
    assert_eq!(result, 0, "there is room for 32 handlers");
}
