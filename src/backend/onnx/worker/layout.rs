//! A call's question and answer as bytes: a description, and tensors at the places that it tells.
//!
//! Always: pure; what is read is checked, for it may come from a process that a model has broken.

use bytes::Bytes;

use super::region::{ALIGNMENT, HEAD_BYTES};
use crate::backend::{BatchInput, RunError};
use crate::tensor::{DataType, Shape, Tensor};

/// Dimensions of a tensor at the most.
const RANK_MAX: usize = 64;

/// Where something lies in a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub at: usize,
    pub length: usize,
}

/// Places one behind the other, each on 64 bytes.
pub struct Places(usize);

impl Places {
    /// Behind a head and `bytes` of description.
    pub fn behind(bytes: usize) -> Self {
        Self((HEAD_BYTES + bytes).next_multiple_of(ALIGNMENT))
    }

    /// `None`: it is more than can be addressed.
    pub fn next(&mut self, length: usize) -> Option<Place> {
        let place = Place { at: self.0, length };
        self.0 = self.0.checked_add(length)?.checked_next_multiple_of(ALIGNMENT)?;
        Some(place)
    }

    /// Bytes up to here.
    pub fn end(&self) -> usize {
        self.0
    }
}

/// A question as it is described.
#[derive(Debug, Default)]
pub struct Question {
    /// Position among the graph's inputs, type, shape and place.
    pub inputs: Vec<(usize, DataType, Shape, Place)>,
    pub outputs: Vec<usize>,
}

/// Describes a question whose inputs lie at `places`.
pub fn question(inputs: &[BatchInput], places: &[Place], outputs: &[usize]) -> Vec<u8> {
    let mut out = Vec::with_capacity(question_bytes(inputs, outputs));
    number(&mut out, inputs.len());
    for (input, place) in inputs.iter().zip(places) {
        number(&mut out, input.index);
        tensor(&mut out, input.datatype, &input.shape, *place);
    }
    number(&mut out, outputs.len());
    outputs.iter().for_each(|output| number(&mut out, *output));
    out
}

/// How long the description of a question is.
pub fn question_bytes(inputs: &[BatchInput], outputs: &[usize]) -> usize {
    let of_tensor = |input: &BatchInput| 8 * (5 + input.shape.rank());
    16 + inputs.iter().map(of_tensor).sum::<usize>() + 8 * outputs.len()
}

/// Reads a question. `None`: it is none.
pub fn read_question(bytes: &[u8]) -> Option<Question> {
    let mut reader = Reader(bytes);
    let mut question = Question::default();
    for _ in 0..reader.number()? {
        let index = reader.number()?;
        let (datatype, shape, place) = reader.tensor()?;
        question.inputs.push((index, datatype, shape, place));
    }
    for _ in 0..reader.number()? {
        question.outputs.push(reader.number()?);
    }
    Some(question)
}

/// Describes tensors that lie at `places`.
pub fn answer(tensors: &[Tensor], places: &[Place]) -> Vec<u8> {
    let mut out = Vec::new();
    number(&mut out, OK);
    number(&mut out, tensors.len());
    for (of, place) in tensors.iter().zip(places) {
        tensor(&mut out, of.datatype(), of.shape(), *place);
    }
    out
}

const OK: usize = 0;
const INVALID_INPUT: usize = 1;
const FAILED: usize = 2;
const STOPPED: usize = 3;

/// Bytes of an error's text at the most.
const TEXT_BYTES_MAX: usize = 2048;

/// Describes a call that failed.
pub fn failure(error: &RunError) -> Vec<u8> {
    let (kind, text) = match error {
        RunError::InvalidInput(text) => (INVALID_INPUT, text),
        RunError::Stopped(text) => (STOPPED, text),
        RunError::Failed(text) | RunError::Crashed(text) | RunError::Unavailable(text) => (FAILED, text),
    };
    let mut out = Vec::new();
    number(&mut out, kind);
    out.extend_from_slice(&text.as_bytes()[..text.floor_char_boundary(TEXT_BYTES_MAX)]);
    out
}

