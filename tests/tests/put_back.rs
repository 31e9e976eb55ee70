//! A joinable queue that puts back what went down with a process: nothing that was put is lost, whoever is killed (G5).

mod queue_shared;

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::Duration;

use mproc::{Child, Fd, JoinError, JoinableQueue, RecvError};
use mproc_tests::{Dice, dose, eventually, kill_myself, watchdog};
use queue_shared::Words;

const LIMIT: Duration = Duration::from_secs(120);

fn queue<T>(times: u32) -> JoinableQueue<T> {
    JoinableQueue::new().unwrap().put_back(times).unwrap()
}

fn kill_it<R>(child: &Child<R>) {
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.signal(), Some(9), "{status}");
}

fn abandoned_by(error: JoinError) -> u64 {
    match error {
        JoinError::Abandoned { count, .. } => count,
        error => panic!("{error:?}"),
    }
}

/// Takes so many jobs and holds them for ever.
#[mproc::entry]
fn hold(queue: JoinableQueue<u64>, count: u64, held: Words) {
    let jobs: Vec<_> = (0..count).map(|_| queue.get_job().unwrap()).collect();
    held[0].fetch_add(jobs.len() as u64, Release);
    loop {
        std::thread::park();
    }
}

fn holder(queue: &JoinableQueue<u64>, count: u64) -> Child<()> {
    let held = Words::new(1);
    let child = hold::process(queue.clone(), count, held.clone()).daemon(true);
    let child = child.start().unwrap();
    eventually(|| held[0].load(Acquire) == count);
    child
}

#[test]
fn what_a_dead_process_held_comes_again() {
    let _watchdog = watchdog("what_a_dead_process_held_comes_again", LIMIT);
    for _ in 0..dose(5, 200) {
        let queue = queue(3);
        for number in 0..10 {
            queue.put(number).unwrap();
        }
        let child = holder(&queue, 4);
        assert_eq!((queue.len(), queue.unfinished()), (6, 10));
        kill_it(&child);
        // Behind the others, in the order in which it had got them.
        for expected in [4, 5, 6, 7, 8, 9, 0, 1, 2, 3] {
            let job = queue.get_job().unwrap();
            assert_eq!((*job, job.deaths()), (expected, u32::from(expected < 4)));
        }
        queue.join().unwrap();
        assert_eq!(queue.unfinished(), 0);
    }
}

/// `join` is what finds out, and nobody else asks.
#[test]
fn who_joins_puts_back_and_waits_for_it() {
    let _watchdog = watchdog("who_joins_puts_back_and_waits_for_it", LIMIT);
    #[mproc::entry]
    fn work(queue: JoinableQueue<u64>, done: Words) {
        for job in queue.jobs() {
            done[*job.unwrap() as usize].fetch_add(1, Relaxed);
        }
    }
    let queue = queue(1);
    for number in 0..5 {
        queue.put(number).unwrap();
    }
    let child = holder(&queue, 5);
    let done = Words::new(5);
    let worker = work::spawn(queue.clone(), done.clone()).unwrap();
    assert!(!queue.join_timeout(Duration::from_millis(20)).unwrap());
    kill_it(&child);
    queue.join().unwrap();
    assert!(done.iter().all(|done| done.load(Relaxed) == 1));
    queue.close();
    worker.join().unwrap();
}

/// One that is asleep in `get` gets it, without anybody doing anything.
#[test]
fn one_asleep_gets_what_was_put_back() {
    let _watchdog = watchdog("one_asleep_gets_what_was_put_back", LIMIT);
    #[mproc::entry]
    fn get(queue: JoinableQueue<u64>) -> (u64, u32) {
        let job = queue.get_job().unwrap();
        (*job, job.deaths())
    }
    let queue = queue(1);
    queue.put(7).unwrap();
    let child = holder(&queue, 1);
    let getter = get::spawn(queue.clone()).unwrap();
    kill_it(&child);
    assert_eq!(getter.join().unwrap(), (7, 1));
    queue.join().unwrap();
}

/// An item on which every process dies is given up in the end.
#[test]
fn it_is_put_back_so_often_and_no_more() {
    let _watchdog = watchdog("it_is_put_back_so_often_and_no_more", LIMIT);
    #[mproc::entry]
    fn work(queue: JoinableQueue<u64>, deaths: Words) {
        for job in queue.jobs() {
            let job = job.unwrap();
            if *job == 1 {
                deaths[job.deaths() as usize].fetch_add(1, Relaxed);
                kill_myself();
            }
        }
    }
    let (queue, deaths) = (queue(3), Words::new(5));
    let mut worker = work::spawn(queue.clone(), deaths.clone()).unwrap();
    for number in 0..4 {
        queue.put(number).unwrap();
    }
    let mut killed = 0;
    let abandoned = loop {
        match queue.join_timeout(Duration::from_millis(5)) {
            Ok(false) => {}
            Ok(true) => panic!("an item was given up in silence"),
            // Nobody else has it, until there is another worker.
            Err(JoinError::Disconnected { .. }) => {}
            Err(error) => break abandoned_by(error),
        }
        if !worker.is_alive() {
            killed += 1;
            worker = work::spawn(queue.clone(), deaths.clone()).unwrap();
        }
    };
    assert_eq!(abandoned, 1);
    let deaths: Vec<_> = deaths.iter().map(|word| word.load(Relaxed)).collect();
    assert_eq!(deaths, [1, 1, 1, 1, 0]);
    assert!(killed >= 3, "{killed}");
    assert_eq!(queue.mark_consistent(), 1);
    // The one that died last may not have been replaced.
    let helper = work::spawn(queue.clone(), Words::new(5)).unwrap();
    queue.join().unwrap();
    queue.close();
    helper.join().unwrap();
    drop(worker);
}

