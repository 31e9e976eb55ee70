"""How long it takes to send numbers through a multiprocessing.Pipe, one message each, to a daemon that reads them.

    python3 examples/python/pipe_timing.py

prints three lines, with the times of your machine:

    Sending 10000 numbers to Pipe() took 0.346070 seconds

The same in Rust: cargo run --release --example pipe_timing
"""

import multiprocessing
import time

END = None


def read(numbers):
    while numbers.recv() is not END:
        pass


def measure(count):
    receiver, sender = multiprocessing.Pipe(duplex=False)
    reader = multiprocessing.Process(target=read, args=(receiver,), daemon=True)
    # The clock starts beside the reader, not when it is ready: how long that takes is part of what a program waits for.
    reader.start()
    start = time.perf_counter()
    for number in range(count):
        sender.send(number)
    sender.send(END)
    reader.join()
    return time.perf_counter() - start


if __name__ == "__main__":
    # The start method that is safe in programs with threads, and the one that mproc has.
    multiprocessing.set_start_method("spawn")
    for count in (10_000, 100_000, 1_000_000):
        print(f"Sending {count} numbers to Pipe() took {measure(count):.6f} seconds", flush=True)
