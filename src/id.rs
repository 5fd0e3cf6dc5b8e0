//! Names that clients send: models, versions. Validated once, then trusted.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// A model's name: `[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}`. Safe as a folder name and a metric label.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModelName(Arc<str>);

impl ModelName {
    /// `None` when the text is not a model name.
    pub fn parse(text: &str) -> Option<Self> {
        let first = text.bytes().next()?;
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
        let starts_well = first.is_ascii_alphanumeric() || first == b'_';
        (starts_well && text.len() <= 128 && text.bytes().all(legal)).then(|| Self(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for ModelName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A version's number: `[1-9][0-9]{0,17}`, the name of its folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Version(u64);

impl Version {
    /// `None` when the text is not a version number; leading zeros and signs are not.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.bytes().all(|b| b.is_ascii_digit());
        if !digits || text.starts_with('0') || text.is_empty() || text.len() > 18 {
            return None;
        }
        text.parse().ok().map(Self)
    }

    /// `None` when the number cannot be a version's.
    pub fn new(number: u64) -> Option<Self> {
        (1..1_000_000_000_000_000_000).contains(&number).then_some(Self(number))
    }

    pub fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whether a text can be a label: `[A-Za-z_][A-Za-z0-9_.-]{0,63}`. No version number can.
pub fn is_label(text: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    text.len() <= 64
        && text.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && text.bytes().all(legal)
}

/// One version of one model.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServableId {
    pub model: ModelName,
    pub version: Version,
}

impl fmt::Display for ServableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.model, self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_a_folder_are_none() {
        for bad in ["", ".", "..", "-a", ".a", "a/b", "a\\b", "a b", "a\0", "é", "a%2f", &"a".repeat(129)] {
            assert_eq!(ModelName::parse(bad), None, "{bad:?}");
        }
        for good in ["a", "_x", "0", "resnet-50.v2", &"a".repeat(128)] {
            assert!(ModelName::parse(good).is_some(), "{good:?}");
        }
    }

    #[test]
    fn versions_are_positive_decimal_numbers() {
        for bad in ["", "0", "01", "-1", "+1", "1.0", "1a", "a", " 1", "9999999999999999999"] {
            assert_eq!(Version::parse(bad), None, "{bad:?}");
        }
        assert_eq!(Version::parse("12").map(Version::number), Some(12));
        assert_eq!(Version::parse("999999999999999999").map(Version::number), Some(999_999_999_999_999_999));
    }
}
