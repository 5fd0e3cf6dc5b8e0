//! From an HTTP request to the call that it asks for.
//!
//! Always: path, headers and body say the same, or the request is refused; nothing that was sent is passed over.

use http::Method;
use http::header::{HeaderMap, IF_MATCH};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::actor::{Change, Who};
use super::path::{Path, Resource, unquoted};
use crate::error::{ServeError, excerpt};
use crate::proto::control as pb;
use crate::proto::control::feedback_request::Outcome;

/// A call with everything that it needs.
#[derive(Debug, PartialEq)]
pub enum Call {
    ListModels,
    GetModel(pb::ModelRequest),
    GetRoute(pb::ModelRequest),
    SetRoute(pb::SetRouteRequest),
    ClearRoute(pb::ChangeRequest),
    Rollback(pb::ChangeRequest),
    SetLabel(pb::SetLabelRequest),
    DeleteLabel(pb::DeleteLabelRequest),
    LoadVersion(pb::VersionRequest),
    UnloadVersion(pb::VersionRequest),
    StartRollout(pb::StartRolloutRequest),
    ListRollouts(pb::ModelRequest),
    GetRollout(pb::RolloutRequest),
    PauseRollout(pb::RolloutRequest),
    ResumeRollout(pb::RolloutRequest),
    PromoteRollout(pb::RolloutRequest),
    AbortRollout(pb::RolloutRequest),
    GetShadows(pb::ModelRequest),
    RecordFeedback(pb::FeedbackRequest),
    ListExperiments(pb::ModelRequest),
    ListAudit(pb::ListAuditRequest),
}

/// A request, read to its end. Its path is parsed and takes its method.
pub struct Asked<'a> {
    pub method: &'a Method,
    pub query: Option<&'a str>,
    pub headers: &'a HeaderMap,
    pub body: &'a [u8],
    pub who: &'a Who,
}

impl Asked<'_> {
    /// The call. Errors: what is wrong with the query, the headers or the body.
    pub fn call(&self, path: Path) -> Result<Call, ServeError> {
        let Path { resource, model } = path;
        if resource != Resource::Audit && self.query.is_some_and(|query| !query.is_empty()) {
            return Err(ServeError::invalid("this path takes no query"));
        }
        let conditional = matches!(resource, Resource::Route | Resource::Rollback);
        if !conditional && !self.method.is_safe() && self.headers.contains_key(IF_MATCH) {
            return Err(ServeError::invalid("If-Match is for changes of a route; here it has no effect"));
        }
        let of_model = |model: String| pb::ModelRequest { model };
        Ok(match resource {
            Resource::Models => Call::ListModels,
            Resource::Audit => Call::ListAudit(audit(self.query.unwrap_or_default())?),
            Resource::Model => Call::GetModel(of_model(model)),
            Resource::Route if *self.method == Method::PUT => Call::SetRoute(self.set_route(model)?),
            Resource::Route if *self.method == Method::DELETE => Call::ClearRoute(self.conditional(model)?),
            Resource::Route => Call::GetRoute(of_model(model)),
            Resource::Rollback => Call::Rollback(self.conditional(model)?),
            Resource::Label(label) if *self.method == Method::PUT => {
                let mut request: pb::SetLabelRequest = self.change(model)?;
                agree(&mut request.label, label, "label")?;
                Call::SetLabel(request)
            }
            Resource::Label(label) => {
                let mut request: pb::DeleteLabelRequest = self.change(model)?;
                agree(&mut request.label, label, "label")?;
                Call::DeleteLabel(request)
            }
            Resource::Load(version) => Call::LoadVersion(self.version(model, version.number())?),
            Resource::Unload(version) => Call::UnloadVersion(self.version(model, version.number())?),
            Resource::Rollouts if *self.method == Method::POST => Call::StartRollout(self.change(model)?),
            Resource::Rollouts => Call::ListRollouts(of_model(model)),
            Resource::Rollout(id) => Call::GetRollout(pb::RolloutRequest { model, id, ..Default::default() }),
            Resource::Pause(id) => Call::PauseRollout(self.rollout(model, id)?),
            Resource::Resume(id) => Call::ResumeRollout(self.rollout(model, id)?),
            Resource::Promote(id) => Call::PromoteRollout(self.rollout(model, id)?),
            Resource::Abort(id) => Call::AbortRollout(self.rollout(model, id)?),
            Resource::Shadows => Call::GetShadows(of_model(model)),
            Resource::Experiments => Call::ListExperiments(of_model(model)),
            Resource::Feedback => Call::RecordFeedback(self.feedback(model)?),
        })
    }

    fn set_route(&self, model: String) -> Result<pb::SetRouteRequest, ServeError> {
        let mut route: pb::Route = object(self.body)?;
        agree(&mut route.model, model.clone(), "model")?;
        let if_revision = if_match(self.headers)?;
        if let Some(revision) = if_revision {
            agree(&mut route.revision, revision, "revision")?;
        }
        let actor = self.who.signed("")?;
        Ok(pb::SetRouteRequest { model, route: Some(route), actor, if_revision })
    }

    fn conditional(&self, model: String) -> Result<pb::ChangeRequest, ServeError> {
        let mut request: pb::ChangeRequest = self.change(model)?;
        if let Some(revision) = if_match(self.headers)? {
            agree(&mut request.if_revision, Some(revision), "if_revision")?;
        }
        Ok(request)
    }

    fn version(&self, model: String, version: u64) -> Result<pb::VersionRequest, ServeError> {
        let mut request: pb::VersionRequest = self.change(model)?;
        agree(&mut request.version, version, "version")?;
        Ok(request)
    }

    fn rollout(&self, model: String, id: String) -> Result<pb::RolloutRequest, ServeError> {
        let mut request: pb::RolloutRequest = self.change(model)?;
        agree(&mut request.id, id, "id")?;
        Ok(request)
    }

    /// The body's message, or an empty one for an empty body, of the path's model and signed.
    fn change<M: Change + Default + DeserializeOwned>(&self, model: String) -> Result<M, ServeError> {
        let empty = self.body.iter().all(u8::is_ascii_whitespace);
        let mut message: M = if empty { M::default() } else { object(self.body)? };
        agree(message.model(), model, "model")?;
        *message.actor() = self.who.signed(message.actor())?;
        Ok(message)
    }

    fn feedback(&self, model: String) -> Result<pb::FeedbackRequest, ServeError> {
        /// The message, with words of its own for an outcome that is neither a number nor a string.
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Feedback {
            #[serde(default)]
            model: String,
            request_id: String,
            outcome: Value,
        }
        let mut feedback: Feedback = object(self.body)?;
        agree(&mut feedback.model, model, "model")?;
        let outcome = match &feedback.outcome {
            Value::String(label) => Some(Outcome::Label(label.clone())),
            number => number.as_f64().map(Outcome::Number),
        };
        match outcome {
            None => Err(ServeError::invalid("outcome must be a number or a string")),
            outcome => {
                Ok(pb::FeedbackRequest { model: feedback.model, request_id: feedback.request_id, outcome })
            }
        }
    }
}

