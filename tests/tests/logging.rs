//! The records of children reach the logger of the program, whole, with the name of the process that wrote them.
//!
//! Loggers belong to a process, so each test has its program in a process of its own and reads that one's stderr.

use std::io::Read;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use log::{LevelFilter, Log, Metadata, Record, debug, error, info, trace, warn};
use mproc::{Process, Stdio};
use mproc_tests::{dose, kill_myself, watchdog};

const LIMIT: Duration = Duration::from_secs(60);

/// Runs a program and returns what it wrote to stderr. Descriptions of children made by it begin to count at 1.
fn stderr_of(program: Process<()>) -> String {
    let child = program
        .name("program")
        .stderr(Stdio::piped())
        .start()
        .expect("starts");
    let mut stderr = child.take_stderr().expect("piped");
    let mut text = String::new();
    stderr.read_to_string(&mut text).expect("reads");
    child
        .join()
        .unwrap_or_else(|error| panic!("{error:?}\n{text}"));
    text
}

/// Those lines that are not mproc's own, for which it has the same words in every process.
fn without_life_cycle(text: &str) -> Vec<&str> {
    text.lines()
        .filter(|line| !line.contains("child process calling") && !line.contains("process exiting"))
        .collect()
}

#[mproc::entry]
fn log_at_every_level() {
    error!("an error");
    warn!("a warning");
    info!("an information");
    debug!("a detail");
    trace!("a trace");
}

#[mproc::entry]
fn log_in_children(level: usize) {
    let level = LevelFilter::iter().nth(level).expect("is one");
    mproc::log_to_stderr(level).expect("no other logger is here");
    log_at_every_level::process()
        .name("ann")
        .start()
        .expect("starts")
        .join()
        .expect("joins");
    log_at_every_level();
}

#[test]
fn records_carry_the_name_of_their_process_and_the_level_is_inherited() {
    let _watchdog = watchdog("records_carry_the_name_of_their_process", LIMIT);
    let texts = [
        ("ERROR", "an error"),
        ("WARN", "a warning"),
        ("INFO", "an information"),
        ("DEBUG", "a detail"),
        ("TRACE", "a trace"),
    ];
    for level in 0..=5 {
        let text = stderr_of(log_in_children::process(level));
        let ours: Vec<String> = ["ann", "program"]
            .iter()
            .flat_map(|name| {
                texts[..level]
                    .iter()
                    .map(move |(level, text)| format!("[{level}/{name}] {text}"))
            })
            .collect();
        // From Debug on mproc tells of starts and ends as well.
        let lines = without_life_cycle(&text)
            .into_iter()
            .filter(|line| !line.contains("(pid "))
            .collect::<Vec<_>>();
        assert_eq!(lines, ours, "{text}");
    }
}

#[mproc::entry]
fn print_a_line() {
    eprintln!("a line");
    info!("a record");
}

#[mproc::entry]
fn start_one_and_say_so() {
    mproc::log_to_stderr(LevelFilter::Info).expect("no other logger is here");
    print_a_line::spawn()
        .expect("starts")
        .join()
        .expect("joins");
    info!("joined");
}

#[test]
fn the_life_of_a_child_reads_as_in_python() {
    let _watchdog = watchdog("the_life_of_a_child_reads_as_in_python", LIMIT);
    let text = stderr_of(start_one_and_say_so::process());
    let lines: Vec<&str> = text.lines().collect();
    // What the child prints itself may overtake its records, which go by way of the parent.
    let mut records = lines.clone();
    records.retain(|line| *line != "a line");
    let name = records[0].split(['/', ']']).nth(1).expect("a name");
    assert!(name.ends_with(":1"), "{name}");
    assert_eq!(
        records,
        [
            format!("[INFO/{name}] child process calling print_a_line"),
            format!("[INFO/{name}] a record"),
            format!("[INFO/{name}] process exiting with exitcode 0"),
            // Records are handed over before a join returns.
            "[INFO/program] joined".to_owned(),
            "[INFO/program] process exiting with exitcode 0".to_owned(),
        ],
        "{text}"
    );
    assert_eq!(lines.len(), records.len() + 1);
}

#[mproc::entry]
fn start_one_without_logging() {
    print_a_line::spawn()
        .expect("starts")
        .join()
        .expect("joins");
    info!("nobody hears this");
    assert_eq!(log::max_level(), LevelFilter::Off);
}

#[test]
fn nothing_is_logged_when_nobody_asked() {
    let _watchdog = watchdog("nothing_is_logged_when_nobody_asked", LIMIT);
    assert_eq!(stderr_of(start_one_without_logging::process()), "a line\n");
}

