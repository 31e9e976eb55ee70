//! Values, arrays and blobs in memory that processes share (G4, G10).

use std::time::Duration;

use mproc::{AcquireError, Array, Failure, Lock, RawArray, RawValue, SharedBytes, Value};
use mproc_tests::{descriptors, dose, kill_myself, watchdog};

const LIMIT: Duration = Duration::from_secs(120);

#[mproc::entry]
fn count(total: &Value<i64>, times: u64) -> Result<(), Failure> {
    for _ in 0..times {
        *total.lock().map_err(mproc::Error::from)? += 1;
    }
    Ok(())
}

#[test]
fn nothing_is_counted_twice_or_lost() {
    let _watchdog = watchdog("nothing_is_counted_twice_or_lost", LIMIT);
    let total = Value::new(0_i64).unwrap();
    let times = dose(20_000, 2_000_000) as u64;
    let children: Vec<_> = (0..4)
        .map(|_| count::spawn(&total, times).unwrap())
        .collect();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| count(&total, times).unwrap());
        }
    });
    for child in children {
        child.join().unwrap().unwrap();
    }
    assert_eq!(total.get().unwrap(), 6 * times as i64);
}

/// Everybody is told, until somebody says that it is right again.
#[test]
fn who_dies_in_the_middle_leaves_a_mark() {
    let _watchdog = watchdog("who_dies_in_the_middle_leaves_a_mark", LIMIT);
    #[mproc::entry]
    fn change_half(array: &Array<u64>) {
        let mut elements = array.lock().unwrap();
        elements[0] = 1;
        kill_myself();
    }
    let array = Array::from_slice(&[0_u64, 0]).unwrap();
    let child = change_half::spawn(&array).unwrap();
    let pid = child.id();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    let told = |error: AcquireError<_>| match error {
        AcquireError::OwnerDied { guard, process_id } => {
            assert_eq!(process_id, pid);
            guard
        }
        error => panic!("{error:?}"),
    };
    for _ in 0..3 {
        assert_eq!(told(array.lock().unwrap_err()), [1, 0]);
        assert_eq!(told(array.try_lock().unwrap_err()), [1, 0]);
    }
    // By `?`, too, which lets go of it and leaves the mark.
    let by_question_mark = || -> mproc::Result<u64> { Ok(array.lock()?[0]) };
    assert!(by_question_mark().is_err());
    let mut mended = told(array.lock().unwrap_err());
    mended[1] = 1;
    mended.mark_consistent();
    drop(mended);
    assert_eq!(*array.lock().unwrap(), [1, 1]);
}

/// Two arrays and a value under one lock, of which one at a time is used.
#[test]
fn several_share_a_lock() {
    let _watchdog = watchdog("several_share_a_lock", LIMIT);
    #[mproc::entry]
    fn double(lock: &Lock, numbers: &Array<i32>, rounds: &Value<u8>) -> Result<(), Failure> {
        let mut held = lock.acquire().map_err(mproc::Error::from)?;
        numbers
            .get_mut(&mut held)?
            .iter_mut()
            .for_each(|number| *number *= 2);
        *rounds.get_mut(&mut held)? += 1;
        Ok(())
    }
    let lock = Lock::new().unwrap();
    let numbers = Array::with_lock(&lock, &[1, 2, 3]).unwrap();
    let rounds = Value::with_lock(&lock, 0_u8).unwrap();
    for _ in 0..3 {
        double::spawn(&lock, &numbers, &rounds)
            .unwrap()
            .join()
            .unwrap()
            .unwrap();
    }
    assert_eq!(*numbers.lock().unwrap(), [8, 16, 24]);
    assert_eq!(rounds.get().unwrap(), 3);
    let held = lock.acquire().unwrap();
    assert!(matches!(numbers.lock(), Err(AcquireError::Deadlock)));
    drop(held);
    // Not by the guard of another.
    let other = Lock::new().unwrap();
    let mut held = other.acquire().unwrap();
    let error = numbers.get_mut(&mut held).unwrap_err().to_string();
    assert!(error.contains("another lock"), "{error}");
}

#[test]
fn numbers_without_a_lock_are_whole() {
    let _watchdog = watchdog("numbers_without_a_lock_are_whole", LIMIT);
    #[mproc::entry]
    fn set_all(array: &RawArray<u64>, value: u64, times: usize) {
        for _ in 0..times {
            for index in 0..array.len() {
                array.set(index, value);
            }
        }
    }
    let array = RawArray::<u64>::new(16).unwrap();
    let times = dose(10_000, 1_000_000);
    let values = [u64::MAX, 0x0123_4567_89ab_cdef];
    let children = values.map(|value| set_all::spawn(&array, value, times).unwrap());
    while children.iter().any(|child| child.is_alive()) {
        for number in array.to_vec() {
            assert!(number == 0 || values.contains(&number), "{number:x}");
        }
    }
    for child in children {
        child.join().unwrap();
    }
}

