//! Watches a rollout to its end: a bar on a terminal, lines elsewhere.
//!
//! Always: progress goes to standard error, the result to standard output; a server that is away for a while is
//! waited for. Watching changes nothing.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{report, under_way};
use crate::cli::client::{Call, Client, ClientError};
use crate::cli::options::{ServerArguments, Verdict, print};
use crate::proto::control::Rollout;

/// The server judges several times a second; a person reads once.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// Questions in a row that may stay without an answer: half a minute where connections are refused at once, which
/// a server's restart takes.
const UNANSWERED_MAX: u32 = 30;

/// Where nothing can be redrawn, counts alone are worth a line only this often, in questions.
const QUESTIONS_PER_LINE: u32 = 10;

/// The bar counts in hundredths of a percent.
const BAR_LENGTH: u64 = 10_000;

/// The rollout that is watched, and where.
pub struct Watched<'a> {
    pub client: &'a Client,
    pub server: &'a ServerArguments,
    pub model: &'a str,
    pub id: &'a str,
}

impl Watched<'_> {
    /// Watches until the rollout has ended. Returns whether it completed. With `--json` each answer that differs
    /// from the one before is a line on standard output; otherwise the rollout as it ended.
    ///
    /// Errors: the server refuses the question, or leaves [`UNANSWERED_MAX`] of them in a row unanswered.
    pub fn to_its_end(&self, out: &mut dyn Write) -> anyhow::Result<Verdict> {
        let mut progress = if self.server.json { Progress::Silent } else { Progress::to_standard_error() };
        let mut unanswered = 0;
        let mut told = String::new();
        loop {
            match self.client.ask(Call::get(&["models", self.model, "rollouts", self.id])) {
                Ok(answer) => {
                    unanswered = 0;
                    let rollout: Rollout = answer.read()?;
                    let text = self.server.text(&answer, report::rollout)?;
                    progress.show(&rollout);
                    // The exit code tells the end too: whoever stops reading does not stop the watch.
                    if !under_way(&rollout.state) {
                        progress.end();
                        let _ = print(out, &text);
                        return Ok(verdict(&rollout));
                    }
                    if self.server.json && text != told {
                        let _ = print(out, &text);
                        told = text;
                    }
                }
                Err(error) => {
                    unanswered += 1;
                    patient(error, unanswered)?;
                    progress.wait();
                }
            }
            std::thread::sleep(ASK_EVERY);
        }
    }
}

fn verdict(rollout: &Rollout) -> Verdict {
    if rollout.state == "completed" { Verdict::Well } else { Verdict::NotRolledOut }
}

/// Passes an error on that waiting does not help against, or that has lasted too long.
fn patient(error: ClientError, unanswered: u32) -> Result<(), ClientError> {
    if error.passes() && unanswered < UNANSWERED_MAX { Ok(()) } else { Err(error) }
}

enum Progress {
    Bar(ProgressBar),
    Lines(Lines),
    Silent,
}

impl Progress {
    fn to_standard_error() -> Self {
        if !std::io::stderr().is_terminal() {
            return Self::Lines(Lines::default());
        }
        let style =
            ProgressStyle::with_template("{prefix}\n[{bar:50}]\n{msg}").expect("the template is well-formed");
        let bar = ProgressBar::with_draw_target(Some(BAR_LENGTH), ProgressDrawTarget::stderr());
        Self::Bar(bar.with_style(style.progress_chars("=> ")))
    }

    fn show(&mut self, rollout: &Rollout) {
        match self {
            Self::Bar(bar) => {
                bar.set_prefix(report::headline(rollout));
                bar.set_position(position(rollout.share));
                bar.set_message(report::evidence(rollout).trim_end().to_owned());
            }
            Self::Lines(lines) => write(lines.next(rollout)),
            Self::Silent => {}
        }
    }

