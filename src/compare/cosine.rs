//! The angle between two embeddings, row by row.

use crate::reading::ELEMENTS_MAX;
use crate::tensor::Tensor;

/// The cosine of each row of two float tensors of one shape, from -1 to 1.
///
/// Rows are what the first axis counts, when there are two axes or more; else the whole is one row. A row that
/// lies past the bound of elements is left out, the first is cut at it. Elements of which one is NaN or infinite
/// are left out: they are counted as mismatches where they differ. Two rows of zeros are the same (1); one of them
/// has no direction (0).
pub(super) fn row_cosines(ours: &Tensor, theirs: &Tensor) -> Vec<f64> {
    let (ours_values, theirs_values) = (ours.floats(ELEMENTS_MAX), theirs.floats(ELEMENTS_MAX));
    let rows = match ours.shape().dims() {
        [rows, _, ..] => *rows as usize,
        _ => 1,
    };
    let width = ours.elements().checked_div(rows).unwrap_or(0).min(ELEMENTS_MAX);
    if width == 0 {
        return Vec::new();
    }
    let rows = ours_values.chunks_exact(width).zip(theirs_values.chunks_exact(width));
    rows.map(|(ours, theirs)| cosine(ours, theirs)).collect()
}

fn cosine(ours: &[f64], theirs: &[f64]) -> f64 {
    let (mut dot, mut our_square, mut their_square) = (0.0, 0.0, 0.0);
    let pairs = ours.iter().zip(theirs).filter(|(a, b)| a.is_finite() && b.is_finite());
    for (a, b) in pairs {
        dot += a * b;
        our_square += a * a;
        their_square += b * b;
    }
    match (our_square > 0.0, their_square > 0.0) {
        (false, false) => 1.0,
        // Rounding may end a little outside; squares of huge values overflow to an infinity over an infinity.
        (true, true) => match dot / (our_square.sqrt() * their_square.sqrt()) {
            quotient if quotient.is_nan() => 0.0,
            quotient => quotient.clamp(-1.0, 1.0),
        },
        _ => 0.0,
    }
}
