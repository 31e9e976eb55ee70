//! What tasks say of themselves while they run, and the bar that shows it.

use std::fs::File;
use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use mproc::{ErrorKind, Pool, Queue, Report, Stdio};
use mproc_tests::{eventually, watchdog};
use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, raise};

const LIMIT: Duration = Duration::from_secs(60);

#[mproc::entry]
fn steps(count: u32) -> u32 {
    for step in 1..=count {
        assert!(mproc::report(f64::from(step) / f64::from(count), "going"));
    }
    count
}

/// As above, however slowly it is read.
#[mproc::entry]
fn all_steps(count: u32) {
    for step in 1..=count {
        while !mproc::report(f64::from(step) / f64::from(count), "going") {
            thread::yield_now();
        }
    }
}

/// Twice, and goes on when it may.
#[mproc::entry]
fn say_twice(gate: &Queue<()>) {
    assert!(mproc::report(0.1, "first"));
    gate.get().unwrap();
    assert!(mproc::report(0.2, "second"));
}

#[mproc::entry]
fn wait_for(gate: &Queue<()>) {
    gate.get().unwrap();
}

/// Without end.
#[mproc::entry]
fn say_on(stop: &Queue<()>) {
    while stop.is_empty() {
        mproc::report(0.5, "and on");
    }
}

#[mproc::entry]
fn say(fraction: f64, text: &str) -> bool {
    mproc::report(fraction, text)
}

/// Its number tells how it ends.
#[mproc::entry]
fn say_and_die(number: usize, tries: &Queue<usize>) -> usize {
    tries.put(number).unwrap();
    mproc::report(0.25, "one");
    mproc::report(0.5, "two");
    if number == 1 || (number == 2 && tries.len() == 1) {
        raise(Signal::SIGKILL).unwrap();
    }
    assert_ne!(number, 3);
    number
}

type Heard = Arc<Mutex<Vec<Report>>>;

fn ear() -> (Heard, impl Fn(&Report) + Send + Sync + 'static) {
    let heard = Heard::default();
    let ear = Arc::clone(&heard);
    let hear = move |report: &Report| ear.lock().unwrap().push(report.clone());
    (heard, hear)
}

#[test]
fn reports_are_heard_with_the_number_of_their_task() {
    let _watchdog = watchdog("reports_are_heard", LIMIT);
    for chunk in [1, 5] {
        let pool = Pool::new(2).unwrap();
        let (in_map, hear) = ear();
        let (in_imap, hear_imap) = ear();
        let calls = pool.calls().chunk_size(chunk);
        calls.clone().on_report(hear).map::<steps>(0..10).unwrap();
        let lazy = calls.on_report(hear_imap).imap::<steps, _>(0..10);
        assert_eq!(lazy.filter(Result::is_ok).count(), 10);
        // Its thread may still be at the last ones.
        pool.join();
        for heard in [in_map, in_imap] {
            let mut heard = heard.lock().unwrap();
            // Those of one task in order.
            heard.sort_by_key(Report::index);
            let mut all = heard.iter();
            for number in 0..10_usize {
                for step in 1..=number {
                    let report = all.next().unwrap();
                    let expected = step as f64 / number as f64;
                    assert_eq!((report.index(), report.text()), (number, "going"));
                    assert_eq!(report.fraction(), expected);
                }
            }
            assert!(all.next().is_none());
        }
    }
}

/// Whoever waits for the pool may hear what a task says: the next thread is not to overtake one that is still at the report before.
#[test]
fn reports_are_heard_one_at_a_time_whoever_waits() {
    const TASKS: usize = 20;
    const STEPS: u32 = 100;
    let _watchdog = watchdog("reports_are_heard_one_at_a_time", LIMIT);
    let pool = Pool::new(2).unwrap();
    let heard = Arc::new(Mutex::new(vec![0; TASKS]));
    let is_heard = Arc::new(AtomicUsize::new(0));
    let hear = {
        let (heard, is_heard) = (Arc::clone(&heard), Arc::clone(&is_heard));
        move |report: &Report| {
            assert_eq!(is_heard.fetch_add(1, Ordering::SeqCst), 0, "two at once");
            // Gives others the time to overtake.
            thread::yield_now();
            let heard = &mut heard.lock().unwrap()[report.index()];
            *heard += 1;
            assert_eq!(report.fraction(), f64::from(*heard) / f64::from(STEPS));
            is_heard.fetch_sub(1, Ordering::SeqCst);
        }
    };
    let calls = pool.calls().chunk_size(1).on_report(hear);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    assert!(!pool.apply(say::bind(0.5, "unheard")).unwrap());
                }
            });
        }
        calls.map::<all_steps>([STEPS; TASKS]).unwrap();
        is_over.store(true, Ordering::Relaxed);
    });
    pool.join();
    assert_eq!(*heard.lock().unwrap(), [STEPS; TASKS]);
}

