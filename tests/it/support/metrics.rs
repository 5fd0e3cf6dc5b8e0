//! The metrics page, read as text.

use std::collections::BTreeMap;
use std::fmt;

/// One line of the page.
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

/// The page as of one moment.
pub struct Page {
    pub text: String,
    samples: Vec<Sample>,
}

impl fmt::Debug for Page {
    /// The samples that are not zero: those are what a failing test is about.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let telling =
            |line: &&str| !line.starts_with('#') && !line.ends_with(" 0") && !line.contains("_bucket{");
        self.text.lines().filter(telling).try_for_each(|line| writeln!(f, "{line}"))
    }
}

impl Page {
    #[track_caller]
    pub fn parse(text: String) -> Self {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let samples =
            lines.map(|line| sample(line).unwrap_or_else(|| panic!("not a sample: {line}"))).collect();
        Self { text, samples }
    }

    /// The sum over all samples of that name whose labels include `labels`; 0 where there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let has = |sample: &Sample| labels.iter().all(|(k, v)| sample.labels.get(*k).is_some_and(|l| l == v));
        // Not `Sum`, whose zero is -0.
        self.samples.iter().filter(|s| s.name == name && has(s)).fold(0.0, |sum, s| sum + s.value)
    }

    /// Names of every sample.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.samples.iter().map(|sample| sample.name.as_str())
    }
}

fn sample(line: &str) -> Option<Sample> {
    let (series, value) = line.rsplit_once(' ')?;
    let (name, labels) = match series.split_once('{') {
        None => (series, BTreeMap::new()),
        Some((name, rest)) => (name, labels(rest.strip_suffix('}')?)?),
    };
    Some(Sample { name: name.to_owned(), labels, value: value.parse().ok()? })
}

/// `a="b",c="d"`. No label of ours holds a comma or a quote.
fn labels(text: &str) -> Option<BTreeMap<String, String>> {
    let pair = |pair: &str| {
        let (key, value) = pair.split_once('=')?;
        Some((key.to_owned(), value.strip_prefix('"')?.strip_suffix('"')?.to_owned()))
    };
    text.split(',').map(pair).collect()
}
