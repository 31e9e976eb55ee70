//! Every program but `word_count`, by what it prints.

mod common;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use common::{Printed, example, finish, run, run_within, start};

/// Runs an example that is to succeed.
fn output_of(name: &str, arguments: &[&str]) -> Printed {
    let printed = run(example(name).args(arguments));
    assert_eq!(printed.code, Some(0), "{printed:#?}");
    printed
}

/// Lines in alphabetical order, for programs whose processes print when they get to it.
fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

/// `text` with every process id replaced by `N`.
fn without_ids(text: &str) -> String {
    let mut parts = text.split("pid=");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        text + "pid=N" + part.trim_start_matches(|c: char| c.is_ascii_digit())
    })
}

#[test]
fn hello() {
    assert_eq!(output_of("hello", &[]).out, "hello bob\n");
}

#[test]
fn five_workers() {
    let expected = [0, 1, 2, 3, 4].map(|number| format!("Worker: {number}"));
    assert_eq!(sorted(&output_of("five_workers", &[]).out), expected);
}

#[test]
fn pool() {
    assert_eq!(output_of("pool", &[]).out, "[1, 4, 9]\n");
}

/// Of a known file; and the same of many, whether workers are killed or not.
#[test]
fn checksums() {
    let folder = std::env::temp_dir().join(format!("checksums-{}", std::process::id()));
    std::fs::create_dir_all(folder.join("below")).unwrap();
    std::fs::write(folder.join("below/abc"), "abc").unwrap();
    let printed = output_of("checksums", &[folder.to_str().unwrap()]);
    std::fs::remove_dir_all(&folder).unwrap();
    let lines: Vec<&str> = printed.out.lines().collect();
    let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"; // FIPS 180-2, B.1
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0].split("  ").next(), Some(abc));
    assert_eq!(lines[1], "1 files, 3 bytes, 1 processes, 0 killed");
    assert_eq!(printed.err, "");

    let sources = concat!(env!("CARGO_MANIFEST_DIR"), "/../mproc");
    let [peaceful, killed] = [vec![sources], vec!["--kill", sources]].map(|arguments| {
        let out = output_of("checksums", &arguments).out;
        let (lines, last) = out.trim_end().rsplit_once('\n').unwrap();
        (lines.to_owned(), last.to_owned())
    });
    assert_eq!(peaceful.0, killed.0);
    assert!(peaceful.1.ends_with(" 0 killed"), "{}", peaceful.1);
    assert!(!killed.1.ends_with(" 0 killed"), "{}", killed.1);
}

/// The picture is the same whoever paints its rows, and it is the set.
#[test]
fn mandelbrot() {
    let (width, height) = (96, 64);
    let pictures = ["1", "4"].map(|processes| {
        let path = format!("mandelbrot-{}-{processes}.png", std::process::id());
        let path = std::env::temp_dir().join(path);
        let arguments = [path.to_str().unwrap(), "96", "64", processes];
        let out = output_of("mandelbrot", &arguments).out;
        let (head, rows) = out.trim_end().rsplit_once(", ").unwrap();
        assert_eq!(head, format!("96x64 by {processes} processes"));
        let rows = rows.trim_end_matches(" rows").split(" + ");
        let rows: Vec<u32> = rows.map(|rows| rows.parse().unwrap()).collect();
        assert_eq!(rows.len().to_string(), processes);
        assert_eq!(rows.iter().sum::<u32>(), height);
        let file = BufReader::new(std::fs::File::open(&path).unwrap());
        let mut reader = png::Decoder::new(file).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        assert_eq!((info.width, info.height), (width, height));
        assert_eq!(info.color_type, png::ColorType::Rgb);
        std::fs::remove_file(path).unwrap();
        pixels
    });
    assert_eq!(pictures[0], pictures[1]);
    let (pixels, _) = pictures[0].as_chunks::<3>();
    let at = |x: u32, y: u32| pixels[(y * width + x) as usize];
    // 0 and -1 are in the set, the corner is not; and it is its own mirror image.
    let (zero, minus_one) = (at(71, height / 2), at(44, height / 2));
    assert_eq!((zero, minus_one), ([0; 3], [0; 3]));
    assert_ne!(at(0, 0), [0; 3]);
    for y in 1..height / 2 {
        for x in 0..width {
            assert_eq!(at(x, y), at(x, height - y), "{x}, {y}");
        }
    }
}

