//! Shared memory and lists, with names and without: what is left by the dead, what limits do, and what peers cannot do (G10).

use std::collections::BTreeSet;
use std::io::ErrorKind as Io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use mproc::{
    Array, ErrorKind, Fd, Lock, Queue, RawArray, Shareable, ShareableList, SharedBytes,
    SharedMemory, Value,
};
use mproc_tests::{Dice, descriptors, dose, eventually, kill_myself, watchdog};

const LIMIT: Duration = Duration::from_secs(120);

/// A name that no other test has, taken away at the end whatever happens.
struct Name(String);

impl Name {
    fn new(of: &str) -> Self {
        Self(format!("mproc-test-{of}-{}", std::process::id()))
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.path());
    }
}

impl Name {
    fn path(&self) -> String {
        format!("/dev/shm/{}", self.0)
    }

    fn exists(&self) -> bool {
        std::fs::exists(self.path()).unwrap()
    }
}

/// Only one test at a time, of whatever process, makes memory whose creator dies and looks for such: each would find that of the others.
fn alone_with_the_dead() -> std::fs::File {
    let path = std::env::temp_dir().join("mproc-test-memory.lock");
    let file = std::fs::File::create(path).unwrap();
    file.lock().unwrap();
    file
}

fn io_kind(error: &mproc::Error) -> Io {
    error.io_error().expect("the system's answer").kind()
}

#[test]
fn two_handles_are_one_memory() {
    let _watchdog = watchdog("two_handles_are_one_memory", LIMIT);
    let name = Name::new("basics");
    let memory = SharedMemory::create(&name.0, 512).unwrap();
    assert_eq!(memory.name(), Some(&*name.0));
    assert_eq!((memory.len(), memory.is_empty()), (512, false));
    assert_eq!(memory.creator_id(), Some(std::process::id()));
    assert_eq!(memory.to_vec(), [0; 512]);
    memory.write_at(100, b"hello");
    let again = SharedMemory::attach(&name.0).unwrap();
    assert_eq!(again.len(), 512);
    assert_eq!(again.to_vec_at(100, 5), b"hello");
    again.write(509, [1_u8, 2, 3]);
    assert_eq!(memory.read::<[u8; 3]>(509), [1, 2, 3]);
    // Nobody else may open it.
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(name.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    // The name is taken, and the memory unharmed.
    let taken = SharedMemory::create(&name.0, 1).unwrap_err();
    assert_eq!(io_kind(&taken), Io::AlreadyExists, "{taken}");
    let taken = ShareableList::create(&name.0, [1]).unwrap_err();
    assert_eq!(io_kind(&taken), Io::AlreadyExists, "{taken}");
    let wrong = ShareableList::attach(&name.0).unwrap_err().to_string();
    assert!(wrong.contains("use `SharedMemory::attach`"), "{wrong}");
    // Once, by either.
    again.unlink().unwrap();
    assert!(!name.exists());
    for handle in [&memory, &again] {
        let gone = handle.unlink().unwrap_err();
        assert_eq!(io_kind(&gone), Io::NotFound, "{gone}");
    }
    let missing = SharedMemory::attach(&name.0).unwrap_err();
    assert_eq!(io_kind(&missing), Io::NotFound, "{missing}");
    // Who has it goes on.
    memory.write_at(0, b"still");
    assert_eq!(again.to_vec_at(0, 5), b"still");
    // Another of the same name is another, which the old handle does not touch.
    let other = SharedMemory::create(&name.0, 0).unwrap();
    assert!(other.is_empty() && other.to_vec().is_empty());
    let not_it = memory.unlink().unwrap_err();
    assert_eq!(io_kind(&not_it), Io::NotFound, "{not_it}");
    assert!(name.exists());
    other.unlink().unwrap();
}

#[test]
fn what_is_no_name_is_an_error_that_says_so() {
    let _watchdog = watchdog("what_is_no_name_is_an_error_that_says_so", LIMIT);
    let long = "x".repeat(256);
    for name in ["", ".", "..", "/a", "a/b", "a\0b", &long] {
        for error in [
            SharedMemory::create(name, 1).unwrap_err(),
            SharedMemory::attach(name).unwrap_err(),
            ShareableList::create(name, [1]).unwrap_err(),
            ShareableList::attach(name).unwrap_err(),
        ] {
            assert_eq!(io_kind(&error), Io::InvalidInput);
            assert!(error.to_string().contains("cannot be a name"), "{error}");
        }
    }
    let without = SharedMemory::new(1).unwrap();
    assert_eq!((without.name(), without.creator_id()), (None, None));
    assert_eq!(io_kind(&without.unlink().unwrap_err()), Io::NotFound);
}

#[test]
fn beyond_the_end_is_a_panic_and_no_access() {
    let _watchdog = watchdog("beyond_the_end_is_a_panic_and_no_access", LIMIT);
    let memory = SharedMemory::new(10).unwrap();
    let attempts: [&dyn Fn(); 7] = [
        &|| drop(memory.to_vec_at(0, 11)),
        &|| drop(memory.to_vec_at(11, 0)),
        &|| memory.write_at(8, &[0; 3]),
        &|| assert_eq!(memory.read::<u64>(3), 0),
        &|| drop(memory.to_vec_at(usize::MAX, 2)),
        &|| memory.atomic::<AtomicU64>(8).store(1, Ordering::Relaxed),
        &|| memory.atomic::<AtomicU32>(2).store(1, Ordering::Relaxed),
    ];
    for attempt in attempts {
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(attempt)).is_err());
    }
    assert_eq!(memory.to_vec(), [0; 10]);
    assert!(memory.to_vec_at(10, 0).is_empty());
}

