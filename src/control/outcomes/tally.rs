//! Adds up what each version of an experiment came to.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::{OptionalExtension, Row};

use super::{OutcomesError, file};

/// What one version of an experiment came to.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ArmTally {
    pub version: u64,
    /// Requests that it answered.
    pub requests: u64,
    /// Distinct units among them; a request without a unit is one of its own.
    pub units: u64,
    /// Outcomes that count: at most one for each unit.
    pub outcomes: u64,
    /// Of the outcomes that are numbers; `None` if none is.
    pub numbers: Option<Numbers>,
    /// How many outcomes have each label.
    pub labels: BTreeMap<String, u64>,
}

/// What mean and variance are made of.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Numbers {
    pub n: u64,
    pub sum: f64,
    pub sum_of_squares: f64,
}

impl Numbers {
    fn add(&mut self, number: f64) {
        self.n += 1;
        self.sum += number;
        self.sum_of_squares += number * number;
    }
}

/// The tallies of an experiment in the database at `path`, by version; none if nothing is known of it.
pub fn tally(path: &Path, model: &str, experiment: &str) -> Result<Vec<ArmTally>, OutcomesError> {
    let connection = file::open_for_reading(path)?;
    let sql = "SELECT id FROM experiments WHERE model = ?1 AND name = ?2";
    let number: Option<i64> = connection.query_row(sql, (model, experiment), |row| row.get(0)).optional()?;
    let Some(number) = number else { return Ok(Vec::new()) };
    // The order of the index `by_arm`, which alone is read: a unit's requests stand together, its outcomes by arrival.
    let sql = "SELECT version, unit, told_us IS NOT NULL, number, label FROM requests
               WHERE experiment = ?1 ORDER BY version, unit, told_us";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([number])?;
    let mut arms: Vec<ArmTally> = Vec::new();
    let mut unit = Unit::default();
    while let Some(row) = rows.next()? {
        let version = row.get::<_, i64>(0)?.cast_unsigned();
        if arms.last().is_none_or(|arm| arm.version != version) {
            arms.push(ArmTally { version, ..ArmTally::default() });
            unit = Unit::default();
        }
        let arm = arms.last_mut().expect("one was put there if none was");
        arm.requests += 1;
        let key: Option<i64> = row.get(1)?;
        if key.is_none() || key != unit.key {
            arm.units += 1;
            unit = Unit { key, counted: false };
        }
        if row.get(2)? && !unit.counted {
            unit.counted = true;
            count(arm, row)?;
        }
    }
    Ok(arms)
}

/// The unit whose requests are being read.
#[derive(Default)]
struct Unit {
    key: Option<i64>,
    /// Whether it has had its outcome.
    counted: bool,
}

fn count(arm: &mut ArmTally, row: &Row<'_>) -> rusqlite::Result<()> {
    arm.outcomes += 1;
    match row.get::<_, Option<f64>>(3)? {
        Some(number) => arm.numbers.get_or_insert_default().add(number),
        None => {
            let label = row.get_ref(4)?.as_str().unwrap_or_default();
            match arm.labels.get_mut(label) {
                Some(count) => *count += 1,
                None => drop(arm.labels.insert(label.to_owned(), 1)),
            }
        }
    }
    Ok(())
}