#[test]
fn pool_of_workers() {
    let printed = output_of("pool_of_workers", &[]);
    let lines: Vec<&str> = printed.out.lines().collect();
    let squares = "[0, 1, 4, 9, 16, 25, 36, 49, 64, 81]";
    assert_eq!(
        lines[..5],
        ["100", squares, "Some(0)", "Some(1)", "Some(4)"]
    );
    let mut unordered: Vec<u32> = lines[5]
        .split_whitespace()
        .map(|x| x.parse().unwrap())
        .collect();
    unordered.sort_unstable();
    assert_eq!(format!("{unordered:?}"), squares);
    assert_eq!(lines[6..], ["time is over"]);
}

#[test]
fn names() {
    let printed = output_of("names", &["--seconds", "0"]);
    let names = ["Process-3", "my_service", "worker 1"];
    for name in names {
        let mut lines = printed.out.lines().filter(|line| line.starts_with(name));
        assert_eq!(lines.next(), Some(&*format!("{name} Starting")));
        assert_eq!(lines.next(), Some(&*format!("{name} Exiting")));
    }
    assert_eq!(printed.out.lines().count(), 2 * names.len(), "{printed:#?}");
}

/// The lines that one process of `daemon` printed, without its id, which is the same in all of them.
fn lines_of<'a>(printed: &'a Printed, name: &str) -> Vec<&'a str> {
    let lines = printed.out.lines().filter_map(|line| line.rsplit_once(' '));
    let ours: Vec<_> = lines.filter(|(line, _)| line.ends_with(name)).collect();
    assert!(
        ours.windows(2).all(|pair| pair[0].1 == pair[1].1),
        "{printed:#?}"
    );
    ours.into_iter().map(|(line, _)| line).collect()
}

const DAEMON: [&str; 2] = ["Starting: daemon", "Exiting : daemon"];
const NON_DAEMON: [&str; 2] = ["Starting: non-daemon", "Exiting : non-daemon"];

#[test]
fn a_daemon_ends_with_its_program() {
    // The program waits a second for the daemon to say that it starts. A machine may be too busy for that: then look again.
    for _ in 0..10 {
        let printed = output_of("daemon", &["--seconds", "3600"]);
        assert_eq!(lines_of(&printed, " non-daemon"), NON_DAEMON);
        let daemon = lines_of(&printed, " daemon");
        assert!(!daemon.contains(&DAEMON[1]), "{printed:#?}");
        if daemon == DAEMON[..1] {
            return;
        }
    }
    panic!("the daemon never came to say anything");
}

#[test]
fn a_daemon_that_is_joined_comes_to_its_end() {
    let printed = output_of("daemon", &["--join", "--seconds", "0"]);
    assert_eq!(lines_of(&printed, " daemon"), DAEMON);
    assert_eq!(lines_of(&printed, " non-daemon"), NON_DAEMON);
}

#[test]
fn a_daemon_is_alive_after_a_join_that_timed_out() {
    let printed = output_of("daemon", &["--join-timeout", "--seconds", "3600"]);
    assert!(
        printed.out.lines().any(|line| line == "is_alive() true"),
        "{printed:#?}"
    );
    assert!(!printed.out.contains(DAEMON[1]), "{printed:#?}");
    assert_eq!(lines_of(&printed, " non-daemon"), NON_DAEMON);
}

