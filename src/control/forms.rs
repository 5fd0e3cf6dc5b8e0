//! Between the control API's messages and our own types.

use crate::error::{ErrorKind, ServeError, excerpt};
use crate::id::{ModelName, Version};
use crate::proto::control as pb;
use crate::route::{Arm, RouteSpec, Rule, Shadow, Sticky};

/// A model's name. Errors: it cannot be one.
pub fn model(text: &str) -> Result<ModelName, ServeError> {
    ModelName::parse(text).ok_or_else(|| {
        ServeError::new(ErrorKind::NotFound, format!("model '{}' is not found", excerpt(text)))
    })
}

/// A version. Errors: it cannot be one.
pub fn version(number: u64) -> Result<Version, ServeError> {
    Version::new(number).ok_or_else(|| {
        ServeError::invalid(format!("version {number}: versions are numbers from 1 up, of at most 18 digits"))
    })
}

/// A route as it was written. Errors: what cannot be read.
pub fn spec(route: &pb::Route) -> Result<RouteSpec, String> {
    let version = |number: u64| {
        Version::new(number).ok_or_else(|| format!("version {number}: versions are numbers from 1 up"))
    };
    let arm = |arm: &pb::Arm| Ok(Arm { version: version(arm.version)?, weight: arm.weight });
    let shadow = |s: &pb::Shadow| Ok(Shadow { version: version(s.version)?, share: s.share });
    let rule = |rule: &pb::Rule| {
        let version = version(rule.version)?;
        Ok(Rule { header: rule.header.clone(), equals: rule.equals.clone(), version })
    };
    Ok(RouteSpec {
        arms: route.arms.iter().map(arm).collect::<Result<_, String>>()?,
        shadows: route.shadows.iter().map(shadow).collect::<Result<_, String>>()?,
        sticky: match route.sticky.as_str() {
            "" => None,
            text => Some(Sticky::parse(text)?),
        },
        rules: route.rules.iter().map(rule).collect::<Result<_, String>>()?,
    })
}

/// The route that gives everything to one version.
pub fn single(version: Version) -> pb::Route {
    pb::Route { arms: vec![pb::Arm { version: version.number(), weight: 100.0 }], ..pb::Route::default() }
}

/// The route as it decides, without what only describes it: to compare, record and remember.
pub fn bare(route: &pb::Route) -> pb::Route {
    pb::Route { revision: 0, model: String::new(), owner: String::new(), ..route.clone() }
}
