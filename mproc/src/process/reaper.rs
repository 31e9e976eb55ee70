//! Collects children that nobody holds any more.
//!
//! An ended child stays in the kernel's table until its parent collects it. Handles do that when they are asked, and every
//! start does it for all. For a child that is still running when its last handle is dropped there may be no such moment:
//! only then a thread is started, one per program, that sleeps until such a child ends.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::child::Inner;
use crate::sys::{self, Deadline};

struct Reaper {
    watch: sys::Watch,
    children: Mutex<HashMap<u64, Arc<Inner>>>,
}

/// Collects `child` when it ends. Where the system refuses the thread, the next start does it, or the end of the program.
pub(super) fn collect_later(child: Arc<Inner>) {
    static REAPER: Mutex<Option<Arc<Reaper>>> = Mutex::new(None);
    let mut shared = REAPER.lock().unwrap_or_else(PoisonError::into_inner);
    // Tried again each time: a system that was short of descriptors may have some now.
    *shared = shared.take().or_else(start);
    let Some(reaper) = shared.clone() else {
        return;
    };
    drop(shared);
    // The key is the address: children in the map are alive as values, so no two have the same.
    let key = Arc::as_ptr(&child) as u64;
    let mut children = reaper
        .children
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    // A child is here already if it was listed by `active_children` and let go again.
    if children.contains_key(&key) {
        return;
    }
    if reaper.watch.add(child.pidfd.as_fd(), key).is_ok() {
        children.insert(key, child);
    }
}

fn start() -> Option<Arc<Reaper>> {
    let reaper = Arc::new(Reaper {
        watch: sys::Watch::new().ok()?,
        children: Mutex::default(),
    });
    let in_thread = Arc::clone(&reaper);
    let run = move || {
        while let Ok(key) = in_thread.watch.next() {
            let child = in_thread
                .children
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&key);
            if let Some(child) = child {
                // Mostly no more than a look. What is still being traced is left to the next start.
                let _ = child.wait(Deadline::after(Duration::from_secs(1)));
            }
        }
    };
    std::thread::Builder::new()
        .name("mproc-reaper".into())
        .spawn(run)
        .ok()?;
    Some(reaper)
}