#[test]
fn terminate() {
    let printed = output_of("terminate", &[]);
    let text = without_ids(&printed.out);
    let lines: Vec<&str> = text.lines().collect();
    let started = "<Process(Process-1, started, pid=N)> true";
    let stopped = "<Process(Process-1, stopped[SIGTERM], pid=N, exit_code=-15)> false";
    assert_eq!(lines.len(), 4, "{printed:#?}");
    assert_eq!(lines[0], "BEFORE:     <Process(Process-1, initial)> false");
    assert_eq!(lines[1], format!("DURING:     {started}"));
    assert!(
        lines[2].starts_with("TERMINATED: <Process(Process-1, st"),
        "{printed:#?}"
    );
    assert_eq!(lines[3], format!("JOINED:     {stopped}"));
}

#[test]
fn exit_codes() {
    let printed = output_of("exit_codes", &[]);
    let expected =
        "exit_error = 1\nexit_ok = 0\nreturn_value = 0\nraises = 101\nterminated = -15\n";
    assert_eq!(printed.out, expected);
    assert!(printed.err.contains("there was an error"), "{printed:#?}");
}

#[test]
fn logging() {
    let printed = output_of("logging", &[]);
    assert_eq!(printed.out, "Doing some work\n");
    let records = "[INFO/Process-1] child process calling worker\n\
                   [INFO/Process-1] Working at it\n\
                   [INFO/Process-1] process exiting with exitcode 0\n";
    assert_eq!(printed.err, records);
}

#[test]
fn worker_type() {
    let expected = [1, 2, 3, 4, 5].map(|number| format!("In Worker-{number}"));
    assert_eq!(sorted(&output_of("worker_type", &[]).out), expected);
}

#[test]
fn sleep() {
    let expected = "<Process(Process-1, initial)> false\n\
                    <Process(Process-1, started, pid=N)> true\n\
                    <Process(Process-1, stopped[SIGTERM], pid=N, exit_code=-15)> false\n\
                    true\n";
    assert_eq!(without_ids(&output_of("sleep", &[]).out), expected);
}

#[test]
fn nested() {
    let printed = output_of("nested", &[]);
    let mut known = vec!["MainProcess"];
    for line in printed.out.lines().take(6) {
        let (child, parent) = line
            .split_once(" is a child of ")
            .expect("a line of a child");
        assert!(known.contains(&parent), "{printed:#?}");
        known.push(child);
    }
    known.sort_unstable();
    let family = ["MainProcess", "Process-1", "Process-1:1", "Process-1:2"];
    let rest = ["Process-2", "Process-2:1", "Process-2:2"];
    assert_eq!(known, [&family[..], &rest].concat());
    assert_eq!(printed.out.lines().nth(6), Some("6 descendants"));
}

#[test]
fn open_file() {
    let printed = output_of("open_file", &[]);
    let version = std::fs::read_to_string("/proc/version").expect("/proc is mounted");
    let words: Vec<&str> = version.split_whitespace().take(3).collect();
    let expected = format!(
        "a child read our file: {}\na child accepted our visitor, who says: hello\n",
        words.join(" ")
    );
    assert_eq!(printed.out, expected);
}

const THINGS: &str = "(42, None, \"hello\")\n";

#[test]
fn queue() {
    assert_eq!(output_of("queue", &[]).out, THINGS);
}

#[test]
fn pipe() {
    assert_eq!(output_of("pipe", &[]).out, THINGS);
}

#[test]
fn pipe_timing() {
    let printed = output_of("pipe_timing", &[]);
    let counts = [10_000, 100_000, 1_000_000];
    assert_eq!(printed.out.lines().count(), counts.len(), "{printed:#?}");
    for (line, count) in printed.out.lines().zip(counts) {
        let begin = format!("Sending {count} numbers to Pipe() took ");
        let time = line
            .strip_prefix(&begin)
            .and_then(|rest| rest.strip_suffix(" seconds"));
        let seconds: f64 = time.and_then(|time| time.parse().ok()).unwrap_or_default();
        assert!(seconds > 0.0, "{printed:#?}");
    }
}

