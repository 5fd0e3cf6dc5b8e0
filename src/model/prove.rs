//! Proves that a model's first axis is a batch axis: rows run together get the answers that they get alone.
//!
//! Open first dimensions are a hint, not a promise: a model may take a cumulative sum or a mean over that axis.
//! So before batching is turned on for a model whose config does not ask for it, distinct rows are run one by one
//! and together, and the answers are compared.

use bytes::{Bytes, BytesMut};
use half::{bf16, f16};

use crate::backend::{BatchInput, Graph, GraphTensor, Session};
use crate::tensor::{ANY, DataType, Shape, Tensor, strings};

/// Rows of the batch that is compared.
const ROWS: usize = 4;

/// Sizes tried for open dimensions other than the first. A model may need a certain least size.
const OPEN_SIZES: [i64; 4] = [4, 1, 32, 224];

/// Elements in one row's inputs at the most: a proof must not take the memory of a real load.
const ELEMENTS_MAX: usize = 4_000_000;

/// Runs rows alone and together. `Err` says why batching must stay off.
pub fn proves_to_batch(session: &dyn Session) -> Result<(), String> {
    let graph = session.graph();
    let has_open = graph.inputs.iter().flat_map(|i| i.dims.iter().flatten().skip(1)).any(|&d| d == ANY);
    let sizes = if has_open { &OPEN_SIZES[..] } else { &OPEN_SIZES[..1] };
    let mut reason = "it takes none of the sizes tried".to_owned();
    for &size in sizes {
        match compare(session, graph, size) {
            Ok(verdict) => return verdict,
            Err(failed) => reason = failed,
        }
    }
    Err(format!("a trial run failed: {reason}"))
}

/// The outer error: it could not be run at this size. The inner one: it ran, and the answers differ.
fn compare(session: &dyn Session, graph: &Graph, open: i64) -> Result<Result<(), String>, String> {
    let outputs: Vec<usize> = (0..graph.outputs.len()).collect();
    let required = || graph.inputs.iter().enumerate().filter(|(_, input)| !input.has_default);
    let (mut columns, mut left) = (Vec::new(), ELEMENTS_MAX);
    for (index, input) in required() {
        let row = row_shape(input, open).ok_or("an input is too large")?;
        let rest = row.elements().and_then(|elements| left.checked_sub(elements));
        left = rest.ok_or("its inputs are too large")?;
        let rows: Vec<Bytes> = (0..ROWS).map(|i| sample(input.datatype, &row, Fill::Distinct(i))).collect();
        columns.push((index, input.datatype, row, rows));
    }
    let run = |rows: std::ops::Range<usize>| {
        let inputs: Vec<BatchInput> = columns
            .iter()
            .map(|(index, datatype, row, data)| BatchInput {
                index: *index,
                datatype: *datatype,
                shape: row.with_first(rows.len() as i64),
                parts: data[rows.clone()].iter().cloned().collect(),
            })
            .collect();
        session.run(&inputs, &outputs).map_err(|e| e.to_string())
    };
    let together = run(0..ROWS)?;
    let mut apart = Vec::new();
    for row in 0..ROWS {
        apart.push(run(row..row + 1)?);
    }
    for (index, output) in together.iter().enumerate() {
        let name = &graph.outputs[index].name;
        let Some(rows) = output.split_rows(&[1; ROWS]) else {
            return Ok(Err(format!(
                "output '{name}' of {ROWS} rows has shape {}, whose first dimension is not {ROWS}",
                output.shape()
            )));
        };
        for (row, alone) in rows.iter().zip(&apart) {
            if !same(row, &alone[index]) {
                return Ok(Err(format!(
                    "output '{name}' of {ROWS} rows together differs from the rows alone"
                )));
            }
        }
    }
    Ok(Ok(()))
}

/// The shape of one row of an input, batch axis included as 1; `None` when it is too large or unknown.
pub fn row_shape(input: &GraphTensor, open: i64) -> Option<Shape> {
    let dims = input.dims.as_ref()?;
    let sized = dims.iter().enumerate().map(|(axis, &d)| match d {
        ANY if axis == 0 => 1,
        ANY => open,
        d => d,
    });
    Shape::from_dims(sized).filter(|shape| shape.elements().is_some_and(|n| n <= ELEMENTS_MAX))
}

/// What trial data looks like.
#[derive(Debug, Clone, Copy)]
pub enum Fill {
    /// Different for each row number: small positive values, so that indices stay in range and no integer is
    /// divided by zero, which would end the process.
    Distinct(usize),
    Zero,
    /// The same at every run: a fixed sequence, scattered over the small positive values.
    Random,
}

/// Packed elements for a tensor of `shape`.
pub fn sample(datatype: DataType, shape: &Shape, fill: Fill) -> Bytes {
    let elements = shape.elements().unwrap_or(0);
    let mut out = BytesMut::with_capacity(elements * datatype.size().unwrap_or(8));
    for i in 0..elements {
        // In 0..1 and, for distinct rows, different at every place of every row.
        let fraction = match fill {
            Fill::Zero => 0.0,
            Fill::Random => scatter(i as u64),
            Fill::Distinct(row) => scatter((row as u64 + 1) * 7919 + i as u64),
        };
        push(&mut out, datatype, fraction, matches!(fill, Fill::Zero));
    }
    out.freeze()
}

/// A number in 0..1 for each `n`, without pattern to the eye: Weyl's sequence with the golden ratio.
fn scatter(n: u64) -> f64 {
    (n as f64 * 0.618_033_988_749_894_9).fract()
}

