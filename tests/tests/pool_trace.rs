//! A pool's timeline, against the rules of the trace event format: each task once, workers that come and go, and a file that is whole
//! whatever happens.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use mproc::{ErrorKind, Pool, Queue};
use mproc_tests::{ScratchFile, dose, eventually, watchdog};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigHandler, Signal, raise, signal};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(120);

#[mproc::entry]
fn square(x: i64) -> i64 {
    x * x
}

#[mproc::entry]
fn end_badly(how: u32) -> u32 {
    match how {
        1 => panic!("as \"told\"\n"),
        2 => std::process::exit(7),
        3 => {
            raise(Signal::SIGKILL).unwrap();
        }
        _ => {}
    }
    how
}

#[mproc::entry]
fn die_once(calls: &Queue<u32>) {
    calls.put(0).unwrap();
    if calls.len() == 1 {
        raise(Signal::SIGKILL).unwrap();
    }
}

#[mproc::entry]
fn hang(begun: &Queue<u32>) {
    begun.put(std::process::id()).unwrap();
    loop {
        thread::park();
    }
}

#[mproc::entry]
fn long(bytes: Vec<u8>) -> Vec<u8> {
    bytes
}

/// A task as the trace has it.
#[derive(Debug)]
struct Task {
    name: String,
    track: u64,
    outcome: String,
    duration: f64,
    waited: Option<f64>,
    error: Option<String>,
}

/// What is in a trace, whose events all keep the rules.
#[derive(Debug, Default)]
struct Timeline {
    /// By the numbers of their call and in it.
    tasks: BTreeMap<(u64, u64), Task>,
    /// Attempts in vain.
    retried: usize,
    /// How the worker of each track ended.
    ends: BTreeMap<u64, Option<String>>,
    names: BTreeMap<u64, String>,
    seats: BTreeMap<u64, u64>,
    notes: Vec<String>,
    most_waiting: u64,
}

impl Timeline {
    fn outcomes(&self) -> BTreeMap<&str, usize> {
        let mut outcomes = BTreeMap::new();
        for task in self.tasks.values() {
            *outcomes.entry(&*task.outcome).or_default() += 1;
        }
        outcomes
    }

    fn of(&self, call: u64) -> Vec<&Task> {
        self.tasks
            .range((call, 0)..(call + 1, 0))
            .map(|(_, task)| task)
            .collect()
    }
}

fn text(event: &Value, key: &str) -> String {
    let value = event[key].as_str();
    value
        .unwrap_or_else(|| panic!("no string `{key}`: {event}"))
        .to_owned()
}

fn number(event: &Value, key: &str) -> u64 {
    let value = event[key].as_u64();
    value.unwrap_or_else(|| panic!("no number `{key}`: {event}"))
}

fn time(event: &Value, key: &str) -> f64 {
    let value = event[key].as_f64();
    value.unwrap_or_else(|| panic!("no time `{key}`: {event}"))
}

/// Nanoseconds become microseconds with three digits, which are added.
const ROUNDING: f64 = 0.002;