#[test]
fn fancy() {
    let expected = "Doing something fancy in Process-1 for Fancy Dan!\n";
    assert_eq!(output_of("fancy", &[]).out, expected);
}

/// Checks what consumers printed: each task by one of them, an end for each of them, and after all that the results, because
/// the parent waits until everything is done.
fn assert_consumed(printed: &Printed, tasks: Vec<String>, results: Vec<String>) {
    let (heading, rest) = printed.out.split_once('\n').expect("there is output");
    let consumers: usize = heading
        .strip_prefix("Creating ")
        .and_then(|rest| rest.strip_suffix(" consumers")?.parse().ok())
        .expect("it says how many it creates");
    assert!(consumers >= 2, "two for each processor: {printed:#?}");

    let lines: Vec<&str> = rest.lines().collect();
    let count = tasks.len() + consumers + results.len();
    assert_eq!(lines.len(), count, "{printed:#?}");
    let (theirs, ours) = lines.split_at(tasks.len() + consumers);

    let everybody = (1..=consumers).map(|number| format!("Process-{number}"));
    let results = results.iter().map(|result| format!("Result: {result}"));
    let said = theirs.iter().map(|line| line.split_once(": "));
    let said = said.map(|line| line.expect("a consumer says who it is"));
    let (ends, starts): (Vec<_>, Vec<_>) = said.partition(|(_, what)| *what == "Exiting");
    let ended = ends.iter().map(|(name, _)| (*name).to_owned());
    let taken = starts.iter().map(|(_, task)| (*task).to_owned());
    assert_eq!(in_order(ended), in_order(everybody), "{printed:#?}");
    assert_eq!(in_order(taken), in_order(tasks), "{printed:#?}");
    let ours = ours.iter().map(|line| (*line).to_owned());
    assert_eq!(in_order(ours), in_order(results), "{printed:#?}");
}

fn in_order(texts: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut texts: Vec<String> = texts.into_iter().collect();
    texts.sort_unstable();
    texts
}

#[test]
fn consumers() {
    let tasks = (0..10).map(|n| format!("{n} * {n}"));
    let results = (0..10).map(|n| format!("{n} * {n} = {}", n * n));
    let printed = output_of("consumers", &[]);
    assert_consumed(&printed, tasks.collect(), results.collect());
}

/// Nobody waits for the task that a dead consumer had, nor for the pill that it would have taken.
#[test]
fn consumers_of_which_one_is_killed() {
    let mut program = start(example("consumers").args(["--seconds", "1"]));
    let mut out = BufReader::new(program.stdout.take().expect("it is piped"));
    let mut line = String::new();
    while !line.starts_with("Process-1: ") {
        line.clear();
        assert_ne!(out.read_line(&mut line).expect("it is UTF-8"), 0);
    }
    let id = program.id();
    let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
    // In the order in which they were started.
    let first = children
        .expect("it runs")
        .split(' ')
        .next()
        .map(str::to_owned);
    let mut kill = Command::new("kill");
    let killed = kill.arg("-9").args(first).status();
    assert!(killed.expect("there is a program `kill`").success());

    let printed = finish(program, out, Duration::from_secs(60));
    assert_eq!(printed.code, Some(1), "{printed:#?}");
    assert!(printed.err.contains("an item went down"), "{printed:#?}");
}

#[test]
fn consumers_of_calls() {
    let tasks = (0..10).map(|n| ["multiply", "add"][n % 2]);
    let tasks = tasks.map(|task| format!("consumers_of_calls::{task}"));
    let results = (0..10).map(|n| match n % 2 {
        0 => format!("{n} * {n} = {}", n * n),
        _ => format!("{n} + {n} = {}", n + n),
    });
    let printed = output_of("consumers_of_calls", &[]);
    assert_consumed(&printed, tasks.collect(), results.collect());
}

