//! What it costs to move data between processes: one way, there and back, in bulk, among several, and not at all.
//!
//! ```text
//! cargo bench -p mproc --bench channels                          # all of it, some minutes
//! cargo bench -p mproc --bench channels -- quick                 # about a minute
//! cargo bench -p mproc --bench channels -- quick oneway queue    # some of: oneway roundtrip large queue idle
//! ```
//!
//! A *floor* ([`floors`]) is the least that can be done for the same work with the same memory, written for the benchmark alone.
//! All contenders of a table take turns, one *block* each, so that the machine's moods hit all; each block has a fresh process,
//! because where the kernel puts a process decides much of what follows. Printed are the median of the blocks and the
//! extremes; a ratio is that of the medians, and beside it stands the median of the ratios of neighbours, as far as the two cores were equally far
//! apart for both: on a virtual machine they may share a cache in one second and be five times as far apart in the next, so each block is preceded by a
//! look at that. Unless a line says otherwise the two sides stand on two cores of their own; ours has no special path for any of this.

mod floors;
mod ours;

use std::process::Command;
use std::time::{Duration, Instant};

use floors::bulk::Way;
use floors::stage::{Core, distance, two_cores};
use floors::{bulk, crowd, ipc, kernel, ring, threads};
use ours::Receive;

/// What a raw ring has room for: as much as the caches next to a core hold. With more, its reader may lag so far behind that the two hardly
/// ever touch the same lines, and then it is several times as fast, in some runs; that one is printed, too.
const RING: usize = 64 << 10;
/// Half of what a ring of mproc's becomes when it is in use.
const LARGE_RING: usize = 1 << 20;

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Full,
    Quick,
    /// Only whether it works.
    Test,
}

impl Mode {
    fn pick<T>(self, full: T, quick: T, test: T) -> T {
        match self {
            Self::Full => full,
            Self::Quick => quick,
            Self::Test => test,
        }
    }
}

/// Those who are measured beside each other.
struct Field<'a> {
    title: String,
    unit: Unit,
    /// After this no more rounds are begun.
    longest: Duration,
    runners: Vec<Runner<'a>>,
}

struct Runner<'a> {
    name: String,
    /// Runs in one of so many rounds; slow ones would take all the time.
    every: usize,
    run: Box<dyn FnMut() -> f64 + 'a>,
    /// Those of the rounds in which it was not its turn are missing.
    blocks: Vec<Option<Block>>,
}

#[derive(Clone, Copy)]
struct Block {
    /// Nanoseconds for each message or round trip.
    time: f64,
    /// How far apart the cores were before and after it.
    distances: [f64; 2],
}

impl Block {
    /// Whether the cores were equally far apart, more or less, all the time.
    fn is_like(&self, other: &Self) -> bool {
        let distances = || self.distances.iter().chain(&other.distances).copied();
        let shortest = distances().fold(f64::INFINITY, f64::min);
        distances().all(|distance| distance <= 2.5 * shortest)
    }
}

#[derive(Clone, Copy)]
enum Unit {
    MillionsPerSecond,
    Microseconds,
    /// Of messages of so many bytes.
    MebibytesPerSecond(usize),
}

impl Unit {
    fn of(self, nanoseconds: f64) -> f64 {
        match self {
            Self::MillionsPerSecond => 1e3 / nanoseconds,
            Self::Microseconds => nanoseconds / 1e3,
            Self::MebibytesPerSecond(size) => size as f64 / nanoseconds * 1e9 / (1 << 20) as f64,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::MillionsPerSecond => "M/s",
            Self::Microseconds => "µs",
            Self::MebibytesPerSecond(_) => "MiB/s",
        }
    }

    fn digits(self) -> usize {
        match self {
            Self::MillionsPerSecond => 2,
            Self::Microseconds => 3,
            Self::MebibytesPerSecond(_) => 0,
        }
    }
}

/// What DESIGN asks of ours beside a floor.
#[derive(Clone, Copy)]
enum Promise {
    /// As a part of the floor's rate.
    AtLeast(f64),
    /// As a multiple of the floor's time.
    AtMost(f64),
    Nothing,
}