#[test]
fn every_scalar_comes_back() {
    let _watchdog = watchdog("every_scalar_comes_back", LIMIT);
    macro_rules! check {
        ($($value:expr),*) => {$(
            assert_eq!(RawValue::new($value).unwrap().get(), $value);
            let array = RawArray::from_slice(&[$value; 3]).unwrap();
            assert_eq!(array.to_vec(), [$value; 3]);
        )*};
    }
    check!(
        -1_i8, -2_i16, -3_i32, -4_i64, -5_isize, 1_u8, 2_u16, 3_u32, 4_u64, 5_usize
    );
    check!(1.5_f32, -0.25_f64, true, false);
    let beyond = std::panic::catch_unwind(|| RawArray::<u8>::new(3).unwrap().get(3));
    assert!(beyond.is_err());
}

#[test]
fn arrays_of_any_length() {
    let _watchdog = watchdog("arrays_of_any_length", LIMIT);
    #[mproc::entry]
    fn sum(array: &Array<u8>) -> u64 {
        array
            .lock()
            .unwrap()
            .iter()
            .map(|&byte| u64::from(byte))
            .sum()
    }
    for length in [0, 1, 4095, 4096, 4097, 1 << 20] {
        let array = Array::from_iter((0..length).map(|_| 1_u8)).unwrap();
        assert_eq!((array.len(), array.is_empty()), (length, length == 0));
        assert_eq!(sum::spawn(&array).unwrap().join().unwrap(), length as u64);
    }
    for length in [usize::MAX, usize::MAX / 8, 1 << 60] {
        let error = Array::<u64>::new(length).unwrap_err().to_string();
        assert!(error.contains("could not be made"), "{error}");
    }
}

#[test]
fn blobs_travel_without_being_copied() {
    let _watchdog = watchdog("blobs_travel_without_being_copied", LIMIT);
    #[mproc::entry]
    fn look(blob: SharedBytes) -> (usize, u64, SharedBytes) {
        let sum = blob.iter().map(|&byte| u64::from(byte)).sum();
        (blob.len(), sum, blob)
    }
    for length in [0, 1, 1000, 4095, 4096, 10_000, 5 << 20] {
        let bytes: Vec<u8> = (0..length).map(|index| index as u8).collect();
        let blob = SharedBytes::new(&bytes).unwrap();
        let expected = bytes.iter().map(|&byte| u64::from(byte)).sum::<u64>();
        let (found, sum, back) = look::spawn(blob.clone()).unwrap().join().unwrap();
        assert_eq!((found, sum), (length, expected));
        assert_eq!(*back, *bytes);
    }
    let numbers = SharedBytes::from_slice(&[1.5_f64; 1000]).unwrap();
    assert_eq!(numbers.as_slice_of::<f64>().unwrap(), [1.5; 1000]);
    assert!(numbers.as_slice_of::<[u8; 7]>().is_none());
    let written = SharedBytes::write(10, |to| to.write_all(&[7; 5000])).unwrap();
    assert_eq!(*written, [7; 5000]);
}

/// Nothing of them is left when everybody is dead, and no descriptor when they are dropped.
#[test]
fn nothing_is_left_behind() {
    let _watchdog = watchdog("nothing_is_left_behind", LIMIT);
    #[mproc::entry]
    fn use_them() -> usize {
        let before = descriptors().len();
        for _ in 0..100 {
            let value = Value::new(1_u64).unwrap();
            let array = Array::<u64>::new(10_000).unwrap();
            let raw = RawArray::<u64>::new(10_000).unwrap();
            let blob = SharedBytes::new([1; 10_000]).unwrap();
            drop((value.clone(), array.clone(), raw.clone(), blob.clone()));
        }
        descriptors().len() - before
    }
    assert_eq!(use_them::spawn().unwrap().join().unwrap(), 0);
}