#[test]
fn two_sides() {
    // Two seconds are enough for one message and for one look that finds none. A machine may be too busy for that: then look
    // again.
    for _ in 0..10 {
        let printed = output_of("two_sides", &["--seconds", "2"]);
        let written = ["queue size 0", "queue size 1"];
        let read = ["get msg hello world", "queue is empty 0"];
        // Written between the look and the question how many there are.
        let overtaken = "queue is empty 1";
        for line in printed.out.lines() {
            let known = written.contains(&line) || read.contains(&line) || line == overtaken;
            assert!(known, "{printed:#?}");
        }
        let mut expected = [written.as_slice(), &read[..1], &read[1..]].into_iter();
        if expected.all(|lines| printed.out.lines().any(|line| lines.contains(&line))) {
            return;
        }
    }
    panic!("the two sides never came to say what they do");
}

#[test]
fn threads() {
    let printed = output_of("threads", &[]);
    let mut words = Vec::new();
    for name in ["One", "Two", "Three"] {
        let begin = format!("Starting {name}");
        let end = format!("Exiting {name}");
        let taken = format!("{name} processing ");
        let mut lines = printed
            .out
            .lines()
            .skip_while(|line| **line != begin)
            .skip(1);
        let until_end = lines.by_ref().take_while(|line| **line != end);
        words.extend(until_end.filter_map(|line| line.strip_prefix(&taken)));
        assert!(!lines.any(|line| line.contains(name)), "{printed:#?}");
    }
    words.sort_unstable();
    assert_eq!(words, ["brown", "fox", "jumps", "quick", "the"]);
    assert_eq!(printed.out.lines().count(), 3 + 5 + 3, "{printed:#?}");
}

#[test]
fn many_writers() {
    let printed = output_of("many_writers", &[]);
    for process in 1..=4 {
        let name = format!(", \"Process-{process}\")");
        let lines = printed
            .out
            .lines()
            .filter_map(|line| line.strip_suffix(&name));
        let expected = (0..10).map(|number| format!("({number}"));
        assert!(lines.eq(expected), "{printed:#?}");
    }
    assert_eq!(printed.out.lines().count(), 4 * 10, "{printed:#?}");
}

#[test]
fn pass_the_pipe() {
    let asked = [(2, 2, 4), (3, 3, 9), (4, 4, 16)];
    let expected = asked.map(|(process, number, square)| {
        format!("Process-{process} asked for {number} * {number}: {square}")
    });
    assert_eq!(sorted(&output_of("pass_the_pipe", &[]).out), expected);
}

/// Built on its own: beside mproc's tests, in one `cargo test` of the workspace, it would get their feature `test`, with which
/// processes start without a guard.
#[test]
fn no_guard() {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("no_guard");
    let mut build = Command::new(env!("CARGO"));
    build
        .args([
            "build",
            "--offline",
            "--quiet",
            "--package",
            "mproc-examples",
        ])
        .args(["--example", "no_guard", "--target-dir"])
        .arg(&target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        // A target would put the program into a folder of its own.
        .env_remove("CARGO_BUILD_TARGET");
    let built = run_within(&mut build, Duration::from_secs(900));
    assert_eq!(built.code, Some(0), "{built:#?}");

    let printed = run(&mut Command::new(target.join("debug/examples/no_guard")));
    assert_eq!(printed.code, Some(1), "{printed:#?}");
    assert_eq!(printed.out, "", "nothing was to be started");
    assert!(printed.err.starts_with("Error: "), "{printed:#?}");
    assert!(printed.err.contains("`mproc::main!`"), "{printed:#?}");
    assert_eq!(
        printed.err.lines().count(),
        1,
        "one process, one error: {printed:#?}"
    );
}

#[test]
fn every_program_is_in_the_index() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let index = std::fs::read_to_string(folder.join("README.md")).expect("it is there");
    let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).expect("it is there");
    for entry in folder.read_dir().expect("it is there") {
        let path = entry.expect("it is there").path();
        let name = path.file_stem().and_then(|name| name.to_str());
        let is_program = path.extension() == Some("rs".as_ref()) && name != Some("lib");
        if let Some(name) = name.filter(|_| is_program) {
            assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
            assert!(index.contains(&format!("[{name}]({name}.rs)")), "{name}");
        }
    }
}