/// Reads an answer; `copied` gives the bytes at a place, copied. Errors: the call's own, or why this is no answer to
/// `expected` outputs.
pub fn read_answer(
    bytes: &[u8],
    expected: usize,
    copied: impl Fn(Place) -> Option<Vec<u8>>,
) -> Result<Vec<Tensor>, RunError> {
    let broken = || RunError::Crashed("the model's process gave an answer that makes no sense".to_owned());
    let mut reader = Reader(bytes);
    let text = |Reader(text): Reader<'_>| {
        String::from_utf8_lossy(&text[..text.len().min(TEXT_BYTES_MAX)]).into_owned()
    };
    match reader.number().ok_or_else(broken)? {
        OK => {}
        INVALID_INPUT => return Err(RunError::InvalidInput(text(reader))),
        FAILED => return Err(RunError::Failed(text(reader))),
        STOPPED => return Err(RunError::Stopped(text(reader))),
        _ => return Err(broken()),
    }
    if reader.number() != Some(expected) {
        return Err(broken());
    }
    let read = |_| {
        let (datatype, shape, place) = reader.tensor()?;
        Tensor::new(datatype, shape, Bytes::from(copied(place)?)).ok()
    };
    (0..expected).map(read).collect::<Option<Vec<_>>>().ok_or_else(broken)
}

fn number(out: &mut Vec<u8>, number: usize) {
    out.extend_from_slice(&(number as u64).to_le_bytes());
}

fn tensor(out: &mut Vec<u8>, datatype: DataType, shape: &Shape, place: Place) {
    number(out, datatype as usize);
    number(out, shape.rank());
    shape.dims().iter().for_each(|dim| out.extend_from_slice(&dim.to_le_bytes()));
    number(out, place.at);
    number(out, place.length);
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn word(&mut self) -> Option<[u8; 8]> {
        let (word, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*word)
    }

    fn number(&mut self) -> Option<usize> {
        usize::try_from(u64::from_le_bytes(self.word()?)).ok()
    }

    fn tensor(&mut self) -> Option<(DataType, Shape, Place)> {
        let datatype = *DataType::ALL.get(self.number()?)?;
        let rank = self.number().filter(|rank| *rank <= RANK_MAX)?;
        let dims = (0..rank).map(|_| self.word().map(i64::from_le_bytes)).collect::<Option<Vec<_>>>()?;
        let place = Place { at: self.number()?, length: self.number()? };
        Some((datatype, Shape::from_dims(dims)?, place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use smallvec::smallvec;

    fn shape(dims: &[i64]) -> Shape {
        Shape::from_dims(dims.iter().copied()).unwrap()
    }

    #[test]
    fn questions_come_back_as_they_were_asked() {
        let input = |index, dims: &[i64]| BatchInput {
            index,
            datatype: DataType::Int64,
            shape: shape(dims),
            parts: smallvec![Bytes::new()],
        };
        let inputs = [input(0, &[2, 3]), input(7, &[])];
        let mut places = Places::behind(question_bytes(&inputs, &[1, 4]));
        let places = [places.next(48).unwrap(), places.next(8).unwrap()];
        let bytes = question(&inputs, &places, &[1, 4]);
        assert_eq!(bytes.len(), question_bytes(&inputs, &[1, 4]));
        let read = read_question(&bytes).unwrap();
        assert_eq!(read.outputs, [1, 4]);
        assert_eq!(read.inputs[1], (7, DataType::Int64, shape(&[]), places[1]));
        assert_eq!(places[0].at % ALIGNMENT, 0);
        for cut in 0..bytes.len() {
            assert!(read_question(&bytes[..cut]).is_none(), "{cut}");
        }
    }

    #[test]
    fn an_answer_is_believed_only_if_it_holds_together() {
        let one = Tensor::new(DataType::Fp32, shape(&[2]), Bytes::from_static(&[7; 8])).unwrap();
        let place = Place { at: 64, length: 8 };
        let read = |bytes: &[u8], expected, length| {
            read_answer(bytes, expected, |place| (place.at == 64).then(|| vec![7; length]))
        };
        let bytes = answer(std::slice::from_ref(&one), &[place]);
        assert_eq!(read(&bytes, 1, 8).unwrap(), std::slice::from_ref(&one));
        for wrong in [read(&bytes, 2, 8), read(&bytes, 1, 7), read(&bytes[..20], 1, 8), read(&[], 1, 8)] {
            assert!(matches!(wrong, Err(RunError::Crashed(_))), "{wrong:?}");
        }
        let elsewhere = answer(&[one], &[Place { at: 1 << 40, length: 8 }]);
        assert!(matches!(read(&elsewhere, 1, 8), Err(RunError::Crashed(_))));
        let endless = [(FAILED as u64).to_le_bytes().as_slice(), &[b'x'; 2 * TEXT_BYTES_MAX]].concat();
        assert!(matches!(read(&endless, 1, 8), Err(RunError::Failed(text)) if text.len() == TEXT_BYTES_MAX));
        let failed = failure(&RunError::InvalidInput("no".into()));
        assert!(matches!(read(&failed, 1, 8), Err(RunError::InvalidInput(text)) if text == "no"));
    }
}
