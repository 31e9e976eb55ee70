//! Linux, 5.16 or newer; x86-64 and aarch64, glibc and musl.

mod descriptor;
mod launch;
mod memory;
mod poll;
mod process;
mod signal;
mod socket;

#[cfg(feature = "test")]
pub(crate) use descriptor::open_stdio;
pub(crate) use descriptor::{duplicate, pipe, set_close_on_exec};
pub(crate) use launch::{Armed, Plan, Source, launch};
pub(crate) use memory::{Memfd, SealedBytes};
pub(crate) use poll::{Deadline, Watch, is_hung_up, is_readable, wait_readable};
pub(crate) use process::{
    ForeignReap, RawStatus, at_exit, effective_user, ended_child, process_id, program_arguments,
    reap, send_signal, set_thread_name, status_after_foreign_reap,
};
#[cfg(feature = "test")]
pub(crate) use signal::ignore_sigpipe;
pub(crate) use signal::{SIGINT, SIGKILL, SIGTERM, signal_name};
pub(crate) use socket::{
    MAX_DESCRIPTORS_PER_PACKET, Received, peer_user, receive_packet, send_packet, seqpacket_pair,
};