/// What a forgotten guard has lent lives on with the process, and nobody is lent the same, here or elsewhere, until that ends.
#[test]
fn a_forgotten_guard_s_slice_is_alone() {
    let _watchdog = watchdog("a_forgotten_guard_s_slice_is_alone", LIMIT);
    #[mproc::entry]
    fn forget(array: Array<u64>, forgotten: &mproc::Event) {
        let array: &'static Array<u64> = Box::leak(Box::new(array));
        let thread = std::thread::spawn(move || -> &'static mut [u64] {
            &mut Box::leak(Box::new(array.lock().unwrap()))[..]
        });
        let slice = thread.join().unwrap();
        slice[0] = 1;
        // The thread's end frees the lock in the kernel; here it is to be refused.
        while array.lock_handle().locked() {
            std::thread::yield_now();
        }
        for _ in 0..3 {
            let error = array.try_lock().unwrap_err();
            assert!(matches!(error, AcquireError::Leaked { .. }), "{error:?}");
        }
        forgotten.set().unwrap();
        loop {
            std::thread::park();
        }
    }
    let array = Array::from_slice(&[0_u64; 4]).unwrap();
    let forgotten = mproc::Event::new().unwrap();
    let child = forget::spawn(array.clone(), &forgotten).unwrap();
    forgotten.wait().unwrap();
    for _ in 0..3 {
        match array.lock() {
            Err(AcquireError::Leaked { process_id }) => assert_eq!(process_id, child.id()),
            other => panic!("{other:?}"),
        }
    }
    let error = mproc::Error::from(array.lock().unwrap_err());
    assert_eq!(error.kind(), mproc::ErrorKind::Leaked, "{error}");
    child.kill().unwrap();
    child.wait().unwrap();
    match array.lock() {
        Err(AcquireError::OwnerDied { guard, process_id }) => {
            assert_eq!((guard[0], process_id), (1, child.id()));
            guard.mark_consistent();
        }
        other => panic!("{other:?}"),
    }
    assert!(array.lock().is_ok());
}

/// As a death does, a panic under the lock leaves a mark for everybody.
#[test]
fn a_panic_under_the_lock_leaves_a_mark() {
    let _watchdog = watchdog("a_panic_under_the_lock_leaves_a_mark", LIMIT);
    #[mproc::entry]
    fn panic_half_way(array: &Array<u64>) {
        let mut elements = array.lock().unwrap();
        elements[0] = 1;
        panic!("as intended");
    }
    let array = Array::from_slice(&[0_u64, 0]).unwrap();
    let value = Value::new(0_u8).unwrap();
    let child = panic_half_way::spawn(&array).unwrap();
    let pid = child.id();
    assert!(child.join().unwrap_err().is_panic());
    for _ in 0..2 {
        match array.lock() {
            Err(AcquireError::OwnerDied { guard, process_id }) => {
                assert_eq!((guard[0], process_id), (1, pid));
            }
            other => panic!("{other:?}"),
        }
    }
    array
        .lock()
        .unwrap_err()
        .into_guard()
        .unwrap()
        .mark_consistent();
    assert!(array.lock().is_ok());
    // In a thread as well. One that was unwinding before it took the lock leaves none.
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            struct Adds<'a>(&'a Array<u64>);
            impl Drop for Adds<'_> {
                fn drop(&mut self) {
                    self.0.lock().unwrap()[1] += 1;
                }
            }
            let _adds = Adds(&array);
            let _guard = value.lock().unwrap();
            panic!("as intended");
        });
        thread.join().unwrap_err();
    });
    assert!(value.lock().unwrap_err().is_owner_died());
    assert_eq!(*array.lock().unwrap(), [1, 1]);
}

/// Fields that lie where their alignment wants them are whole, wherever the struct lies.
#[test]
fn fields_of_structs_are_whole() {
    let _watchdog = watchdog("fields_of_structs_are_whole", LIMIT);
    #[mproc::entry]
    fn write(array: &RawArray<[u32; 3]>, stop: &RawValue<bool>) {
        let mut ones = false;
        while !stop.get() {
            ones = !ones;
            for index in 0..array.len() {
                array.write(index, [if ones { u32::MAX } else { 0 }; 3]);
            }
        }
    }
    let array = RawArray::from_slice(&[[0_u32; 3]; 3]).unwrap();
    let stop = RawValue::new(false).unwrap();
    let child = write::spawn(&array, &stop).unwrap();
    let mut seen = [false; 2];
    let mut rounds = 0;
    while rounds < dose(100_000, 20_000_000) || seen != [true; 2] {
        rounds += 1;
        for index in 0..array.len() {
            for number in array.read(index) {
                assert!(number == 0 || number == u32::MAX, "{number:x}");
                seen[usize::from(number == 0)] = true;
            }
        }
    }
    stop.set(true);
    child.join().unwrap();
}