/// A descriptor is with the dead.
#[test]
fn what_has_descriptors_is_abandoned() {
    let _watchdog = watchdog("what_has_descriptors_is_abandoned", LIMIT);
    #[mproc::entry]
    fn hold_all(queue: JoinableQueue<(u64, Option<Fd>)>, held: Words) {
        let _jobs: Vec<_> = (0..3).map(|_| queue.get_job().unwrap()).collect();
        held[0].store(1, Release);
        loop {
            std::thread::park();
        }
    }
    let queue = queue(3);
    let file = || Fd::from(std::fs::File::open("/dev/null").unwrap());
    queue.put((0, None)).unwrap();
    queue.put((1, Some(file()))).unwrap();
    queue.put((2, None)).unwrap();
    let held = Words::new(1);
    let child = hold_all::spawn(queue.clone(), held.clone()).unwrap();
    eventually(|| held[0].load(Acquire) == 1);
    kill_it(&child);
    assert_eq!(abandoned_by(queue.join().unwrap_err()), 1);
    let numbers = [(); 2].map(|()| queue.get_job().unwrap().0);
    assert_eq!(numbers, [0, 2]);
    assert_eq!(queue.mark_consistent(), 1);
    queue.join().unwrap();
}

/// Into a queue that is full, and one that is closed.
#[test]
fn there_is_always_room_for_what_is_put_back() {
    let _watchdog = watchdog("there_is_always_room_for_what_is_put_back", LIMIT);
    let queue = JoinableQueue::bounded(2).unwrap().put_back(1).unwrap();
    queue.put(0).unwrap();
    queue.put(1).unwrap();
    let child = holder(&queue, 2);
    queue.put(2).unwrap();
    queue.put(3).unwrap();
    queue.close();
    kill_it(&child);
    assert!(matches!(
        queue.join(),
        Err(JoinError::Disconnected { count: 4, .. })
    ));
    assert_eq!(queue.len(), 4);
    let numbers: Vec<u64> = queue.jobs().map(|job| *job.unwrap()).collect();
    assert_eq!(numbers, [2, 3, 0, 1]);
    queue.join().unwrap();
}

/// What was done is not put back, in whatever order it was done.
#[test]
fn what_was_done_does_not_come_again() {
    let _watchdog = watchdog("what_was_done_does_not_come_again", LIMIT);
    #[mproc::entry]
    fn work(queue: JoinableQueue<u64>, seed: u64) {
        let mut jobs: Vec<_> = (0..100).map(|_| queue.get_job().unwrap()).collect();
        let mut seed = seed;
        while jobs.len() > 50 {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1);
            let index = (seed >> 33) as usize % jobs.len();
            // The even ones, as it happens.
            if *jobs[index] % 2 == 0 {
                drop(jobs.swap_remove(index));
            }
        }
        kill_myself();
    }
    let mut dice = Dice::new("what_was_done_does_not_come_again");
    for _ in 0..dose(5, 200) {
        let queue = queue(1);
        // Of any size, so that the drawer grows.
        for number in 0..100 {
            queue.put(number).unwrap();
        }
        let child = work::spawn(queue.clone(), dice.below(u64::MAX)).unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9));
        let mut numbers: Vec<u64> = (0..50).map(|_| *queue.get_job().unwrap()).collect();
        numbers.sort();
        assert_eq!(numbers, (0..50).map(|n| 2 * n + 1).collect::<Vec<_>>());
        queue.join().unwrap();
        assert!(matches!(
            queue.try_get(),
            Err(RecvError::Empty | RecvError::Disconnected)
        ));
    }
}

/// By `get` and `task_done`, too, in the order in which they were got.
#[test]
fn tasks_are_done_in_turn() {
    let _watchdog = watchdog("tasks_are_done_in_turn", LIMIT);
    #[mproc::entry]
    fn work(queue: JoinableQueue<u64>) {
        for _ in 0..5 {
            queue.get().unwrap();
        }
        queue.task_done().unwrap();
        queue.task_done().unwrap();
        kill_myself();
    }
    let queue = queue(1);
    for number in 0..5 {
        queue.put(number).unwrap();
    }
    let child = work::spawn(queue.clone()).unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    for number in 2..5 {
        assert_eq!(queue.get().unwrap(), number);
    }
    for _ in 0..3 {
        queue.task_done().unwrap();
    }
    // Nothing is in this hand any more.
    queue.task_done().unwrap_err();
    queue.join().unwrap();
}

