//! Holds `pad_inputs` against the model, and proves that padding leaves its answers alone.
//!
//! An attention mask is a promise that may not reach every operator: a mean over all places, a convolution or a
//! normalization may read padding all the same. So texts of different lengths are run alone and padded in one batch,
//! and the answers are compared, before any client's text is padded.

use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::Bytes;

use super::config::{Completed, PAD_INPUTS, PadInput, PadWith, PaddingConfig, element};
use super::prove::{Fill, row_shape, same, sample};
use crate::backend::{Graph, GraphTensor, Session};
use crate::batch::{LENGTH_AXIS, Padded, PaddedInput, Padding, Text, merge, repeated, split};
use crate::infer::TensorRow;
use crate::tensor::{ANY, DataType, Shape, Tensor};

/// How a model's texts are padded. Errors: what the config says and the model contradicts, by its words or by its
/// answers.
pub fn padding(
    config: &PaddingConfig,
    completed: &Completed,
    session: &dyn Session,
) -> Result<Padding, String> {
    checked(config, completed, session.graph())
        .and_then(|padding| proved(padding, config, completed, session))
        .map_err(|reason| format!("config.pbtxt: parameters.{PAD_INPUTS}: {reason}"))
}

fn checked(config: &PaddingConfig, completed: &Completed, graph: &Graph) -> Result<Padding, String> {
    if !completed.batching.merging {
        return Err(
            "requests of this model are not batched; set max_batch_size to 2 or more and add dynamic_batching"
                .to_owned(),
        );
    }
    let inputs = config.inputs.iter().map(|input| padded_input(input, completed, graph));
    Ok(Padding {
        inputs: inputs.collect::<Result<_, _>>()?,
        outputs: Vec::new(),
        tokens_max: config.tokens_max.unwrap_or(usize::MAX),
    })
}

fn padded_input(input: &PadInput, completed: &Completed, graph: &Graph) -> Result<PaddedInput, String> {
    let name = &input.name;
    let served = |index: &usize| completed.graph_inputs.contains(index);
    let found = graph.inputs.iter().position(|declared| declared.name == *name).filter(served);
    let index = found.ok_or_else(|| {
        let names: Vec<&str> = completed.signature.inputs.iter().map(|spec| &*spec.name).collect();
        format!("the model has no input '{name}'; it takes {}", names.join(", "))
    })?;
    let GraphTensor { datatype, dims, .. } = &graph.inputs[index];
    if *datatype == DataType::Bytes {
        return Err(format!("input '{name}' holds strings, which have no padding"));
    }
    if dims.as_ref().and_then(|dims| dims.get(LENGTH_AXIS)) != Some(&ANY) {
        return Err(format!(
            "input '{name}' has no open dimension after the batch dimension in the model file, so all its texts have \
             one length"
        ));
    }
    let value = input.with.element(*datatype).ok_or_else(|| match &input.with {
        PadWith::Value(value) => format!("input '{name}' of {datatype} cannot be padded with '{value}'"),
        PadWith::Mask => format!("input '{name}' of {datatype} cannot be a mask"),
    })?;
    Ok(PaddedInput { index, value })
}

/// Lengths of the texts that are tried, all of one bucket each; a model may need a certain least length.
const TRIED: [RangeInclusive<usize>; 2] = [14..=17, 51..=54];

/// Size of open dimensions other than the length.
const OPEN_SIZE: i64 = 4;

/// What the texts of a trial are made of.
#[derive(Clone, Copy)]
enum Tokens {
    /// Small positive numbers.
    Distinct,
    /// Padding and ones: what inputs of few values take, such as the number of a segment.
    Two,
}

/// Runs texts alone and together, and finds out which outputs have their length. `Err` says why padding must not be.
fn proved(
    padding: Padding,
    config: &PaddingConfig,
    completed: &Completed,
    session: &dyn Session,
) -> Result<Padding, String> {
    let padding = Arc::new(padding);
    let mut reason = String::new();
    for tokens in [Tokens::Distinct, Tokens::Two] {
        for lengths in TRIED {
            let texts = texts(config, &padding, completed, session.graph(), tokens, &lengths)?;
            match Trial::run(&padding, texts, completed, session) {
                Ok(trial) => {
                    return trial.judge(&padding, lengths, &completed.graph_outputs, session.graph());
                }
                Err(failed) => reason = failed,
            }
        }
    }
    Err(format!("a trial run failed: {reason}"))
}

