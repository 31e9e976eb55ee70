//! One call in one process of its own.

mod child;
mod exit;
mod identity;
pub(crate) mod panics;
mod reaper;
pub(crate) mod record;
mod spawn;
mod start_method;
mod status;
mod stdio;
mod unstarted;

pub use child::{AnyChild, Child};
pub use identity::{CurrentProcess, ParentProcess, current_process, parent_process};
pub use start_method::StartMethod;
pub use status::ExitStatus;
pub use stdio::Stdio;
pub use unstarted::Process;

pub(crate) use identity::become_child;

/// The children of this process that are alive, without owning them. Python's `active_children`.
///
/// Collects those that have ended, like every start. Detached children are among them.
///
/// # Examples
///
/// ```
/// # #[mproc::entry]
/// # fn wait_long() { std::thread::sleep(std::time::Duration::from_secs(60)) }
/// # fn main() -> mproc::Result<()> {
/// let child = wait_long::spawn()?;
/// assert!(mproc::active_children().iter().any(|other| other.id() == child.id()));
/// child.kill()?;
/// child.wait()?;
/// assert!(!mproc::active_children().iter().any(|other| other.id() == child.id()));
/// # Ok(())
/// # }
/// ```
pub fn active_children() -> Vec<AnyChild> {
    child::active()
}

/// How many processors this process may use: its affinity mask and its cgroup's quota (v1 and v2) count, at least 1.
///
/// Python's `multiprocessing.cpu_count` counts the machine's processors whether or not they may be used.
pub fn cpu_count() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