#[mproc::entry]
fn log_and_die(count: usize) {
    for number in 0..count {
        info!("record {number}");
    }
    kill_myself();
}

#[mproc::entry]
fn start_those_that_die() {
    mproc::log_to_stderr(LevelFilter::Info).expect("no other logger is here");
    for round in 0..dose(10, 1000) {
        let children: Vec<_> = (0..3)
            .map(|child| log_and_die::process(20).name(format!("{round}-{child}")))
            .collect();
        let children: Vec<_> = children
            .into_iter()
            .map(|process| process.start().expect("starts"))
            .collect();
        for child in children {
            assert_eq!(child.join().expect_err("died").signal(), Some(9));
        }
        // After the joins all is there, so this stands behind it.
        info!("round {round}");
    }
}

#[test]
fn what_a_killed_child_logged_before_arrives() {
    let _watchdog = watchdog("what_a_killed_child_logged_before_arrives", LIMIT);
    let text = stderr_of(start_those_that_die::process());
    let mut rounds = 0;
    for (round, part) in text.split("[INFO/program] round ").enumerate() {
        // What stands before the next mark belongs to this round; the first line of the others is the mark's number.
        let lines: Vec<&str> = without_life_cycle(part)
            .into_iter()
            .skip(usize::from(round > 0))
            .collect();
        if lines.is_empty() {
            continue;
        }
        rounds += 1;
        assert_eq!(lines.len(), 60, "{part}");
        for child in 0..3 {
            let of_child = lines
                .iter()
                .filter_map(|line| line.strip_prefix(&format!("[INFO/{round}-{child}] record ")));
            let numbers: Vec<usize> = of_child
                .map(|number| number.parse().expect("whole"))
                .collect();
            assert_eq!(numbers, (0..20).collect::<Vec<_>>(), "in order");
        }
    }
    assert_eq!(rounds, dose(10, 1000));
}

#[mproc::entry]
fn log_in_each_generation(left: u32) {
    warn!("{left} left");
    if left > 0 {
        let child = log_in_each_generation::process(left - 1).name(format!("generation {left}"));
        child.start().expect("starts").join().expect("joins");
    }
}

#[mproc::entry]
fn start_generations() {
    mproc::log_to_stderr(LevelFilter::Warn).expect("no other logger is here");
    log_in_each_generation(3);
}

#[test]
fn grandchildren_log_to_the_program_too() {
    let _watchdog = watchdog("grandchildren_log_to_the_program_too", LIMIT);
    let text = stderr_of(start_generations::process());
    let expected = "[WARN/program] 3 left\n[WARN/generation 3] 2 left\n[WARN/generation 2] 1 left\n[WARN/generation 1] 0 left\n";
    assert_eq!(text, expected);
}

#[mproc::entry]
fn log_something_long(length: usize) {
    warn!("{}", "x".repeat(length));
}

#[mproc::entry]
fn start_those_that_talk() {
    mproc::log_to_stderr(LevelFilter::Warn).expect("no other logger is here");
    for length in [0, 1, 30_000, 32_000, 33_000, 40_000, 1 << 20] {
        log_something_long::process(length)
            .name("talker")
            .start()
            .expect("starts")
            .join()
            .expect("joins");
    }
}

#[test]
fn a_record_may_be_a_mebibyte_long() {
    let _watchdog = watchdog("a_record_may_be_a_mebibyte_long", LIMIT);
    let text = stderr_of(start_those_that_talk::process());
    let lengths = text
        .lines()
        .map(|line| line.strip_prefix("[WARN/talker] ").expect("whole").len());
    assert_eq!(
        lengths.collect::<Vec<_>>(),
        [0, 1, 30_000, 32_000, 33_000, 40_000, 1 << 20]
    );
}

/// A logger that a program has chosen.
struct Collector(Mutex<Vec<String>>);

static COLLECTOR: Collector = Collector(Mutex::new(Vec::new()));

impl Log for Collector {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let line = format!(
            "{} {} {:?} {}",
            record.level(),
            record.target(),
            record.line().is_some(),
            record.args()
        );
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(line);
    }

    fn flush(&self) {}
}

#[mproc::entry]
fn log_to_a_target() {
    log::warn!(target: "elsewhere", "over there");
    // The logger of a child whose records are forwarded is taken.
    assert!(log::set_logger(&COLLECTOR).is_err());
    mproc::forward_logs().expect("changes nothing");
}