fn push(out: &mut BytesMut, datatype: DataType, fraction: f64, zero: bool) {
    let small = if zero { 0 } else { 1 + (fraction * 4.0) as u8 };
    match datatype {
        DataType::Bool => out.extend_from_slice(&[u8::from(fraction >= 0.5)]),
        DataType::Uint8 | DataType::Int8 => out.extend_from_slice(&[small]),
        DataType::Uint16 | DataType::Int16 => out.extend_from_slice(&u16::from(small).to_le_bytes()),
        DataType::Uint32 | DataType::Int32 => out.extend_from_slice(&u32::from(small).to_le_bytes()),
        DataType::Uint64 | DataType::Int64 => out.extend_from_slice(&u64::from(small).to_le_bytes()),
        DataType::Fp16 => out.extend_from_slice(&f16::from_f64(fraction).to_le_bytes()),
        DataType::Bf16 => out.extend_from_slice(&bf16::from_f64(fraction).to_le_bytes()),
        DataType::Fp32 => out.extend_from_slice(&(fraction as f32).to_le_bytes()),
        DataType::Fp64 => out.extend_from_slice(&fraction.to_le_bytes()),
        DataType::Bytes if zero => strings::push(out, b""),
        DataType::Bytes => strings::push(out, format!("word {}", (fraction * 100.0) as u8).as_bytes()),
    }
}

/// Whether two answers are the same: exactly for integers and strings, up to rounding for floats.
///
/// Kernels sum in another order for another batch size, so floats may differ in their last bits. The tolerance
/// is relative to the largest value of the answer, 2⁻¹³ of it for FP32 (a thousand units in the last place),
/// and as many units of the shorter types.
pub fn same(a: &Tensor, b: &Tensor) -> bool {
    if a.datatype() != b.datatype() || a.shape() != b.shape() {
        return false;
    }
    let tolerance = match a.datatype() {
        DataType::Fp64 => 1e-9,
        DataType::Fp32 => 1.0 / 8192.0,
        DataType::Fp16 => 1e-2,
        DataType::Bf16 => 5e-2,
        _ => return a.data() == b.data(),
    };
    let (a, b) = (a.floats(usize::MAX), b.floats(usize::MAX));
    let scale = a.iter().chain(&b).copied().filter(|v| v.is_finite()).fold(0.0f64, |m, v| m.max(v.abs()));
    a.iter().zip(&b).all(|(x, y)| x == y || (x.is_nan() && y.is_nan()) || (x - y).abs() <= tolerance * scale)
}

/// One input of a trial run with `rows` rows of `data` each.
pub fn repeated(index: usize, datatype: DataType, shape: &Shape, data: Bytes, rows: usize) -> BatchInput {
    BatchInput { index, datatype, shape: shape.clone(), parts: std::iter::repeat_n(data, rows).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::RunError;
    use crate::backend::fake::{FakeSession, joined};

    fn float_session(f: impl Fn(&[f32], usize) -> Vec<f32> + Send + Sync + 'static) -> FakeSession {
        let graph = FakeSession::identity(|_| Ok(())).graph().clone();
        FakeSession::new(graph, move |inputs| {
            let x = joined(&inputs[0]);
            let rows = x.shape().dims()[0] as usize;
            let values: Vec<f32> = x.floats(usize::MAX).into_iter().map(|v| v as f32).collect();
            let y: Vec<u8> = f(&values, rows).into_iter().flat_map(f32::to_le_bytes).collect();
            Ok(vec![Tensor::new(DataType::Fp32, x.shape().clone(), y.into()).unwrap()])
        })
    }

    #[test]
    fn rows_that_stay_apart_may_batch() {
        assert_eq!(proves_to_batch(&float_session(|x, _| x.iter().map(|v| v * 2.0).collect())), Ok(()));
    }

    #[test]
    fn rows_that_touch_each_other_may_not() {
        let running_sum = |x: &[f32], _| {
            x.iter()
                .scan(0.0, |sum, v| {
                    *sum += v;
                    Some(*sum)
                })
                .collect()
        };
        assert!(proves_to_batch(&float_session(running_sum)).unwrap_err().contains("differs"));
        let by_count = |x: &[f32], rows: usize| x.iter().map(|v| v / rows as f32).collect();
        assert!(proves_to_batch(&float_session(by_count)).is_err());
    }

    #[test]
    fn other_sizes_are_tried_before_giving_up() {
        let picky = |at: i64| {
            FakeSession::identity(move |inputs| {
                if inputs[0].shape.dims()[1] == at { Ok(()) } else { Err(RunError::Failed("size".into())) }
            })
        };
        assert_eq!(proves_to_batch(&picky(32)), Ok(()));
        assert!(proves_to_batch(&picky(5)).unwrap_err().contains("trial run failed: size"));
    }

    #[test]
    fn trial_integers_are_never_zero_and_rows_differ() {
        let shape = Shape::from_dims([1, 64]).unwrap();
        for datatype in [DataType::Int8, DataType::Uint8] {
            assert!(sample(datatype, &shape, Fill::Distinct(0)).iter().all(|v| (1..=4).contains(v)));
        }
        for datatype in DataType::ALL {
            assert_ne!(
                sample(datatype, &shape, Fill::Distinct(0)),
                sample(datatype, &shape, Fill::Distinct(1)),
                "{datatype}"
            );
        }
    }
}
