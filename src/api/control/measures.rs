//! What only the data plane knows of a version: how many requests, how fast, how many wait.

use std::collections::BTreeMap;

use crate::api::questions::Gateway;
use crate::control::Control;
use crate::error::{ErrorKind, ServeError, excerpt};
use crate::id::{ModelName, ServableId, Version};
use crate::monitor::{Confusion, Disagreement, Distribution, KeptTensor, Recent, ShadowReport, Totals};
use crate::proto::control as pb;
use crate::serve::Snapshot;

/// Every model, with its numbers.
pub fn list_models(gateway: &Gateway, control: &Control) -> Result<pb::ListModelsResponse, ServeError> {
    let mut response = control.list_models()?;
    let measures = Measures::read(gateway);
    response.models.iter_mut().for_each(|model| measures.fill(model));
    Ok(response)
}

/// One model, with its numbers.
pub fn get_model(
    gateway: &Gateway,
    control: &Control,
    request: pb::ModelRequest,
) -> Result<pb::ModelStatus, ServeError> {
    let mut model = control.get_model(request)?;
    Measures::read(gateway).fill(&mut model);
    Ok(model)
}

/// How a model's shadows compare with what clients were answered.
///
/// Errors: there is no such model.
pub fn get_shadows(gateway: &Gateway, request: &pb::ModelRequest) -> Result<pb::ShadowReports, ServeError> {
    let snapshot = gateway.pipeline.snapshot();
    if !snapshot.models.contains_key(request.model.as_str()) {
        let message = format!("model '{}' is not found", excerpt(&request.model));
        return Err(ServeError::new(ErrorKind::NotFound, message));
    }
    let reports = gateway.monitor.shadow_report(&request.model);
    Ok(pb::ShadowReports { shadows: reports.into_iter().map(shadow_report).collect() })
}

/// A report as the API tells it: the outputs' figures together.
fn shadow_report(report: ShadowReport) -> pb::ShadowReport {
    let classes = &report.classes;
    let agreement = (classes.rows > 0).then(|| pb::Agreement {
        rows: classes.rows,
        agreeing: classes.agreeing,
        rate: classes.agreeing as f64 / classes.rows as f64,
    });
    let cell = |cell: Confusion| pb::ConfusionCell {
        predicted: cell.predicted,
        shadow_predicted: cell.shadow_predicted,
        rows: cell.rows,
    };
    let outputs = || report.outputs.values();
    pb::ShadowReport {
        primary: report.versions.version,
        shadow: report.versions.shadow,
        outcomes: report.requests.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect(),
        agreement,
        disagreeing: report.disagreements,
        absolute_difference: together(outputs().map(|output| &output.absolute)),
        relative_difference: together(outputs().map(|output| &output.relative)),
        cosine: together(report.cosine.iter()),
        within_tolerance: outputs().map(|output| output.within_tolerance).sum(),
        out_of_tolerance: outputs().map(|output| output.out_of_tolerance + output.incomparable).sum(),
        confusion: report.classes.confusion.into_iter().map(cell).collect(),
        disagreements: report.worst.into_iter().map(disagreement).collect(),
    }
}

/// Histograms of the same buckets, added up. `None`: there is none.
fn together<'a>(histograms: impl Iterator<Item = &'a Distribution>) -> Option<pb::Distribution> {
    let mut sum: Option<pb::Distribution> = None;
    for histogram in histograms {
        let counts = histogram.buckets.iter().map(|bucket| bucket.count);
        match &mut sum {
            None => {
                sum = Some(pb::Distribution {
                    count: histogram.count,
                    sum: histogram.sum,
                    bounds: histogram.buckets.iter().filter_map(|bucket| bucket.le).collect(),
                    counts: counts.collect(),
                });
            }
            Some(sum) => {
                sum.count += histogram.count;
                sum.sum += histogram.sum;
                sum.counts.iter_mut().zip(counts).for_each(|(total, count)| *total += count);
            }
        }
    }
    sum
}

fn disagreement(kept: Disagreement) -> pb::Disagreement {
    let tensor = |tensor: KeptTensor| pb::ShownTensor {
        name: tensor.name,
        datatype: tensor.datatype.to_owned(),
        shape: tensor.shape,
        values: tensor
            .values
            .iter()
            .map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
            .collect(),
    };
    pb::Disagreement {
        at_ms: kept.at_ms,
        digest: kept.digest.unwrap_or_default(),
        // JSON has no infinity; what cannot be compared at all is the worst.
        severity: kept.severity.unwrap_or(f64::MAX),
        primary: kept.outputs.primary.into_iter().map(tensor).collect(),
        shadow: kept.outputs.shadow.into_iter().map(tensor).collect(),
    }
}

/// The numbers of all versions, read at one time.
struct Measures {
    totals: BTreeMap<ServableId, Totals>,
    snapshot: std::sync::Arc<Snapshot>,
}

impl Measures {
    fn read(gateway: &Gateway) -> Self {
        Self {
            totals: gateway.monitor.statistics().into_iter().collect(),
            snapshot: gateway.pipeline.snapshot(),
        }
    }

    fn fill(&self, status: &mut pb::ModelStatus) {
        let Some(model) = ModelName::parse(&status.model) else { return };
        for of_version in &mut status.versions {
            let Some(version) = Version::new(of_version.version) else { continue };
            let id = ServableId { model: model.clone(), version };
            if let Some(totals) = self.totals.get(&id) {
                count(of_version, totals);
            }
            let servable = self.snapshot.models.get(&model).and_then(|entry| entry.ready(version));
            of_version.queue_depth = servable.map_or(0, |servable| servable.queue_depth() as u64);
        }
    }
}

fn count(version: &mut pb::VersionStatus, totals: &Totals) {
    let recent: &Recent = &totals.recent;
    version.requests = totals.success.count + totals.fail.count;
    version.failures = totals.fail.count;
    version.requests_per_second = recent.requests_per_second();
    version.p50_ms = recent.p50.as_secs_f64() * 1e3;
    version.p99_ms = recent.p99.as_secs_f64() * 1e3;
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::monitor::Total;

    #[test]
    fn failures_are_requests_too_and_times_are_milliseconds() {
        let totals = Totals {
            success: Total { count: 8, ns: 1 },
            fail: Total { count: 2, ns: 1 },
            recent: Recent {
                requests: 60,
                span: Duration::from_secs(30),
                p50: Duration::from_micros(1500),
                p99: Duration::from_millis(20),
            },
            ..Totals::default()
        };
        let mut version = pb::VersionStatus { version: 1, share: 50.0, ..Default::default() };
        count(&mut version, &totals);
        let expected = pb::VersionStatus {
            version: 1,
            share: 50.0,
            requests: 10,
            failures: 2,
            requests_per_second: 2.0,
            p50_ms: 1.5,
            p99_ms: 20.0,
            ..Default::default()
        };
        assert_eq!(version, expected);
    }
}