#[mproc::entry]
fn count_up(memory: &SharedMemory, times: u64) {
    for _ in 0..times {
        memory
            .atomic::<AtomicU64>(8)
            .fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn it_reaches_others_by_name_and_by_handle() {
    let _watchdog = watchdog("it_reaches_others_by_name_and_by_handle", LIMIT);
    #[mproc::entry]
    fn by_name(name: &str) -> (usize, Vec<u8>) {
        let memory = SharedMemory::attach(name).unwrap();
        memory.write_at(0, b"B");
        (memory.len(), memory.to_vec_at(0, 4))
    }
    #[mproc::entry]
    fn by_handle(memory: SharedMemory) -> (Option<String>, Vec<u8>, SharedMemory) {
        memory.write_at(1, b"H");
        (
            memory.name().map(Into::into),
            memory.to_vec_at(0, 4),
            memory,
        )
    }
    let name = Name::new("reach");
    let memory = SharedMemory::create(&name.0, 5000).unwrap();
    memory.write_at(0, b"----");
    let (length, seen) = by_name::spawn(&name.0).unwrap().join().unwrap();
    assert_eq!((length, &*seen), (5000, &b"B---"[..]));
    // By handle it arrives though its name is gone.
    memory.unlink().unwrap();
    let (known_as, seen, back) = by_handle::spawn(memory.clone()).unwrap().join().unwrap();
    assert_eq!((known_as.as_ref(), &*seen), (Some(&name.0), &b"BH--"[..]));
    back.write_at(2, b"P");
    assert_eq!(memory.to_vec_at(0, 4), b"BHP-");
    let unnamed = SharedMemory::new(16).unwrap();
    let children: Vec<_> = (0..4)
        .map(|_| count_up::spawn(&unnamed, 10_000).unwrap())
        .collect();
    for child in children {
        child.join().unwrap();
    }
    assert_eq!(unnamed.read::<u64>(8), 40_000);
}

/// What Python or C made: without a label, of any length, with holes, open to others.
#[test]
fn memory_of_other_programs_can_be_attached_to() {
    let _watchdog = watchdog("memory_of_other_programs_can_be_attached_to", LIMIT);
    use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
    for length in [0_u64, 1, 10, 4096, 5000, 10_000] {
        let name = Name::new("foreign");
        let file = std::fs::File::options()
            .create_new(true)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(name.path())
            .unwrap();
        file.set_len(length).unwrap();
        let memory = SharedMemory::attach(&name.0).unwrap();
        assert_eq!(memory.len() as u64, length);
        assert_eq!(memory.creator_id(), None);
        memory.write_at(0, &vec![7; length as usize]);
        assert_eq!(
            std::fs::read(name.path()).unwrap(),
            vec![7; length as usize]
        );
        // It is not ours, so nobody takes it for something left behind.
        let left = SharedMemory::abandoned().unwrap();
        assert!(left.iter().all(|left| left.name() != name.0));
        drop(memory);
        file.set_permissions(std::fs::Permissions::from_mode(0o666))
            .unwrap();
        let open = SharedMemory::attach(&name.0).unwrap_err();
        assert_eq!(io_kind(&open), Io::PermissionDenied, "{open}");
    }
    // And the other way round: the bytes are at the beginning of the file.
    let name = Name::new("for-others");
    let memory = SharedMemory::create(&name.0, 6).unwrap();
    memory.write_at(0, b"python");
    assert_eq!(&std::fs::read(name.path()).unwrap()[..6], b"python");
    // A link, a folder and a fifo are no memory.
    let link = Name::new("link");
    std::os::unix::fs::symlink(name.path(), link.path()).unwrap();
    assert!(SharedMemory::attach(&link.0).is_err());
    let fifo = Name::new("fifo");
    nix::unistd::mkfifo(fifo.path().as_str(), nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(SharedMemory::attach(&fifo.0).is_err());
}

#[mproc::entry]
fn attach_and(name: &str, end: &str) -> Vec<u8> {
    let memory = SharedMemory::attach(name).unwrap();
    memory.write_at(0, b"stranger");
    match end {
        "killed" => kill_myself(),
        "exit" => std::process::exit(3),
        "abort" => std::process::abort(),
        "panic" => panic!("as intended"),
        _ => memory.to_vec(),
    }
}

/// Python's tracker takes the memory away from everybody when anybody who has attached to it exits.
#[test]
fn it_survives_a_strangers_exit_and_its_makers() {
    let _watchdog = watchdog("it_survives_a_strangers_exit_and_its_makers", LIMIT);
    let _alone = alone_with_the_dead();
    #[mproc::entry]
    fn make(name: &str, kill: bool) {
        let memory = SharedMemory::create(name, 8).unwrap();
        memory.write_at(0, b"maker's.");
        if kill {
            kill_myself();
        }
    }
    let name = Name::new("stranger");
    let memory = SharedMemory::create(&name.0, 8).unwrap();
    for end in ["return", "exit", "panic", "abort", "killed"] {
        memory.write_at(0, b"        ");
        let child = attach_and::process(&name.0, end);
        child
            .stderr(mproc::Stdio::null())
            .start()
            .unwrap()
            .wait()
            .unwrap();
        assert!(name.exists(), "{end}");
        assert_eq!(memory.to_vec(), b"stranger", "{end}");
        assert_eq!(SharedMemory::attach(&name.0).unwrap().to_vec(), b"stranger");
    }
    memory.unlink().unwrap();
    for kill in [false, true] {
        let name = Name::new("maker");
        let maker = make::spawn(&name.0, kill).unwrap();
        let pid = maker.id();
        maker.wait().unwrap();
        let memory = SharedMemory::attach(&name.0).unwrap();
        assert_eq!(memory.to_vec(), b"maker's.");
        assert_eq!(memory.creator_id(), Some(pid));
    }
}

/// What the dead leave is found and removed, and nothing else is.
#[test]
fn what_the_dead_leave_is_removed_unless_somebody_has_it() {
    let _watchdog = watchdog(
        "what_the_dead_leave_is_removed_unless_somebody_has_it",
        LIMIT,
    );
    let _alone = alone_with_the_dead();
    #[mproc::entry]
    fn leave(names: &[String]) {
        let _memory = SharedMemory::create(&names[0], 10_000).unwrap();
        let _list = ShareableList::create(&names[1], ["left"]).unwrap();
        kill_myself();
    }
    #[mproc::entry]
    fn keep(name: &str, attached: &mproc::Event) {
        let _memory = SharedMemory::attach(name).unwrap();
        attached.set().unwrap();
        loop {
            std::thread::park();
        }
    }
    let names = [Name::new("left-memory"), Name::new("left-list")];
    let texts: Vec<String> = names.iter().map(|name| name.0.clone()).collect();
    let mine = Name::new("of-the-living");
    let living = SharedMemory::create(&mine.0, 1).unwrap();
    let child = leave::spawn(&texts).unwrap();
    let pid = child.id();
    child.wait().unwrap();
    let attached = mproc::Event::new().unwrap();
    let keeper = keep::spawn(&names[0].0, &attached).unwrap();
    attached.wait().unwrap();
    let found = SharedMemory::abandoned().unwrap();
    let of = |name: &str| found.iter().find(|left| left.name() == name);
    let memory = of(&texts[0]).expect("found");
    assert_eq!((memory.len(), memory.creator_id()), (10_000, pid));
    assert!(memory.is_attached().unwrap());
    assert!(!of(&texts[1]).expect("found").is_attached().unwrap());
    assert!(of(&mine.0).is_none());
    let removed = SharedMemory::unlink_abandoned().unwrap();
    assert!(removed.contains(&texts[1]) && !removed.contains(&texts[0]));
    assert!(names[0].exists() && !names[1].exists() && mine.exists());
    // Nor by hand, as long as somebody has it.
    let memory = found.into_iter().find(|left| left.name() == texts[0]);
    assert!(!memory.unwrap().unlink().unwrap());
    keeper.kill().unwrap();
    keeper.wait().unwrap();
    let removed = SharedMemory::unlink_abandoned().unwrap();
    assert!(removed.contains(&texts[0]));
    assert!(!names[0].exists() && mine.exists());
    living.unlink().unwrap();
}

/// More is left than there are descriptors, and none of it is overlooked.
#[test]
fn more_is_left_than_there_are_descriptors() {
    let _watchdog = watchdog("more_is_left_than_there_are_descriptors", LIMIT);
    let _alone = alone_with_the_dead();
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    #[mproc::entry]
    fn leave_many(prefix: &str, many: usize) {
        for number in 0..many {
            SharedMemory::create(&format!("{prefix}-{number}"), 8).unwrap();
        }
    }
    #[mproc::entry]
    fn remove_with_few(descriptors_left: usize) -> Result<(usize, usize), String> {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, 64, hard).unwrap();
        let open = || std::fs::File::open("/dev/null").ok();
        let mut taken: Vec<_> = std::iter::from_fn(open).collect();
        taken.truncate(taken.len() - descriptors_left);
        let found = SharedMemory::abandoned().map_err(|error| error.to_string())?;
        let removed = SharedMemory::unlink_abandoned().map_err(|error| error.to_string())?;
        Ok((found.len(), removed.len()))
    }
    let prefix = format!("mproc-test-many-{}", std::process::id());
    leave_many::spawn(&prefix, 100).unwrap().join().unwrap();
    // With none, it says so, and with a few it goes.
    let error = remove_with_few::spawn(0)
        .unwrap()
        .join()
        .unwrap()
        .unwrap_err();
    assert!(error.contains("Too many open files"), "{error}");
    let (found, removed) = remove_with_few::spawn(10).unwrap().join().unwrap().unwrap();
    assert!(found >= 100 && removed >= 100, "{found}, {removed}");
    for number in 0..100 {
        assert!(!std::fs::exists(format!("/dev/shm/{prefix}-{number}")).unwrap());
    }
}

/// Makers are killed at any instant, and whatever has a name then is whole, and is found.
#[test]
fn whoever_makes_it_is_killed_at_any_instant() {
    let _watchdog = watchdog("whoever_makes_it_is_killed_at_any_instant", LIMIT);
    let _alone = alone_with_the_dead();
    #[mproc::entry]
    fn make_many(prefix: &str, started: &mproc::Event) {
        started.set().unwrap();
        for number in 0_u64.. {
            let name = format!("{prefix}-{number}");
            match number % 2 {
                0 => drop(SharedMemory::create(&name, 20_000).unwrap()),
                _ => drop(ShareableList::create(&name, ["a text", "another"]).unwrap()),
            }
            if number % 3 > 0 {
                std::fs::remove_file(format!("/dev/shm/{name}")).unwrap();
            }
        }
    }
    let mut dice = Dice::new("whoever_makes_it_is_killed_at_any_instant");
    let (mut left, mut rounds) = (0, 0);
    for round in 0..dose(30, 2000) {
        let prefix = format!("mproc-test-killed-{}-{round}", std::process::id());
        let started = mproc::Event::new().unwrap();
        let child = make_many::spawn(&prefix, &started).unwrap();
        started.wait().unwrap();
        dice.pause(Duration::from_millis(3));
        child.kill().unwrap();
        child.wait().unwrap();
        let names: BTreeSet<String> = std::fs::read_dir("/dev/shm")
            .unwrap()
            .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
            .filter(|name| name.starts_with(&format!("{prefix}-")))
            .collect();
        for name in &names {
            let number: u64 = name.rsplit('-').next().unwrap().parse().unwrap();
            match number % 2 {
                0 => assert_eq!(SharedMemory::attach(name).unwrap().len(), 20_000),
                _ => {
                    let list = ShareableList::attach(name).unwrap();
                    assert_eq!(list.get(1).unwrap(), "another".into());
                }
            }
        }
        let removed: BTreeSet<String> = SharedMemory::unlink_abandoned()
            .unwrap()
            .into_iter()
            .collect();
        assert!(removed.is_superset(&names));
        left += names.len();
        rounds += 1;
    }
    assert!(left > 0);
    eprintln!("{rounds} makers killed, {left} left behind, all removed");
}

/// Of many who take one name away and give it again, each takes away what is its own, and nothing else.
#[test]
fn a_name_is_taken_from_nobody_else() {
    let _watchdog = watchdog("a_name_is_taken_from_nobody_else", LIMIT);
    #[mproc::entry]
    fn make_and_unlink(name: &str, times: usize) -> usize {
        let mut unlinked = 0;
        while unlinked < times {
            let memory = match SharedMemory::create(name, 8) {
                Ok(memory) => memory,
                Err(error) => {
                    assert_eq!(io_kind(&error), Io::AlreadyExists, "{error}");
                    continue;
                }
            };
            // From two threads of one handle, of which one does it.
            let ended = std::thread::scope(|scope| {
                [(); 2]
                    .map(|()| scope.spawn(|| memory.unlink()))
                    .map(|thread| thread.join().unwrap())
            });
            let done = ended.iter().filter(|ended| ended.is_ok()).count();
            assert_eq!(done, 1, "{ended:?}");
            unlinked += 1;
        }
        unlinked
    }
    let name = Name::new("contended");
    let times = dose(300, 30_000);
    let children: Vec<_> = (0..3)
        .map(|_| make_and_unlink::spawn(&name.0, times).unwrap())
        .collect();
    // Others attach meanwhile, to whatever it is.
    while children.iter().any(|child| child.is_alive()) {
        if let Err(error) = SharedMemory::attach(&name.0) {
            assert_eq!(io_kind(&error), Io::NotFound, "{error}");
        }
    }
    for child in children {
        assert_eq!(child.join().unwrap(), times);
    }
    assert!(!name.exists());
}

/// Everybody who has something is killed at once, and nothing of it is left: no name, no memory.
#[test]
fn everything_killed_at_once_leaves_nothing() {
    let _watchdog = watchdog("everything_killed_at_once_leaves_nothing", LIMIT);
    #[mproc::entry]
    fn hold(handles: Handles, generation: u32, ready: &mproc::Semaphore) {
        let mine = Handles::new();
        let child =
            (generation < 2).then(|| hold::spawn(mine.clone(), generation + 1, ready).unwrap());
        let _held = (mine.lock.acquire(), &handles);
        ready.release().unwrap();
        drop(child.map(|child| child.wait()));
        loop {
            std::thread::park();
        }
    }
    #[derive(Clone, serde::Serialize, serde::Deserialize)]
    struct Handles {
        lock: Lock,
        value: Value<u64>,
        array: Array<u64>,
        raw: RawArray<u64>,
        memory: SharedMemory,
        list: ShareableList,
        bytes: SharedBytes,
        queue: Queue<Vec<u8>>,
    }
    const LENGTH: usize = 4 << 20;
    impl Handles {
        fn new() -> Self {
            let queue = Queue::new().unwrap();
            queue.put(vec![1; LENGTH]).unwrap();
            Self {
                lock: Lock::new().unwrap(),
                value: Value::new(1).unwrap(),
                array: Array::new(LENGTH / 8).unwrap(),
                raw: RawArray::new(LENGTH / 8).unwrap(),
                memory: SharedMemory::new(LENGTH).unwrap(),
                list: ShareableList::new(["text"]).unwrap(),
                bytes: SharedBytes::new(vec![1; LENGTH]).unwrap(),
                queue,
            }
        }
    }
    #[mproc::entry]
    fn top(ready: &mproc::Semaphore) {
        let children: Vec<_> = (0..2)
            .map(|_| hold::spawn(Handles::new(), 0, ready).unwrap())
            .collect();
        for child in children {
            child.wait().unwrap();
        }
    }
    let names = || -> BTreeSet<_> {
        let folder = std::fs::read_dir("/dev/shm").unwrap();
        let names = folder.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        // Other tests run beside this one.
        names
            .filter(|name| !name.starts_with("mproc-test-"))
            .collect()
    };
    let before = names();
    for _ in 0..dose(3, 100) {
        let ready = mproc::Semaphore::new(0).unwrap();
        let top = top::spawn(&ready).unwrap();
        let mut everybody = vec![top.id()];
        for _ in 0..6 {
            ready.acquire().unwrap().forget();
        }
        let mut next = 0;
        while let Some(&pid) = everybody.get(next) {
            everybody.extend(mproc_tests::children_of(pid));
            next += 1;
        }
        assert_eq!(everybody.len(), 7);
        let mut memory = memory_of(&everybody);
        // Such as `ready`.
        let mine = memory_of(&[std::process::id()]);
        memory.retain(|number| !mine.contains(number));
        assert!(memory.len() >= 6 * 7, "{memory:?}");
        for &pid in everybody.iter().rev() {
            let pid = nix::unistd::Pid::from_raw(pid as i32);
            // OK to ignore: it may have gone with its parent.
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        }
        top.wait().unwrap();
        eventually(|| !everybody.iter().any(|&pid| mproc_tests::runs(pid)));
        // Nobody has them open or mapped, so the kernel has taken them back.
        eventually(|| memory_of(&all_processes()).is_disjoint(&memory));
    }
    assert_eq!(names(), before);
}

/// The numbers of the files of shared memory that these processes have open or mapped.
fn memory_of(processes: &[u32]) -> BTreeSet<u64> {
    let mut found = BTreeSet::new();
    for pid in processes {
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
        for line in maps.lines().filter(|line| line.contains("/memfd:mproc")) {
            found.extend(
                line.split_ascii_whitespace()
                    .nth(4)
                    .and_then(|inode| inode.parse::<u64>().ok()),
            );
        }
        // It may be gone by now.
        let folder = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter();
        for path in folder
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
        {
            let link = std::fs::read_link(&path).unwrap_or_default();
            if link.to_string_lossy().starts_with("/memfd:mproc") {
                use std::os::unix::fs::MetadataExt as _;
                found.extend(std::fs::metadata(&path).map(|found| found.ino()));
            }
        }
    }
    found
}

fn all_processes() -> Vec<u32> {
    let folder = std::fs::read_dir("/proc").unwrap();
    let names = folder.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter_map(|name| name.parse().ok()).collect()
}

/// Each way to make shared memory of this many bytes. The texts are as long.
fn makers(
    bytes: usize,
    name: &str,
    texts: [String; 3],
) -> Vec<(&'static str, Option<mproc::Error>)> {
    let list = format!("{name}-list");
    let [text, first, second] = texts;
    let made = vec![
        ("Array", Array::<u8>::new(bytes).err()),
        ("RawArray", RawArray::<u64>::new(bytes / 8).err()),
        ("SharedMemory", SharedMemory::new(bytes).err()),
        ("named", SharedMemory::create(name, bytes).err()),
        ("SharedBytes", SharedBytes::new(text).err()),
        ("ShareableList", ShareableList::new([first]).err()),
        ("named list", ShareableList::create(&list, [second]).err()),
    ];
    for name in [name, &list] {
        let _ = std::fs::remove_file(format!("/dev/shm/{name}"));
    }
    made
}

/// `RLIMIT_FSIZE`, `RLIMIT_AS`, `RLIMIT_NOFILE`, a full `/dev/shm`, more than there is at all: errors where it is made, and no signal.
#[test]
fn limits_are_errors_at_creation() {
    let _watchdog = watchdog("limits_are_errors_at_creation", LIMIT);
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    #[mproc::entry]
    fn limited(which: &str, name: &str) -> Vec<(String, String)> {
        let limit = |resource, value| {
            let (_, hard) = getrlimit(resource).unwrap();
            setrlimit(resource, value, hard).unwrap();
        };
        const BYTES: usize = 8 << 20;
        let texts = || [(); 3].map(|()| "x".repeat(BYTES));
        // Once without, so that it is the limit that is seen.
        let made = makers(BYTES, name, texts());
        assert!(made.iter().all(|(_, error)| error.is_none()));
        let texts = texts();
        match which {
            "files" => limit(Resource::RLIMIT_FSIZE, 1 << 20),
            "addresses" => {
                let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
                let pages: u64 = pages.split(' ').next().unwrap().parse().unwrap();
                limit(Resource::RLIMIT_AS, pages * 4096 + BYTES as u64 / 2);
            }
            "descriptors" => {
                let next = descriptors().last().map_or(0, |last| last + 1);
                let next = u64::try_from(next).unwrap();
                limit(Resource::RLIMIT_NOFILE, next);
                // So that there is none between them, either.
                let mut taken = Vec::new();
                while let Ok(file) = std::fs::File::open("/dev/null") {
                    taken.push(file);
                }
                std::mem::forget(taken);
            }
            _ => unreachable!(),
        }
        let made = makers(BYTES, name, texts).into_iter();
        let said = made.map(|(what, error)| {
            (
                what.into(),
                error.map_or("".into(), |error| error.to_string()),
            )
        });
        said.collect()
    }
    for (which, expected) in [
        ("files", "File too large"),
        ("addresses", "Cannot allocate memory"),
        ("descriptors", "Too many open files"),
    ] {
        let name = Name::new(which);
        let said = limited::spawn(which, &name.0).unwrap().join().unwrap();
        assert_eq!(said.len(), 7);
        for (what, error) in said {
            assert!(error.contains(expected), "{which}: {what}: {error:?}");
        }
        assert!(!name.exists());
    }
    // More than the machine has: refused at once, and not by the kernel's killer.
    let available = std::fs::read_to_string("/proc/meminfo").unwrap();
    let kibibytes = |field: &str| -> usize {
        let line = available
            .lines()
            .find_map(|line| line.strip_prefix(field))
            .unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    };
    let all = (kibibytes("MemTotal:") + kibibytes("SwapTotal:")) * 1024;
    for error in [
        Array::<u8>::new(all).unwrap_err(),
        SharedMemory::new(all).unwrap_err(),
        RawArray::<u8>::new(all).unwrap_err(),
    ] {
        assert!(
            error.to_string().contains("Cannot allocate memory"),
            "{error}"
        );
    }
}

/// In a folder with room for a megabyte, mounted for one process alone.
#[test]
fn a_full_folder_is_an_error_at_creation() {
    let _watchdog = watchdog("a_full_folder_is_an_error_at_creation", LIMIT);
    #[mproc::entry]
    fn in_a_small_folder(name: &str) -> Option<Vec<String>> {
        use nix::mount::{MsFlags, mount};
        use nix::sched::{CloneFlags, unshare};
        let user = nix::unistd::geteuid();
        unshare(CloneFlags::CLONE_NEWNS)
            .or_else(|_| unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS))
            .ok()?;
        if !user.is_root() {
            let map = format!("{user} {user} 1");
            std::fs::write("/proc/self/uid_map", map).ok()?;
        }
        let nothing = None::<&str>;
        mount(
            nothing,
            "/",
            nothing,
            MsFlags::MS_REC | MsFlags::MS_PRIVATE,
            nothing,
        )
        .ok()?;
        mount(
            Some("tmpfs"),
            "/dev/shm",
            Some("tmpfs"),
            MsFlags::empty(),
            Some("size=1m"),
        )
        .ok()?;
        let memory = SharedMemory::create(&format!("{name}-fits"), 512 << 10).unwrap();
        let errors = [
            SharedMemory::create(name, 1 << 20).unwrap_err(),
            ShareableList::create(name, ["x".repeat(1 << 20)]).unwrap_err(),
        ];
        // What was begun is gone again, so the rest can be used, and what was there is as it was.
        drop(SharedMemory::create(&format!("{name}-rest"), 400 << 10).unwrap());
        memory.write_at(0, &[1; 512 << 10]);
        Some(errors.map(|error| error.to_string()).to_vec())
    }
    match in_a_small_folder::spawn("full").unwrap().join().unwrap() {
        Some(errors) => {
            for error in errors {
                assert!(error.contains("No space left on device"), "{error}");
            }
        }
        None => eprintln!("NOT SHOWN: this machine does not let tests mount a folder of their own"),
    }
}

/// A peer that tries to pull the memory away from under the others cannot.
#[test]
fn no_peer_can_make_it_shorter() {
    let _watchdog = watchdog("no_peer_can_make_it_shorter", LIMIT);
    #[mproc::entry]
    fn shrink(
        _array: Array<u8>,
        _value: Value<u64>,
        _raw: RawArray<u8>,
        _memory: SharedMemory,
        _list: ShareableList,
        _bytes: SharedBytes,
        _lock: Lock,
    ) -> (usize, Vec<String>) {
        let mut refused = 0;
        let mut done = Vec::new();
        for number in descriptors() {
            let path = format!("/proc/self/fd/{number}");
            let link = std::fs::read_link(&path).unwrap_or_default();
            if !link.to_string_lossy().starts_with("/memfd:") {
                continue;
            }
            // By a descriptor of its own, and as an open file of its own.
            let file = std::fs::File::options().write(true).open(&path).unwrap();
            for length in [0, 1, 4095] {
                match nix::unistd::ftruncate(&file, length) {
                    Err(nix::errno::Errno::EPERM) => refused += 1,
                    other => done.push(format!("{}: {other:?}", link.display())),
                }
            }
        }
        (refused, done)
    }
    let array = Array::from_slice(&[1_u8; 20_000]).unwrap();
    let value = Value::new(1_u64).unwrap();
    let raw = RawArray::from_slice(&[1_u8; 20_000]).unwrap();
    let memory = SharedMemory::new(20_000).unwrap();
    let list = ShareableList::new(["text"]).unwrap();
    let bytes = SharedBytes::new([1; 20_000]).unwrap();
    let lock = Lock::new().unwrap();
    let child = shrink::spawn(
        array.clone(),
        value.clone(),
        raw.clone(),
        memory.clone(),
        list.clone(),
        bytes.clone(),
        lock.clone(),
    );
    let (refused, done) = child.unwrap().join().unwrap();
    assert!(done.is_empty(), "{done:?}");
    assert!(refused >= 7 * 3, "{refused}");
    assert_eq!(
        array
            .lock()
            .unwrap()
            .iter()
            .map(|&byte| u32::from(byte))
            .sum::<u32>(),
        20_000
    );
    assert_eq!(raw.to_vec(), [1; 20_000]);
    assert_eq!(memory.to_vec(), [0; 20_000]);
    assert_eq!(list.get(0).unwrap(), "text".into());
    assert_eq!(*bytes, [1; 20_000]);
    assert_eq!(value.get().unwrap(), 1);
    drop(lock.acquire().unwrap());
}

/// Memory that could be shrunk, has holes, or is shorter than it claims is refused where it arrives.
#[test]
fn what_a_peer_sends_is_looked_at() {
    let _watchdog = watchdog("what_a_peer_sends_is_looked_at", LIMIT);
    /// As a `SharedMemory` looks when it travels.
    #[derive(serde::Serialize)]
    struct Forged {
        file: Fd,
        length: u64,
        name: Option<Box<str>>,
    }
    /// Leaves as the one, arrives as the other.
    enum Sent {
        Forged(Forged),
        Arrived(SharedMemory),
    }
    impl serde::Serialize for Sent {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            match self {
                Self::Forged(forged) => forged.serialize(serializer),
                Self::Arrived(memory) => memory.serialize(serializer),
            }
        }
    }
    impl<'de> serde::Deserialize<'de> for Sent {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            SharedMemory::deserialize(deserializer).map(Self::Arrived)
        }
    }
    #[mproc::entry]
    fn receive(queue: &Queue<Sent>) -> Vec<String> {
        let one = || match queue.get() {
            Ok(Sent::Arrived(memory)) => memory.to_vec().len().to_string(),
            Ok(Sent::Forged(_)) => unreachable!("none arrives as such"),
            Err(error) => error.to_string(),
        };
        (0..5).map(|_| one()).collect()
    }
    use nix::sys::memfd::{MFdFlags, memfd_create};
    let memfd = |sealed: bool, length: i64, filled: bool| -> OwnedFd {
        use nix::fcntl::{FallocateFlags, FcntlArg, SealFlag, fallocate, fcntl};
        let fd = memfd_create(c"forged", MFdFlags::MFD_ALLOW_SEALING).unwrap();
        nix::unistd::ftruncate(&fd, length).unwrap();
        if filled {
            fallocate(&fd, FallocateFlags::empty(), 0, length).unwrap();
        }
        // Somebody else's, or open to others: of this user it would be trusted, if it had a name.
        nix::sys::stat::fchmod(&fd, nix::sys::stat::Mode::from_bits_truncate(0o666)).unwrap();
        if sealed {
            fcntl(&fd, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK)).unwrap();
        }
        fd
    };
    let queue = Queue::<Sent>::new().unwrap();
    let child = receive::spawn(&queue).unwrap();
    for (sealed, length, filled, claimed, name) in [
        (false, 8192, true, 8192, None),
        (false, 8192, true, 8192, Some("x".into())),
        (true, 1 << 40, false, 1 << 40, None),
        (true, 8192, true, 8193, None),
        (true, 8192, true, 8192, Some("a/b".into())),
    ] {
        let file = Fd::from(memfd(sealed, length, filled));
        let forged = Forged {
            file,
            length: claimed,
            name,
        };
        queue.put(Sent::Forged(forged)).unwrap();
    }
    let said = child.join().unwrap();
    let expected = [
        "shrunk",
        "this user's alone",
        "holes",
        "shorter",
        "cannot be a name",
    ];
    for (said, expected) in said.iter().zip(expected) {
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn lists_hold_values_of_all_kinds() {
    let _watchdog = watchdog("lists_hold_values_of_all_kinds", LIMIT);
    #[mproc::entry]
    fn change(list: &ShareableList) -> Vec<Shareable> {
        list.set(0, "now text").unwrap();
        list.set(2, ()).unwrap();
        list.set(5, 2.5).unwrap();
        list.to_vec().unwrap()
    }
    let values = || -> Vec<Shareable> {
        vec![
            "howdy".into(),
            b"HoWdY\0\0".into(),
            (-273.154).into(),
            100.into(),
            ().into(),
            true.into(),
            42.into(),
            i64::MIN.into(),
            "\u{1F600}\0".into(),
            "".into(),
        ]
    };
    let list = ShareableList::new(values()).unwrap();
    assert_eq!((list.len(), list.is_empty()), (10, false));
    // Zeroes at the end, too, which Python loses.
    assert_eq!(list.to_vec().unwrap(), values());
    assert_eq!(list.count("howdy").unwrap(), 1);
    assert_eq!(list.count(100).unwrap(), 1);
    assert_eq!(list.position(42).unwrap(), Some(6));
    assert_eq!(list.position("nowhere").unwrap(), None);
    assert_eq!(list.get(4).unwrap(), Shareable::None);
    // Another kind in the same place, here and from elsewhere.
    let seen = change::spawn(&list).unwrap().join().unwrap();
    assert_eq!(seen, list.to_vec().unwrap());
    assert_eq!(list.get(0).unwrap().as_str(), Some("now text"));
    assert_eq!(list.get(5).unwrap().as_float(), Some(2.5));
    // Eight bytes fit where Python's own rule leaves room for eight, nine do not, whatever they are as characters.
    assert_eq!((list.capacity(0), list.capacity(8)), (8, 8));
    list.set(0, "12345678").unwrap();
    let before = list.to_vec().unwrap();
    for long in ["123456789", "ÄÖÜäöü", "\u{1F600}\u{1F600}\u{1F600}"] {
        let error = list.set(0, long).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLong, "{error}");
        assert_eq!(list.to_vec().unwrap(), before);
    }
    for error in [list.get(10).unwrap_err(), list.set(10, 1).unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::OutOfRange, "{error}");
    }
    // A copy is another list, a clone is the same.
    let copy = ShareableList::new(list.to_vec().unwrap()).unwrap();
    copy.set(3, 200).unwrap();
    assert_eq!(list.get(3).unwrap(), 100.into());
    let clone = list.clone();
    clone.set(3, 300).unwrap();
    assert_eq!(list.get(3).unwrap().as_int(), Some(300));
    let empty = ShareableList::new(Vec::<Shareable>::new()).unwrap();
    assert!(empty.is_empty() && empty.to_vec().unwrap().is_empty());
    assert_eq!(
        format!("{:?}", ShareableList::new([1, 2]).unwrap()),
        "ShareableList([Int(1), Int(2)])"
    );
    // Under its lock, for what belongs together.
    let mut guard = list.lock().unwrap();
    let next = guard.get(6).unwrap().as_int().unwrap() + 1;
    guard.set(6, next).unwrap();
    assert_eq!(list.get(6).unwrap_err().kind(), ErrorKind::Deadlock);
    assert_eq!(list.try_lock().unwrap_err().kind(), ErrorKind::WouldBlock);
    let late = list.lock_timeout(Duration::from_millis(1)).unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Timeout);
    drop(guard);
    assert_eq!(list.get(6).unwrap(), 43.into());
}