impl Runner<'_> {
    fn times(&self) -> Vec<f64> {
        let blocks = self.blocks.iter().flatten();
        blocks.map(|block| block.time).collect()
    }
}

impl<'a> Field<'a> {
    fn new(mode: Mode, title: impl Into<String>, unit: Unit) -> Self {
        Self {
            title: title.into(),
            unit,
            longest: Duration::from_secs(mode.pick(35, 7, 1)),
            runners: Vec::new(),
        }
    }

    fn add(&mut self, name: impl Into<String>, run: impl FnMut() -> f64 + 'a) {
        self.add_slow(name, 1, run);
    }

    fn add_slow(&mut self, name: impl Into<String>, every: usize, run: impl FnMut() -> f64 + 'a) {
        self.runners.push(Runner {
            name: name.into(),
            every,
            run: Box::new(run),
            blocks: Vec::new(),
        });
    }

    /// Runs all of them in turns and prints the table. On a machine that is busy with something else, fewer rounds fit into its time.
    fn run(&mut self, rounds: usize) {
        let started = Instant::now();
        let mut done = 0;
        let cores = two_cores();
        let mut apart = distance(cores);
        for round in 0..rounds {
            if round >= 3 && started.elapsed() > self.longest {
                break;
            }
            done = round + 1;
            let mut turn: Vec<_> = self.runners.iter_mut().collect();
            // There and back, so that nobody always follows the same neighbour.
            if round % 2 == 1 {
                turn.reverse();
            }
            for runner in turn {
                let due = round % runner.every == 0;
                let block = due.then(|| {
                    let time = (runner.run)();
                    let before = std::mem::replace(&mut apart, distance(cores));
                    let distances = [before, apart];
                    Block { time, distances }
                });
                runner.blocks.push(block);
            }
        }
        let (unit, digits) = (self.unit, self.unit.digits());
        println!("\n{}, {}, {done} blocks", self.title, unit.name());
        let blocks = self.runners.iter().flat_map(|runner| &runner.blocks);
        let mut distances: Vec<f64> = blocks.flatten().map(|block| block.distances[1]).collect();
        println!(
            "  between the cores, there and back: median {:.0} ns, min {:.0}, max {:.0}",
            median(&mut distances),
            distances[0],
            distances[distances.len() - 1]
        );
        for runner in &self.runners {
            let mut blocks = runner.times();
            let median = unit.of(median(&mut blocks));
            let mut ends = [blocks[0], blocks[blocks.len() - 1]].map(|block| unit.of(block));
            ends.sort_by(f64::total_cmp);
            println!(
                "  {:<52} median {median:9.digits$}   min {:9.digits$}   max {:9.digits$}",
                runner.name, ends[0], ends[1]
            );
        }
    }

