//! `weir experiments`: what became of the requests that each arm answered.

use std::io::Write;

use clap::Args;

use super::client::Call;
use super::options::{self, ServerArguments};
use super::text::{self, figure, grouped, moment};
use crate::proto::control::{
    Estimate, Experiment, ExperimentArm, ExperimentComparison, GuardReading, ListExperimentsResponse,
};

/// Arguments of `weir experiments`.
#[derive(Debug, Args)]
pub struct ExperimentsArguments {
    /// Whose arms
    #[arg(value_parser = options::model)]
    model: String,
    #[command(flatten)]
    server: ServerArguments,
}

impl ExperimentsArguments {
    /// Prints each experiment of the model.
    pub fn run(self, out: &mut dyn Write) -> anyhow::Result<()> {
        let answer = self.server.client()?.ask(Call::get(&["models", &self.model, "experiments"]))?;
        self.server.show(out, &answer, |list: &ListExperimentsResponse| render(&self.model, list))
    }
}

fn render(model: &str, list: &ListExperimentsResponse) -> String {
    if list.experiments.is_empty() {
        return format!("{model} has no experiments; a route of several arms begins one\n");
    }
    let pages: Vec<String> = list.experiments.iter().map(|experiment| page(model, experiment)).collect();
    pages.join("\n")
}

fn page(model: &str, experiment: &Experiment) -> String {
    let ended = match experiment.ended_ms {
        0 => "running".to_owned(),
        at_ms => format!("until {} UTC", moment(at_ms)),
    };
    let began = moment(experiment.began_ms);
    let mut page = format!("experiment {} of {model}, since {began} UTC, {ended}\n", experiment.id);
    let unit = match experiment.sticky.as_str() {
        "" => "request",
        sticky => sticky,
    };
    page.push_str(&format!("unit    {unit}\n"));
    if let Some(reading) = &experiment.sample_ratio {
        page.push_str(&format!("split   {}\n", split(reading)));
    }
    let rows = experiment.arms.iter().flat_map(arm);
    page.push_str(&text::table(
        &[">VERSION", ">WEIGHT", ">REQUESTS", ">UNITS", ">OUTCOMES", "OF", ">VALUE", "95 % WITHIN"],
        rows,
    ));
    if !experiment.comparisons.is_empty() {
        let headings = [">VERSION", ">AGAINST", "OF", ">DIFFERENCE", ">EVIDENCE", "VERDICT"];
        page.push_str(&text::table(&headings, experiment.comparisons.iter().map(comparison)));
    }
    page
}

/// Whether the traffic was split as the weights say; if not, the comparison means nothing.
fn split(reading: &GuardReading) -> String {
    let (evidence, threshold) = (figure(reading.evidence), figure(reading.threshold));
    let verdict =
        if reading.passed { "as the weights say" } else { "NOT as the weights say: trust no comparison" };
    format!("{verdict} (evidence {evidence}, suspicious at {threshold})")
}

/// A row for the arm, and one more for each further thing that was estimated.
fn arm(arm: &ExperimentArm) -> Vec<Vec<String>> {
    let mean = arm.mean.iter().map(|mean| ("mean".to_owned(), *mean));
    let rates = arm.rates.iter().map(|(label, rate)| (format!("rate of {label}"), *rate));
    let mut estimates = mean.chain(rates).map(|(of, estimate)| estimated(of, estimate));
    let figures = [
        arm.version.to_string(),
        figure(arm.weight),
        grouped(arm.requests),
        grouped(arm.units),
        grouped(arm.outcomes),
    ];
    let first = estimates.next().unwrap_or_else(|| ["-".to_owned(), "-".to_owned(), "-".to_owned()]);
    let further = estimates.map(|estimate| [vec![String::new(); 5], estimate.to_vec()].concat());
    std::iter::once([figures.to_vec(), first.to_vec()].concat()).chain(further).collect()
}

fn estimated(of: String, estimate: Estimate) -> [String; 3] {
    let within = format!("{} to {}", figure(estimate.lower), figure(estimate.upper));
    [of, figure(estimate.value), within]
}

fn comparison(comparison: &ExperimentComparison) -> Vec<String> {
    let of = if comparison.of == "mean" { "mean".to_owned() } else { format!("rate of {}", comparison.of) };
    vec![
        comparison.other.to_string(),
        comparison.base.to_string(),
        of,
        figure(comparison.difference),
        figure(comparison.evidence),
        comparison.verdict.clone(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_experiment_shows_each_arms_estimates_and_their_difference() {
        let list: ListExperimentsResponse = serde_json::from_str(
            r#"{"experiments":[{"id":"r7","model":"digits","began_ms":1000,"sticky":"header:x-user-id",
            "arms":[{"version":1,"weight":90.0,"requests":9000,"units":900,"outcomes":450,
                     "rates":{"click":{"count":45,"value":0.1,"lower":0.08,"upper":0.125},
                              "none":{"count":405,"value":0.9,"lower":0.875,"upper":0.92}}},
                    {"version":2,"weight":10.0,"requests":1000,"units":100,"outcomes":0}],
            "sample_ratio":{"evidence":0.5,"threshold":1000.0,"passed":true},
            "comparisons":[{"base":1,"other":2,"of":"click","difference":-0.02,"evidence":3.0,"verdict":"open"}]}]}"#,
        )
        .unwrap();
        let expected = "\
experiment r7 of digits, since 1970-01-01 00:00:01 UTC, running
unit    header:x-user-id
split   as the weights say (evidence 0.5, suspicious at 1000)
VERSION  WEIGHT  REQUESTS  UNITS  OUTCOMES  OF             VALUE  95 % WITHIN
      1      90     9,000    900       450  rate of click    0.1  0.08 to 0.125
                                            rate of none     0.9  0.875 to 0.92
      2      10     1,000    100         0  -                  -  -
VERSION  AGAINST  OF             DIFFERENCE  EVIDENCE  VERDICT
      2        1  rate of click       -0.02         3  open
";
        assert_eq!(render("digits", &list), expected);
    }

    #[test]
    fn a_split_that_is_off_is_told_loudly() {
        let reading = GuardReading { evidence: 1e6, threshold: 1000.0, ..GuardReading::default() };
        assert!(split(&reading).starts_with("NOT as the weights say"));
    }

    #[test]
    fn no_experiment_says_what_begins_one() {
        let page = render("digits", &ListExperimentsResponse::default());
        assert_eq!(page, "digits has no experiments; a route of several arms begins one\n");
    }
}
