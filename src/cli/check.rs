//! `weir check-config`: what is in force, and which models' configs are wrong.
//!
//! Not here: model files; nothing is loaded.

use std::io::Write;

use anyhow::Context;

use super::serve::ServeArguments;
use crate::api::Tls;
use crate::model::repository::{self, Candidate};

/// Prints the settings in force and what is wrong with models' configs. Returns whether all is well.
pub fn check_config(arguments: ServeArguments, out: &mut dyn Write) -> anyhow::Result<bool> {
    let settings = arguments.settings()?.with_defaults();
    let config = settings.clone().resolve()?;
    if let Some(files) = &config.tls {
        Tls::read(files)?;
    }
    let mut report = toml::to_string(&settings).context("the settings cannot be written")?;
    let scan = repository::scan(&config.models, &config.defaults).with_context(|| {
        format!("the models folder {} cannot be read; choose another with --models", config.models.display())
    })?;
    for name in &scan.misnamed {
        report.push_str(&format!(
            "# {name:?}: its name cannot be a model's; use letters, digits, '_', '-' and '.'\n"
        ));
    }
    if scan.left_out > 0 {
        report.push_str(&format!("# {} models are left out: there are too many\n", scan.left_out));
    }
    let mut well = scan.misnamed.is_empty() && scan.left_out == 0;
    for candidate in &scan.candidates {
        let verdict = config_verdict(candidate);
        well &= verdict.is_ok();
        let verdict = verdict.unwrap_or_else(|reason| reason);
        report.push_str(&format!("# {}: {verdict}\n", candidate.name));
    }
    // Whoever reads may stop early; the exit code still tells.
    let _ = out.write_all(report.as_bytes());
    Ok(well)
}

/// What can be said of a model without reading its file.
fn config_verdict(candidate: &Candidate) -> Result<String, String> {
    let versions = candidate.chosen()?;
    let config = candidate.config.as_ref().map_err(Clone::clone)?;
    for version in &versions {
        candidate.artefact(*version, &config.file_name)?;
    }
    let versions: Vec<String> = versions.iter().map(ToString::to_string).collect();
    let mut verdict = format!("config ok, versions {}", versions.join(", "));
    for hint in &config.hints {
        verdict.push_str(&format!("; {hint} has no effect"));
    }
    Ok(verdict)
}