/// What is said while another thread is at the report before, and before the call has ended, is not lost with it; and what a callback had captured may
/// panic when it goes.
#[test]
fn reports_are_heard_after_the_callback_of_the_call() {
    struct Bomb(mpsc::Sender<()>);
    impl Drop for Bomb {
        fn drop(&mut self) {
            self.0.send(()).unwrap();
            panic!("a destructor, in a test");
        }
    }
    let _watchdog = watchdog("reports_are_heard_after_the_callback", LIMIT);
    for has_callback in [false, true] {
        let pool = Pool::new(1).unwrap();
        let gate = Queue::new().unwrap();
        let heard = Heard::default();
        let (first, is_first) = mpsc::channel();
        let (go, may_go) = mpsc::channel();
        let (gone, is_gone) = mpsc::channel();
        let hear = {
            let (heard, may_go) = (Arc::clone(&heard), Mutex::new(may_go));
            let bomb = Bomb(gone);
            move |report: &Report| {
                let _ = &bomb;
                heard.lock().unwrap().push(report.clone());
                if report.text() == "first" {
                    first.send(()).unwrap();
                    may_go.lock().unwrap().recv().unwrap();
                }
            }
        };
        let call = say_twice::bind(&gate);
        let calls = pool.calls().on_report(hear);
        let result = match has_callback {
            true => calls.apply_async_with(call, |_| {}),
            false => calls.apply_async(call),
        };
        let result = result.unwrap();
        is_first.recv().unwrap();
        gate.put(()).unwrap();
        result.get().unwrap();
        drop(calls);
        go.send(()).unwrap();
        is_gone.recv().unwrap();
        // The thread in the background goes on.
        let (called, is_called) = mpsc::channel();
        let said = pool
            .calls()
            .apply_async_with(say::bind(0.5, "unheard"), move |_| called.send(()).unwrap());
        is_called.recv().unwrap();
        assert!(!said.unwrap().get().unwrap());
        pool.join();
        let heard = heard.lock().unwrap();
        let texts: Vec<_> = heard.iter().map(Report::text).collect();
        assert_eq!(texts, ["first", "second"], "{has_callback}");
    }
}

/// Who waits for one call, and so comes to tell what is said in another, is not kept by it.
#[test]
fn a_slow_listener_keeps_nobody_who_waits_for_something_else() {
    let _watchdog = watchdog("a_slow_listener_keeps_nobody", LIMIT);
    for _ in 0..5 {
        let pool = Pool::new(2).unwrap();
        let (gate, stop) = (Queue::new().unwrap(), Queue::new().unwrap());
        let waits = pool.apply_async(wait_for::bind(&gate)).unwrap();
        let heard = Arc::new(AtomicUsize::new(0));
        let hear = {
            let heard = Arc::clone(&heard);
            move |_: &Report| {
                heard.fetch_add(1, Ordering::Relaxed);
                thread::sleep(Duration::from_micros(300));
            }
        };
        thread::scope(|scope| {
            let waiter = scope.spawn(move || waits.get().unwrap());
            let calls = pool.calls().on_report(hear);
            let endless = calls.apply_async(say_on::bind(&stop)).unwrap();
            eventually(|| heard.load(Ordering::Relaxed) > 3);
            gate.put(()).unwrap();
            waiter.join().unwrap();
            assert!(!endless.is_ready());
            stop.put(()).unwrap();
            endless.get().unwrap();
        });
    }
}

