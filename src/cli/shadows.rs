//! `weir shadows`: how a model's shadows compare with what clients were answered.

use std::io::Write;

use std::collections::BTreeSet;

use clap::Args;

use super::client::Call;
use super::options::{self, ServerArguments};
use super::text::{self, counted, figure, grouped, percent};
use crate::proto::control::{
    ConfusionCell, Disagreement, Distribution, ShadowReport, ShadowReports, ShownTensor,
};

/// Classes up to which every pair fits on a page.
const MATRIX_CLASSES_MAX: usize = 12;

/// Pairs of classes shown where there are more.
const PAIRS_MAX: usize = 20;

/// Disagreements shown; `--json` has all that the server keeps.
const DISAGREEMENTS_MAX: usize = 5;

/// Values shown of a tensor.
const VALUES_MAX: usize = 10;

/// Characters shown of a digest: enough to find it again.
const DIGEST_CHARACTERS: usize = 12;

/// Arguments of `weir shadows`.
#[derive(Debug, Args)]
pub struct ShadowsArguments {
    /// Whose shadows
    #[arg(value_parser = options::model)]
    model: String,
    #[command(flatten)]
    server: ServerArguments,
}

impl ShadowsArguments {
    /// Prints a report for each pair of versions that was compared.
    pub fn run(self, out: &mut dyn Write) -> anyhow::Result<()> {
        let answer = self.server.client()?.ask(Call::get(&["models", &self.model, "shadows"]))?;
        self.server.show(out, &answer, |reports: &ShadowReports| render(&self.model, reports))
    }
}

fn render(model: &str, reports: &ShadowReports) -> String {
    if reports.shadows.is_empty() {
        return format!("{model} has no shadows\n");
    }
    let pages: Vec<String> = reports.shadows.iter().map(|shadow| report(model, shadow)).collect();
    pages.join("\n")
}

fn report(model: &str, report: &ShadowReport) -> String {
    let mut page = format!("{model}: shadow {} against version {}\n", report.shadow, report.primary);
    let outcomes: Vec<String> =
        report.outcomes.iter().map(|(outcome, count)| format!("{} {outcome}", grouped(*count))).collect();
    page.push_str(&format!("copies      {}\n", text::or_dash(outcomes.join(", "))));
    if let Some(agreement) = report.agreement {
        let (agreeing, rows) = (grouped(agreement.agreeing), counted(agreement.rows, "row"));
        page.push_str(&format!("agreement   {agreeing} of {rows} ({})\n", percent(100.0 * agreement.rate)));
    }
    if report.within_tolerance + report.out_of_tolerance > 0 {
        let (within, out) = (grouped(report.within_tolerance), grouped(report.out_of_tolerance));
        page.push_str(&format!("tolerance   {within} within, {out} out of it\n"));
    }
    let high: &[f64] = &[0.5, 0.99];
    for (name, distribution, quantiles) in [
        ("absolute", &report.absolute_difference, high),
        ("relative", &report.relative_difference, high),
        // Of a similarity the low end matters.
        ("cosine", &report.cosine, &[0.01, 0.5]),
    ] {
        if let Some(distribution) = distribution.as_ref().filter(|distribution| distribution.count > 0) {
            page.push_str(&format!("{name:<12}{}\n", spread(distribution, quantiles)));
        }
    }
    page.push_str(&confusion(&report.confusion));
    page.push_str(&disagreements(&report.disagreements));
    page
}

/// `mean 0.002, 50 % ≤ 0.001, 99 % ≤ 0.1`.
fn spread(distribution: &Distribution, quantiles: &[f64]) -> String {
    let mut parts = vec![format!("mean {}", figure(distribution.sum / distribution.count as f64))];
    for part in quantiles {
        parts.push(format!("{} {}", percent(100.0 * part), bound(distribution, *part)));
    }
    parts.join(", ")
}

