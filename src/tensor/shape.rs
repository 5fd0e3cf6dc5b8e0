//! Concrete shapes: every dimension known and not negative.

use std::fmt;

use smallvec::SmallVec;

/// A tensor's dimensions, each ≥ 0. A scalar has none. Up to four stay off the heap.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Shape(SmallVec<[i64; 4]>);

impl Shape {
    /// `None` when a dimension is negative.
    pub fn from_dims(dims: impl IntoIterator<Item = i64>) -> Option<Self> {
        let dims: SmallVec<[i64; 4]> = dims.into_iter().collect();
        dims.iter().all(|&d| d >= 0).then_some(Self(dims))
    }

    pub fn dims(&self) -> &[i64] {
        &self.0
    }

    pub fn rank(&self) -> usize {
        self.0.len()
    }

    /// The number of elements, or `None` when it does not fit. One empty axis makes it zero, but the others must
    /// still multiply to a number that fits: ONNX Runtime multiplies them too.
    pub fn elements(&self) -> Option<usize> {
        let sizes = self.0.iter().filter(|d| **d != 0);
        let product = sizes.clone().try_fold(1i64, |n, &d| n.checked_mul(d))?;
        if self.0.contains(&0) { Some(0) } else { usize::try_from(product).ok() }
    }

    /// The same shape with another first dimension. A scalar stays one.
    pub fn with_first(&self, first: i64) -> Self {
        self.with_axis(0, first)
    }

    /// The same shape with another size of one axis, if it has that axis.
    pub fn with_axis(&self, axis: usize, size: i64) -> Self {
        let mut dims = self.0.clone();
        if let Some(d) = dims.get_mut(axis) {
            *d = size;
        }
        Self(dims)
    }

    /// The shape with the dimension `first` put before it.
    pub fn prepend(&self, first: i64) -> Self {
        Self(std::iter::once(first).chain(self.0.iter().copied()).collect())
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&super::format_dims(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn element_counts_never_wrap() {
        let count = |dims: &[i64]| Shape::from_dims(dims.iter().copied()).unwrap().elements();
        assert_eq!(count(&[]), Some(1));
        assert_eq!(count(&[3, 4]), Some(12));
        assert_eq!(count(&[i64::MAX, 0]), Some(0));
        assert_eq!(count(&[i64::MAX, i64::MAX, 0]), None);
        assert_eq!(count(&[i64::MAX, 4]), None);
        assert_eq!(Shape::from_dims([2, -1]), None);
    }
}