#[test]
fn whatever_is_said_is_bounded() {
    let _watchdog = watchdog("whatever_is_said_is_bounded", LIMIT);
    let pool = Pool::new(1).unwrap();
    let (heard, hear) = ear();
    let calls = pool.calls().on_report(hear);
    for fraction in [f64::NAN, -1.0, 7.0, f64::INFINITY] {
        assert!(calls.apply(say::bind(fraction, &"ö".repeat(5000))).unwrap());
    }
    pool.join();
    let heard = heard.lock().unwrap();
    let fractions: Vec<_> = heard.iter().map(Report::fraction).collect();
    assert_eq!(fractions, [0.0, 0.0, 1.0, 1.0]);
    assert!(heard.iter().all(|report| report.text() == "ö".repeat(500)));
    assert_eq!(heard[2].to_string(), format!("0: 100% {}", "ö".repeat(500)));
}

#[test]
fn what_was_said_before_a_death_is_heard() {
    let _watchdog = watchdog("what_was_said_before_a_death_is_heard", LIMIT);
    let pool = Pool::new(1).unwrap();
    for (number, kind, count) in [
        (0, None, 2),
        (1, Some(ErrorKind::Killed), 2),
        (2, None, 4),
        (3, Some(ErrorKind::Panicked), 2),
    ] {
        let (heard, hear) = ear();
        let calls = pool.calls().retries((number == 2).into()).on_report(hear);
        let result = calls.apply(say_and_die::bind(number, &Queue::new().unwrap()));
        assert_eq!(result.err().map(|error| error.kind()), kind);
        eventually(|| heard.lock().unwrap().len() == count);
        let heard = heard.lock().unwrap();
        let texts: Vec<_> = heard.iter().map(Report::text).collect();
        assert_eq!(texts, ["one", "two"].repeat(count / 2));
    }
}

#[mproc::entry]
fn say_much(ended: &Queue<(u32, u32)>) {
    let heard = (0..100_000).filter(|_| mproc::report(0.5, "again and again"));
    ended.put((heard.count() as u32, 100_000)).unwrap();
}

/// A task neither waits for who does not listen, nor is its outcome lost.
#[test]
fn who_does_not_read_holds_up_nobody() {
    let _watchdog = watchdog("who_does_not_read_holds_up_nobody", LIMIT);
    let pool = Pool::new(1).unwrap();
    let ended = Queue::new().unwrap();
    let (release, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let calls = pool.calls().on_report(move |_| {
        // Until the sender is gone.
        let _ = gate.lock().unwrap().recv();
    });
    let result = calls.apply_async(say_much::bind(&ended)).unwrap();
    let (heard, said) = ended.get().unwrap();
    assert!(0 < heard && heard < said, "{heard}");
    drop(release);
    result.get().unwrap();
}

#[mproc::entry]
fn say_in_a_thread() -> (bool, bool) {
    let within = thread::spawn(|| mproc::report(0.5, "from a thread"));
    let (later, is_over) = mpsc::channel::<()>();
    // Ends with the process at the latest.
    thread::spawn(move || {
        while mproc::report(1.0, "for ever") {
            thread::yield_now();
        }
        drop(later);
    });
    let within = within.join().unwrap();
    std::mem::forget(is_over);
    (within, true)
}

#[test]
fn it_is_harmless_everywhere() {
    let _watchdog = watchdog("it_is_harmless_everywhere", LIMIT);
    assert!(!mproc::report(0.5, "nobody"));
    assert!(!say::spawn(0.5, "nobody").unwrap().join().unwrap());
    let pool = Pool::new(1).unwrap();
    assert!(!pool.apply(say::bind(0.5, "nobody")).unwrap());
    let (heard, hear) = ear();
    let calls = pool.calls().on_report(hear);
    assert_eq!(calls.apply(say_in_a_thread::bind()).unwrap(), (true, true));
    eventually(|| {
        let heard = heard.lock().unwrap();
        heard.iter().any(|report| report.text() == "from a thread")
    });
    // It takes nothing from tasks to which nobody listens.
    assert!(!pool.apply(say::bind(0.5, "nobody")).unwrap());
    // A callback that panics is its own affair.
    let calls = pool.calls().on_report(|_| panic!("a broken callback"));
    assert!(calls.apply(say::bind(0.5, "somebody")).unwrap());
}

/// Says something, and goes on when it is told to.
#[mproc::entry]
fn wait_halfway(number: usize, gate: &Queue<()>) -> usize {
    mproc::report(0.5, "halfway");
    gate.get().unwrap();
    number
}

/// A program with a bar.
#[mproc::entry]
fn draw(how: &str, gate: &Queue<()>) {
    let pool = Pool::new(2).unwrap();
    let calls = pool.calls().chunk_size(1).progress();
    let items = || [1_usize, 2, 3].map(|number| (number, gate.clone()));
    match how {
        "starmap" => drop(calls.starmap::<wait_halfway>(items()).unwrap()),
        "apply" => drop(calls.apply(wait_halfway::bind(1, gate)).unwrap()),
        "imap" => {
            let gates = [(); 3].map(|()| gate.clone());
            assert_eq!(calls.imap::<wait_at, _>(gates.into_iter()).count(), 3);
        }
        "given up" => {
            let gates = std::iter::repeat_with(|| gate.clone());
            assert!(calls.imap::<wait_at, _>(gates).next().unwrap().is_ok());
        }
        _ => {
            gate.get().unwrap();
            let error = calls.map::<fail>(0..3).unwrap_err();
            assert!(error.is_panic());
        }
    }
    eprintln!("the end");
}

#[mproc::entry]
fn wait_at(gate: &Queue<()>) {
    mproc::report(0.5, "halfway");
    gate.get().unwrap();
}

#[mproc::entry]
fn fail(number: u32) {
    // Past the panic's message, which goes to the terminal, too.
    std::panic::set_hook(Box::new(|_| {}));
    assert_ne!(number, 1);
}

/// Without what moves the cursor.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        if letter == '\u{1b}' {
            letters.find(|letter| letter.is_ascii_alphabetic());
        } else {
            plain.push(letter);
        }
    }
    plain
}

