//! What a pool costs: each task alone, many at once, spread over cores, and waiting in a queue.
//!
//! ```text
//! cargo bench -p mproc --bench pool                   # all of it, a minute
//! cargo bench -p mproc --bench pool -- quick apply    # some of: one map spread apply async memory
//! ```
//!
//! Beside ours stand a raw pool over shared memory ([`floors::crew`]), which can do nothing but this, and rayon's threads. All of a table take turns; printed are
//! the median of the rounds and the extremes.

#[allow(dead_code, reason = "the other benches use the rest")]
mod floors;

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use floors::crew;
use floors::stage::{distance, two_cores};
use mproc::Pool;
use rayon::iter::{IndexedParallelIterator, IntoParallelIterator, ParallelIterator};

/// Counts what is allocated, as the C library rounds it: sixteen bytes, of which eight are its own.
struct Counting;

static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

fn rounded(layout: Layout) -> usize {
    (layout.size() + 8).next_multiple_of(16).max(32)
}

// SAFETY: the system's allocator, with a count beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(rounded(layout), Relaxed);
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(rounded(layout), Relaxed);
        // SAFETY: the caller's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[mproc::entry]
fn square(x: u64) -> u64 {
    x.wrapping_mul(x)
}

#[mproc::entry]
fn burn(rounds: u64) -> u32 {
    crew::burn(rounds);
    core()
}

