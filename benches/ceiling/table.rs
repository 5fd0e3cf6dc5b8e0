//! What came out, beside what was aimed at.

use std::fmt::Write;

use serde_json::{Value, json};

/// What a figure should be.
#[derive(Debug, Clone, Copy)]
pub enum Target {
    AtLeast(f64),
    AtMost(f64),
    /// It is only told.
    None,
}

struct Line {
    workload: &'static str,
    what: String,
    quartiles: [f64; 3],
    target: Target,
}

#[derive(Default)]
pub struct Table {
    lines: Vec<Line>,
    notes: Vec<String>,
}

impl Table {
    /// One figure in all its rounds; the median counts.
    pub fn add(&mut self, workload: &'static str, what: impl Into<String>, values: Vec<f64>, target: Target) {
        let line = Line { workload, what: what.into(), quartiles: quartiles(values), target };
        eprintln!("  {}: {}", line.what, shown(line.quartiles[1]));
        self.lines.push(line);
    }

    /// Something to know about a workload.
    pub fn note(&mut self, note: String) {
        eprintln!("  {note}");
        self.notes.push(note);
    }

    pub fn render(&self) -> String {
        let mut out = String::new();
        let widest = self.lines.iter().map(|line| line.what.chars().count()).max().unwrap_or(0);
        for line in &self.lines {
            let [low, middle, high] = line.quartiles.map(shown);
            let (aim, met) = match line.target {
                Target::AtLeast(aim) => (format!("≥ {}", shown(aim)), verdict(line.quartiles[1] >= aim)),
                Target::AtMost(aim) => (format!("≤ {}", shown(aim)), verdict(line.quartiles[1] <= aim)),
                Target::None => (String::new(), ""),
            };
            let spread = format!("({low} to {high})");
            let text = format!(
                "{:<8}{:<widest$}  {middle:>8}  {spread:<20}  {aim:<8}  {met}",
                line.workload, line.what
            );
            writeln!(out, "{}", text.trim_end()).expect("text grows");
        }
        self.notes.iter().for_each(|note| writeln!(out, "{note}").expect("text grows"));
        out
    }

    pub fn json(&self) -> String {
        let line = |line: &Line| {
            let [low, middle, high] = line.quartiles;
            let (at_least, at_most) = match line.target {
                Target::AtLeast(aim) => (Some(aim), None),
                Target::AtMost(aim) => (None, Some(aim)),
                Target::None => (None, None),
            };
            json!({
                "workload": line.workload, "what": line.what, "median": middle, "quartiles": [low, high],
                "at_least": at_least, "at_most": at_most,
            })
        };
        let lines: Value = self.lines.iter().map(line).collect();
        format!("{:#}\n", json!({"lines": lines, "notes": self.notes}))
    }
}

fn verdict(met: bool) -> &'static str {
    if met { "met" } else { "NOT MET" }
}

fn shown(value: f64) -> String {
    match value.abs() {
        size if size >= 1000.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

/// The median, and the values that half of all lie between.
fn quartiles(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    let last = (values.len() - 1) as f64;
    [(0.25 * last).floor(), (0.5 * last).round(), (0.75 * last).ceil()].map(|at| values[at as usize])
}
