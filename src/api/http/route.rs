//! From a path to what it names. The one parser of paths; no client text reaches a file system.

use http::{Method, StatusCode};
use percent_encoding::percent_decode_str;

use crate::api::control::repository::RepositoryChange;
use crate::id::{Version, is_label};
use crate::infer::VersionPin;

/// What a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    Server,
    Live,
    Ready,
    ModelMetadata,
    ModelReady,
    ModelConfig,
    ModelStatistics,
    AllStatistics,
    RepositoryIndex,
    Repository(RepositoryChange),
    Infer,
    /// A path of the protocol that this server does not offer, and what it is for.
    NotOffered(&'static str),
}

impl Resource {
    /// The method that asks for it; none for what is not offered, which is not offered by any method.
    pub fn method(self) -> Option<&'static Method> {
        match self {
            Self::NotOffered(_) => None,
            Self::Infer | Self::RepositoryIndex | Self::Repository(_) => Some(&Method::POST),
            _ => Some(&Method::GET),
        }
    }
}

/// A parsed path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    pub resource: Resource,
    /// As the client wrote it, unquoted; empty where the path has none.
    pub model: String,
    pub pin: VersionPin,
}

impl Route {
    /// Errors: the status for a path that names nothing.
    pub fn parse(path: &str) -> Result<Self, StatusCode> {
        let segments: Vec<&str> = path.strip_prefix('/').ok_or(StatusCode::NOT_FOUND)?.split('/').collect();
        let plain = |resource| Ok(Self { resource, model: String::new(), pin: VersionPin::Routed });
        match segments.as_slice() {
            ["v2"] => plain(Resource::Server),
            ["v2", "health", "live"] => plain(Resource::Live),
            ["v2", "health", "ready"] => plain(Resource::Ready),
            ["v2", "models", "stats"] => plain(Resource::AllStatistics),
            ["v2", "repository", "index"] => plain(Resource::RepositoryIndex),
            ["v2", "repository", "models", "", ..] => Err(StatusCode::NOT_FOUND),
            ["v2", "repository", "models", model, "load"] => {
                Self::of_repository(model, RepositoryChange::Load)
            }
            ["v2", "repository", "models", model, "unload"] => {
                Self::of_repository(model, RepositoryChange::Unload)
            }
            ["v2", "systemsharedmemory" | "cudasharedmemory", ..] => {
                plain(Resource::NotOffered("shared memory"))
            }
            ["v2", "trace", "setting"] => plain(Resource::NotOffered("tracing")),
            ["v2", "logging"] => plain(Resource::NotOffered("log settings")),
            ["v2", "models", "", ..] => Err(StatusCode::NOT_FOUND),
            ["v2", "models", model, "versions", version, rest @ ..] => {
                let pin = match Version::parse(version) {
                    Some(version) => VersionPin::Version(version),
                    None if is_label(version) => VersionPin::Label((*version).to_owned()),
                    None => return Err(StatusCode::NOT_FOUND),
                };
                Self::of_model(model, pin, rest)
            }
            ["v2", "models", model, rest @ ..] => Self::of_model(model, VersionPin::Routed, rest),
            _ => Err(StatusCode::NOT_FOUND),
        }
    }

    fn of_model(model: &str, pin: VersionPin, rest: &[&str]) -> Result<Self, StatusCode> {
        let resource = match rest {
            [] => Resource::ModelMetadata,
            ["ready"] => Resource::ModelReady,
            ["config"] => Resource::ModelConfig,
            ["stats"] => Resource::ModelStatistics,
            ["infer"] => Resource::Infer,
            ["generate" | "generate_stream"] => Resource::NotOffered("generation"),
            ["trace", "setting"] => Resource::NotOffered("tracing"),
            _ => return Err(StatusCode::NOT_FOUND),
        };
        Ok(Self { resource, model: unquoted(model)?, pin })
    }

    fn of_repository(model: &str, change: RepositoryChange) -> Result<Self, StatusCode> {
        let resource = Resource::Repository(change);
        Ok(Self { resource, model: unquoted(model)?, pin: VersionPin::Routed })
    }
}

fn unquoted(model: &str) -> Result<String, StatusCode> {
    let model = percent_decode_str(model).decode_utf8().map_err(|_| StatusCode::NOT_FOUND)?;
    Ok(model.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, resource: Resource, model: &str, version: Option<u64>) {
        let route = Route::parse(path).unwrap_or_else(|status| panic!("{path}: {status}"));
        assert_eq!((route.resource, route.model.as_str()), (resource, model), "{path}");
        let version = version.and_then(Version::new).map_or(VersionPin::Routed, VersionPin::Version);
        assert_eq!(route.pin, version, "{path}");
    }

    #[test]
    fn paths_name_resources() {
        check("/v2", Resource::Server, "", None);
        check("/v2/models/a%2Eb", Resource::ModelMetadata, "a.b", None);
        check("/v2/models/a%2F..%2Fb/infer", Resource::Infer, "a/../b", None);
        check("/v2/models/m/versions/12/infer", Resource::Infer, "m", Some(12));
        check("/v2/models/stats", Resource::AllStatistics, "", None);
        check("/v2/repository/models/a%2Eb/load", Resource::Repository(RepositoryChange::Load), "a.b", None);
        check("/v2/repository/models/m/unload", Resource::Repository(RepositoryChange::Unload), "m", None);
        check("/v2/models/m/versions/1/stats", Resource::ModelStatistics, "m", Some(1));
    }

    #[test]
    fn what_is_no_path_of_the_protocol_is_not_found() {
        for path in [
            "/",
            "/v1",
            "/v2/",
            "/v2/models",
            "/v2/models/m/versions/0",
            "/v2/models/m/versions/01/infer",
            "/v2/models/m/versions/-1",
            "/v2/models/m/versions/1234567890123456789",
            "/v2/models/m/infer/x",
            "/v2/health",
            "/V2",
            "/v2/models/%ff/infer",
            "/v2/models//infer",
            "/v2/repository/models//load",
            "/v2/repository/models/m/reload",
        ] {
            assert_eq!(Route::parse(path), Err(StatusCode::NOT_FOUND), "{path}");
        }
    }
}
