//! The page that Prometheus reads, out of the texts of many recorders.
//!
//! Always: the samples of one metric stand together under one `# HELP` and one `# TYPE`, as the text format asks
//! (version 0.0.4: <https://prometheus.io/docs/instrumenting/exposition_formats/>); metrics are in order of name.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};

use super::metrics::help;
use crate::id::ServableId;

/// One metric: everything that is said of it.
struct Family<'a> {
    kind: &'a str,
    /// As a recorder wrote it; where none did, it is ours to write.
    help: Option<&'a str>,
    samples: Vec<&'a str>,
    bytes: usize,
}

/// Puts the pages of several recorders together.
///
/// `texts` are pages in the form that the recorder writes: blocks of one metric each, an empty line after every
/// block. Cost: the samples are copied once.
pub fn merge<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    let mut families: BTreeMap<&str, Family<'_>> = BTreeMap::new();
    for block in texts.flat_map(|text| text.split("\n\n")) {
        let (described, rest) = match block.trim_start_matches('\n').strip_prefix("# HELP ") {
            Some(rest) => rest.split_once('\n').map_or((None, rest), |(line, rest)| (Some(line), rest)),
            None => (None, block.trim_start_matches('\n')),
        };
        let Some((head, samples)) = rest.strip_prefix("# TYPE ").and_then(|rest| rest.split_once('\n'))
        else {
            continue;
        };
        let Some((name, kind)) = head.split_once(' ') else { continue };
        let family = families.entry(name).or_insert_with(|| Family {
            kind,
            help: None,
            samples: Vec::new(),
            bytes: 0,
        });
        family.help = family.help.or(described.and_then(|line| line.strip_prefix(name)?.strip_prefix(' ')));
        family.samples.push(samples);
        family.bytes += samples.len() + 1;
    }
    let heads = 256 * families.len();
    let mut page = String::with_capacity(heads + families.values().map(|family| family.bytes).sum::<usize>());
    for (name, family) in families {
        if let Some(help) = family.help.or_else(|| help(name)) {
            let _ = writeln!(page, "# HELP {name} {help}");
        }
        let _ = writeln!(page, "# TYPE {name} {}", family.kind);
        for samples in family.samples {
            page.push_str(samples);
            if !samples.ends_with('\n') {
                page.push('\n');
            }
        }
        page.push('\n');
    }
    page
}

/// A block with one sample per version, of what is read at this moment: a version that is gone has none.
pub fn of_versions<'a, T: Display>(
    name: &str,
    kind: &str,
    values: impl Iterator<Item = (&'a ServableId, T)>,
) -> String {
    let mut block = String::new();
    for (ServableId { model, version }, value) in values {
        if block.is_empty() {
            let _ = writeln!(block, "# TYPE {name} {kind}");
        }
        let _ = writeln!(block, "{name}{{model=\"{model}\",version=\"{version}\"}} {value}");
    }
    block
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::metrics::{counter, recorder};

    #[test]
    fn samples_of_one_metric_stand_together_under_one_head() {
        let server = "# HELP process_x Of others.\n# TYPE process_x gauge\nprocess_x 1\n\n\
                      # TYPE weir_rows_total counter\nweir_rows_total{model=\"a\"} 1\n\n";
        let version = "# TYPE weir_rows_total counter\nweir_rows_total{model=\"b\"} 2\n\
                       weir_rows_total{model=\"c\"} 3\n\n# TYPE a_y gauge\na_y 4\n\n";
        assert_eq!(
            merge([server, "", version].into_iter()),
            "# TYPE a_y gauge\na_y 4\n\n\
             # HELP process_x Of others.\n# TYPE process_x gauge\nprocess_x 1\n\n\
             # HELP weir_rows_total Rows of requests that succeeded.\n# TYPE weir_rows_total counter\n\
             weir_rows_total{model=\"a\"} 1\nweir_rows_total{model=\"b\"} 2\nweir_rows_total{model=\"c\"} 3\n\n"
        );
    }

    #[test]
    fn labels_with_line_breaks_do_not_end_a_block() {
        let recorder = recorder();
        let class = [("class", "a\n\n# TYPE b \"c\" \\ d")];
        counter(&recorder, "weir_rows_total", &class).increment(1);
        let text = recorder.handle().render();
        let page = merge([text.as_str()].into_iter());
        assert_eq!(page.lines().filter(|line| line.starts_with("# TYPE")).count(), 1, "{page}");
        assert_eq!(page.lines().filter(|line| line.starts_with("weir_rows_total{")).count(), 1, "{page}");
    }
}
