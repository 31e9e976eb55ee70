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

/// Lets SIGINT pass without effect. A handler, and not `SIG_IGN`, which what this process executes would inherit.
pub(crate) fn pass_over_interrupts() {
    extern "C" fn nothing(_: libc::c_int) {}
    let handler = nix::sys::signal::SigHandler::Handler(nothing);
    let flags = nix::sys::signal::SaFlags::SA_RESTART;
    let none = nix::sys::signal::SigSet::empty();
    let action = nix::sys::signal::SigAction::new(handler, flags, none);
    // SAFETY: the handler does nothing, so it is async-signal-safe.
    // OK to ignore: SIGINT exists and may be handled.
    let _ = unsafe { nix::sys::signal::sigaction(nix::sys::signal::Signal::SIGINT, &action) };
}