fn read(path: &Path) -> Timeline {
    let text = std::fs::read_to_string(path).unwrap();
    check(&serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")))
}

/// The rules: keys of each phase, nesting, and times that go on.
fn check(trace: &Value) -> Timeline {
    let mut timeline = Timeline::default();
    // By track: the latest time, and whether a worker is there.
    let mut tracks = BTreeMap::<u64, (f64, bool)>::new();
    let mut waits = BTreeMap::<String, f64>::new();
    let mut counted = 0.0;
    for event in trace["traceEvents"].as_array().expect("an array") {
        let (phase, name) = (text(event, "ph"), text(event, "name"));
        let (process, track) = (number(event, "pid"), number(event, "tid"));
        let now = time(event, "ts");
        assert!(process > 0 && now >= 0.0, "{event}");
        if phase == "M" {
            if name == "thread_name" {
                timeline.names.insert(track, text(&event["args"], "name"));
            } else {
                assert_eq!(name, "process_name");
                text(&event["args"], "name");
            }
            continue;
        }
        let (last, is_there) = tracks.entry(track).or_default();
        match &*phase {
            "B" => {
                assert!(!*is_there && timeline.ends.insert(track, None).is_none());
                timeline.seats.insert(track, number(&event["args"], "seat"));
                (*last, *is_there) = (now, true);
            }
            "E" => {
                assert!(*is_there && now >= *last - ROUNDING, "{last} {event}");
                timeline
                    .ends
                    .insert(track, Some(text(&event["args"], "how")));
                (*last, *is_there) = (now, false);
            }
            "X" => {
                let duration = time(event, "dur");
                assert!(now >= *last - ROUNDING && duration >= 0.0, "{last} {event}");
                assert!(*is_there || (track, duration) == (process, 0.0), "{event}");
                *last = now + duration;
                let args = &event["args"];
                if text(event, "cat") == "worker" {
                    assert_eq!(name, "start");
                } else if args["outcome"] == "retried" {
                    timeline.retried += 1;
                } else {
                    let key = (number(args, "call"), number(args, "index"));
                    let task = Task {
                        name,
                        track,
                        outcome: text(args, "outcome"),
                        duration,
                        waited: args["waited_us"].as_f64(),
                        error: args["error"].as_str().map(str::to_owned),
                    };
                    let before = timeline.tasks.insert(key, task);
                    assert!(before.is_none(), "twice: {event}");
                }
            }
            "i" => {
                assert!(now >= *last - ROUNDING && event["s"] == "p", "{event}");
                *last = now;
                timeline.notes.push(name);
            }
            "b" => {
                assert_eq!(text(event, "cat"), "wait");
                assert!(waits.insert(text(event, "id"), now).is_none(), "{event}");
            }
            "e" => {
                let began = waits.remove(&text(event, "id"));
                assert!(
                    began.is_some_and(|began| began <= now + ROUNDING),
                    "{event}"
                );
            }
            "C" => {
                assert!(counted <= now);
                counted = now;
                number(&event["args"], "running");
                let waiting = number(&event["args"], "waiting");
                timeline.most_waiting = timeline.most_waiting.max(waiting);
            }
            other => panic!("phase {other}: {event}"),
        }
    }
    assert!(waits.is_empty(), "still waiting: {waits:?}");
    let named: BTreeSet<_> = timeline.names.keys().collect();
    assert!(tracks.keys().all(|track| named.contains(track)));
    timeline
}

fn traced(processes: usize, file: &ScratchFile) -> Pool {
    let builder = Pool::builder().processes(processes);
    builder.trace(file.path()).start().unwrap()
}

#[test]
fn every_task_is_there_once_with_what_came_of_it() {
    let _watchdog = watchdog("every_task_is_there_once", LIMIT);
    let file = ScratchFile::new("trace.json");
    let pool = traced(2, &file);
    pool.map::<square>(0..100).unwrap(); // 1
    pool.calls().chunk_size(1).map::<square>(0..10).unwrap(); // 2
    let lazy = pool
        .calls()
        .chunk_size(3)
        .imap_unordered::<end_badly, _>(0..10); // 3
    assert_eq!(lazy.filter(Result::is_ok).count(), 7);
    pool.calls()
        .retries(1)
        .apply(die_once::bind(&Queue::new().unwrap()))
        .unwrap(); // 4
    pool.apply(long::bind(vec![7; 1 << 20])).unwrap(); // 5
    let late = pool.calls().timeout(Duration::from_millis(20));
    let error = late.apply(hang::bind(&Queue::new().unwrap())).unwrap_err(); // 6
    assert_eq!(error.kind(), ErrorKind::Timeout);
    let begun = Queue::new().unwrap();
    let hanging = [(); 2].map(|()| pool.apply_async(hang::bind(&begun)).unwrap()); // 7, 8
    let ids = [(); 2].map(|()| begun.get().unwrap());
    assert_ne!(ids[0], ids[1]);
    let never = pool
        .calls()
        .chunk_size(4)
        .map_async::<square>(0..10)
        .unwrap(); // 9
    never.cancel();
    assert_eq!(never.get().unwrap_err().kind(), ErrorKind::Cancelled);
    hanging[0].cancel();
    hanging[0].wait();
    pool.terminate();
    pool.join();

    let timeline = read(file.path());
    let expected = [
        ("cancelled", 11),
        ("died", 2),
        ("panicked", 1),
        ("shut down", 1),
        ("timed out", 1),
        ("value", 100 + 10 + 7 + 1 + 1),
    ];
    assert_eq!(timeline.outcomes(), BTreeMap::from(expected));
    assert_eq!(timeline.retried, 1);
    assert_eq!(timeline.of(1).len(), 100);
    assert!(timeline.of(1)[0].name.ends_with("square"));
    // A chunk waits as one.
    assert_eq!(
        timeline
            .of(1)
            .iter()
            .filter(|task| task.waited.is_some())
            .count(),
        8
    );
    assert!(timeline.of(2).iter().all(|task| task.waited.is_some()));
    let bad = timeline.of(3);
    let outcomes: Vec<_> = bad[..5].iter().map(|task| &*task.outcome).collect();
    assert_eq!(outcomes, ["value", "panicked", "died", "died", "value"]);
    assert!(bad[1].error.as_ref().unwrap().contains("as \"told\"\n"));
    assert!(bad[3].error.as_ref().unwrap().contains("signal 9"));
    let own = u64::from(std::process::id());
    let late = timeline.of(6)[0];
    assert!(late.track != own && late.duration >= 20_000.0, "{late:?}");
    assert!(
        timeline
            .of(9)
            .iter()
            .all(|task| (task.track, &*task.outcome) == (own, "cancelled"))
    );
    assert_eq!(timeline.notes.len(), 1, "{:?}", timeline.notes);

    // Two at the beginning; in place of one each that exited, was killed, was killed and tried again, was late, and was cancelled.
    assert_eq!(timeline.ends.len(), 2 + 5, "{timeline:#?}");
    let how = |text: &str| {
        let ends = timeline.ends.values().flatten();
        ends.filter(|end| end.contains(text)).count()
    };
    assert_eq!((how("signal 9"), how("exit"), how("dismissed")), (4, 1, 2));
    let names: BTreeSet<_> = timeline
        .seats
        .keys()
        .map(|track| &timeline.names[track])
        .collect();
    let expected: Vec<_> = (1..=7)
        .map(|number| format!("PoolWorker-{number}"))
        .collect();
    assert_eq!(Vec::from_iter(names), Vec::from_iter(&expected));
    assert!(timeline.seats.values().all(|seat| *seat < 2));
}

#[test]
fn a_worker_that_has_done_its_share_is_followed_by_another() {
    let _watchdog = watchdog("a_worker_that_has_done_its_share", LIMIT);
    let file = ScratchFile::new("trace.json");
    let builder = Pool::builder().processes(1).max_tasks_per_child(3);
    let pool = builder.trace(file.path()).start().unwrap();
    pool.map::<square>(0..10).unwrap();
    drop(pool);
    let timeline = read(file.path());
    let tracks = timeline.of(1).into_iter().map(|task| task.track);
    let names = tracks.clone().map(|track| timeline.names[&track].clone());
    let expected = [1, 1, 1, 2, 2, 2, 3, 3, 3, 4].map(|number| format!("PoolWorker-{number}"));
    assert_eq!(Vec::from_iter(names), expected);
    for track in tracks.take(9) {
        assert_eq!(timeline.ends[&track].as_deref(), Some("done its share"));
    }
}

#[test]
fn under_fire() {
    let _watchdog = watchdog("under_fire", LIMIT);
    let file = ScratchFile::new("trace.json");
    let pool = traced(2, &file);
    let count = dose(3000, 30_000) as i64;
    let killer = |stop: &std::sync::atomic::AtomicBool| {
        while !stop.load(std::sync::atomic::Ordering::Relaxed) {
            pool.workers()
                .iter()
                .for_each(|worker| worker.kill().unwrap());
            thread::sleep(Duration::from_millis(10));
        }
    };
    let stop = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| killer(&stop));
        let calls = pool.calls().retries(1000).chunk_size(7);
        let squares = calls.map::<square>(0..count);
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(squares.unwrap().len(), count as usize);
    });
    drop(pool);
    let timeline = read(file.path());
    assert_eq!(
        timeline.outcomes(),
        BTreeMap::from([("value", count as usize)])
    );
    assert!(timeline.most_waiting > 0);
}

