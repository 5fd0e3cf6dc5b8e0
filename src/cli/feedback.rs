//! `weir feedback`: tells what became of a request.

use std::io::Write;

use clap::Args;
use serde_json::{Value, json};

use super::client::Call;
use super::options::{self, ServerArguments};
use crate::proto::control::FeedbackResponse;

/// Arguments of `weir feedback`.
#[derive(Debug, Args)]
pub struct FeedbackArguments {
    /// Which model answered the request
    #[arg(value_parser = options::model)]
    model: String,
    /// The request's id, as the client gave it
    request_id: String,
    /// What became of it: a number if it reads as one, else a label
    #[arg(allow_hyphen_values = true)]
    outcome: String,
    /// It is a label even if it reads as a number
    #[arg(long)]
    label: bool,
    #[command(flatten)]
    server: ServerArguments,
}

impl FeedbackArguments {
    /// Tells it, and prints whether it counts.
    pub fn run(self, out: &mut dyn Write) -> anyhow::Result<()> {
        let body = json!({ "request_id": self.request_id, "outcome": outcome(&self.outcome, self.label) });
        let call = Call::post(&["models", &self.model, "feedback"]).body(&body);
        self.server.show(out, &self.server.client()?.ask(call)?, render)
    }
}

/// Infinity and NaN are no outcomes, so they are labels.
fn outcome(text: &str, label: bool) -> Value {
    let number = text.parse().ok().filter(|number: &f64| number.is_finite() && !label);
    number.map_or_else(|| json!(text), |number| json!(number))
}

fn render(response: &FeedbackResponse) -> String {
    let taken = match response {
        FeedbackResponse { conflicting: true, .. } => {
            "not taken: another outcome was told before, and that one counts"
        }
        FeedbackResponse { already: true, .. } => "told before: nothing changes",
        _ => "taken",
    };
    let joined = if response.joined { "" } else { "; no request of that id is known so far" };
    format!("{taken}{joined}\n")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::client::canned::Canned;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        feedback: FeedbackArguments,
    }

    #[test]
    fn what_reads_as_a_number_is_one_unless_it_is_a_label() {
        for (text, label, expected) in [
            ("1", false, json!(1.0)),
            ("-1.5", false, json!(-1.5)),
            ("1e3", false, json!(1000.0)),
            ("1", true, json!("1")),
            ("click", false, json!("click")),
            ("nan", false, json!("nan")),
            ("inf", false, json!("inf")),
        ] {
            assert_eq!(outcome(text, label), expected, "{text}");
        }
    }

    #[test]
    fn feedback_is_posted_to_the_model() {
        let server = Canned::new(&[(200, r#"{"joined":true}"#)]);
        let line = ["x", "digits", "id-1", "-2", "--server", &server.url()];
        Line::parse_from(line).feedback.run(&mut Vec::new()).unwrap();
        let asked = server.asked().remove(0);
        assert_eq!(asked.line, "POST /control/v1/models/digits/feedback");
        assert_eq!(asked.body, json!({"request_id": "id-1", "outcome": -2.0}));
    }

    #[test]
    fn the_answer_says_whether_the_outcome_counts() {
        for (already, conflicting, joined, text) in [
            (false, false, true, "taken\n"),
            (false, false, false, "taken; no request of that id is known so far\n"),
            (true, false, true, "told before: nothing changes\n"),
            (true, true, true, "not taken: another outcome was told before, and that one counts\n"),
        ] {
            assert_eq!(render(&FeedbackResponse { already, conflicting, joined }), text);
        }
    }
}
