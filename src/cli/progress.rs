//! A bar for work whose end is known: on a terminal that somebody watches, and nowhere else.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// The bar counts in thousandths.
const LENGTH: u64 = 1000;

/// An empty bar on standard error. Nothing is drawn where nobody watches.
pub fn bar() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style =
        ProgressStyle::with_template("{prefix:24} [{bar:40}] {msg}").expect("the template is well-formed");
    let bar = ProgressBar::with_draw_target(Some(LENGTH), ProgressDrawTarget::stderr());
    bar.with_style(style.progress_chars("=> "))
}

/// Fills the bar up to that part.
pub fn fill(bar: &ProgressBar, part: f64) {
    bar.set_position((part.clamp(0.0, 1.0) * LENGTH as f64) as u64);
}
