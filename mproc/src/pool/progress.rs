//! The bar of a call, with `indicatif`.

use std::fmt;
use std::io::{IsTerminal, stderr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::lock;
use super::report::{Observer, Report};

/// What was asked for.
#[derive(Clone)]
pub(super) enum Wanted {
    Default,
    Yours(ProgressBar),
}

struct Bar {
    bar: ProgressBar,
    is_ours: bool,
    /// What it is about is one task, of whose parts there are so many.
    parts: Option<u64>,
    /// Locked while the bar is changed, so that nothing is drawn after its end.
    shown: Mutex<Shown>,
}

#[derive(Default)]
struct Shown {
    /// So many tasks.
    resolved: usize,
    is_finished: bool,
}

const MANY: &str = "{wide_bar} {human_pos}/{human_len} {rate} {eta} {msg}";
const ONE: &str = "{wide_bar} {percent}% {eta} {msg}";
const UNKNOWN: &str = "{spinner} {human_pos} {rate} {elapsed} {msg}";

/// Parts of a task.
const PARTS: u64 = 1000;

/// Between two looks at the clock.
const TICK: Duration = Duration::from_millis(200);

/// The bar of one call, perhaps with so many tasks.
pub(super) fn bar(wanted: &Wanted, total: Option<usize>, is_one: bool) -> Arc<dyn Observer> {
    let bar = match wanted {
        Wanted::Yours(bar) => bar.clone(),
        Wanted::Default => ours(match (is_one, total) {
            (true, _) => ONE,
            (false, Some(_)) => MANY,
            (false, None) => UNKNOWN,
        }),
    };
    let bar = Bar {
        bar,
        is_ours: matches!(wanted, Wanted::Default),
        parts: is_one.then_some(PARTS),
        shown: Mutex::default(),
    };
    if let Some(total) = total {
        bar.expects(total);
    }
    if bar.is_ours && !bar.bar.is_hidden() {
        bar.bar.enable_steady_tick(TICK);
    }
    Arc::new(bar)
}

fn ours(template: &str) -> ProgressBar {
    let target = if stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(None, target);
    bar.set_style(style(template));
    bar
}

fn style(template: &str) -> ProgressStyle {
    // OK because the templates are ours.
    let style = ProgressStyle::with_template(template).expect("a template of ours");
    style.with_key("rate", |state: &ProgressState, to: &mut dyn fmt::Write| {
        let rate = state.per_sec();
        // As many digits as say something. OK to ignore: it is written to memory.
        let _ = match rate {
            100.0.. => write!(to, "{rate:.0}/s"),
            _ => write!(to, "{rate:.1}/s"),
        };
    })
}

impl Observer for Bar {
    fn expects(&self, total: usize) {
        let shown = lock(&self.shown);
        if shown.is_finished || self.bar.length().is_some() {
            return;
        }
        match self.parts {
            Some(parts) => self.bar.set_length(parts),
            None => {
                self.bar.set_length(total as u64);
                if self.is_ours {
                    self.bar.set_style(style(MANY));
                }
            }
        }
    }

    fn counts(&self) -> bool {
        true
    }

    fn resolved(&self, in_all: usize) {
        self.show(&mut lock(&self.shown), in_all);
    }

    fn reported(&self, report: &Report) {
        let shown = lock(&self.shown);
        match self.parts {
            _ if shown.is_finished => {}
            Some(parts) => {
                let done = report.fraction() * parts as f64;
                self.bar.set_position(done as u64);
                self.bar.set_message(report.text().to_owned());
            }
            None => self.bar.set_message(report.to_string()),
        }
    }

    fn finished(&self, in_all: usize) {
        let mut shown = lock(&self.shown);
        self.show(&mut shown, in_all);
        if !std::mem::replace(&mut shown.is_finished, true) {
            // As it is: of a call that was given up, not all has been done.
            self.bar.abandon();
        }
    }
}

impl Bar {
    /// Shows that so many tasks have resolved in all, unless it shows more.
    fn show(&self, shown: &mut Shown, in_all: usize) {
        if shown.is_finished || in_all <= shown.resolved {
            return;
        }
        let more = in_all - shown.resolved;
        shown.resolved = in_all;
        match self.parts {
            Some(parts) => self.bar.set_position(parts),
            None => self.bar.inc(more as u64),
        }
    }
}

/// Nobody has asked for the value, and all of it has resolved or never will.
impl Drop for Bar {
    fn drop(&mut self) {
        self.finished(0);
    }
}
