//! JSON numbers and strings, straight into a tensor's packed bytes.
//!
//! Arrays may be nested or flat, but not ragged; then only the order counts. No tree is built.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use half::{bf16, f16};
use serde::Deserializer;
use serde::de::{self, DeserializeSeed, Error as _, SeqAccess, Visitor};
use smallvec::SmallVec;

use crate::tensor::{DataType, strings};

/// Elements for which memory is set aside before any was read.
const AHEAD: usize = 1 << 16;

/// What data may be.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Arrays inside each other.
    pub depth_max: usize,
    pub string_bytes_max: usize,
}

/// Reads a value as so many elements, packed.
pub struct Elements {
    pub datatype: DataType,
    pub elements: usize,
    pub bounds: Bounds,
}

impl<'de> DeserializeSeed<'de> for Elements {
    type Value = Bytes;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Bytes, D::Error> {
        let mut packed = Packed::new(self.datatype, self.elements, AHEAD, self.bounds);
        deserializer.deserialize_seq(ElementsVisitor(&mut packed))?;
        match packed.count == self.elements {
            true => Ok(packed.bytes.freeze()),
            false => Err(de::Error::invalid_length(packed.count, &"as many as its shape needs")),
        }
    }
}

/// Parses `json` into packed elements of `datatype`. Errors: what is wrong, and where.
pub fn parse(json: &str, datatype: DataType, elements: usize, bounds: Bounds) -> Result<Bytes, String> {
    // The text bounds the data: an element takes a character and a comma at least.
    let mut packed = Packed::new(datatype, elements, json.len() / 2 + 1, bounds);
    let mut deserializer = serde_json::Deserializer::from_str(json);
    deserializer.deserialize_seq(ElementsVisitor(&mut packed)).map_err(|e| {
        // Its line and column count from the start of the data, which tells a client nothing.
        let text = e.to_string();
        let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
        format!("{what} (after {} elements)", packed.count)
    })?;
    if packed.count != elements {
        return Err(format!("its shape needs {elements} elements, and its data has {}", packed.count));
    }
    Ok(packed.bytes.freeze())
}

const RAGGED: &str = "its data is ragged: nest all of it alike, or not at all";

struct Packed {
    datatype: DataType,
    expected: usize,
    count: usize,
    bytes: BytesMut,
    bounds: Bounds,
    /// How many arrays are open.
    depth: usize,
    /// Items of an array, by its depth.
    lengths: SmallVec<[usize; 4]>,
    /// How many arrays were open around the first element.
    element_depth: usize,
}

/// One element, or an array of them.
struct Nested<'a>(&'a mut Packed);

impl<'de> DeserializeSeed<'de> for Nested<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(ElementsVisitor(self.0))
    }
}

struct ElementsVisitor<'a>(&'a mut Packed);