/// Ends in this way while one of its tasks runs, and others wait.
#[mproc::entry]
fn program(path: PathBuf, how: &str, begun: &Queue<u32>) {
    let builder = Pool::builder().processes(1).trace(&path);
    let pool = builder.start().unwrap();
    pool.map::<square>(0..10).unwrap();
    let running = pool.apply_async(hang::bind(begun)).unwrap();
    while begun.is_empty() {
        let mut result = pool.apply_async(square::bind(1)).unwrap();
        let _ = result.get_timeout(Duration::from_millis(1));
        result.cancel();
    }
    match how {
        "exit" => std::process::exit(3),
        "kill" => {
            raise(Signal::SIGKILL).unwrap();
        }
        "return" => {}
        _ => std::mem::forget(pool),
    }
    drop(running);
}

#[test]
fn the_file_is_whole_however_the_program_ends() {
    let _watchdog = watchdog("the_file_is_whole_however_the_program_ends", LIMIT);
    for how in ["return", "forget", "exit"] {
        let file = ScratchFile::new("trace.json");
        let child = program::spawn(file.path().to_owned(), how, &Queue::new().unwrap()).unwrap();
        child.wait().unwrap();
        assert_eq!(child.exit_code(), Some(if how == "exit" { 3 } else { 0 }));
        let timeline = read(file.path());
        assert_eq!(timeline.outcomes()["shut down"], 1, "{how}: {timeline:#?}");
        assert!(timeline.ends.values().all(Option::is_some));
    }
    let file = ScratchFile::new("trace.json");
    let child = program::spawn(file.path().to_owned(), "kill", &Queue::new().unwrap()).unwrap();
    child.wait().unwrap();
    let text = file.read();
    let trace: Value =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert!(!trace["traceEvents"].as_array().unwrap().is_empty());
}