    fn wait(&mut self) {
        let waiting = "no answer; asking again";
        match self {
            Self::Bar(bar) => bar.set_message(waiting),
            Self::Lines(lines) => write(lines.unanswered(waiting)),
            Self::Silent => {}
        }
    }

    fn end(&mut self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

fn position(share: f64) -> u64 {
    (share.clamp(0.0, 100.0) * BAR_LENGTH as f64 / 100.0).round() as u64
}

/// Nobody may be reading, which is no reason to stop watching.
fn write(line: Option<String>) {
    if let Some(line) = line {
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
}

/// Which moments are worth a line.
#[derive(Debug, Default)]
struct Lines {
    /// State, step, and which guards had passed.
    told: Option<(String, u32, Vec<bool>)>,
    line: String,
    questions_since: u32,
    away: bool,
}

impl Lines {
    /// A line when something happened, and now and then when only the counts grew.
    fn next(&mut self, rollout: &Rollout) -> Option<String> {
        let passed = rollout.guards.iter().map(|reading| reading.passed).collect();
        let now = Some((rollout.state.clone(), rollout.step, passed));
        let line = report::line(rollout);
        self.questions_since += 1;
        let due = self.questions_since >= QUESTIONS_PER_LINE && line != self.line;
        if self.told == now && !due && !self.away {
            return None;
        }
        *self = Self { told: now, line: line.clone(), questions_since: 0, away: false };
        Some(line)
    }

    /// A line when the server stopped answering, not again until it came back.
    fn unanswered(&mut self, sentence: &str) -> Option<String> {
        let first = !std::mem::replace(&mut self.away, true);
        first.then(|| format!("{sentence}\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::running;
    use super::*;

    #[test]
    fn a_line_is_written_when_something_happened() {
        let mut lines = Lines::default();
        assert!(lines.next(&running()).is_some(), "the first");
        assert_eq!(lines.next(&running()), None, "nothing changed");
        let mut grown = running();
        grown.new.as_mut().unwrap().requests += 1;
        assert_eq!(lines.next(&grown), None, "counts alone wait");
        let mut passed = grown.clone();
        passed.guards[2].passed = true;
        assert!(lines.next(&passed).is_some(), "a guard passed");
        assert!(lines.next(&Rollout { step: 2, ..passed }).is_some(), "the next step");
    }

    #[test]
    fn counts_that_grow_are_told_now_and_then_and_those_that_stand_are_not() {
        let told = |growing: bool| {
            let mut lines = Lines::default();
            let mut rollout = running();
            let mut step = |_| {
                rollout.new.as_mut().unwrap().requests += u64::from(growing);
                lines.next(&rollout).is_some()
            };
            (0..=30).filter(|question| step(*question)).count()
        };
        assert_eq!((told(true), told(false)), (4, 1));
    }

    #[test]
    fn a_server_that_goes_and_comes_back_is_told_once_each() {
        let mut lines = Lines::default();
        lines.next(&running());
        assert_eq!(lines.unanswered("away").as_deref(), Some("away\n"));
        assert_eq!(lines.unanswered("away"), None);
        assert!(lines.next(&running()).is_some());
        assert_eq!(lines.next(&running()), None);
    }

    #[test]
    fn only_what_may_pass_is_waited_for_and_not_for_ever() {
        let nobody = || ClientError::Nobody("http://h".parse().unwrap());
        let refused = |status: u16| ClientError::Refused {
            status: status.try_into().unwrap(),
            sentence: String::new(),
        };
        assert!(patient(nobody(), 1).is_ok() && patient(refused(503), 1).is_ok());
        assert!(patient(nobody(), UNANSWERED_MAX).is_err());
        assert!(patient(refused(404), 1).is_err());
    }

    #[test]
    fn the_bar_is_as_long_as_the_share() {
        for (share, at) in [(0.0, 0), (0.5, 50), (25.0, 2_500), (100.0, 10_000), (f64::NAN, 0)] {
            assert_eq!(position(share), at, "{share}");
        }
    }
}
