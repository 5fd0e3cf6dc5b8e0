//! `pad_inputs` and `max_batch_tokens`: which inputs are padded so that texts of different lengths share batches.

use half::{bf16, f16};
use smallvec::SmallVec;

use crate::batch::Element;
use crate::error::excerpt;
use crate::proto::inference as pb;
use crate::tensor::DataType;

/// Inputs that are padded, and with what: `input_ids:0,attention_mask:mask`.
pub const PAD_INPUTS: &str = "pad_inputs";
/// Tokens in one batch at the most, padding included.
const MAX_BATCH_TOKENS: &str = "max_batch_tokens";

/// Tokens of one batch that can be asked for: far more than fit in memory.
const TOKENS_MAX: usize = 1 << 30;

/// Inputs that can be padded; text models have three.
const INPUTS_MAX: usize = 64;

/// The parameters that are read here.
pub const PADDING_PARAMETERS: [&str; 2] = [PAD_INPUTS, MAX_BATCH_TOKENS];

/// What marks the attention mask.
const MASK: &str = "mask";

/// How the inputs of a model are padded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaddingConfig {
    /// Each name once; a mask is among them.
    pub inputs: Vec<PadInput>,
    pub tokens_max: Option<usize>,
}

/// One input that is padded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PadInput {
    pub name: String,
    pub with: PadWith,
}

/// What an input is padded with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PadWith {
    /// Zeros: it is the mask that says with other numbers where a client's text is.
    Mask,
    /// This number, in the input's type.
    Value(String),
}

impl PadWith {
    /// The padding as one packed element. `None`: the type does not hold that number.
    pub fn element(&self, datatype: DataType) -> Option<Element> {
        match self {
            Self::Mask => element(datatype, "0"),
            Self::Value(value) => element(datatype, value),
        }
    }
}

/// A number as one packed element of a type. `None`: the type does not hold it.
pub fn element(datatype: DataType, number: &str) -> Option<Element> {
    macro_rules! packed {
        ($type:ty) => {
            number.parse::<$type>().ok().map(|value| SmallVec::from_slice(&value.to_le_bytes()))
        };
    }
    match datatype {
        DataType::Bool => packed!(u8).filter(|element: &Element| element[0] <= 1),
        DataType::Uint8 => packed!(u8),
        DataType::Uint16 => packed!(u16),
        DataType::Uint32 => packed!(u32),
        DataType::Uint64 => packed!(u64),
        DataType::Int8 => packed!(i8),
        DataType::Int16 => packed!(i16),
        DataType::Int32 => packed!(i32),
        DataType::Int64 => packed!(i64),
        DataType::Fp16 => packed!(f16),
        DataType::Bf16 => packed!(bf16),
        DataType::Fp32 => packed!(f32),
        DataType::Fp64 => packed!(f64),
        DataType::Bytes => None,
    }
}

/// `None`: the config asks for no padding. Errors: the key and what it takes.
pub fn padding(source: &pb::ModelConfig) -> Result<Option<PaddingConfig>, String> {
    let parameter = |key: &str| source.parameters.get(key).map(|value| value.string_value.as_str());
    let tokens_max = parameter(MAX_BATCH_TOKENS).map(tokens_max).transpose()?;
    match parameter(PAD_INPUTS) {
        None if tokens_max.is_some() => Err(format!(
            "config.pbtxt: parameters.{MAX_BATCH_TOKENS} is for models whose texts are padded; add {PAD_INPUTS} or \
             remove it"
        )),
        None => Ok(None),
        Some(list) => Ok(Some(PaddingConfig { inputs: inputs(list)?, tokens_max })),
    }
}

fn tokens_max(value: &str) -> Result<usize, String> {
    let number = value.parse().ok().filter(|number| (1..=TOKENS_MAX).contains(number));
    number.ok_or_else(|| {
        format!(
            "config.pbtxt: parameters.{MAX_BATCH_TOKENS} '{}' must be a number of tokens, 1 to {TOKENS_MAX}",
            excerpt(value)
        )
    })
}

