//! What the command line asks for.

use std::path::PathBuf;
use std::time::Duration;

use super::workloads::WORKLOADS;

#[derive(Clone)]
pub struct Options {
    /// Empty: all.
    workloads: Vec<String>,
    pub rounds: usize,
    /// How long each contender is asked in a round.
    pub time: Duration,
    /// The server has one core, the generator another.
    pub pinned: bool,
    pub model: Option<PathBuf>,
    /// Open dimensions of that model's inputs but for the batch.
    pub length: i64,
    pub json: Option<String>,
}

impl Options {
    pub fn parse(arguments: &[String]) -> Self {
        let mut options = Self {
            workloads: Vec::new(),
            rounds: 5,
            time: Duration::from_secs(1),
            pinned: false,
            model: None,
            length: 32,
            json: None,
        };
        for argument in arguments {
            let number = |value: &str| {
                value.parse::<f64>().unwrap_or_else(|_| panic!("{argument}: '{value}' is no number"))
            };
            match argument.split_once('=') {
                Some(("rounds", value)) => options.rounds = (number(value) as usize).max(1),
                Some(("seconds", value)) => options.time = Duration::from_secs_f64(number(value)),
                Some(("cores", value)) => options.pinned = value == "1",
                Some(("length", value)) => options.length = number(value) as i64,
                Some(("model", value)) => options.model = Some(PathBuf::from(value)),
                Some(("json", value)) => options.json = Some(value.to_owned()),
                None if WORKLOADS.iter().any(|(name, _)| name == argument) => {
                    options.workloads.push(argument.clone());
                }
                _ => panic!("'{argument}' is neither an option nor a workload; see benches/ceiling/main.rs"),
            }
        }
        options
    }

    pub fn chosen(&self, name: &str) -> bool {
        let named = self.workloads.iter().any(|workload| workload == name);
        named || (self.workloads.is_empty() && (name != "heavy" || self.model.is_some()))
    }

    /// A line on how it was measured.
    pub fn described(&self) -> String {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let shared = if self.pinned {
            "one for the server, one for the generator"
        } else {
            "shared with the generator"
        };
        format!("{} rounds of {} s; {cores} cores, {shared}", self.rounds, self.time.as_secs_f64())
    }
}