#[mproc::entry]
fn forward_to_a_foreign_logger() {
    log::set_logger(&COLLECTOR).expect("no other logger is here");
    log::set_max_level(LevelFilter::Warn);
    // Not ours to take.
    mproc::log_to_stderr(LevelFilter::Trace).expect_err("another logger is here");
    assert_eq!(log::max_level(), LevelFilter::Warn);
    log_to_a_target_quietly();
    mproc::forward_logs().expect("a thread and a socket");
    mproc::forward_logs().expect("changes nothing");
    log_to_a_target::process()
        .name("ann")
        .start()
        .expect("starts")
        .join()
        .expect("joins");
    warn!(target: "here", "at home");
    let lines = std::mem::take(&mut *COLLECTOR.0.lock().unwrap_or_else(PoisonError::into_inner));
    assert_eq!(
        lines,
        [
            "WARN elsewhere true ann: over there",
            "WARN here true at home"
        ]
    );
}

/// Before anything is forwarded, a child's records go nowhere.
fn log_to_a_target_quietly() {
    log_at_every_level::spawn()
        .expect("starts")
        .join()
        .expect("joins");
}

#[test]
fn a_foreign_logger_gets_what_children_log() {
    let _watchdog = watchdog("a_foreign_logger_gets_what_children_log", LIMIT);
    assert_eq!(stderr_of(forward_to_a_foreign_logger::process()), "");
}

#[mproc::entry]
fn log_much(count: usize) {
    for number in 0..count {
        info!("{number} {}", "y".repeat(200));
    }
}

#[mproc::entry]
fn start_many_that_log_much(count: usize) {
    mproc::log_to_stderr(LevelFilter::Info).expect("no other logger is here");
    let children: Vec<_> = (0..6)
        .map(|child| {
            log_much::process(count)
                .name(format!("child {child}"))
                .start()
                .expect("starts")
        })
        .collect();
    for child in children {
        child.join().expect("joins");
    }
}

#[test]
fn lines_of_several_children_stay_whole_and_in_order() {
    let _watchdog = watchdog("lines_of_several_children_stay_whole", LIMIT);
    let count = dose(300, 50_000);
    let text = stderr_of(start_many_that_log_much::process(count));
    let mut next = [0; 6];
    for line in without_life_cycle(&text) {
        let line = line.strip_prefix("[INFO/child ").expect("whole");
        let (child, rest) = line.split_once("] ").expect("whole");
        let (number, letters) = rest.split_once(' ').expect("whole");
        assert_eq!(letters.len(), 200);
        let next = &mut next[child.parse::<usize>().expect("whole")];
        assert_eq!(number.parse(), Ok(*next));
        *next += 1;
    }
    assert_eq!(next, [count; 6]);
}

#[mproc::entry]
fn drop_a_child_that_runs() {
    log::set_logger(&COLLECTOR).expect("no other logger is here");
    log::set_max_level(LevelFilter::Debug);
    let child = wait_for_stdin::process()
        .stdin(Stdio::piped())
        .start()
        .expect("starts");
    let (id, stdin) = (child.id(), child.take_stdin());
    drop(child);
    drop(stdin);
    // Nobody asks for it: the thread that collects children nobody holds is the one that logs this.
    let end = format!("(pid {id}) ended with exit code 0");
    mproc_tests::eventually(|| {
        let lines = COLLECTOR.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().any(|line| line.ends_with(&end))
    });
}

#[mproc::entry]
fn wait_for_stdin() {
    std::io::stdin()
        .read_to_end(&mut Vec::new())
        .expect("reads");
}

#[test]
fn the_end_of_a_dropped_child_is_logged() {
    let _watchdog = watchdog("the_end_of_a_dropped_child_is_logged", LIMIT);
    drop_a_child_that_runs::spawn()
        .expect("starts")
        .join()
        .expect("all is well");
}

#[mproc::entry]
fn ask_for_logging_in_a_child() {
    mproc::log_to_stderr(LevelFilter::Warn).expect("no other logger is here");
    ask_again::process()
        .name("ann")
        .start()
        .expect("starts")
        .join()
        .expect("joins");
}

#[mproc::entry]
fn ask_again() {
    // A function that sets up logging for itself is called in a child whose records are forwarded already.
    mproc::log_to_stderr(LevelFilter::Warn).expect("it goes there already");
    warn!("heard");
}

#[test]
fn asking_again_in_a_child_changes_nothing() {
    let _watchdog = watchdog("asking_again_in_a_child_changes_nothing", LIMIT);
    assert_eq!(
        stderr_of(ask_for_logging_in_a_child::process()),
        "[WARN/ann] heard\n"
    );
}