    fn runner(&self, name: &str) -> &Runner<'a> {
        let found = self.runners.iter().find(|runner| runner.name == name);
        found.unwrap_or_else(|| panic!("{name} runs in this field"))
    }

    fn median_of(&self, name: &str) -> f64 {
        median(&mut self.runner(name).times())
    }

    /// The fastest of those whose name begins so.
    fn best(&self, prefix: &str) -> String {
        let names = self.runners.iter().map(|runner| &runner.name);
        names
            .filter(|name| name.starts_with(prefix))
            .min_by(|a, b| self.median_of(a).total_cmp(&self.median_of(b)))
            .expect("somebody with this name")
            .clone()
    }

    fn compare(&self, ours: &str, floor: &str, promise: Promise) {
        let (our_time, floor_time) = (self.median_of(ours), self.median_of(floor));
        let pairs = self.runner(ours).blocks.iter();
        let pairs = pairs.zip(&self.runner(floor).blocks);
        let pairs: Vec<_> = pairs
            .filter_map(|(ours, floor)| Some(((*ours)?, (*floor)?)))
            .collect();
        let ratio = |(ours, floor): &(Block, Block)| ours.time / floor.time;
        let alike = pairs.iter().filter(|(ours, floor)| ours.is_like(floor));
        let mut ratios: Vec<f64> = alike.map(ratio).collect();
        let compared = ratios.len();
        if ratios.is_empty() {
            ratios.extend(pairs.iter().map(ratio));
        }
        let between = median(&mut ratios);
        let (ratio, between, asked, kept) = match promise {
            Promise::AtMost(most) => {
                let ratio = our_time / floor_time;
                let kept = ratio.min(between) <= most;
                (ratio, between, format!("≤ {most}"), kept)
            }
            Promise::AtLeast(least) => {
                let (ratio, between) = (floor_time / our_time, 1.0 / between);
                let kept = ratio.max(between) >= least;
                (ratio, between, format!("≥ {least}"), kept)
            }
            Promise::Nothing => (floor_time / our_time, 1.0 / between, "nothing".into(), true),
        };
        let (unit, digits) = (self.unit, self.unit.digits());
        println!(
            "  → {ours}: ours {:.digits$}, floor {:.digits$} {} ({floor}), ratio {ratio:.3}, of {compared} pairs {between:.3}, promised {asked}{}",
            unit.of(our_time),
            unit.of(floor_time),
            unit.name(),
            if kept { "" } else { "  ← MISSED" },
        );
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn mean(values: Vec<f64>) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn one_way(mode: Mode, cores: [Core; 2]) {
    let counts: &[u64] = mode.pick(&[1_000_000, 10_000_000], &[1_000_000, 10_000_000], &[1000]);
    for &count in counts {
        let long = count > 1_000_000;
        let mut field = Field::new(
            mode,
            format!("one way, {count} u64, one message each"),
            Unit::MillionsPerSecond,
        );
        field.add("raw ring", || ring::one_way(RING, count, false, cores));
        field.add("mproc pipe", || ours::one_way(count, cores));
        field.add("mproc pipe, placed by the scheduler", || {
            ours::one_way(count, [None; 2])
        });
        field.add("mproc pipe, send_bytes", || {
            ours::one_way_bytes(count, cores)
        });
        field.add("raw ring of 1 MiB", || {
            ring::one_way(LARGE_RING, count, false, cores)
        });
        field.add("raw ring, leanest", || {
            ring::one_way(RING, count, true, cores)
        });
        field.add("crossbeam threads, bounded", || {
            threads::crowd(Some(RING / 16), 1, count, cores)
        });
        field.add("crossbeam threads, unbounded", || {
            threads::crowd(None, 1, count, cores)
        });
        if !long {
            field.add_slow("kernel pipe", 3, || kernel::one_way(count, cores));
            field.add_slow("ipc-channel", 6, || ipc::one_way(count, cores));
        }
        field.run(mode.pick(if long { 7 } else { 13 }, 7, 1));
        field.compare("mproc pipe", "raw ring", Promise::AtLeast(0.5));
        field.compare("mproc pipe", "raw ring of 1 MiB", Promise::Nothing);
        field.compare("mproc pipe", "raw ring, leanest", Promise::Nothing);
        field.compare("mproc pipe, send_bytes", "raw ring", Promise::AtLeast(0.5));
    }
}

fn round_trip(mode: Mode, cores: [Core; 2]) {
    let count = mode.pick(1_000_000, 300_000, 1000);
    let mut field = Field::new(
        mode,
        "round trip, both awake on two cores",
        Unit::Microseconds,
    );
    field.add("raw ring, spinning", || ring::round_trip(count, cores));
    field.add("mproc duplex", || ours::round_trip(count, cores));
    field.add("kernel pipe, back to back", || {
        mean(kernel::round_trips(count / 300, cores, || ()))
    });
    field.run(mode.pick(13, 7, 1));
    let ours = field.median_of("mproc duplex") / 1e3;
    field.compare("mproc duplex", "raw ring, spinning", Promise::Nothing);
    println!(
        "  → mproc duplex: ours {ours:.3} µs, promised ≤ 0.5 µs{}",
        if ours <= 0.5 { "" } else { "  ← MISSED" }
    );

    let pairs = mode.pick(20, 20, 1);
    let one_core = [cores[0]; 2];
    let trips = mode.pick(60, 20, 3);
    for (where_, cores) in [("two cores", cores), ("one core", one_core)] {
        let rest = || std::thread::sleep(Duration::from_millis(1));
        let mut field = Field::new(
            mode,
            format!("round trip to one asleep, a pause of 1 ms before each, {where_}"),
            Unit::Microseconds,
        );
        field.add("kernel pipe", || {
            median(&mut kernel::round_trips(trips, cores, rest))
        });
        field.add("mproc duplex", || {
            median(&mut ours::round_trips(trips, cores, rest))
        });
        field.run(pairs);
        field.compare("mproc duplex", "kernel pipe", Promise::AtMost(1.2));
    }

    let trips = mode.pick(10_000, 3000, 100);
    let mut field = Field::new(
        mode,
        "round trip back to back on one core, where spinning can only lose",
        Unit::Microseconds,
    );
    field.add("kernel pipe", || {
        mean(kernel::round_trips(trips, one_core, || ()))
    });
    field.add("mproc duplex", || {
        mean(ours::round_trips(trips, one_core, || ()))
    });
    field.run(pairs);
    field.compare("mproc duplex", "kernel pipe", Promise::AtMost(1.2));
}

fn large(mode: Mode, cores: [Core; 2]) {
    for (size, count) in [
        (1 << 20, mode.pick(1000, 400, 3)),
        (64 << 20, mode.pick(8, 5, 1)),
    ] {
        let ways = [
            ("whole, two buffers", Way::whole(size)),
            ("streamed, 64 KiB of 256 KiB", Way::streamed(64 << 10, 4)),
            ("streamed, 256 KiB of 1 MiB", Way::streamed(256 << 10, 4)),
            (
                "in pieces, 64 KiB of 256 KiB",
                Way::streamed(64 << 10, 4).in_pieces(),
            ),
            (
                "in pieces, 64 KiB of 1 MiB",
                Way::streamed(64 << 10, 16).in_pieces(),
            ),
            ("streamed, 256 KiB of 4 MiB", Way::streamed(256 << 10, 16)),
            ("in pieces, whole", Way::whole(size).in_pieces()),
        ];
        let ways = &ways[..mode.pick(7, 5, 2)];
        let mut field = Field::new(
            mode,
            format!("messages of {} MiB", size >> 20),
            Unit::MebibytesPerSecond(size),
        );
        for &(name, way) in ways {
            field.add(format!("floor: {name}"), move || {
                bulk::one_way(way, size, count, false, cores)
            });
        }
        for &(name, way) in ways {
            field.add(format!("allocating floor: {name}"), move || {
                bulk::one_way(way, size, count, true, cores)
            });
        }
        field.add("mproc send_bytes → recv_bytes_into", || {
            ours::bulk(Receive::Into, size, count, cores)
        });
        field.add("mproc send_bytes → recv_bytes", || {
            ours::bulk(Receive::Owned, size, count, cores)
        });
        field.add_slow("mproc send → recv, serde_bytes", 3, || {
            ours::bulk(Receive::Blob, size, count.div_ceil(4), cores)
        });
        field.add_slow("mproc send → recv, Vec<u8>", 5, || {
            ours::bulk(Receive::Elements, size, count.div_ceil(20), cores)
        });
        field.add_slow("ipc-channel, bytes", 3, || {
            ipc::bulk(size, count.div_ceil(4), cores)
        });
        field.run(mode.pick(11, 5, 1));
        let into = "mproc send_bytes → recv_bytes_into";
        field.compare(into, &field.best("floor"), Promise::AtLeast(0.9));
        field.compare(into, "floor: whole, two buffers", Promise::Nothing);
        let owned = "mproc send_bytes → recv_bytes";
        let best = field.best("allocating floor");
        field.compare(owned, &best, Promise::AtLeast(0.9));
    }
}

fn queue(mode: Mode) {
    let count = mode.pick(2_000_000, 1_000_000, 1000);
    let nowhere = [None; 2];
    let mut field = Field::new(
        mode,
        format!("queue, 2 producers, 2 consumers, {count} u64, placed by the scheduler"),
        Unit::MillionsPerSecond,
    );
    field.add("raw ring for all", || crowd::shared(RING, count));
    field.add("mproc Queue", || ours::crowd(None, count));
    field.add("mproc Queue, bounded", || {
        ours::crowd(Some(RING / 16), count)
    });
    field.add("two raw rings, one for each pair", || {
        crowd::apart(RING, count)
    });
    field.add("crossbeam threads, bounded", || {
        threads::crowd(Some(RING / 16), 2, count, nowhere)
    });
    field.add("crossbeam threads, unbounded", || {
        threads::crowd(None, 2, count, nowhere)
    });
    field.add_slow("shared kernel pipe", 4, || kernel::crowd(count / 4));
    field.add_slow("ipc-channel, 1 consumer", 4, || ipc::crowd(count / 4));
    field.run(mode.pick(15, 9, 1));
    field.compare("mproc Queue", "raw ring for all", Promise::AtLeast(0.3));
    field.compare(
        "mproc Queue",
        "two raw rings, one for each pair",
        Promise::Nothing,
    );
    field.compare(
        "mproc Queue, bounded",
        "raw ring for all",
        Promise::AtLeast(0.3),
    );
}

/// What stands beside the numbers: without it they mean nothing a month later.
fn print_where() {
    let says = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output();
        let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
        text.unwrap_or_default()
    };
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let processors = read("/proc/cpuinfo");
    let model = processors
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    println!(
        "{} × {}, Linux {}, load {}",
        std::thread::available_parallelism().map_or(0, usize::from),
        model.unwrap_or("unknown processor"),
        says("uname", &["-r"]),
        read("/proc/loadavg").split(' ').next().unwrap_or("unknown"),
    );
    let load = read("/proc/loadavg");
    if load
        .split(' ')
        .next()
        .and_then(|load| load.parse::<f64>().ok())
        .is_some_and(|load| load > 0.5)
    {
        println!(
            "somebody else is using this machine: what needs two cores to itself will look worse than it is"
        );
    }
    let dirty = !says("git", &["status", "--porcelain", "--untracked-files=no"]).is_empty();
    println!(
        "commit {}{}, {}, {}",
        says("git", &["rev-parse", "--short", "HEAD"]),
        if dirty { " with changes" } else { "" },
        says("rustc", &["-V"]),
        ["crossbeam-channel", "ipc-channel"]
            .map(|name| format!("{name} {}", locked_version(name)))
            .join(", "),
    );
}

