//! A route as it is set: arms, shadows, sticky key, rules.

use std::fmt;

use super::split;
use crate::error::excerpt;
use crate::id::{ModelName, Version};

/// Arms of one route at the most: each costs a hash per request.
pub const ARMS_MAX: usize = 64;

/// Shadows of one route at the most: each multiplies the traffic.
pub const SHADOWS_MAX: usize = 8;

/// The largest weight: shares of a billionth are no shares.
const WEIGHT_MAX: f64 = 1e9;

/// Rules of one route at the most: each is tried in turn.
pub const RULES_MAX: usize = 64;

/// Bytes of a header's name at the most.
const HEADER_BYTES_MAX: usize = 128;

/// Bytes of a rule's value, and of a sticky key's source, at the most. A route stands in the record of each change from
/// it and to it, and with those before it in what a restart reads.
pub const TEXT_BYTES_MAX: usize = 1024;

/// A version that answers clients.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Arm {
    pub version: Version,
    /// Relative to the other arms' weights; 0 gets nothing.
    pub weight: f64,
}

/// A version that gets a copy of the traffic.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shadow {
    pub version: Version,
    /// Part of the requests that are copied, 0 to 1.
    pub share: f64,
}

/// A request whose header has that value goes to that arm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// In lower case.
    pub header: String,
    pub equals: String,
    pub version: Version,
}

/// What keeps a client on its arm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sticky {
    /// A header of HTTP or a metadata entry of gRPC, in lower case.
    Header(String),
    /// A parameter of the request.
    Parameter(String),
    RequestId,
}

impl Rule {
    /// Errors: it is longer than a rule that is set anew may be. One that stands from before stays valid.
    pub fn short(&self) -> Result<(), String> {
        short("header", &self.header, HEADER_BYTES_MAX)?;
        short("equals", &self.equals, TEXT_BYTES_MAX)
    }
}

impl Sticky {
    /// Reads `header:NAME`, `metadata:NAME` (the same thing), `parameter:NAME` or `request_id`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            let text = excerpt(text);
            format!(
                "sticky '{text}' must be header:NAME, metadata:NAME, parameter:NAME or request_id, such as \
                 header:x-user-id"
            )
        };
        match text.split_once(':') {
            None if text == "request_id" => Ok(Self::RequestId),
            Some(("header" | "metadata", name)) => Ok(Self::Header(header_name(name).ok_or_else(wrong)?)),
            Some(("parameter", name)) if !name.is_empty() => Ok(Self::Parameter(name.to_owned())),
            _ => Err(wrong()),
        }
    }

    /// Errors: it is longer than one that is set anew may be. One that stands from before stays valid.
    pub fn short(&self) -> Result<(), String> {
        short("sticky", &self.to_string(), TEXT_BYTES_MAX)
    }
}

impl fmt::Display for Sticky {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Parameter(name) => write!(f, "parameter:{name}"),
            Self::RequestId => f.write_str("request_id"),
        }
    }
}

/// A route as somebody wrote it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RouteSpec {
    pub arms: Vec<Arm>,
    pub shadows: Vec<Shadow>,
    pub sticky: Option<Sticky>,
    pub rules: Vec<Rule>,
}

impl RouteSpec {
    /// Errors: a text of it is longer than in a route that is set anew. One that stands from before stays valid.
    pub fn short(&self) -> Result<(), String> {
        self.sticky.as_ref().map_or(Ok(()), Sticky::short)?;
        let ruled = |(position, rule): (usize, &Rule)| {
            rule.short().map_err(|reason| format!("rules[{position}].{reason}"))
        };
        self.rules.iter().enumerate().try_for_each(ruled)
    }
}

/// A valid route of one model.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    spec: RouteSpec,
    /// By position in `spec.arms`.
    seeds: Vec<u64>,
    total: f64,
}

