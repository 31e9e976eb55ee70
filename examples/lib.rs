//! Programs that show mproc; each file beside this one is one. See README.md here for the list.
//!
//! What they share is one option, so that nobody has to wait for a program that is meant to be slow.

use std::time::Duration;

/// So many seconds, or as many as `--seconds` on the command line says; a child has the command line of its program.
pub fn seconds(default: f64) -> Duration {
    let mut arguments = std::env::args().skip_while(|argument| argument != "--seconds");
    let given = arguments
        .nth(1)
        .map(|number| number.parse().expect("`--seconds` takes a number"));
    Duration::from_secs_f64(given.unwrap_or(default))
}