#[test]
fn lists_are_found_by_name() {
    let _watchdog = watchdog("lists_are_found_by_name", LIMIT);
    #[mproc::entry]
    fn by_name(name: &str, times: usize) {
        let list = ShareableList::attach(name).unwrap();
        for _ in 0..times {
            let mut list = list.lock().unwrap();
            let number = list.get(0).unwrap().as_int().unwrap();
            list.set(0, number + 1).unwrap();
        }
    }
    let name = Name::new("list");
    let list = ShareableList::create(&name.0, [Shareable::from(0), "text".into()]).unwrap();
    assert_eq!(list.name(), Some(&*name.0));
    // By its name it is the same list in this process, too, with the same lock.
    let again = ShareableList::attach(&name.0).unwrap();
    let guard = list.lock().unwrap();
    assert_eq!(again.lock().unwrap_err().kind(), ErrorKind::Deadlock);
    drop(guard);
    let children: Vec<_> = (0..3)
        .map(|_| by_name::spawn(&name.0, 1000).unwrap())
        .collect();
    by_name(&name.0, 1000);
    for child in children {
        child.join().unwrap();
    }
    assert_eq!(list.get(0).unwrap(), 4000.into());
    assert_eq!(again.to_vec().unwrap(), list.to_vec().unwrap());
    let wrong = SharedMemory::attach(&name.0).unwrap_err().to_string();
    assert!(wrong.contains("use `ShareableList::attach`"), "{wrong}");
    list.unlink().unwrap();
    assert!(ShareableList::attach(&name.0).is_err());
    assert_eq!(io_kind(&again.unlink().unwrap_err()), Io::NotFound);
}