/// One request of one row for each of the lengths.
fn texts(
    config: &PaddingConfig,
    padding: &Padding,
    completed: &Completed,
    graph: &Graph,
    tokens: Tokens,
    lengths: &RangeInclusive<usize>,
) -> Result<Vec<TensorRow>, String> {
    let tensor = |index: usize, row: usize, length: usize| {
        let GraphTensor { name, datatype, .. } = &graph.inputs[index];
        let too_large = || format!("input '{name}' is too large to be tried");
        let shape = row_shape(&graph.inputs[index], OPEN_SIZE).ok_or_else(too_large)?;
        let padded = padding.inputs.iter().zip(&config.inputs).find(|(input, _)| input.index == index);
        let (shape, data) = match padded {
            None => (shape.clone(), sample(*datatype, &shape, Fill::Distinct(row))),
            Some((input, by)) => {
                let shape = shape.with_axis(LENGTH_AXIS, length as i64);
                let data = tokens.fill(*datatype, &shape, row, &input.value, by.with == PadWith::Mask);
                (shape, data)
            }
        };
        Tensor::new(*datatype, shape, data).map_err(|e| e.to_string())
    };
    let text = |(row, length): (usize, usize)| {
        let mut inputs: TensorRow = smallvec::smallvec![None; graph.inputs.len()];
        for &index in &completed.graph_inputs {
            inputs[index] = Some(tensor(index, row, length)?);
        }
        Ok(inputs)
    };
    lengths.clone().enumerate().map(text).collect()
}

impl Tokens {
    fn fill(self, datatype: DataType, shape: &Shape, row: usize, value: &[u8], mask: bool) -> Bytes {
        let one = element(datatype, "1").unwrap_or_default();
        let elements = shape.elements().unwrap_or(0);
        match self {
            _ if mask => repeated(&one, elements * one.len()),
            Self::Distinct => sample(datatype, shape, Fill::Distinct(row)),
            // Another pattern in every row.
            Self::Two => (0..elements)
                .flat_map(|at| if (at * (row + 1)) % 7 < 3 { value } else { &one })
                .copied()
                .collect(),
        }
    }
}

/// What came of the texts.
struct Trial {
    texts: Vec<Text>,
    /// By text, then by output.
    alone: Vec<Vec<Tensor>>,
    together: Vec<Tensor>,
}

impl Trial {
    /// Errors: the model does not take these texts.
    fn run(
        padding: &Arc<Padding>,
        requests: Vec<TensorRow>,
        completed: &Completed,
        session: &dyn Session,
    ) -> Result<Self, String> {
        let texts: Option<Vec<Text>> = requests.iter().map(|inputs| Text::of(padding, inputs)).collect();
        let texts = texts.ok_or("it takes no texts")?;
        let run = |requests: &[&TensorRow], padded: Option<&Padded>| {
            session.run(&merge(requests, padded), &completed.graph_outputs).map_err(|e| e.to_string())
        };
        let alone = requests.iter().map(|request| run(&[request], None)).collect::<Result<_, _>>()?;
        let padded = Padded::of(texts.iter().map(Some));
        let together = run(&requests.iter().collect::<Vec<_>>(), padded.as_ref())?;
        Ok(Self { texts, alone, together })
    }

    /// The padding with the outputs that have the texts' length. Errors: answers differ.
    fn judge(
        self,
        padding: &Padding,
        lengths: RangeInclusive<usize>,
        graph_outputs: &[usize],
        graph: &Graph,
    ) -> Result<Padding, String> {
        let length = |tensor: &Tensor| tensor.shape().dims().get(LENGTH_AXIS).copied();
        let longest = *lengths.end() as i64;
        let follows = |position: usize| {
            let mut alone = self.alone.iter().zip(lengths.clone());
            length(&self.together[position]) == Some(longest)
                && alone.all(|(answer, of_text)| length(&answer[position]) == Some(of_text as i64))
        };
        let positions = 0..graph_outputs.len();
        let outputs = positions.filter(|&at| follows(at)).map(|at| graph_outputs[at]).collect();
        let padding = Arc::new(Padding { outputs, ..padding.clone() });
        let texts: Vec<Text> = self.texts.iter().map(|text| text.under(&padding)).collect();
        let rows = vec![1; texts.len()];
        let mut answers = split(&self.together, &rows).map_err(|e| e.to_string())?;
        if let Some(padded) = Padded::of(texts.iter().map(Some)) {
            padded.cut(&mut answers, graph_outputs).map_err(|e| e.to_string())?;
        }
        for (padded, alone) in answers.iter().zip(&self.alone) {
            for ((padded, alone), &index) in padded.iter().zip(alone).zip(graph_outputs) {
                compare(&graph.outputs[index].name, padded, alone)?;
            }
        }
        Ok((*padding).clone())
    }
}

