//! Boot in programs whose `main` belongs to somebody else: `cargo test`, doctests, bin targets' unit tests.
//!
//! A child of a test binary that reached the harness would run the whole suite again. So with the cargo feature `test` this
//! crate has a constructor, a function that the loader calls before `main`. In a child that was started for it, it runs the
//! call and exits; anywhere else it looks for one environment variable and returns.
//!
//! # The walk
//!
//! `inventory` fills its list from constructors too, one for each entry, and nothing says that those run before ours. The
//! linker lays all of them out in one array between two symbols. So in a child, and only there, ours first calls every
//! constructor that stands behind it, as the loader would have done. None is called twice, because it never returns then.
//! Only the program's own array is walked; a constructor in a shared library has run by now, and this crate, built into a
//! Rust `dylib`, would see that library's array alone: that is not supported.
//!
//! # What std does before `main` and has not done here
//!
//! It ignores SIGPIPE, opens descriptors 0 to 2 if they are closed, and catches panics: done below, or by boot. It installs a
//! handler that explains a stack overflow: not done; here such a child is just killed by SIGSEGV.

use std::ffi::{c_char, c_int};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::boot::{self, Dispatch};
use crate::sys;

/// As the loader calls it on glibc. musl passes nothing, so the values are handed on and not looked at.
type Constructor = unsafe extern "C" fn(c_int, *const *const c_char, *const *const c_char);

#[used]
// SAFETY: the section holds function pointers that are called once each before `main`; this is one of that type.
#[unsafe(link_section = ".init_array")]
static BOOT: Constructor = boot_child;

unsafe extern "C" {
    #[link_name = "__init_array_start"]
    static ARRAY_START: Constructor;
    #[link_name = "__init_array_end"]
    static ARRAY_END: Constructor;
}

unsafe extern "C" fn boot_child(
    argc: c_int,
    argv: *const *const c_char,
    envp: *const *const c_char,
) {
    // A constructor behind ours might be a second copy of this crate.
    static WALKING: AtomicBool = AtomicBool::new(false);
    if std::env::var_os(boot::MARK).is_none() || WALKING.swap(true, Relaxed) {
        return;
    }
    let Some(mark) = boot::take_mark(Dispatch::Harness) else {
        return;
    };
    sys::ignore_sigpipe();
    sys::open_stdio();
    // SAFETY: the linker defines both symbols around the array of this program's constructors, of which `BOOT` is one or, in
    // a shared library, is not: then nothing is called. Those behind `BOOT` have not run, and the loader will not come back
    // to run them, because this function does not return.
    unsafe {
        let end = &raw const ARRAY_END;
        let mut slot = &raw const ARRAY_START;
        while slot < end && slot.cast::<usize>().read() != boot_child as *const () as usize {
            slot = slot.add(1);
        }
        while slot < end && slot.add(1) < end {
            slot = slot.add(1);
            // 0 and -1 are fillers that some linkers leave.
            if !matches!(slot.cast::<isize>().read(), 0 | -1) {
                (*slot)(argc, argv, envp);
            }
        }
    }
    boot::run_child(&mark)
}
