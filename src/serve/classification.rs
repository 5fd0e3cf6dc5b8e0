//! The classification extension: the best classes of an output in place of the output.

use bytes::BytesMut;
use half::{bf16, f16};
use ndarray::{ArrayView1, ArrayView2};

use crate::error::ServeError;
use crate::tensor::{DataType, Shape, Tensor, strings};

/// The `classes` highest values of each row, as strings `value:index[:label]`, best first.
///
/// Shapes: `[rows, …]` gives `[rows, min(classes, values)]` when `batched`, else `[…]` gives
/// `[min(classes, values)]`; the axes after the batch axis count as one. Errors: the output holds no numbers.
pub fn classify(
    tensor: &Tensor,
    classes: usize,
    labels: &[String],
    batched: bool,
) -> Result<Tensor, ServeError> {
    let rows = match (batched, tensor.shape().dims().first()) {
        (true, Some(&rows)) => rows as usize,
        _ => 1,
    };
    let values = tensor.elements().checked_div(rows).unwrap_or(0);
    let count = classes.min(values);
    let mut packed = BytesMut::new();
    let data = tensor.data();
    macro_rules! best {
        ($type:ty, $key:expr, $show:expr) => {{
            let numbers: Vec<$type> = data
                .chunks_exact(size_of::<$type>())
                .map(|chunk| <$type>::from_le_bytes(chunk.try_into().expect("chunks have that size")))
                .collect();
            write_best(&mut packed, &numbers, (rows, count), labels, $key, $show)
        }};
    }
    match tensor.datatype() {
        DataType::Bool | DataType::Uint8 => best!(u8, f64::from, |v| v.to_string()),
        DataType::Uint16 => best!(u16, f64::from, |v| v.to_string()),
        DataType::Uint32 => best!(u32, f64::from, |v| v.to_string()),
        DataType::Uint64 => best!(u64, |v| v as f64, |v| v.to_string()),
        DataType::Int8 => best!(i8, f64::from, |v| v.to_string()),
        DataType::Int16 => best!(i16, f64::from, |v| v.to_string()),
        DataType::Int32 => best!(i32, f64::from, |v| v.to_string()),
        DataType::Int64 => best!(i64, |v| v as f64, |v| v.to_string()),
        DataType::Fp16 => best!(f16, f16::to_f64, |v| format!("{:.6}", v.to_f64())),
        DataType::Bf16 => best!(bf16, bf16::to_f64, |v| format!("{:.6}", v.to_f64())),
        DataType::Fp32 => best!(f32, f64::from, |v| format!("{v:.6}")),
        DataType::Fp64 => best!(f64, |v| v, |v| format!("{v:.6}")),
        DataType::Bytes => {
            return Err(ServeError::invalid(
                "classification needs an output of numbers, and this one has strings",
            ));
        }
    }
    let shape = Shape::from_dims([count as i64]).expect("a count is not negative");
    let shape = if batched { shape.prepend(rows as i64) } else { shape };
    Tensor::new(DataType::Bytes, shape, packed.freeze()).map_err(|e| ServeError::internal(e.to_string()))
}

fn write_best<T: Copy>(
    packed: &mut BytesMut,
    numbers: &[T],
    (rows, count): (usize, usize),
    labels: &[String],
    key: impl Fn(T) -> f64,
    show: impl Fn(T) -> String,
) {
    if count == 0 {
        return;
    }
    let table =
        ArrayView2::from_shape((rows, numbers.len() / rows), numbers).expect("rows divide the numbers");
    for row in table.rows() {
        for index in best_indices(row, count, &key) {
            let value = show(row[index]);
            let text = match labels.get(index).filter(|label| !label.is_empty()) {
                Some(label) => format!("{value}:{index}:{label}"),
                None => format!("{value}:{index}"),
            };
            strings::push(packed, text.as_bytes());
        }
    }
}

/// Indices of the highest values, best first; equal values keep their order; NaN comes last.
fn best_indices<T: Copy>(row: ArrayView1<'_, T>, count: usize, key: impl Fn(T) -> f64) -> Vec<usize> {
    let rank = |&i: &usize| {
        let value = key(row[i]);
        if value.is_nan() { f64::NEG_INFINITY } else { value }
    };
    let better = |a: &usize, b: &usize| rank(b).total_cmp(&rank(a)).then(a.cmp(b));
    let mut indices: Vec<usize> = (0..row.len()).collect();
    if count < indices.len() {
        indices.select_nth_unstable_by(count, better);
        indices.truncate(count);
    }
    indices.sort_unstable_by(better);
    indices
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn floats(dims: &[i64], values: &[f32]) -> Tensor {
        let data: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Tensor::new(DataType::Fp32, Shape::from_dims(dims.iter().copied()).unwrap(), data.into()).unwrap()
    }

    fn texts(tensor: &Tensor) -> Vec<String> {
        strings::iter(tensor.data()).map(|s| String::from_utf8_lossy(s).into_owned()).collect()
    }

    #[test]
    fn each_row_gets_its_best_classes_with_labels() {
        let labels = ["cat".to_owned(), String::new(), "dog".to_owned()];
        let scores = floats(&[2, 3], &[0.1, 0.7, 0.2, f32::NAN, 0.25, 0.5]);
        let best = classify(&scores, 2, &labels, true).unwrap();
        assert_eq!(best.shape().dims(), [2, 2]);
        assert_eq!(texts(&best), ["0.700000:1", "0.200000:2:dog", "0.500000:2:dog", "0.250000:1"]);
    }

    #[test]
    fn more_classes_than_there_are_give_all_and_integers_stay_whole() {
        let tensor =
            Tensor::new(DataType::Int8, Shape::from_dims([2]).unwrap(), Bytes::from_static(&[3, 200]))
                .unwrap();
        let best = classify(&tensor, 9, &[], false).unwrap();
        assert_eq!(best.shape().dims(), [2]);
        assert_eq!(texts(&best), ["3:0", "-56:1"]);
        assert_eq!(classify(&floats(&[0, 3], &[]), 1, &[], true).unwrap().shape().dims(), [0, 0]);
    }
}
