//! What tuning found, as a table and as JSON.

use serde_json::json;

use crate::cli::text::{counted, figure, grouped, table};
use crate::model::config::CpuSetting;
use crate::tune::{Batches, Choice, Measured, Reason, Written};

/// Everything that there is to tell.
#[derive(Debug)]
pub struct Report {
    pub model: String,
    pub version: u64,
    pub cores: usize,
    /// What the config asks for, or the default.
    pub now: CpuSetting,
    /// Requests of different clients share batches.
    pub merging: bool,
    /// Inputs with open dimensions that nobody chose.
    pub guessed: Vec<String>,
    /// Sizes that were not measured with every setting.
    pub left_out: Vec<usize>,
    pub measured: Vec<Measured>,
    pub choice: Choice,
    /// `None`: it was not to be written, or could not be.
    pub written: Option<Written>,
}

impl Report {
    /// A table, and sentences below it.
    pub fn text(&self) -> String {
        let headings = [">THREADS", ">INSTANCES", ">BATCH", ">ROWS/S", ">P50", ">OF BEST", ""];
        let most = self.most();
        let mut page = table(&headings, self.measured.iter().map(|m| self.cells(m, most)));
        page.push_str("P50 is the time of a call, in microseconds.\n\n");
        for sentence in [
            Some(self.recommendation()),
            self.gain(),
            self.batches(),
            self.data(),
            self.sizes(),
            Some(self.next_step()),
        ] {
            page.extend(sentence.into_iter().flat_map(|sentence| [sentence, "\n".to_owned()]));
        }
        page
    }

    /// One object. Rates count rows a second, times seconds.
    pub fn json(&self) -> anyhow::Result<String> {
        let most = self.most();
        let line = |m: &Measured| {
            json!({
                "threads": m.setting.threads,
                "instances": m.setting.instances,
                "batch": m.rows,
                "rows_per_second": m.rows_per_second,
                "p50_us": 1e6 * m.call_seconds,
                "of_best": m.rows_per_second / most,
            })
        };
        let reason = match self.choice.reason {
            Reason::MostRows => "most rows",
            Reason::LowestLatency => "lowest latency",
            Reason::FewestThreads => "fewest threads",
        };
        let report = json!({
            "model": self.model,
            "version": self.version,
            "cores": self.cores,
            "measured": self.measured.iter().map(line).collect::<Vec<_>>(),
            "batches_left_out": self.left_out,
            "now": { "threads": self.now.threads, "instances": self.now.instances },
            "recommended": line(&self.choice.best),
            "reason": reason,
            "batches_pay": match self.choice.batches {
                Batches::Unknown => None,
                Batches::Pay { .. } => Some(true),
                Batches::DoNotPay { .. } => Some(false),
            },
            "config": self.choice.best.setting.keys(),
            "written": self.written == Some(Written::Changed),
        });
        Ok(serde_json::to_string_pretty(&report)? + "\n")
    }

    fn most(&self) -> f64 {
        self.measured.iter().map(|m| m.rows_per_second).fold(f64::MIN_POSITIVE, f64::max)
    }

    fn cells(&self, m: &Measured, most: f64) -> Vec<String> {
        let mark = match (*m == self.choice.best, m.setting == self.now) {
            (true, _) => "recommended",
            (false, true) => "now",
            (false, false) => "",
        };
        vec![
            m.setting.threads.to_string(),
            m.setting.instances.to_string(),
            m.rows.to_string(),
            rate(m.rows_per_second),
            figure(1e6 * m.call_seconds),
            format!("{:.2}", m.rows_per_second / most),
            mark.to_owned(),
        ]
    }

    fn recommendation(&self) -> String {
        let best = &self.choice.best;
        let why = match self.choice.reason {
            Reason::MostRows => "no other setting comes within 3 % of its rows a second",
            Reason::LowestLatency => "of those with the most rows a second its calls are the quickest",
            Reason::FewestThreads => {
                "of those with the most rows a second and the quickest calls it takes the fewest threads"
            }
        };
        let (setting, rows) = (described(best.setting), rate(best.rows_per_second));
        let batch = if best.rows > 1 { format!(" in batches of {}", best.rows) } else { String::new() };
        format!("Recommended for {}/{}: {setting}, {rows} rows/s{batch}: {why}.", self.model, self.version)
    }

    /// What changing to the recommended setting brings.
    fn gain(&self) -> Option<String> {
        let best = &self.choice.best;
        if best.setting == self.now {
            return Some("That is what is in force now.".to_owned());
        }
        let own = self.measured.iter().filter(|m| m.setting == self.now).map(|m| m.rows_per_second);
        let now = own.reduce(f64::max)?;
        let times = figure(best.rows_per_second / now);
        Some(format!("In force now is {}; the change brings {times} times its rows/s.", described(self.now)))
    }

    fn batches(&self) -> Option<String> {
        let micros = |seconds: f64| figure(1e6 * seconds);
        Some(match self.choice.batches {
            Batches::Unknown => return None,
            Batches::Pay { alone, together, rows } => {
                let unmerged = if self.merging {
                    ""
                } else {
                    "; requests do not share batches unless config.pbtxt says dynamic_batching { }"
                };
                let (alone, together) = (micros(alone), micros(together));
                format!("Batches pay: a row costs {alone} µs alone and {together} µs in {rows}{unmerged}.")
            }
            Batches::DoNotPay { alone, together, rows } => {
                let (alone, together) = (micros(alone), micros(together));
                format!("Batches do not pay: a row costs {alone} µs alone and {together} µs in {rows}.")
            }
        })
    }

    fn data(&self) -> Option<String> {
        let inputs = self.guessed.join(", ");
        (!inputs.is_empty()).then(|| {
            format!("Open dimensions of {inputs} were taken as 4: give those of real requests by --shape.")
        })
    }

    fn sizes(&self) -> Option<String> {
        let sizes: Vec<String> = self.left_out.iter().map(usize::to_string).collect();
        (!sizes.is_empty()).then(|| {
            format!(
                "Not measured, for lack of time or memory: batches of {}; try more --seconds.",
                sizes.join(", ")
            )
        })
    }

    fn next_step(&self) -> String {
        let keys = self.choice.best.setting.keys();
        let keys = keys.trim_end();
        match &self.written {
            None => format!("For config.pbtxt, or let --write put it there:\n\n{keys}"),
            Some(Written::Changed) => {
                "Written to config.pbtxt; it counts when the model is loaded again.".to_owned()
            }
            Some(Written::Unchanged) => "config.pbtxt says so already.".to_owned(),
            Some(Written::LeftAlone(reason)) => {
                format!("config.pbtxt was left as it is, because {reason}. Put this there:\n\n{keys}")
            }
        }
    }
}

fn described(setting: CpuSetting) -> String {
    let CpuSetting { threads, instances } = setting;
    format!("{} of {}", counted(instances as u64, "instance"), counted(threads as u64, "thread"))
}

fn rate(value: f64) -> String {
    if value >= 100.0 { grouped(value.round() as u64) } else { figure(value) }
}