/// Whose files may not be longer than this.
#[mproc::entry]
fn small_program(path: PathBuf, bytes: u64) {
    let pool = Pool::builder().processes(1).trace(&path).start().unwrap();
    // SAFETY: nothing is called.
    unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) }.unwrap();
    setrlimit(Resource::RLIMIT_FSIZE, bytes, bytes).unwrap();
    pool.map::<square>(0..3000).unwrap();
}

#[test]
fn a_trace_for_which_there_is_no_room_ends_there() {
    let _watchdog = watchdog("a_trace_for_which_there_is_no_room", LIMIT);
    let file = ScratchFile::new("trace.json");
    let child = small_program::spawn(file.path().to_owned(), 100_000).unwrap();
    child.join().unwrap();
    let trace: Value = serde_json::from_str(&file.read()).unwrap();
    assert!(trace["traceEvents"].as_array().unwrap().len() > 10);
    assert!(file.read().len() <= 100_000);
}

/// Reads the file again and again while it is written.
#[test]
fn the_file_is_whole_at_each_moment() {
    let _watchdog = watchdog("the_file_is_whole_at_each_moment", LIMIT);
    let file = ScratchFile::new("trace.json");
    let pool = traced(1, &file);
    let (mut sizes, mut result) = (BTreeSet::new(), None);
    eventually(|| {
        let text = file.read();
        // A write that overtakes the read leaves the read with an old beginning and a new end: only what nobody changed meanwhile counts.
        if file.read() == text {
            let trace: Value =
                serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}"));
            sizes.insert(trace["traceEvents"].as_array().unwrap().len());
        }
        if result.as_ref().is_none_or(mproc::AsyncResult::is_ready) {
            result = Some(pool.map_async::<square>(0..200).unwrap());
        }
        sizes.len() > 5
    });
}

#[test]
fn a_file_that_cannot_be_made_is_told_at_the_start() {
    let _watchdog = watchdog("a_file_that_cannot_be_made", LIMIT);
    let error = Pool::builder()
        .trace("/no/such/folder/trace.json")
        .start()
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(
        error.to_string().contains("/no/such/folder/trace.json"),
        "{error}"
    );
    assert!(Pool::builder().trace("/dev/full").start().is_err());
}