#[test]
fn lock() {
    let expected = (0..10).map(|number| format!("hello world {number}"));
    let printed = output_of("lock", &[]);
    assert_eq!(sorted(&printed.out), expected.collect::<Vec<_>>());
}

#[test]
fn lock_held_for_a_while() {
    let printed = output_of("lock", &["--hold", "--seconds", "0.05"]);
    let lines: Vec<_> = printed.out.lines().collect();
    assert_eq!(lines.len(), 6, "{printed:#?}");
    for pair in lines.chunks(2) {
        let who = pair[0].strip_suffix(" has the lock").expect("one has it");
        assert_eq!(pair[1], format!("{who} gives it up"), "{printed:#?}");
    }
}

#[test]
fn event() {
    let printed = output_of("event", &["--seconds", "0.3"]);
    let expected = [
        "main: event is set",
        "main: waiting before calling Event.set()",
        "wait_for_event: e.is_set()-> true",
        "wait_for_event: starting",
        "wait_for_event_timeout: e.is_set()-> false",
        "wait_for_event_timeout: starting",
    ];
    assert_eq!(sorted(&printed.out), expected);
    // Both waits end after what ends them.
    let place = |line| printed.out.find(line).expect("it is there");
    assert!(place("timeout: e.is_set()-> false") < place("main: event is set"));
    assert_eq!(
        printed
            .out
            .matches("wait_for_event: e.is_set()-> true")
            .count(),
        1
    );
}

#[test]
fn limited() {
    let printed = output_of("limited", &["--seconds", "0.02"]);
    assert_eq!(printed.out.lines().count(), 20, "{printed:#?}");
    for name in 'A'..='J' {
        let starts = printed.out.find(&format!("{name} starts with ["));
        let ends = printed.out.find(&format!("{name} ends"));
        assert!(starts.is_some() && starts < ends, "{printed:#?}");
    }
    for line in printed.out.lines().filter(|line| line.contains('[')) {
        assert!(line.matches(", ").count() <= 2, "{line}");
    }
}

#[test]
fn lockstep() {
    let printed = output_of("lockstep", &[]);
    let lines: Vec<_> = printed.out.lines().collect();
    let names = ["Process-1", "Process-2", "Process-3"];
    for (step, lines) in (1..=5).zip(lines.chunks(3)) {
        let expected = names.map(|name| format!("step {step}: {name}"));
        assert_eq!(
            in_order(lines.iter().map(|line| (*line).to_owned())),
            expected
        );
    }
    assert_eq!(lines.len(), 15);
}

#[test]
fn lockstep_of_which_one_dies() {
    let printed = output_of("lockstep", &["--die"]);
    let told = printed
        .out
        .lines()
        .filter(|line| line.contains(" died; `reset` mends it"));
    assert_eq!(told.count(), 2, "{printed:#?}");
    assert!(!printed.out.contains("step 4"), "{printed:#?}");
}

#[test]
fn value_and_array() {
    let printed = output_of("value_and_array", &[]);
    assert_eq!(
        printed.out,
        "3.1415927\n[0, -1, -2, -3, -4, -5, -6, -7, -8, -9]\n"
    );
}

#[test]
fn shared_structures() {
    let printed = output_of("shared_structures", &[]);
    let expected = [
        "49",
        "0.1111111111111111",
        "HELLO WORLD",
        "[(3.515625, 39.0625), (33.0625, 4.0), (5.640625, 90.25), (16.0, 1.0)]",
    ];
    assert_eq!(printed.out.lines().collect::<Vec<_>>(), expected);
}