/// What the program writes to a terminal; it is let go when some of it is there.
fn on_a_terminal(how: &str, until: &str) -> String {
    let size = Winsize {
        ws_row: 24,
        ws_col: 120,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let terminal = openpty(&size, None).unwrap();
    let gate = Queue::new().unwrap();
    let process = draw::process(how, &gate).stderr(Stdio::from(terminal.slave));
    let child = process.env("TERM", "xterm").start().unwrap();
    let mut master = File::from(terminal.master);
    let (mut bytes, mut buffer, mut is_let_go) = (Vec::new(), [0; 4096], false);
    // The end of a terminal is an error.
    while let Ok(count @ 1..) = master.read(&mut buffer) {
        bytes.extend_from_slice(&buffer[..count]);
        if !is_let_go && plain(&String::from_utf8_lossy(&bytes)).contains(until) {
            is_let_go = true;
            (0..100).for_each(|_| gate.put(()).unwrap());
        }
    }
    child.join().unwrap();
    plain(&String::from_utf8_lossy(&bytes))
}

#[test]
fn a_bar_is_drawn_on_a_terminal() {
    let _watchdog = watchdog("a_bar_is_drawn_on_a_terminal", LIMIT);
    let shown = on_a_terminal("starmap", "50% halfway");
    assert!(shown.contains("0/3") && shown.contains("3/3"), "{shown:?}");
    assert!(shown.contains("/s"), "{shown:?}");
    // Nothing is drawn after its end.
    assert!(shown.trim_end().ends_with("the end"), "{shown:?}");
    let shown = on_a_terminal("imap", "50% halfway");
    assert!(shown.contains("0/3") && shown.contains("3/3"), "{shown:?}");
    let shown = on_a_terminal("apply", "50%");
    assert!(
        shown.contains("halfway") && shown.contains("100%"),
        "{shown:?}"
    );
    let shown = on_a_terminal("given up", "halfway");
    assert!(shown.trim_end().ends_with("the end"), "{shown:?}");
    assert!(!shown.contains("/3"), "{shown:?}");
}

#[test]
fn nothing_is_drawn_where_there_is_no_terminal() {
    let _watchdog = watchdog("nothing_is_drawn_where_there_is_no_terminal", LIMIT);
    for how in ["starmap", "apply", "imap", "given up", "fail"] {
        let gate = Queue::new().unwrap();
        (0..100).for_each(|_| gate.put(()).unwrap());
        let process = draw::process(how, &gate).stderr(Stdio::piped());
        let child = process.start().unwrap();
        let mut text = String::new();
        child
            .take_stderr()
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        child.join().unwrap();
        assert_eq!(text, "the end\n", "{how}");
    }
}
