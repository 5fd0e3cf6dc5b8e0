//! How far two tensors of one type and shape are apart, element by element.

use std::sync::Arc;

use crate::event::{Incomparable, Magnitude, OutputDifference};
use crate::reading::ELEMENTS_MAX;
use crate::tensor::{DataType, Tensor, strings};

/// What two floats may differ by: `absolute + relative · |a|`, the form of numpy's `isclose` with the primary's
/// value as the reference.
#[derive(Debug, Clone, Copy)]
struct Tolerance {
    absolute: f64,
    relative: f64,
}

impl Tolerance {
    /// `None` for types whose values must be the same: integers, truth values, strings.
    ///
    /// Wide enough for the same weights through other kernels, narrower than anything that a user would call
    /// another prediction: sums of 32-bit floats in another order differ by some 1e-6 relative, and doubles are
    /// mostly computed from 32-bit weights; rounding to bf16 errs by up to 2⁻⁸, and fp16, which is finer but whose sums
    /// lose as much, gets the same.
    fn of(datatype: DataType) -> Option<Self> {
        match datatype {
            DataType::Fp32 | DataType::Fp64 => Some(Self { absolute: 1e-5, relative: 1e-4 }),
            DataType::Fp16 | DataType::Bf16 => Some(Self { absolute: 1e-2, relative: 1e-2 }),
            DataType::Bool
            | DataType::Uint8
            | DataType::Uint16
            | DataType::Uint32
            | DataType::Uint64
            | DataType::Int8
            | DataType::Int16
            | DataType::Int32
            | DataType::Int64
            | DataType::Bytes => None,
        }
    }
}

/// Compares the first `reading::ELEMENTS_MAX` elements. Both tensors have one type and shape.
pub(super) fn difference(output: &Arc<str>, ours: &Tensor, theirs: &Tensor) -> OutputDifference {
    let sums = match Tolerance::of(ours.datatype()) {
        Some(tolerance) => of_floats(&ours.floats(ELEMENTS_MAX), &theirs.floats(ELEMENTS_MAX), tolerance),
        None if ours.datatype() == DataType::Bytes => of_strings(ours, theirs),
        None => of_integers(ours, theirs),
    };
    sums.difference(output, ours.datatype())
}

/// The difference of an output that has nothing to be compared with.
pub(super) fn incomparable(output: &Arc<str>, datatype: DataType, reason: Incomparable) -> OutputDifference {
    OutputDifference { incomparable: Some(reason), ..Sums::default().difference(output, datatype) }
}

/// Running totals over elements.
#[derive(Default)]
struct Sums {
    elements: usize,
    differing: usize,
    nonfinite_mismatches: usize,
    /// Pairs of which both are finite.
    finite: usize,
    absolute: f64,
    magnitude: Magnitude,
}

impl Sums {
    /// Two finite numbers that are `absolute` apart, the larger of which is `scale` from zero; `unit` is what
    /// tolerances are counted in.
    fn add(&mut self, absolute: f64, scale: f64, unit: f64) {
        self.elements += 1;
        self.finite += 1;
        self.absolute += absolute;
        let relative = if scale > 0.0 { absolute / scale } else { 0.0 };
        let magnitude = &mut self.magnitude;
        magnitude.absolute_max = magnitude.absolute_max.max(absolute);
        magnitude.relative_max = magnitude.relative_max.max(relative);
        magnitude.tolerances_max = magnitude.tolerances_max.max(absolute / unit);
    }

    fn difference(self, output: &Arc<str>, datatype: DataType) -> OutputDifference {
        let absolute_mean =
            if self.finite > 0 { (self.absolute / self.finite as f64).min(f64::MAX) } else { 0.0 };
        OutputDifference {
            output: Arc::clone(output),
            datatype,
            numeric: false,
            elements: self.elements,
            differing: self.differing,
            nonfinite_mismatches: self.nonfinite_mismatches,
            magnitude: Magnitude { absolute_mean, ..self.magnitude },
            incomparable: None,
        }
    }
}

fn of_floats(ours: &[f64], theirs: &[f64], tolerance: Tolerance) -> Sums {
    let mut sums = Sums::default();
    for (&a, &b) in ours.iter().zip(theirs) {
        if a.is_finite() && b.is_finite() {
            // Two doubles near opposite ends are further apart than a double can say.
            let absolute = (a - b).abs().min(f64::MAX);
            let tolerated = tolerance.absolute + tolerance.relative * a.abs();
            sums.add(absolute, a.abs().max(b.abs()), tolerated);
            sums.differing += usize::from(absolute > tolerated);
            continue;
        }
        sums.elements += 1;
        if a != b && !(a.is_nan() && b.is_nan()) {
            sums.nonfinite_mismatches += 1;
            sums.differing += 1;
        }
    }
    sums
}

fn of_strings(ours: &Tensor, theirs: &Tensor) -> Sums {
    let mut sums = Sums::default();
    let pairs = strings::iter(ours.data()).zip(strings::iter(theirs.data())).take(ELEMENTS_MAX);
    for (a, b) in pairs {
        sums.elements += 1;
        sums.differing += usize::from(a != b);
    }
    sums
}

/// Exact, also for 64-bit values that a double would round.
fn of_integers(ours: &Tensor, theirs: &Tensor) -> Sums {
    let mut sums = Sums::default();
    macro_rules! compare {
        ($type:ty) => {{
            let wide = |bytes: &[u8]| -> i128 {
                <$type>::from_le_bytes(bytes.try_into().expect("chunks have that size")).into()
            };
            let size = size_of::<$type>();
            let pairs = ours.data().chunks_exact(size).zip(theirs.data().chunks_exact(size));
            for (a, b) in pairs.take(ELEMENTS_MAX) {
                let (a, b) = (wide(a), wide(b));
                let scale = a.unsigned_abs().max(b.unsigned_abs());
                sums.add((a - b).unsigned_abs() as f64, scale as f64, 1.0);
                sums.differing += usize::from(a != b);
            }
        }};
    }
    match ours.datatype() {
        DataType::Bool | DataType::Uint8 => compare!(u8),
        DataType::Uint16 => compare!(u16),
        DataType::Uint32 => compare!(u32),
        DataType::Uint64 => compare!(u64),
        DataType::Int8 => compare!(i8),
        DataType::Int16 => compare!(i16),
        DataType::Int32 => compare!(i32),
        DataType::Int64 => compare!(i64),
        DataType::Fp16 | DataType::Bf16 | DataType::Fp32 | DataType::Fp64 | DataType::Bytes => {}
    }
    sums
}
