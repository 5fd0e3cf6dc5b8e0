//! `weir tune`: tries how many instances of a model run best on how many threads, and says so or writes it.

mod report;

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;

use self::report::Report;
use super::options::{self, Verdict, print};
use super::progress;
use crate::backend::onnx::{OnnxLoader, Runtime};
use crate::model::LoadRequest;
use crate::model::config::Defaults;
use crate::model::repository::{self, Candidate};
use crate::tune::{Sweep, Trials, Written, batch_sizes, choose, in_force, settings, version, write};

/// Models that are named where one is not there.
const NAMED_MAX: usize = 8;

/// Choose a model's threads and instances on this machine, without a server
///
/// Loads the model as the server does and calls it with made-up data (or that of its model_warmup), with as many
/// callers as instances, for each number of threads and instances that the cores hold, and for batches of 1, 2, 4 … rows.
/// Other work on the machine falsifies what is measured.
#[derive(Debug, Args)]
pub struct TuneArguments {
    /// Which model of the folder
    #[arg(value_parser = options::model)]
    model: String,
    /// Folder of models, in Triton's layout: MODEL/VERSION/model.onnx
    #[arg(long, env = "WEIR_MODELS", value_name = "DIR", default_value = "models")]
    models: PathBuf,
    /// Which version [default: the highest that the model's version_policy chooses]
    #[arg(long, value_name = "N", value_parser = options::version)]
    version: Option<u64>,
    /// How long measuring may take, besides loading; less is less sure
    #[arg(long, value_name = "SECONDS", default_value = "20", value_parser = seconds)]
    seconds: f64,
    /// Rows of a call, instead of 1, 2, 4 … and the model's maximum
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',')]
    batch: Vec<usize>,
    /// Dimensions of an input whose own are open (they are 4 otherwise), with or without the batch axis, such as
    /// image:3,224,224; may be repeated. The model's model_warmup is not used then
    #[arg(long, value_name = "NAME:DIMS", value_parser = options::shape)]
    shape: Vec<(String, Vec<i64>)>,
    /// Write what is recommended into the model's config.pbtxt; nothing else in it changes
    #[arg(long)]
    write: bool,
    /// Print everything that was measured as JSON
    #[arg(long)]
    json: bool,
}

impl TuneArguments {
    /// Measures, prints, and writes if that was asked for. Wrong: a person has to write it.
    pub fn run(self, out: &mut dyn Write) -> anyhow::Result<Verdict> {
        let candidate = self.candidate()?;
        let mut report = self.measure(&candidate).with_context(|| self.model.clone())?;
        let written = self.write.then(|| write(&candidate, report.choice.best.setting)).transpose();
        report.written = written.as_ref().ok().cloned().flatten();
        // What was measured is worth its time, written or not.
        print(out, &if self.json { report.json()? } else { report.text() })?;
        let by_hand = matches!(written.with_context(|| self.model.clone())?, Some(Written::LeftAlone(_)));
        Ok(if by_hand { Verdict::Wrong } else { Verdict::Well })
    }

    fn candidate(&self) -> anyhow::Result<Candidate> {
        let scan = repository::scan(&self.models, &Defaults::default()).with_context(|| {
            format!(
                "the models folder {} cannot be read; choose another with --models",
                self.models.display()
            )
        })?;
        let names: Vec<String> = scan.candidates.iter().map(|candidate| candidate.name.to_string()).collect();
        let found = scan.candidates.into_iter().find(|candidate| candidate.name.as_str() == self.model);
        found.with_context(|| {
            let folder = self.models.display();
            match names.len() {
                0 => format!("there is no model in {folder}; choose another folder with --models"),
                1..=NAMED_MAX => {
                    format!("there is no model '{}' in {folder}; there is {}", self.model, names.join(", "))
                }
                more => format!("there is no model '{}' among the {more} in {folder}", self.model),
            }
        })
    }

    fn measure(&self, candidate: &Candidate) -> anyhow::Result<Report> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let config = candidate.config.as_ref().map_err(|reason| anyhow::anyhow!("{reason}"))?;
        let now = in_force(config, cores)?;
        let settings = settings(cores, now);
        let version = version(candidate, self.version)?;
        let loader = OnnxLoader::new(Runtime::open()?);
        let request = LoadRequest { candidate, version, loader: &loader };
        let bar = progress::bar();
        bar.set_prefix(format!("loading {}/{version}", self.model));
        let loads = settings.chunk_by(|a, b| a.threads == b.threads).count();
        let trials = Trials::load(&request, &settings, &self.shape, |loaded| {
            progress::fill(&bar, loaded as f64 / loads as f64);
        })?;
        let sizes = batch_sizes(trials.max_batch_size(), &self.batch)?;
        let time = Duration::from_secs_f64(self.seconds);
        bar.set_prefix(format!("measuring {}/{version}", self.model));
        let sweep = Sweep { trials: &trials, settings: &settings, sizes: &sizes, time };
        let measured = sweep.run(&mut |part| progress::fill(&bar, part))?;
        bar.finish_and_clear();
        let choice = choose(&measured).context("nothing was measured; give it more --seconds")?;
        Ok(Report {
            model: self.model.clone(),
            version: version.number(),
            cores,
            now,
            merging: trials.batching().merging,
            guessed: trials.guessed().to_vec(),
            left_out: sizes.into_iter().filter(|size| measured.iter().all(|m| m.rows != *size)).collect(),
            measured,
            choice,
            written: None,
        })
    }
}

/// An hour is more than any machine stands still for.
fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.1..=3600.0).contains(seconds));
    seconds.ok_or_else(|| format!("'{text}' is not a number of seconds from 0.1 to 3600"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_that_are_no_time_are_refused() {
        assert_eq!(seconds("0.5"), Ok(0.5));
        for wrong in ["0", "-1", "nan", "inf", "1h", ""] {
            assert!(seconds(wrong).is_err_and(|error| error.ends_with("from 0.1 to 3600")), "{wrong}");
        }
    }
}