fn inputs(list: &str) -> Result<Vec<PadInput>, String> {
    if list.split(',').nth(INPUTS_MAX).is_some() {
        return Err(format!("config.pbtxt: parameters.{PAD_INPUTS} names more than {INPUTS_MAX} inputs"));
    }
    let inputs = list.split(',').map(str::trim).map(input).collect::<Result<Vec<_>, _>>()?;
    let twice = |(at, input): &(usize, &PadInput)| inputs[..*at].iter().any(|other| other.name == input.name);
    if let Some((_, input)) = inputs.iter().enumerate().find(twice) {
        return Err(format!("config.pbtxt: parameters.{PAD_INPUTS} names input '{}' twice", input.name));
    }
    if inputs.iter().all(|input| input.with != PadWith::Mask) {
        return Err(format!(
            "config.pbtxt: parameters.{PAD_INPUTS} needs the input that masks padding, such as \
             'attention_mask:{MASK}'; without one, padding would change answers"
        ));
    }
    Ok(inputs)
}

fn input(item: &str) -> Result<PadInput, String> {
    // Names may hold colons, numbers do not.
    let parts = item.rsplit_once(':').filter(|(name, with)| !name.is_empty() && !with.is_empty());
    let (name, with) = parts.ok_or_else(|| {
        format!(
            "config.pbtxt: parameters.{PAD_INPUTS} '{}' must be an input and what it is padded with, such as \
             'input_ids:0' or 'attention_mask:{MASK}'",
            excerpt(item)
        )
    })?;
    let with = if with == MASK { PadWith::Mask } else { PadWith::Value(with.to_owned()) };
    Ok(PadInput { name: name.to_owned(), with })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(parameters: &[(&str, &str)]) -> Result<Option<PaddingConfig>, String> {
        let parameter = |(key, value): &(&str, &str)| {
            ((*key).to_owned(), pb::ModelParameter { string_value: (*value).to_owned() })
        };
        let parameters = parameters.iter().map(parameter).collect();
        padding(&pb::ModelConfig { parameters, ..Default::default() })
    }

    #[test]
    fn inputs_and_their_padding_are_read() {
        assert_eq!(parsed(&[]), Ok(None));
        let input = |name: &str, with| PadInput { name: name.to_owned(), with };
        assert_eq!(
            parsed(&[(PAD_INPUTS, "ids:0:-1, attention_mask:mask"), (MAX_BATCH_TOKENS, "4096")]),
            Ok(Some(PaddingConfig {
                inputs: vec![
                    input("ids:0", PadWith::Value("-1".to_owned())),
                    input("attention_mask", PadWith::Mask)
                ],
                tokens_max: Some(4096),
            }))
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (parameters, part) in [
            (&[(PAD_INPUTS, "")][..], "'' must be an input"),
            (&[(PAD_INPUTS, "ids")], "'ids' must be an input"),
            (&[(PAD_INPUTS, "ids:0")], "needs the input that masks padding"),
            (&[(PAD_INPUTS, "ids:0,m:mask,ids:1")], "names input 'ids' twice"),
            (&[(PAD_INPUTS, "m:mask"), (MAX_BATCH_TOKENS, "0")], "'0' must be a number of tokens"),
            (&[(MAX_BATCH_TOKENS, "8")], "add pad_inputs"),
        ] {
            let error = parsed(parameters).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn padding_is_packed_in_the_inputs_type() {
        let value = |value: &str| PadWith::Value(value.to_owned());
        assert_eq!(value("-2").element(DataType::Int64).unwrap().as_slice(), (-2i64).to_le_bytes());
        assert_eq!(
            value("0.5").element(DataType::Fp16).unwrap().as_slice(),
            f16::from_f32(0.5).to_le_bytes()
        );
        assert_eq!(PadWith::Mask.element(DataType::Fp32).unwrap().as_slice(), [0; 4]);
        for (number, datatype) in
            [("2", DataType::Bool), ("-1", DataType::Uint8), ("x", DataType::Fp32), ("0", DataType::Bytes)]
        {
            assert_eq!(value(number).element(datatype), None);
        }
    }
}
