//! Who gets which version. Pure: the same request and the same versions always give the same answer.
//!
//! Today a request gets the version that it names, or the highest that is ready.

use crate::id::Version;

/// What a route needs to know of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Ready,
    /// Loading.
    InTransit,
    Failed,
}

/// Why a request gets no version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoRoute {
    /// The version it names does not exist.
    UnknownVersion,
    /// The version it names exists and does not answer now.
    NotReady,
    /// The version it names could not be loaded.
    Failed,
    /// It names none, and none is ready.
    NoneAvailable,
}

/// Chooses a version. `versions` ascend.
pub fn decide(
    pinned: Option<Version>,
    versions: impl DoubleEndedIterator<Item = (Version, Standing)>,
) -> Result<Version, NoRoute> {
    let mut descending = versions.rev();
    match pinned {
        Some(pinned) => match descending.find(|(version, _)| *version == pinned) {
            Some((version, Standing::Ready)) => Ok(version),
            Some((_, Standing::InTransit)) => Err(NoRoute::NotReady),
            Some((_, Standing::Failed)) => Err(NoRoute::Failed),
            None => Err(NoRoute::UnknownVersion),
        },
        None => {
            let mut in_transit = false;
            for (version, standing) in descending {
                match standing {
                    Standing::Ready => return Ok(version),
                    Standing::InTransit => in_transit = true,
                    Standing::Failed => {}
                }
            }
            Err(if in_transit { NoRoute::NotReady } else { NoRoute::NoneAvailable })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Standing::{Failed, InTransit, Ready};

    fn check(pinned: Option<u64>, versions: &[(u64, Standing)], expected: Result<u64, NoRoute>) {
        let version = |n: u64| Version::parse(&n.to_string()).unwrap();
        let versions = versions.iter().map(|&(n, standing)| (version(n), standing));
        let decided = decide(pinned.map(version), versions).map(Version::number);
        assert_eq!(decided, expected);
    }

    #[test]
    fn a_pinned_version_is_honoured_and_the_highest_ready_one_is_the_default() {
        let versions = [(1, Ready), (2, Ready), (3, Failed), (4, InTransit)];
        check(None, &versions, Ok(2));
        check(Some(1), &versions, Ok(1));
        check(Some(3), &versions, Err(NoRoute::Failed));
        check(Some(4), &versions, Err(NoRoute::NotReady));
        check(Some(9), &versions, Err(NoRoute::UnknownVersion));
        check(None, &[(1, Failed), (2, InTransit)], Err(NoRoute::NotReady));
        check(None, &[(1, Failed)], Err(NoRoute::NoneAvailable));
        check(None, &[], Err(NoRoute::NoneAvailable));
    }
}