/// Writers are killed at any instant, and every value anybody sees is one that somebody put there whole.
#[test]
fn a_change_of_a_list_is_there_whole_or_not_at_all() {
    let _watchdog = watchdog("a_change_of_a_list_is_there_whole_or_not_at_all", LIMIT);
    #[mproc::entry]
    fn write(list: &ShareableList, writer: u8, started: &mproc::Event) {
        started.set().unwrap();
        for number in 0_usize.. {
            let text = char::from(b'a' + writer)
                .to_string()
                .repeat(1 + number % 20_000);
            list.set(number % 2, &text).unwrap();
        }
    }
    let mut dice = Dice::new("a_change_of_a_list_is_there_whole_or_not_at_all");
    let room = "-".repeat(20_000);
    let list = ShareableList::new([&room, &room]).unwrap();
    let rounds = dose(60, 6000);
    for round in 0..rounds {
        let started = mproc::Event::new().unwrap();
        let children = [0, 1].map(|writer| {
            let writer = (2 * round + writer) as u8 % 26;
            write::spawn(&list, writer, &started).unwrap()
        });
        started.wait().unwrap();
        dice.pause(Duration::from_millis(2));
        for child in &children {
            child.kill().unwrap();
        }
        for child in children {
            child.wait().unwrap();
        }
        for value in list.to_vec().unwrap() {
            let text = value.as_str().unwrap();
            let first = text.as_bytes()[0];
            assert!(
                text.bytes().all(|byte| byte == first),
                "torn in round {round}"
            );
        }
    }
    eprintln!("{} writers killed", 2 * rounds);
}

/// Structs without a lock may tear, and are whole when nobody is at them.
#[test]
fn structs_without_a_lock() {
    let _watchdog = watchdog("structs_without_a_lock", LIMIT);
    #[mproc::entry]
    fn swap(points: &RawArray<[f32; 5]>, point: &mproc::RawValue<[f32; 5]>) {
        let (first, last) = (points.read(0), points.read(1));
        points.write(0, last);
        points.write(1, first);
        point.write(first.map(|number| -number));
    }
    let (a, b) = ([1.0, 2.0, 3.0, 4.0, 5.0], [6.0, 7.0, 8.0, 9.0, 10.0]);
    let points = RawArray::from_slice(&[a, b]).unwrap();
    let point = mproc::RawValue::new([0.0; 5]).unwrap();
    swap::spawn(&points, &point).unwrap().join().unwrap();
    assert_eq!((points.read(0), points.read(1)), (b, a));
    assert_eq!(point.read(), a.map(|number| -number));
    let beyond = std::panic::catch_unwind(|| points.read(2));
    assert!(beyond.is_err());
}