#[mproc::entry]
fn wait_for_file(path: &str) {
    while !std::path::Path::new(path).exists() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

fn core() -> u32 {
    // SAFETY: takes and touches nothing.
    unsafe { nix::libc::sched_getcpu() }.cast_unsigned()
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Runs all in turns and prints their medians, in the unit that `show` makes of nanoseconds.
fn table(
    title: &str,
    unit: &str,
    rounds: usize,
    show: fn(f64) -> f64,
    runners: &mut [(&str, &mut dyn FnMut() -> f64)],
) {
    let mut times: Vec<Vec<f64>> = runners.iter().map(|_| Vec::new()).collect();
    let mut apart = Vec::new();
    for _ in 0..rounds {
        apart.push(distance(two_cores()));
        for (times, (_, run)) in times.iter_mut().zip(runners.iter_mut()) {
            times.push(show(run()));
        }
    }
    println!("\n{title}, {unit}, {rounds} rounds");
    println!(
        "  between the cores, there and back: median {:.0} ns, min {:.0}, max {:.0}",
        median(&mut apart),
        apart[0],
        apart[apart.len() - 1]
    );
    for (times, (name, _)) in times.iter_mut().zip(runners.iter()) {
        let median = median(times);
        let (least, most) = (times[0], times[times.len() - 1]);
        println!("  {name:<44} median {median:9.3}   min {least:9.3}   max {most:9.3}");
    }
}

fn millions(nanoseconds: f64) -> f64 {
    1e3 / nanoseconds
}

fn each(start: Instant, count: u64) -> f64 {
    start.elapsed().as_nanos() as f64 / count as f64
}

fn one_by_one(pool: &Pool, threads: &rayon::ThreadPool, rounds: usize) {
    const COUNT: u64 = 200_000;
    table(
        "map of x², chunk 1 (promised 2 M/s)",
        "M/s",
        rounds,
        millions,
        &mut [
            ("mproc", &mut || {
                let start = Instant::now();
                let squares = pool.calls().chunk_size(1).map::<square>(0..COUNT);
                assert_eq!(squares.expect("values").len() as u64, COUNT);
                each(start, COUNT)
            }),
            ("raw shared memory", &mut || crew::squares(COUNT, 4096)),
            ("rayon, a task each", &mut || {
                threads.install(|| {
                    let start = Instant::now();
                    let squares: Vec<u64> = (0..COUNT as usize)
                        .into_par_iter()
                        .with_max_len(1)
                        .map(|x| square(x as u64))
                        .collect();
                    black_box(squares);
                    each(start, COUNT)
                })
            }),
        ],
    );
}

fn many(pool: &Pool, threads: &rayon::ThreadPool, rounds: usize) {
    const COUNT: u64 = 1_000_000;
    table(
        "map of x², 10⁶ items (promised 100 M/s)",
        "M/s",
        rounds,
        millions,
        &mut [
            ("mproc", &mut || {
                let start = Instant::now();
                let squares = pool.map::<square>(0..COUNT).expect("values");
                let time = each(start, COUNT);
                assert_eq!((squares.len() as u64, squares[77]), (COUNT, 77 * 77));
                time
            }),
            ("raw shared memory", &mut || crew::squares(COUNT, 8192)),
            ("rayon", &mut || {
                threads.install(|| {
                    let start = Instant::now();
                    let squares: Vec<u64> = (0..COUNT).into_par_iter().map(square).collect();
                    black_box(squares);
                    each(start, COUNT)
                })
            }),
        ],
    );
}

fn spread(rounds: usize) {
    let cores = two_cores();
    const TASKS: u64 = 2000;
    // One millisecond, undisturbed.
    let start = Instant::now();
    crew::burn(10_000_000);
    let per_round = start.elapsed().as_nanos() as f64 / 1e7;
    let work = (1e6 / per_round) as u64;
    let mut ratios = Vec::new();
    let (mut ups, mut bares, mut together) = (Vec::new(), Vec::new(), 0);
    for _ in 0..rounds {
        let alone = crew::burn_pinned(TASKS / 4, work, &cores[..1]) * 4.0;
        let bare = crew::burn_pinned(TASKS, work, &cores);
        let pool = Pool::new(2).expect("a pool");
        pool.map::<burn>([10, 10]).expect("they run");
        let start = Instant::now();
        let places = pool
            .calls()
            .chunk_size(1)
            .map::<burn>((0..TASKS).map(|_| work));
        let ours = start.elapsed().as_nanos() as f64;
        let places = places.expect("values");
        let first = places.iter().filter(|place| **place == places[0]).count();
        let share = first as f64 / TASKS as f64;
        together += usize::from(!(0.4..=0.6).contains(&share));
        ups.push(alone / ours);
        bares.push(alone / bare);
        ratios.push(bare / ours);
    }
    println!(
        "\n{TASKS} tasks of 1 ms on 2 workers, {rounds} rounds (promised 0.975 of two bare pinned processes)"
    );
    println!(
        "  speed-up {:.3}, bare {:.3}; ratio median {:.3}, min {:.3}",
        median(&mut ups),
        median(&mut bares),
        median(&mut ratios),
        ratios[0]
    );
    println!("  rounds in which one core had more than 60 %: {together}");
}

fn apply(pool: &Pool, threads: &rayon::ThreadPool, rounds: usize) {
    const COUNT: u64 = 20_000;
    let cores = two_cores();
    table(
        "apply, there and back, worker awake (promised 1 µs)",
        "µs",
        rounds,
        |nanoseconds| nanoseconds / 1e3,
        &mut [
            ("mproc", &mut || {
                let start = Instant::now();
                for x in 0..COUNT {
                    assert_eq!(pool.apply(square::bind(x)).expect("a value"), x * x);
                }
                each(start, COUNT)
            }),
            ("raw shared memory", &mut || {
                floors::ring::round_trip(COUNT, cores)
            }),
            ("rayon, install", &mut || {
                let start = Instant::now();
                for x in 0..COUNT {
                    assert_eq!(threads.install(|| square(x)), x * x);
                }
                each(start, COUNT)
            }),
        ],
    );
}

fn asynchronous(pool: &Pool, threads: &rayon::ThreadPool, rounds: usize) {
    const COUNT: u64 = 10_000;
    table(
        "apply_async, 10⁴ outstanding (promised 2 M/s)",
        "M/s",
        rounds,
        millions,
        &mut [
            ("mproc", &mut || {
                let start = Instant::now();
                let results: Vec<_> = (0..COUNT)
                    .map(|x| pool.apply_async(square::bind(x)).expect("it is taken"))
                    .collect();
                for (x, result) in (0..COUNT).zip(results) {
                    assert_eq!(result.get().expect("a value"), x * x);
                }
                each(start, COUNT)
            }),
            ("raw shared memory", &mut || crew::squares(COUNT, COUNT)),
            ("rayon, spawn and a channel each", &mut || {
                let start = Instant::now();
                let results: Vec<_> = (0..COUNT)
                    .map(|x| {
                        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
                        threads.spawn(move || sender.send(square(x)).expect("a reader"));
                        receiver
                    })
                    .collect();
                for (x, result) in (0..COUNT).zip(results) {
                    assert_eq!(result.recv().expect("a value"), x * x);
                }
                each(start, COUNT)
            }),
        ],
    );
}

fn memory() {
    const COUNT: u64 = 1_000_000;
    let pool = Pool::new(2).expect("a pool");
    let path = std::env::temp_dir().join(format!("mproc-bench-{}", std::process::id()));
    let text = path.to_str().expect("a path");
    let held: Vec<_> = (0..2)
        .map(|_| {
            pool.apply_async(wait_for_file::bind(text))
                .expect("it is taken")
        })
        .collect();
    let mut results = Vec::with_capacity(COUNT as usize);
    let before = ALLOCATED.load(Relaxed);
    results.extend((0..COUNT).map(|x| pool.apply_async(square::bind(x)).expect("it is taken")));
    let each =
        (ALLOCATED.load(Relaxed) - before) as f64 / COUNT as f64 + size_of_val(&results[0]) as f64;
    println!("\n10⁶ outstanding tasks: {each:.0} bytes each, arguments and all (promised 200)");
    std::fs::write(&path, "").expect("it can be written");
    for result in held {
        result.get().expect("a value");
    }
    for (x, result) in (0..COUNT).zip(results) {
        assert_eq!(result.get().expect("a value"), x * x);
    }
    let _ = std::fs::remove_file(&path);
}

fn run() -> mproc::Result<()> {
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'))
        .collect();
    let quick = words.iter().any(|word| word == "quick");
    let test = std::env::args().any(|word| word == "--test");
    let rounds = if test {
        1
    } else if quick {
        7
    } else {
        21
    };
    let names: Vec<_> = words.iter().filter(|word| *word != "quick").collect();
    let asked = |name: &str| names.is_empty() || names.iter().any(|word| *word == name);
    let threads = rayon::ThreadPoolBuilder::new()
        .num_threads(2)
        .build()
        .expect("threads");
    let pool = Pool::new(2)?;
    pool.map::<square>(0..1000)?;
    if asked("one") {
        one_by_one(&pool, &threads, rounds);
    }
    if asked("map") {
        many(&pool, &threads, rounds);
    }
    if asked("apply") {
        apply(&pool, &threads, rounds);
    }
    if asked("async") {
        asynchronous(&pool, &threads, rounds);
    }
    if asked("spread") {
        spread(if test {
            1
        } else if quick {
            5
        } else {
            20
        });
    }
    if asked("memory") {
        memory();
    }
    Ok(())
}

mproc::main!(run);
