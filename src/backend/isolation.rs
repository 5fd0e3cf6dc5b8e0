//! In which process a model runs.

use std::fmt;
use std::str::FromStr;

/// Where a model's sessions live: what a model file makes ONNX Runtime do, it does to the process that it is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Isolation {
    /// In this process when a scan of the graph finds no known hazard, else in a worker process.
    #[default]
    Auto,
    /// Always in a worker process. Costs a copy of each call's inputs and outputs between the processes.
    Process,
    /// Always in this process: for models that are trusted.
    None,
}

impl Isolation {
    /// What [`str::parse`] takes, in words.
    pub const NAMES: &str = "auto, process or none";
}

/// The text names no isolation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be {}", Isolation::NAMES)]
pub struct NoIsolation;

impl FromStr for Isolation {
    type Err = NoIsolation;

    fn from_str(text: &str) -> Result<Self, NoIsolation> {
        match text {
            "auto" => Ok(Self::Auto),
            "process" => Ok(Self::Process),
            "none" => Ok(Self::None),
            _ => Err(NoIsolation),
        }
    }
}

impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Process => "process",
            Self::None => "none",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for isolation in [Isolation::Auto, Isolation::Process, Isolation::None] {
            assert_eq!(isolation.to_string().parse(), Ok(isolation));
            assert!(Isolation::NAMES.contains(&isolation.to_string()));
        }
        for wrong in ["", "Auto", "thread"] {
            assert_eq!(wrong.parse::<Isolation>(), Err(NoIsolation));
        }
    }
}
