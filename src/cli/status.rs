//! `weir status`: what is live, who gets it, and how it does.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use clap::Args;

use super::client::Call;
use super::options::{self, ServerArguments, print};
use super::text;
use crate::proto::control::{ListModelsResponse, ModelStatus, Rollout, VersionStatus};

/// Often enough to see a change happen, seldom enough to read.
const REDRAW_EVERY: Duration = Duration::from_secs(1);

const HEADINGS: &[&str] = &[
    "MODEL",
    ">VERSION",
    "STATE",
    "LABELS",
    ">SHARE",
    ">SHADOW",
    ">REQUESTS/S",
    ">P50 MS",
    ">P99 MS",
    ">ERRORS",
    ">QUEUE",
];

/// Arguments of `weir status`.
#[derive(Debug, Args)]
pub struct StatusArguments {
    /// Only this model
    #[arg(value_parser = options::model)]
    model: Option<String>,
    /// Show it again every second until interrupted
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    server: ServerArguments,
}

impl StatusArguments {
    /// Prints the table; with `--watch` it ends only when nobody reads any more.
    pub fn run(self, out: &mut dyn Write) -> anyhow::Result<()> {
        let client = self.server.client()?;
        let page = || match &self.model {
            Some(model) => {
                let answer = client.ask(Call::get(&["models", model]))?;
                self.server.text(&answer, |status: &ModelStatus| render(std::slice::from_ref(status)))
            }
            None => {
                let answer = client.ask(Call::get(&["models"]))?;
                self.server.text(&answer, |list: &ListModelsResponse| render(&list.models))
            }
        };
        let first = page()?;
        if !self.watch {
            return print(out, &first);
        }
        let redraws = std::io::stdout().is_terminal() && !self.server.json;
        if redraws {
            print(out, CLEAR)?;
        }
        let mut text = first;
        loop {
            let apart = if self.server.json { "" } else { "\n" };
            print(out, &if redraws { over_the_last(&text) } else { format!("{text}{apart}") })?;
            std::thread::sleep(REDRAW_EVERY);
            // A server that restarts comes back; whoever watches wants to see that.
            text = page().unwrap_or_else(|error| format!("weir: {error:#}\n"));
        }
    }
}

/// ECMA-48: erase the whole screen.
const CLEAR: &str = "\x1b[2J";

/// ECMA-48: from the top left corner, each line erased to its end, then everything below; nothing flickers.
fn over_the_last(text: &str) -> String {
    format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n"))
}

fn render(models: &[ModelStatus]) -> String {
    if models.is_empty() {
        return "no models\n".to_owned();
    }
    let mut page = text::table(HEADINGS, models.iter().flat_map(rows));
    for line in models.iter().flat_map(remarks) {
        page.push_str(&line);
        page.push('\n');
    }
    page
}

fn rows(model: &ModelStatus) -> Vec<Vec<String>> {
    if model.versions.is_empty() {
        let mut row = vec!["-".to_owned(); HEADINGS.len()];
        row[0].clone_from(&model.model);
        row[2] = "UNAVAILABLE".to_owned();
        return vec![row];
    }
    model.versions.iter().map(|version| row(&model.model, version)).collect()
}

fn row(model: &str, version: &VersionStatus) -> Vec<String> {
    // Without requests a quantile means nothing.
    let busy = version.requests_per_second > 0.0;
    let quantile = |ms: f64| if busy { text::figure(ms) } else { "-".to_owned() };
    let share = |percent: f64| if percent > 0.0 { text::percent(percent) } else { "-".to_owned() };
    vec![
        model.to_owned(),
        version.version.to_string(),
        version.state.clone(),
        text::or_dash(version.labels.join(",")),
        share(version.share),
        share(100.0 * version.shadow_share),
        text::figure(version.requests_per_second),
        quantile(version.p50_ms),
        quantile(version.p99_ms),
        text::grouped(version.failures),
        text::grouped(version.queue_depth),
    ]
}

/// What the table has no column for: why something cannot answer, and the rollout under way.
fn remarks(model: &ModelStatus) -> Vec<String> {
    let name = &model.model;
    let mut remarks = Vec::new();
    if !model.reason.is_empty() {
        remarks.push(format!("{name}: {}", model.reason));
    }
    for version in model.versions.iter().filter(|version| !version.reason.is_empty()) {
        remarks.push(format!("{name}/{}: {}", version.version, version.reason));
    }
    remarks.extend(model.rollout.as_ref().map(|rollout| format!("{name}: {}", rollout_line(rollout))));
    remarks
}

fn rollout_line(rollout: &Rollout) -> String {
    let mut line = format!(
        "rollout {} to version {} is {}, step {} of {}, {}",
        rollout.id,
        rollout.target,
        rollout.state,
        rollout.step + 1,
        rollout.steps.len(),
        text::percent(rollout.share),
    );
    if !rollout.reason.is_empty() {
        line.push_str(&format!(": {}", rollout.reason));
    }
    line
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::client::canned::Canned;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        status: StatusArguments,
    }

    fn models() -> Vec<ModelStatus> {
        let json = r#"{"models":[
            {"model":"digits","versions":[
              {"version":1,"state":"READY","labels":["stable","old"],"share":90.0,"requests":1000,"failures":1200,
               "requests_per_second":12.34,"p50_ms":0.812,"p99_ms":4.0,"queue_depth":2},
              {"version":2,"state":"READY","share":10.0},
              {"version":3,"state":"UNAVAILABLE","reason":"model.onnx is no ONNX file","shadow_share":0.5}],
             "rollout":{"id":"r4","target":2,"state":"running","steps":[1.0,10.0,100.0],"step":1,"share":10.0}},
            {"model":"tickets","reason":"its folder holds no version"}]}"#;
        serde_json::from_str::<ListModelsResponse>(json).unwrap().models
    }

    #[test]
    fn the_table_tells_each_version_and_below_it_what_is_wrong() {
        let expected = "\
MODEL    VERSION  STATE        LABELS      SHARE  SHADOW  REQUESTS/S  P50 MS  P99 MS  ERRORS  QUEUE
digits         1  READY        stable,old   90 %       -        12.3   0.812       4   1,200      2
digits         2  READY        -            10 %       -           0       -       -       0      0
digits         3  UNAVAILABLE  -               -    50 %           0       -       -       0      0
tickets        -  UNAVAILABLE  -               -       -           -       -       -       -      -
digits/3: model.onnx is no ONNX file
digits: rollout r4 to version 2 is running, step 2 of 3, 10 %
tickets: its folder holds no version
";
        assert_eq!(render(&models()), expected);
        assert_eq!(render(&[]), "no models\n");
    }

    #[test]
    fn a_redraw_leaves_nothing_of_the_page_before() {
        assert_eq!(over_the_last("a\nb\n"), "\x1b[Ha\x1b[K\nb\x1b[K\n\x1b[J");
    }

    #[test]
    fn one_model_or_all_are_asked_for() {
        let server = Canned::new(&[(200, "{}")]);
        let url = server.url();
        for line in [&["x", "--server", &url][..], &["x", "digits", "--server", &url, "--json"]] {
            Line::parse_from(line).status.run(&mut Vec::new()).unwrap();
        }
        let lines: Vec<_> = server.asked().into_iter().map(|asked| asked.line).collect();
        assert_eq!(lines, ["GET /control/v1/models", "GET /control/v1/models/digits"]);
    }
}