impl<'de> Visitor<'de> for ElementsVisitor<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.datatype {
            DataType::Bytes => f.write_str("strings, or arrays of them"),
            DataType::Bool => f.write_str("true and false, or arrays of them"),
            datatype => write!(f, "numbers of {datatype}, or arrays of them"),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let packed = self.0;
        if packed.depth == packed.bounds.depth_max {
            return Err(A::Error::custom(format_args!("its data is nested deeper than {}", packed.depth)));
        }
        packed.depth += 1;
        let elements_before = packed.count;
        let mut length = 0;
        while items.next_element_seed(Nested(packed))?.is_some() {
            length += 1;
        }
        packed.depth -= 1;
        packed.close_array(length, elements_before)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<(), E> {
        match self.0.datatype {
            DataType::Bool => self.0.push(&[u8::from(value)]),
            _ => Err(E::invalid_type(de::Unexpected::Bool(value), &self)),
        }
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<(), E> {
        self.0.integer(i128::from(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<(), E> {
        self.0.integer(i128::from(value))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<(), E> {
        if self.0.datatype.is_float() {
            return self.0.float(value);
        }
        // 3.0 is a whole number, however it is written; beyond 2^53 a float no longer says which.
        if value.fract() == 0.0 && value.abs() <= 9_007_199_254_740_992.0 {
            return self.0.integer(value as i128);
        }
        Err(E::custom(format_args!("{value} is not a number of {}", self.0.datatype)))
    }

    /// What some clients write for NaN, and what an answer has for it.
    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        match self.0.datatype.is_float() {
            true => self.0.float(f64::NAN),
            false => Err(E::invalid_type(de::Unexpected::Unit, &self)),
        }
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<(), E> {
        match (self.0.datatype, value) {
            (DataType::Bytes, text) => {
                if text.len() > self.0.bounds.string_bytes_max {
                    return Err(E::custom(format_args!(
                        "a string has {} bytes, the limit is {}",
                        text.len(),
                        self.0.bounds.string_bytes_max
                    )));
                }
                self.0.count_one()?;
                strings::push(&mut self.0.bytes, text.as_bytes());
                Ok(())
            }
            // JSON has no literals for these; `json::quote_nonfinite` turns the usual ones into these strings.
            (datatype, "NaN") if datatype.is_float() => self.0.float(f64::NAN),
            (datatype, "Infinity") if datatype.is_float() => self.0.float(f64::INFINITY),
            (datatype, "-Infinity") if datatype.is_float() => self.0.float(f64::NEG_INFINITY),
            _ => Err(E::invalid_type(de::Unexpected::Str(value), &self)),
        }
    }
}

impl Packed {
    /// Nothing yet. Memory is set aside for `plausible` elements at the most.
    fn new(datatype: DataType, expected: usize, plausible: usize, bounds: Bounds) -> Self {
        let bytes = BytesMut::with_capacity(expected.min(plausible) * datatype.size().unwrap_or(8));
        let lengths = SmallVec::new();
        Self { datatype, expected, count: 0, bytes, bounds, depth: 0, lengths, element_depth: 0 }
    }

    /// Arrays at one depth hold equally many items, and elements stand at one depth.
    fn close_array<E: de::Error>(&mut self, length: usize, elements_before: usize) -> Result<(), E> {
        if self.lengths.len() <= self.depth {
            self.lengths.resize(self.depth + 1, usize::MAX);
        }
        let known = &mut self.lengths[self.depth];
        let own_elements = self.count - elements_before;
        let consistent = *known == usize::MAX || *known == length;
        *known = length;
        // With arrays below, every element is in one of them.
        let below: usize = self.lengths[self.depth..].iter().filter(|n| **n != usize::MAX).product();
        if consistent && below == own_elements {
            return Ok(());
        }
        Err(E::custom(RAGGED))
    }

    fn count_one<E: de::Error>(&mut self) -> Result<(), E> {
        if self.count == 0 {
            self.element_depth = self.depth;
        }
        if self.element_depth != self.depth {
            return Err(E::custom(RAGGED));
        }
        self.count += 1;
        if self.count > self.expected {
            return Err(E::custom(format_args!(
                "its shape needs {} elements, and its data has more",
                self.expected
            )));
        }
        Ok(())
    }

    fn push<E: de::Error>(&mut self, element: &[u8]) -> Result<(), E> {
        self.count_one()?;
        self.bytes.put_slice(element);
        Ok(())
    }

    fn integer<E: de::Error>(&mut self, value: i128) -> Result<(), E> {
        macro_rules! put {
            ($type:ty) => {
                match <$type>::try_from(value) {
                    Ok(value) => self.push(&value.to_le_bytes()),
                    Err(_) => Err(E::custom(format_args!("{value} does not fit {}", self.datatype))),
                }
            };
        }
        match self.datatype {
            DataType::Bool => match value {
                0 | 1 => self.push(&[value as u8]),
                _ => Err(E::custom(format_args!("{value} is neither true nor false"))),
            },
            DataType::Uint8 => put!(u8),
            DataType::Uint16 => put!(u16),
            DataType::Uint32 => put!(u32),
            DataType::Uint64 => put!(u64),
            DataType::Int8 => put!(i8),
            DataType::Int16 => put!(i16),
            DataType::Int32 => put!(i32),
            DataType::Int64 => put!(i64),
            // Through a float64 a large number would be rounded twice.
            DataType::Fp32 => self.push(&(value as f32).to_le_bytes()),
            DataType::Fp16 | DataType::Bf16 | DataType::Fp64 => self.float(value as f64),
            DataType::Bytes => Err(E::custom(format_args!("{value} is not a string; write it in quotes"))),
        }
    }

    fn float<E: de::Error>(&mut self, value: f64) -> Result<(), E> {
        let too_large = |rounded_is_infinite: bool| rounded_is_infinite && value.is_finite();
        let (overflows, result) = match self.datatype {
            DataType::Fp64 => (false, self.push(&value.to_le_bytes())),
            DataType::Fp32 => {
                let single = single(value);
                (too_large(single.is_infinite()), self.push(&single.to_le_bytes()))
            }
            DataType::Fp16 => {
                let half = f16::from_f64(value);
                (too_large(half.is_infinite()), self.push(&half.to_le_bytes()))
            }
            _ => {
                let brain = bf16::from_f64(value);
                (too_large(brain.is_infinite()), self.push(&brain.to_le_bytes()))
            }
        };
        if overflows {
            return Err(E::custom(format_args!("{value} does not fit {}", self.datatype)));
        }
        result
    }
}

/// The float32 that a number means which was read as a float64.
fn single(value: f64) -> f32 {
    // Of all float32 this is the only one (all were tried) whose shortest text, which is what clients and we write, is
    // half-way between two float32 once it is read as a float64, so that rounding again would give its neighbour.
    const SHORTEST: f32 = 7.038531e-26;
    if value.abs() == 7.038531e-26_f64 { SHORTEST.copysign(value as f32) } else { value as f32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { depth_max: 4, string_bytes_max: 5 };

    fn check(json: &str, datatype: DataType, elements: usize, expected: &[u8]) {
        assert_eq!(parse(json, datatype, elements, BOUNDS).as_deref(), Ok(expected), "{json} as {datatype}");
    }

    #[test]
    fn nested_and_flat_data_are_the_same() {
        for json in ["[1,2,3,4]", "[[1,2],[3,4]]", "[[[1],[2]],[[3],[4]]]", "[[1,2,3,4]]"] {
            check(json, DataType::Int8, 4, &[1, 2, 3, 4]);
        }
        check("[]", DataType::Int8, 0, &[]);
        check("[[],[]]", DataType::Fp32, 0, &[]);
    }

    #[test]
    fn every_type_is_packed_little_endian() {
        check("[true,false,1]", DataType::Bool, 3, &[1, 0, 1]);
        check("[65535]", DataType::Uint16, 1, &[255, 255]);
        check("[-2]", DataType::Int32, 1, &[254, 255, 255, 255]);
        check("[18446744073709551615]", DataType::Uint64, 1, &[255; 8]);
        check("[-9223372036854775808]", DataType::Int64, 1, &[0, 0, 0, 0, 0, 0, 0, 128]);
        check("[1.5]", DataType::Fp16, 1, &f16::from_f32(1.5).to_le_bytes());
        check("[1.5]", DataType::Bf16, 1, &bf16::from_f32(1.5).to_le_bytes());
        check("[0.1]", DataType::Fp32, 1, &0.1f32.to_le_bytes());
        check("[-7.038531e-26]", DataType::Fp32, 1, &(-7.038531e-26f32).to_le_bytes());
        // 2^54 + 2^30 + 1: a little more than half-way between two float32.
        check("[18014399583223809]", DataType::Fp32, 1, &18_014_400_656_965_632f32.to_le_bytes());
        check("[0.1, 1]", DataType::Fp64, 2, &[0.1f64.to_le_bytes(), 1f64.to_le_bytes()].concat());
        check("[null]", DataType::Fp32, 1, &f32::NAN.to_le_bytes());
        check("[\"-Infinity\"]", DataType::Fp32, 1, &f32::NEG_INFINITY.to_le_bytes());
        check("[\"a\\u0000é\", \"\"]", DataType::Bytes, 2, b"\x04\0\0\0a\0\xc3\xa9\0\0\0\0");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for (json, datatype, part) in [
            ("[300]", DataType::Uint8, "300 does not fit UINT8"),
            ("[-1]", DataType::Uint64, "-1 does not fit UINT64"),
            ("[1.5]", DataType::Int32, "1.5 is not a number of INT32"),
            ("[1e39]", DataType::Fp32, "does not fit FP32"),
            ("[70000]", DataType::Fp16, "does not fit FP16"),
            ("[\"1\"]", DataType::Fp32, "numbers of FP32"),
            ("[1]", DataType::Bytes, "write it in quotes"),
            ("[true]", DataType::Fp32, "numbers of FP32"),
            ("[2]", DataType::Bool, "neither true nor false"),
            ("[null]", DataType::Int32, "numbers of INT32"),
            ("[1,2]", DataType::Fp32, "its data has more"),
            ("[[1],[]]", DataType::Fp32, "ragged"),
            ("[[],1]", DataType::Fp32, "ragged"),
            ("[[1],[[1]]]", DataType::Fp32, "ragged"),
            ("[]", DataType::Fp32, "its data has 0"),
            ("1", DataType::Fp32, "invalid type"),
            ("{}", DataType::Fp32, "invalid type"),
            ("[[[[[1]]]]]", DataType::Fp32, "nested deeper than 4"),
            ("[\"abcdef\"]", DataType::Bytes, "a string has 6 bytes, the limit is 5"),
        ] {
            let error = parse(json, datatype, 1, BOUNDS).unwrap_err();
            assert!(error.contains(part), "{json} as {datatype}: {error}");
        }
    }
}
