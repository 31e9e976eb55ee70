//! Waiting for children in tasks.

use std::os::fd::AsFd;
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::ready::{found, look, register};
use crate::error::{Error, Result};
use crate::process::{AnyChild, Child, ExitStatus};

impl AnyChild {
    /// Waits in a task until the process has ended, as [`wait`](Self::wait) does in a thread. Any number of tasks may, and
    /// threads too; a future that is dropped changes nothing.
    ///
    /// With the cargo feature `tokio`.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait), and if there is no room for a descriptor, of which this needs one while it waits.
    ///
    /// # Panics
    ///
    /// [Outside a runtime](crate::tokio#panics).
    ///
    /// # Examples
    ///
    /// ```
    /// #[mproc::entry]
    /// fn leave(code: i32) { std::process::exit(code) }
    ///
    /// # fn main() -> mproc::Result<()> {
    /// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    /// # runtime.block_on(async {
    /// let child = leave::spawn(3)?;
    /// assert_eq!(child.wait_async().await?.exit_code(), 3);
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    pub async fn wait_async(&self) -> Result<ExitStatus> {
        if let Some(status) = self.wait_timeout(Duration::ZERO)? {
            return Ok(status);
        }
        let ready = register(self.as_fd())?;
        let ask = || look(self.wait_timeout(Duration::ZERO).transpose(), self);
        found(&ready, ask)
            .await
            .map_err(|error| Error::io("waiting for a process failed", error))?
    }
}

impl<R: DeserializeOwned> Child<R> {
    /// Waits in a task for the end of the process and gives the value that its function returned, as [`join`](Self::join) does in a
    /// thread.
    ///
    /// A future that is dropped before it was ready changes nothing: the child runs on, and the next one gives the value.
    ///
    /// With the cargo feature `tokio`.
    ///
    /// # Errors
    ///
    /// As [`join`](Self::join) and [`wait_async`](AnyChild::wait_async). After a value or an error of the process has been given, the
    /// next call is [`AlreadyJoined`](crate::ErrorKind::AlreadyJoined).
    ///
    /// # Panics
    ///
    /// [Outside a runtime](crate::tokio#panics).
    ///
    /// # Examples
    ///
    /// ```
    /// #[mproc::entry]
    /// fn square(x: i64) -> i64 { x * x }
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// let mut child = square::spawn(7)?;
    /// assert_eq!(child.join_async().await?, 49);
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    pub async fn join_async(&mut self) -> Result<R> {
        self.wait_async().await?;
        loop {
            // It has ended, so this gives the value at once.
            if let Some(value) = self.join_timeout(Duration::ZERO)? {
                return Ok(value);
            }
        }
    }
}
