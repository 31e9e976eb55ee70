//! Every system call mproc makes, and no policy.
//!
//! The only module that names `nix` or `libc`. Another platform is another folder of the same shape beside `linux/`.
//! Descriptors are `OwnedFd` and `BorrowedFd` from the first line, every call retries `EINTR`, everything is close-on-exec.

#[cfg(target_os = "linux")]
#[path = "linux/mod.rs"]
mod imp;

#[cfg(not(target_os = "linux"))]
compile_error!(
    "mproc runs on Linux (5.16 or newer) only; another platform needs a folder beside mproc/src/sys/linux"
);

pub(crate) use imp::*;
