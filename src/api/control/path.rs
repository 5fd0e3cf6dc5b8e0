//! From a path below `/control/v1/` to what it names. No client text reaches a file system.

use percent_encoding::percent_decode_str;

use crate::id::Version;

const ROOT: &str = "/control/v1/";

/// Whether a path is the control API's, be it a good one or not.
pub fn is_below(path: &str) -> bool {
    path.starts_with(ROOT)
}

/// What a path names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resource {
    Models,
    Audit,
    Model,
    Route,
    Label(String),
    Load(Version),
    Unload(Version),
    Rollback,
    Rollouts,
    Rollout(String),
    Pause(String),
    Resume(String),
    Promote(String),
    Abort(String),
    Shadows,
    Experiments,
    Feedback,
}

impl Resource {
    /// The methods that it takes, as `Allow` lists them.
    pub fn methods(&self) -> &'static str {
        match self {
            Self::Route => "GET, PUT, DELETE",
            Self::Label(_) => "PUT, DELETE",
            Self::Rollouts => "GET, POST",
            Self::Models
            | Self::Audit
            | Self::Model
            | Self::Rollout(_)
            | Self::Shadows
            | Self::Experiments => "GET",
            Self::Load(_)
            | Self::Unload(_)
            | Self::Rollback
            | Self::Pause(_)
            | Self::Resume(_)
            | Self::Promote(_)
            | Self::Abort(_)
            | Self::Feedback => "POST",
        }
    }
}

/// A parsed path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    pub resource: Resource,
    /// As the client wrote it, unquoted; empty where the path names none.
    pub model: String,
}

impl Path {
    /// `None` for a path that names nothing.
    pub fn parse(path: &str) -> Option<Self> {
        let segments: Option<Vec<String>> = path.strip_prefix(ROOT)?.split('/').map(unquoted).collect();
        let segments = segments?;
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let (resource, model) = match segments.as_slice() {
            ["models"] => (Resource::Models, ""),
            ["audit"] => (Resource::Audit, ""),
            ["models", model, rest @ ..] => (of_model(rest)?, *model),
            _ => return None,
        };
        Some(Self { resource, model: model.to_owned() })
    }
}

fn of_model(rest: &[&str]) -> Option<Resource> {
    Some(match rest {
        [] => Resource::Model,
        ["route"] => Resource::Route,
        ["rollback"] => Resource::Rollback,
        ["shadows"] => Resource::Shadows,
        ["experiments"] => Resource::Experiments,
        ["feedback"] => Resource::Feedback,
        ["labels", label] => Resource::Label((*label).to_owned()),
        ["versions", version, "load"] => Resource::Load(Version::parse(version)?),
        ["versions", version, "unload"] => Resource::Unload(Version::parse(version)?),
        ["rollouts"] => Resource::Rollouts,
        ["rollouts", id] => Resource::Rollout((*id).to_owned()),
        ["rollouts", id, "pause"] => Resource::Pause((*id).to_owned()),
        ["rollouts", id, "resume"] => Resource::Resume((*id).to_owned()),
        ["rollouts", id, "promote"] => Resource::Promote((*id).to_owned()),
        ["rollouts", id, "abort"] => Resource::Abort((*id).to_owned()),
        _ => return None,
    })
}

/// `None` for what is empty or is no UTF-8.
pub fn unquoted(text: &str) -> Option<String> {
    let text = percent_decode_str(text).decode_utf8().ok()?;
    (!text.is_empty()).then(|| text.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_resources_and_their_methods() {
        let text = str::to_owned;
        let version = |n| Version::new(n).unwrap();
        for (path, resource, model, methods) in [
            ("models", Resource::Models, "", "GET"),
            ("models/m", Resource::Model, "m", "GET"),
            ("models/a%2Eb", Resource::Model, "a.b", "GET"),
            ("models/a%2F..%2Fb/route", Resource::Route, "a/../b", "GET, PUT, DELETE"),
            ("models/m/labels/stable", Resource::Label(text("stable")), "m", "PUT, DELETE"),
            ("models/m/versions/12/load", Resource::Load(version(12)), "m", "POST"),
            ("models/m/versions/3/unload", Resource::Unload(version(3)), "m", "POST"),
            ("models/m/rollback", Resource::Rollback, "m", "POST"),
            ("models/m/rollouts", Resource::Rollouts, "m", "GET, POST"),
            ("models/m/rollouts/x", Resource::Rollout(text("x")), "m", "GET"),
            ("models/m/rollouts/x/pause", Resource::Pause(text("x")), "m", "POST"),
            ("models/m/rollouts/x/resume", Resource::Resume(text("x")), "m", "POST"),
            ("models/m/rollouts/x/promote", Resource::Promote(text("x")), "m", "POST"),
            ("models/m/rollouts/x/abort", Resource::Abort(text("x")), "m", "POST"),
            ("models/m/shadows", Resource::Shadows, "m", "GET"),
            ("models/m/experiments", Resource::Experiments, "m", "GET"),
            ("models/m/feedback", Resource::Feedback, "m", "POST"),
            ("models/models/route", Resource::Route, "models", "GET, PUT, DELETE"),
            ("audit", Resource::Audit, "", "GET"),
        ] {
            let parsed = Path::parse(&format!("/control/v1/{path}")).unwrap_or_else(|| panic!("{path}"));
            assert_eq!(parsed.resource.methods(), methods, "{path}");
            assert_eq!(parsed, Path { resource, model: text(model) }, "{path}");
        }
    }

    #[test]
    fn what_is_no_path_of_the_api_names_nothing() {
        for path in [
            "/control/v1",
            "/control/v1/",
            "/control/v2/models",
            "/control/v1/models/",
            "/control/v1/models//route",
            "/control/v1/models/m/",
            "/control/v1/models/m/route/",
            "/control/v1/models/m/labels",
            "/control/v1/models/m/versions/0/load",
            "/control/v1/models/m/versions/01/load",
            "/control/v1/models/m/versions/1",
            "/control/v1/models/m/rollouts/x/start",
            "/control/v1/models/%ff/route",
            "/control/v1/audit/1",
            "/v2/models/m",
        ] {
            assert_eq!(Path::parse(path), None, "{path}");
        }
    }
}