/// What another process has in its hands cannot be said to be done here.
#[test]
fn only_who_got_it_says_that_it_is_done() {
    let _watchdog = watchdog("only_who_got_it_says_that_it_is_done", LIMIT);
    let queue = queue(1);
    queue.put(1).unwrap();
    let child = holder(&queue, 1);
    queue.task_done().unwrap_err();
    assert_eq!(queue.unfinished(), 1);
    kill_it(&child);
    assert_eq!(*queue.get_job().unwrap(), 1);
    queue.join().unwrap();
}

/// Large items, and more of them than a drawer holds at first.
#[test]
fn drawers_grow_and_are_given_back() {
    let _watchdog = watchdog("drawers_grow_and_are_given_back", LIMIT);
    #[mproc::entry]
    fn hold_all(queue: JoinableQueue<Vec<u64>>, count: usize, held: Words) {
        let _jobs: Vec<_> = (0..count).map(|_| queue.get_job().unwrap()).collect();
        held[0].store(1, Release);
        loop {
            std::thread::park();
        }
    }
    let count = dose(50, 1000);
    let queue = queue(200);
    for number in 0..count {
        queue.put(vec![number as u64; 10_000]).unwrap();
    }
    for _ in 0..dose(3, 30) {
        let held = Words::new(1);
        let child = hold_all::spawn(queue.clone(), count, held.clone()).unwrap();
        eventually(|| held[0].load(Acquire) == 1);
        kill_it(&child);
        assert!(matches!(queue.join(), Err(JoinError::Disconnected { .. })));
        assert_eq!(queue.len(), count);
    }
    for number in 0..count {
        assert_eq!(*queue.get_job().unwrap(), vec![number as u64; 10_000]);
    }
    queue.join().unwrap();
}

#[test]
fn a_queue_puts_back_from_its_beginning_or_not_at_all() {
    let _watchdog = watchdog("a_queue_puts_back_from_its_beginning", LIMIT);
    let new = || JoinableQueue::<u64>::new().unwrap();
    for times in [0, 201, u32::MAX] {
        let error = new().put_back(times).unwrap_err().to_string();
        assert!(error.contains("1 to 200"), "{error}");
    }
    new().put_back(200).unwrap();
    let used = new();
    used.put(1).unwrap();
    let shared = new();
    let _other = shared.clone();
    for queue in [used, shared] {
        let error = queue.put_back(1).unwrap_err().to_string();
        assert!(error.contains("from its beginning"), "{error}");
    }
}

/// Everything that is put is done, at least once, however many die at random moments; and only what was in the hands of the dead comes twice.
#[test]
fn nothing_is_lost_by_kills() {
    let _watchdog = watchdog("nothing_is_lost_by_kills", Duration::from_secs(1200));
    #[mproc::entry]
    fn work(queue: JoinableQueue<u64>, done: Words) {
        let mut held = Vec::new();
        for job in queue.jobs() {
            held.push(job.unwrap());
            if held.len() == 3 {
                for job in held.drain(..) {
                    // Counted before it is done: what was done once is not to come again.
                    done[*job as usize].fetch_add(1, Relaxed);
                }
            }
        }
        for job in held.drain(..) {
            done[*job as usize].fetch_add(1, Relaxed);
        }
    }
    let count = dose(20_000, 2_000_000);
    let (queue, done) = (queue(200), Words::new(count));
    let mut dice = Dice::new("nothing_is_lost_by_kills");
    let start = || {
        work::process(queue.clone(), done.clone())
            .daemon(true)
            .start()
            .unwrap()
    };
    let mut workers: Vec<_> = (0..3).map(|_| start()).collect();
    let (mut put, mut kills) = (0, 0);
    while put < count || queue.len() > 100 {
        for _ in 0..dice.below(100) {
            if put < count && queue.len() < 1000 {
                queue.put(put as u64).unwrap();
                put += 1;
            }
        }
        let victim = dice.below(3) as usize;
        dice.pause(Duration::from_micros(500));
        kill_it(&workers[victim]);
        kills += 1;
        workers[victim] = start();
    }
    // Who holds some waits for a third one.
    queue.close();
    let joined = queue.join();
    for worker in workers {
        worker.join().unwrap();
    }
    let times: Vec<_> = done.iter().map(|times| times.load(Relaxed)).collect();
    let never = times.iter().filter(|&&times| times == 0).count();
    let again: u64 = times.iter().map(|times| times.saturating_sub(1)).sum();
    println!("{count} items, {kills} kills, {again} done again");
    assert_eq!(never, 0, "{joined:?}");
    joined.unwrap();
    // One of those that were being reported, for each kill at most.
    assert!(again <= 3 * kills, "{again} after {kills} kills");
    assert_eq!(queue.unfinished(), 0);
}