fn compare(name: &str, padded: &Tensor, alone: &Tensor) -> Result<(), String> {
    if padded.shape() != alone.shape() {
        return Err(format!(
            "output '{name}' has shape {} for a text alone and {} for the same text when it was padded; a length is \
             cut back on the dimension after the batch dimension only",
            alone.shape(),
            padded.shape()
        ));
    }
    match same(padded, alone) {
        true => Ok(()),
        false => Err(format!(
            "output '{name}' differs between a text alone and the same text when it was padded: the mask does not \
             reach everything that looks at other places"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::fake::{FakeSession, joined};
    use crate::model::config::{self, Defaults};

    /// A model of FP32 `x` and a mask, both `[-1,-1]`, that gives `y` by `answer` for each row and its mask.
    fn judged(
        batching: &str,
        answer: impl Fn(&[f32], &[f32]) -> (Vec<i64>, Vec<f32>) + Send + Sync + 'static,
    ) -> Result<Padding, String> {
        let mut graph = FakeSession::identity(|_| Ok(())).graph().clone();
        graph.inputs.push(GraphTensor { name: "mask".to_owned(), ..graph.inputs[0].clone() });
        let session = FakeSession::new(graph, move |inputs| {
            let [x, mask] = [0, 1].map(|index| joined(&inputs[index]));
            let length = x.shape().dims()[1] as usize;
            let floats = |tensor: &Tensor| -> Vec<f32> {
                tensor.floats(usize::MAX).into_iter().map(|value| value as f32).collect()
            };
            let (x, mask) = (floats(&x), floats(&mask));
            let rows = x.chunks(length).zip(mask.chunks(length)).map(|(x, mask)| answer(x, mask));
            let (dims, values): (Vec<_>, Vec<_>) = rows.unzip();
            let shape = Shape::from_dims(dims[0].iter().copied()).unwrap().prepend(dims.len() as i64);
            let data: Vec<u8> = values.concat().into_iter().flat_map(f32::to_le_bytes).collect();
            Ok(vec![Tensor::new(DataType::Fp32, shape, data.into()).unwrap()])
        });
        let name = crate::id::ModelName::parse("m").unwrap();
        let text = format!(
            "{{{batching}, \"parameters\": {{\"pad_inputs\": {{\"string_value\": \"x:0,mask:mask\"}}}}}}"
        );
        let config =
            config::from_json(&text, &crate::backend::Folder::new(".", ""), &name, &Defaults::default())
                .unwrap();
        let completed = config::complete(&config, session.graph(), true).unwrap();
        padding(config.padding.as_ref().unwrap(), &completed, &session)
    }

    const BATCHED: &str = "\"max_batch_size\": 8, \"dynamic_batching\": {}";

    fn masked_sum(x: &[f32], mask: &[f32]) -> f32 {
        x.iter().zip(mask).map(|(x, mask)| x * mask).sum()
    }

    #[test]
    fn outputs_that_have_the_length_are_found_out() {
        let each = judged(BATCHED, |x, _| (vec![x.len() as i64], x.to_vec())).unwrap();
        assert_eq!((each.outputs.as_slice(), each.inputs.len()), (&[0][..], 2));
        let all = judged(BATCHED, |x, mask| (vec![1], vec![masked_sum(x, mask)])).unwrap();
        assert!(all.outputs.is_empty());
    }

    #[test]
    fn answers_that_padding_changes_are_refused() {
        let mean = |x: &[f32], mask: &[f32]| (vec![1], vec![masked_sum(x, mask) / x.len() as f32]);
        assert!(judged(BATCHED, mean).unwrap_err().contains("'y' differs"));
        let backwards = |x: &[f32], _: &[f32]| (vec![x.len() as i64], x.iter().rev().copied().collect());
        assert!(judged(BATCHED, backwards).unwrap_err().contains("'y' differs"));
    }

    #[test]
    fn a_length_on_another_dimension_is_refused() {
        let square = |x: &[f32], _: &[f32]| (vec![x.len() as i64; 2], vec![0.0; x.len() * x.len()]);
        assert!(judged(BATCHED, square).unwrap_err().contains("only"));
        let turned = |x: &[f32], _: &[f32]| (vec![1, x.len() as i64], x.to_vec());
        assert!(judged(BATCHED, turned).unwrap_err().contains("[1,1,17]"));
    }

    #[test]
    fn padding_needs_batches() {
        let each = |x: &[f32], _: &[f32]| (vec![x.len() as i64], x.to_vec());
        assert!(judged("\"max_batch_size\": 8", each).unwrap_err().contains("not batched"));
    }
}
