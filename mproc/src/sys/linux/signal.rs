//! Signals by number and name.

use nix::libc;

pub(crate) const SIGINT: i32 = libc::SIGINT;
pub(crate) const SIGKILL: i32 = libc::SIGKILL;
pub(crate) const SIGTERM: i32 = libc::SIGTERM;

/// `SIGTERM` for 15; none for real-time and unknown ones.
pub(crate) fn signal_name(number: i32) -> Option<&'static str> {
    nix::sys::signal::Signal::try_from(number)
        .ok()
        .map(nix::sys::signal::Signal::as_str)
}

/// What std does before `main`: a write to a closed pipe is an error and does not kill.
#[cfg(feature = "test")]
pub(crate) fn ignore_sigpipe() {
    // SAFETY: SIG_IGN runs no code of ours.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}
