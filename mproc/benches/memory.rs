//! What it costs to send a blob, whatever its length, beside the least that the kernel does for the same.
//!
//! ```text
//! cargo bench -p mproc --bench memory             # about a minute; needs 1 GiB of memory
//! cargo bench -p mproc --bench memory -- quick    # some seconds
//! ```
//!
//! A blob is sent, received, dropped there without having been looked at, and answered by a byte. Contenders take turns, one block each, so that the
//! machine's moods hit all; a ratio is the median of the ratios of neighbours.

#[path = "floors/stage.rs"]
#[allow(dead_code, reason = "the other benchmarks use the rest")]
mod stage;

#[path = "floors/compare.rs"]
mod compare;

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use compare::compare;
use mproc::{Fd, Receiver, Sender, SharedBytes};
use nix::libc;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use stage::{Core, Standing, nanoseconds_each, now, two_cores};

#[mproc::entry]
fn take_ours(mut blobs: Receiver<SharedBytes>, mut answers: Sender<u8>, core: Core) {
    let _standing = Standing::on(core);
    while let Ok(blob) = blobs.recv() {
        drop(blob);
        answers.send(1).expect("it is wanted");
    }
}

#[mproc::entry]
fn take_raw(socket: Fd, length: usize, core: Core) {
    let socket: UnixStream = socket.into_inner().expect("the only holder");
    let _standing = Standing::on(core);
    let mut byte = [0];
    loop {
        let mut space = nix::cmsg_space!(RawFd);
        let mut room = [IoSliceMut::new(&mut byte)];
        let received = recvmsg::<()>(
            socket.as_raw_fd(),
            &mut room,
            Some(&mut space),
            MsgFlags::MSG_CMSG_CLOEXEC,
        )
        .expect("it is received");
        if received.bytes == 0 {
            return;
        }
        let mut messages = received.cmsgs().expect("there is room");
        let Some(ControlMessageOwned::ScmRights(numbers)) = messages.next() else {
            panic!("a descriptor")
        };
        // SAFETY: it has just been received and is nobody else's; what is mapped is unmapped again, and not touched.
        unsafe {
            let fd = OwnedFd::from_raw_fd(numbers[0]);
            let null = std::ptr::null_mut();
            let address = libc::mmap(
                null,
                length,
                libc::PROT_READ,
                libc::MAP_SHARED,
                fd.as_raw_fd(),
                0,
            );
            assert_ne!(address, libc::MAP_FAILED);
            libc::munmap(address, length);
        }
        let answer = [IoSlice::new(&[1])];
        sendmsg::<()>(socket.as_raw_fd(), &answer, &[], MsgFlags::empty(), None)
            .expect("it is sent");
    }
}

/// Nanoseconds for one, with a pause before each in which the receiver falls asleep, or none.
fn each(count: u64, pause: Duration, mut once: impl FnMut()) -> f64 {
    let _standing = Standing::on(two_cores()[0]);
    for _ in 0..10 {
        once();
    }
    if pause.is_zero() {
        let start = now();
        (0..count).for_each(|_| once());
        return nanoseconds_each(start, now(), count);
    }
    let mut times: Vec<f64> = (0..count)
        .map(|_| {
            std::thread::sleep(pause);
            let start = now();
            once();
            nanoseconds_each(start, now(), 1)
        })
        .collect();
    compare::median(&mut times)
}

fn ours(count: u64, pause: Duration, blob: &SharedBytes) -> f64 {
    let (mut blobs, theirs) = mproc::pipe().expect("a pipe");
    let (answer, mut answers) = mproc::pipe().expect("a pipe");
    let child = take_ours::spawn(theirs, answer, two_cores()[1]).expect("it starts");
    let time = each(count, pause, || {
        blobs.send(blob.clone()).expect("it is wanted");
        answers.recv().expect("it answers");
    });
    drop(blobs);
    child.join().expect("it returns");
    time
}

fn raw(count: u64, pause: Duration, memory: &OwnedFd, length: usize) -> f64 {
    let (socket, theirs) = UnixStream::pair().expect("a socket");
    let child = take_raw::spawn(Fd::from(theirs), length, two_cores()[1]).expect("it starts");
    let time = each(count, pause, || {
        let numbers = [memory.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&numbers)];
        let byte = [IoSlice::new(&[1])];
        sendmsg::<()>(socket.as_raw_fd(), &byte, &rights, MsgFlags::empty(), None)
            .expect("it is sent");
        let mut answer = [0];
        let mut room = [IoSliceMut::new(&mut answer)];
        recvmsg::<()>(socket.as_raw_fd(), &mut room, None, MsgFlags::empty()).expect("it answers");
    });
    drop(socket);
    child.join().expect("it returns");
    time
}

fn blob(length: usize) -> SharedBytes {
    SharedBytes::write(length, |to| {
        let zeroes = [0; 1 << 16];
        let mut left = length;
        while left > 0 {
            let part = left.min(zeroes.len());
            to.write_all(&zeroes[..part])?;
            left -= part;
        }
        Ok(())
    })
    .expect("there is memory")
}

mproc::main! {
    fn main() {
        let test = std::env::args().any(|argument| argument == "--test");
        let quick = std::env::args().any(|argument| argument == "quick");
        let (blocks, count, slow, large) = match (test, quick) {
            (true, _) => (1, 10, 2, 1 << 20),
            (_, true) => (7, 10_000, 200, 1 << 30),
            _ => (21, 50_000, 1_000, 1 << 30),
        };
        let blobs = [1 << 10, 4 << 10, 1 << 20, large].map(blob);
        let memory = stage::Shared::new(4096);
        let memory: OwnedFd = memory.fd().into_inner().expect("the only holder");
        for (title, count, pause) in [
            ("a blob to a process that is awake, and its answer", count, Duration::ZERO),
            ("the same, asleep", slow, Duration::from_micros(150)),
        ] {
            compare(title, blocks, 1.5, vec![
                ("SharedBytes of 4 KiB, the least that is mapped", Box::new(|| ours(count, pause, &blobs[1]))),
                ("SharedBytes of 1 GiB", Box::new(|| ours(count, pause, &blobs[3]))),
                ("SharedBytes of 1 MiB", Box::new(|| ours(count, pause, &blobs[2]))),
                ("SharedBytes of 1 KiB, inside the message", Box::new(|| ours(count, pause, &blobs[0]))),
                ("socket, descriptor, mmap, munmap, by hand", Box::new(|| raw(count, pause, &memory, 4096))),
            ]);
        }
    }
}
