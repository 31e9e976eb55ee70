//! The peer: ipc-channel, the crate that Servo uses.
//!
//! Its ends travel only through its own channels, so a child connects to a named socket and sends the sending end to us.

use ipc_channel::ipc::{self, IpcBytesSender, IpcOneShotServer, IpcSender};
use mproc::Fd;

use super::ring::sum_to;
use super::stage::{Core, Gate, Standing, nanoseconds_each, now};

#[mproc::entry]
fn read_ipc(server: String, gate: Fd, count: u64, core: Core) -> (u64, u64) {
    let (sender, receiver) = ipc::channel::<u64>().expect("a channel");
    let server = IpcSender::connect(server).expect("a server");
    server.send(sender).expect("it takes the end");
    let gate = Gate::open(gate);
    let _standing = Standing::on(core);
    gate.ready();
    let sum = (0..count).map(|_| receiver.recv().expect("a value")).sum();
    (now(), sum)
}

/// Nanoseconds for one of `count` messages, one way.
pub(crate) fn one_way(count: u64, cores: [Core; 2]) -> f64 {
    let gate = Gate::new();
    let (server, name) = IpcOneShotServer::<IpcSender<u64>>::new().expect("a server");
    let reader = read_ipc::spawn(name, gate.fd(), count, cores[1]).expect("it starts");
    let (_, sender) = server.accept().expect("the child connects");
    gate.wait_for(1);
    let _standing = Standing::on(cores[0]);
    let start = now();
    (0..count).for_each(|value| sender.send(value).expect("a reader"));
    let (end, sum) = reader.join().expect("it returns");
    assert_eq!(sum, sum_to(count));
    nanoseconds_each(start, end, count)
}

#[mproc::entry]
fn read_bytes(server: String, gate: Fd, count: u64, core: Core) -> (u64, u64) {
    let (sender, receiver) = ipc::bytes_channel().expect("a channel");
    let server = IpcSender::connect(server).expect("a server");
    server.send(sender).expect("it takes the end");
    let gate = Gate::open(gate);
    let _standing = Standing::on(core);
    gate.ready();
    let lengths = (0..count).map(|_| receiver.recv().expect("bytes").len() as u64);
    let total = lengths.sum();
    (now(), total)
}

/// Nanoseconds for one of `count` messages of so many bytes.
pub(crate) fn bulk(size: usize, count: u64, cores: [Core; 2]) -> f64 {
    let gate = Gate::new();
    let (server, name) = IpcOneShotServer::<IpcBytesSender>::new().expect("a server");
    let reader = read_bytes::spawn(name, gate.fd(), count, cores[1]).expect("it starts");
    let (_, sender) = server.accept().expect("the child connects");
    gate.wait_for(1);
    let _standing = Standing::on(cores[0]);
    let message = vec![1; size];
    let start = now();
    (0..count).for_each(|_| sender.send(&message).expect("a reader"));
    let (end, total) = reader.join().expect("it returns");
    assert_eq!(total, count * size as u64);
    nanoseconds_each(start, end, count)
}

#[mproc::entry]
fn produce(server: String, gate: Fd, count: u64) {
    let (sender, receiver) = ipc::channel::<IpcSender<u64>>().expect("a channel");
    let server = IpcSender::connect(server).expect("a server");
    server.send(sender).expect("it takes the end");
    let target = receiver.recv().expect("where to send");
    Gate::open(gate).enter();
    (0..count).for_each(|value| target.send(value).expect("a reader"));
}

/// Nanoseconds for one of `count` messages from two producers to the one consumer that there can be.
pub(crate) fn crowd(count: u64) -> f64 {
    let gate = Gate::new();
    let (server, name) = IpcOneShotServer::<IpcSender<u64>>::new().expect("a server");
    let reader = read_ipc::spawn(name, gate.fd(), count, None).expect("it starts");
    let (_, target) = server.accept().expect("the child connects");
    let producers = [(); 2].map(|()| {
        let (server, name) =
            IpcOneShotServer::<IpcSender<IpcSender<u64>>>::new().expect("a server");
        let child = produce::spawn(name, gate.fd(), count / 2).expect("it starts");
        let (_, sender) = server.accept().expect("the child connects");
        sender.send(target.clone()).expect("the child waits");
        child
    });
    let start = gate.open_for(3);
    for producer in producers {
        producer.join().expect("it returns");
    }
    let (end, sum) = reader.join().expect("it returns");
    assert_eq!(sum, 2 * sum_to(count / 2));
    nanoseconds_each(start, end, count)
}
