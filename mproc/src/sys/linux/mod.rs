//! Linux, 5.16 or newer; x86-64 and aarch64, glibc and musl.

mod descriptor;
#[cfg_attr(mproc_model, path = "event_model.rs")]
mod event;
#[cfg_attr(mproc_model, path = "futex_model.rs")]
mod futex;
mod launch;
mod memory;
#[cfg(not(mproc_model))]
mod named;
#[cfg(not(mproc_model))]
mod perch;
mod poll;
mod process;
mod shared;
mod signal;
mod socket;

#[cfg(feature = "test")]
pub(crate) use descriptor::open_stdio;
pub(crate) use descriptor::{duplicate, pipe, set_close_on_exec};
#[cfg(all(test, mproc_model))]
pub(crate) use event::hangs_up_with;
pub(crate) use event::{
    Heard, doorbell, either, empty_line, has_hung_up, listen, ring, ring_line, silence,
    sleigh_bell, strike, unstrike, wait_line, wait_writable,
};
pub(crate) use futex::{
    MOST_WORDS, OWNER, OWNER_DIED, RobustThread, WAITERS, Woken, goes_on, wait_any, wake,
};
#[cfg(all(test, mproc_model))]
pub(crate) use futex::{Outcome, Part, run, tell};
#[cfg(mproc_model)]
pub(crate) use futex::{Perch, TooMany, may_die};
pub(crate) use launch::{Armed, Plan, Source, launch};
pub(crate) use memory::{Memfd, SealedBytes};
#[cfg(not(mproc_model))]
pub(crate) use named::{
    Birth, file_to_name, give_name, identity_of_name, names, number_space, open_name,
    steady_file_size, take_name,
};
#[cfg(not(mproc_model))]
pub(crate) use perch::{Perch, TAIL, TooMany, is_own_thread, place_of_word};
pub(crate) use poll::{Deadline, Watch, is_hung_up, is_readable, wait_many, wait_readable};
pub(crate) use process::{
    ForeignReap, RawStatus, add_niceness, at_exit, core, effective_user, ended_child,
    monotonic_nanoseconds, move_to_core, nth_core, open_process, other_core, process_id,
    program_arguments, reap, resident_bytes, send_signal, set_thread_name,
    status_after_foreign_reap,
};
pub(crate) use shared::{
    PAGE, SharedMapping, allocate, allocated, file_identity, fill, is_byte_locked, largest_file,
    lock_byte, populate, punch, read_at, reopen, shared_file, shared_file_size, size, sparse_file,
    unlock_byte, write_at,
};
#[cfg(feature = "test")]
pub(crate) use signal::ignore_sigpipe;
pub(crate) use signal::{SIGINT, SIGKILL, SIGTERM, pass_over_interrupts, signal_name};
pub(crate) use socket::{
    MAX_DESCRIPTORS_PER_PACKET, Received, peek_from_the_first, peek_packet, peer_user,
    receive_bare, receive_packet, send_packet, seqpacket_pair,
};