/// Up to where that part of the values goes at most: the upper bound of the bucket that holds the quantile.
fn bound(distribution: &Distribution, part: f64) -> String {
    let needed = part * distribution.count as f64;
    let mut seen = 0;
    for (count, bound) in distribution.counts.iter().zip(&distribution.bounds) {
        seen += count;
        if seen as f64 >= needed {
            return format!("≤ {}", figure(*bound));
        }
    }
    distribution
        .bounds
        .last()
        .map_or_else(|| "unknown".to_owned(), |last| format!("beyond {}", figure(*last)))
}

fn confusion(cells: &[ConfusionCell]) -> String {
    let classes: BTreeSet<&str> =
        cells.iter().flat_map(|cell| [cell.predicted.as_str(), cell.shadow_predicted.as_str()]).collect();
    match classes.len() {
        0 => String::new(),
        n if n <= MATRIX_CLASSES_MAX => matrix(cells, &classes),
        _ => pairs(cells),
    }
}

/// A row for each class that clients were answered, a column for each that the shadow predicted.
fn matrix(cells: &[ConfusionCell], classes: &BTreeSet<&str>) -> String {
    let columns: Vec<String> = classes.iter().map(|class| format!(">{class}")).collect();
    let headings: Vec<&str> =
        std::iter::once("ANSWERED \\ SHADOW").chain(columns.iter().map(String::as_str)).collect();
    let rows_of = |predicted: &str, shadow: &str| -> u64 {
        let here = |cell: &&ConfusionCell| cell.predicted == predicted && cell.shadow_predicted == shadow;
        cells.iter().filter(here).map(|cell| cell.rows).sum()
    };
    let row = |predicted: &&str| {
        let counts = classes.iter().map(|shadow| rows_of(predicted, shadow));
        let shown = counts.map(|rows| if rows == 0 { ".".to_owned() } else { grouped(rows) });
        std::iter::once((*predicted).to_owned()).chain(shown).collect()
    };
    text::table(&headings, classes.iter().map(row))
}

/// The pairs of different classes, the most frequent first.
fn pairs(cells: &[ConfusionCell]) -> String {
    let mut apart: Vec<&ConfusionCell> =
        cells.iter().filter(|cell| cell.predicted != cell.shadow_predicted && cell.rows > 0).collect();
    apart.sort_by_key(|cell| std::cmp::Reverse(cell.rows));
    if apart.is_empty() {
        return String::new();
    }
    let left = apart.len().saturating_sub(PAIRS_MAX);
    let row = |cell: &&ConfusionCell| {
        vec![cell.predicted.clone(), cell.shadow_predicted.clone(), grouped(cell.rows)]
    };
    let mut page = text::table(&["ANSWERED", "SHADOW", ">ROWS"], apart.iter().take(PAIRS_MAX).map(row));
    if left > 0 {
        page.push_str(&format!("and {}\n", counted(left as u64, "rarer pair")));
    }
    page
}

fn disagreements(all: &[Disagreement]) -> String {
    let mut page = String::new();
    for disagreement in all.iter().take(DISAGREEMENTS_MAX) {
        let digest: String = disagreement.digest.chars().take(DIGEST_CHARACTERS).collect();
        let (at, severity) = (text::moment(disagreement.at_ms), figure(disagreement.severity));
        page.push_str(&format!(
            "disagreed   {at} UTC, severity {severity}, inputs {}\n",
            text::or_dash(digest)
        ));
        for (who, tensors) in [("answered", &disagreement.primary), ("shadow", &disagreement.shadow)] {
            for tensor in tensors {
                page.push_str(&format!("  {who:<9} {}\n", shown(tensor)));
            }
        }
    }
    let left = all.len().saturating_sub(DISAGREEMENTS_MAX);
    if left > 0 {
        page.push_str(&format!("and {}; --json shows them\n", counted(left as u64, "smaller disagreement")));
    }
    page
}