/// Fills in what the path says, where the message says nothing. Errors: it says something else.
fn agree<T: PartialEq + Default>(field: &mut T, of_path: T, name: &str) -> Result<(), ServeError> {
    if *field != T::default() && *field != of_path {
        return Err(ServeError::invalid(format!(
            "{name} is one thing in the body and another outside of it"
        )));
    }
    *field = of_path;
    Ok(())
}

/// A message out of a JSON object.
fn object<M: DeserializeOwned>(body: &[u8]) -> Result<M, ServeError> {
    // A message would be read off a list too, field by field.
    if body.trim_ascii_start().first().is_some_and(|first| *first != b'{') {
        return Err(ServeError::invalid("failed to parse the request JSON: it must be an object"));
    }
    serde_json::from_slice(body)
        .map_err(|error| ServeError::invalid(format!("failed to parse the request JSON: {error}")))
}

/// The revision that a change is made on, as an entity tag (RFC 9110, 8.8.3 and 13.1.1): `None` for no header and
/// for `*`.
fn if_match(headers: &HeaderMap) -> Result<Option<u64>, ServeError> {
    let malformed = || {
        ServeError::invalid("If-Match must be one revision in quotes, as ETag tells it, such as \"7\", or *")
    };
    let mut values = headers.get_all(IF_MATCH).iter();
    let value = match (values.next(), values.next()) {
        (None, _) => return Ok(None),
        (Some(value), None) => value.to_str().map_err(|_| malformed())?.trim(),
        (Some(_), Some(_)) => return Err(malformed()),
    };
    if value == "*" {
        return Ok(None);
    }
    let digits = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).ok_or_else(malformed)?;
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(malformed());
    }
    digits.parse().map(Some).map_err(|_| malformed())
}

/// `before=N&limit=N&model=M`, each of them optional.
fn audit(query: &str) -> Result<pb::ListAuditRequest, ServeError> {
    let mut request = pb::ListAuditRequest::default();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = unquoted(value)
            .ok_or_else(|| ServeError::invalid(format!("'{}' in the query has no value", excerpt(key))))?;
        let unfit = |_| ServeError::invalid(format!("{key} in the query must be a number"));
        match key {
            "before" => request.before = value.parse().map_err(unfit)?,
            "limit" => request.limit = value.parse().map_err(unfit)?,
            "model" => request.model = value,
            _ => {
                let message =
                    format!("unknown key '{}' in the query; use before, limit, model", excerpt(key));
                return Err(ServeError::invalid(message));
            }
        }
    }
    Ok(request)
}

#[cfg(test)]
mod tests;