fn locked_version(name: &str) -> String {
    let lock = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.lock"));
    let lock = lock.unwrap_or_default();
    let mut lines = lock.lines();
    lines.find(|line| *line == format!("name = \"{name}\""));
    let version = lines
        .next()
        .and_then(|line| line.strip_prefix("version = "));
    version.unwrap_or("unknown").trim_matches('"').to_owned()
}

mproc::main! {
    fn main() -> mproc::Result<()> {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let has = |word: &str| arguments.iter().any(|argument| argument == word);
        let mode = if has("--test") { Mode::Test } else if has("quick") { Mode::Quick } else { Mode::Full };
        let sections = ["oneway", "roundtrip", "large", "queue", "idle"];
        let all = !sections.iter().any(|section| has(section));
        let runs = |section: &str| all || has(section);
        print_where();
        let cores = two_cores();
        if cores[0] == cores[1] {
            println!("only one core here: what needs two says nothing");
        }
        if runs("oneway") {
            one_way(mode, cores);
        }
        if runs("roundtrip") {
            round_trip(mode, cores);
        }
        if runs("large") {
            large(mode, cores);
        }
        if runs("queue") {
            queue(mode);
        }
        if runs("idle") {
            ours::idle(mode.pick(2000, 2000, 50))?;
        }
        Ok(())
    }
}