/// `probabilities FP32 [1,10]: 0.1 0.2 …`.
fn shown(tensor: &ShownTensor) -> String {
    let shape: Vec<String> = tensor.shape.iter().map(ToString::to_string).collect();
    let values: Vec<&str> = tensor.values.iter().take(VALUES_MAX).map(String::as_str).collect();
    let more = if tensor.values.len() > VALUES_MAX { " …" } else { "" };
    format!("{} {} [{}]: {}{more}", tensor.name, tensor.datatype, shape.join(","), values.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reports(json: &str) -> ShadowReports {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_report_tells_agreement_confusion_differences_and_the_worst() {
        let reports = reports(
            r#"{"shadows":[{"primary":1,"shadow":3,"outcomes":{"compared":1000,"dropped":4},
            "agreement":{"rows":1000,"agreeing":990,"rate":0.99},
            "confusion":[{"predicted":"8","shadow_predicted":"8","rows":990},
                         {"predicted":"8","shadow_predicted":"9","rows":10}],
            "absolute_difference":{"count":1000,"sum":2.0,"bounds":[0.001,0.1],"counts":[600,395,5]},
            "relative_difference":{"count":0},
            "cosine":{"count":10,"sum":9.9,"bounds":[0.9,1.0],"counts":[1,9,0]},
            "within_tolerance":995,"out_of_tolerance":5,
            "disagreements":[{"at_ms":1000,"digest":"0123456789abcdef","severity":0.75,
              "primary":[{"name":"p","datatype":"FP32","shape":[1,11],
                          "values":["1","2","3","4","5","6","7","8","9","10","11"]}],
              "shadow":[{"name":"p","datatype":"FP32","shape":[1],"values":["0.5"]}]}]}]}"#,
        );
        let expected = "\
digits: shadow 3 against version 1
copies      1,000 compared, 4 dropped
agreement   990 of 1,000 rows (99 %)
tolerance   995 within, 5 out of it
absolute    mean 0.002, 50 % ≤ 0.001, 99 % ≤ 0.1
cosine      mean 0.99, 1 % ≤ 0.9, 50 % ≤ 1
ANSWERED \\ SHADOW    8   9
8                  990  10
9                    .   .
disagreed   1970-01-01 00:00:01 UTC, severity 0.75, inputs 0123456789ab
  answered  p FP32 [1,11]: 1 2 3 4 5 6 7 8 9 10 …
  shadow    p FP32 [1]: 0.5
";
        assert_eq!(render("digits", &reports), expected);
        assert_eq!(render("digits", &ShadowReports::default()), "digits has no shadows\n");
    }

    #[test]
    fn a_quantile_beyond_the_last_bound_is_told_as_such() {
        let mut distribution =
            Distribution { count: 4, sum: 4.0, bounds: vec![1.0, 2.0], counts: vec![2, 0, 2] };
        assert_eq!(bound(&distribution, 0.5), "≤ 1");
        assert_eq!(bound(&distribution, 0.75), "beyond 2");
        distribution.bounds.clear();
        assert_eq!(bound(&distribution, 0.5), "unknown");
    }

    #[test]
    fn many_classes_are_listed_by_the_pairs_that_differ_most() {
        let cell = |predicted: usize, shadow: usize, rows| ConfusionCell {
            predicted: format!("c{predicted}"),
            shadow_predicted: format!("c{shadow}"),
            rows,
        };
        let same = (0..30).map(|class| cell(class, class, 1000));
        let apart = (0..25).map(|class| cell(class, class + 1, class as u64 + 1));
        let page = confusion(&same.chain(apart).collect::<Vec<_>>());
        let lines: Vec<&str> = page.lines().collect();
        assert_eq!(lines[1].split_whitespace().collect::<Vec<_>>(), ["c24", "c25", "25"]);
        assert_eq!((lines.len(), lines[21]), (22, "and 5 rarer pairs"));
    }

    #[test]
    fn few_disagreements_are_shown_of_many() {
        let page = disagreements(&vec![Disagreement::default(); 7]);
        assert!(page.ends_with("and 2 smaller disagreements; --json shows them\n"), "{page}");
    }
}