impl Route {
    /// Errors: what is wrong with the route, and what would be right.
    pub fn new(model: &ModelName, mut spec: RouteSpec) -> Result<Self, String> {
        if spec.arms.is_empty() {
            return Err("a route needs an arm, such as {\"version\":1,\"weight\":100}".to_owned());
        }
        within("arms", spec.arms.len(), ARMS_MAX)?;
        within("shadows", spec.shadows.len(), SHADOWS_MAX)?;
        within("rules", spec.rules.len(), RULES_MAX)?;
        distinct("arm", spec.arms.iter().map(|arm| arm.version))?;
        distinct("shadow", spec.shadows.iter().map(|shadow| shadow.version))?;
        if let Some(arm) = spec.arms.iter().find(|arm| !(0.0..=WEIGHT_MAX).contains(&arm.weight)) {
            return Err(format!(
                "version {}: weight {} must be 0 or more, and at most {WEIGHT_MAX}",
                arm.version, arm.weight
            ));
        }
        let total: f64 = spec.arms.iter().map(|arm| arm.weight).sum();
        if total <= 0.0 {
            return Err("the weights must add up to more than 0".to_owned());
        }
        if let Some(shadow) = spec.shadows.iter().find(|shadow| !(0.0..=1.0).contains(&shadow.share)) {
            return Err(format!("shadow {}: share {} must be between 0 and 1", shadow.version, shadow.share));
        }
        for rule in &mut spec.rules {
            rule.header = header_name(&rule.header)
                .ok_or_else(|| format!("rule: '{}' cannot be a header's name", excerpt(&rule.header)))?;
            if !spec.arms.iter().any(|arm| arm.version == rule.version) {
                return Err(format!(
                    "rule: version {} is no arm of this route; add it, with weight 0 if only rules lead there",
                    rule.version
                ));
            }
        }
        let seeds = spec.arms.iter().map(|arm| split::seed(model, arm.version)).collect();
        Ok(Self { spec, seeds, total })
    }

    pub fn spec(&self) -> &RouteSpec {
        &self.spec
    }

    /// An arm's share of the requests that name no version, 0 to 1.
    pub fn share(&self, version: Version) -> f64 {
        let arm = self.spec.arms.iter().find(|arm| arm.version == version);
        arm.map_or(0.0, |arm| arm.weight / self.total)
    }

    /// Every version that the route names.
    pub fn versions(&self) -> impl Iterator<Item = Version> {
        let arms = self.spec.arms.iter().map(|arm| arm.version);
        arms.chain(self.spec.shadows.iter().map(|shadow| shadow.version))
    }

    /// Whether requests are split between several versions.
    pub fn splits(&self) -> bool {
        self.spec.arms.iter().filter(|arm| arm.weight > 0.0).count() > 1
    }

    /// The arms with the seeds of their hashes.
    pub(super) fn seeded(&self) -> impl Iterator<Item = (&Arm, u64)> {
        self.spec.arms.iter().zip(self.seeds.iter().copied())
    }
}

fn within(what: &str, count: usize, max: usize) -> Result<(), String> {
    if count <= max { Ok(()) } else { Err(format!("{count} {what} are too many: a route takes {max}")) }
}

fn short(what: &str, text: &str, bytes_max: usize) -> Result<(), String> {
    match text.len() {
        bytes if bytes <= bytes_max => Ok(()),
        bytes => Err(format!("{what} has {bytes} bytes: a route takes {bytes_max}")),
    }
}

fn distinct(what: &str, versions: impl Iterator<Item = Version>) -> Result<(), String> {
    let mut seen = Vec::new();
    for version in versions {
        if seen.contains(&version) {
            return Err(format!("version {version} is there twice as {what}; name it once"));
        }
        seen.push(version);
    }
    Ok(())
}

/// A header's name in lower case (RFC 9110, section 5.1); `None` when it cannot be one.
fn header_name(text: &str) -> Option<String> {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    (!text.is_empty() && text.len() <= HEADER_BYTES_MAX && text.bytes().all(token))
        .then(|| text.to_ascii_lowercase())
}
