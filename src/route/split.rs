//! Weighted rendezvous hashing: which arm a key belongs to.
//!
//! Each arm scores −w / ln u, where u in (0, 1) is a hash of the key and the arm; the highest score wins. An arm
//! wins with probability w / Σw, and a change of one weight changes that arm's scores alone, so that keys move to
//! it or away from it and never between the others. Source: Schindelhauer and Schomaker, "Weighted distributed
//! hash tables" (SPAA 2005), the logarithmic method.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::id::{ModelName, Version};

/// What makes an arm's hashes its own: users of one model's canary are not the users of every canary.
///
/// The seed depends on nothing but the names, so that replicas and releases agree.
pub fn seed(model: &ModelName, version: Version) -> u64 {
    xxh3_64(format!("weir/{model}/{version}").as_bytes())
}

/// The number by which a key is known outside: for counting distinct ones.
pub fn unit(key: &[u8]) -> u64 {
    xxh3_64(key)
}

/// An arm's score for a key; −∞ for a weight of 0, which no other score is below.
pub fn score(seed: u64, key: &[u8], weight: f64) -> f64 {
    if weight <= 0.0 {
        return f64::NEG_INFINITY;
    }
    let hash = xxh3_64_with_seed(key, seed);
    // 53 bits and a half: never 0 and never 1, so that the logarithm is finite and negative.
    let u = ((hash >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    // Not the standard library's logarithm, whose last bit depends on the machine.
    -weight / libm::log(u)
}
