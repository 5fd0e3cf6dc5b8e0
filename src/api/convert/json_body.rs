//! The JSON of a request, member by member.
//!
//! Always: no tree is built; what is unknown is passed over, and nothing is deeper, longer or more than the limits
//! allow. Each text is read once, from its beginning to its end.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use bytes::Bytes;
use serde::de::{self, DeserializeSeed, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::json_values::{List, Maybe, Parameters, ParametersOf, Passed, Text};
use super::{RequestLimits, datatype, json_data, shape};

/// A request as it is written.
#[derive(Default)]
pub struct Body<'a> {
    pub id: Option<Cow<'a, str>>,
    pub parameters: Parameters,
    pub inputs: Option<Vec<Input<'a>>>,
    pub outputs: Vec<Output<'a>>,
}

/// An input as it is written.
pub struct Input<'a> {
    pub name: Cow<'a, str>,
    pub datatype: Cow<'a, str>,
    pub shape: Vec<i64>,
    pub parameters: Parameters,
    pub data: Data<'a>,
}

/// An output as it is asked for.
pub struct Output<'a> {
    pub name: Cow<'a, str>,
    pub parameters: Parameters,
}

/// The value of an input's "data".
#[derive(Default)]
pub enum Data<'a> {
    #[default]
    Absent,
    /// Not read yet.
    Text(&'a RawValue),
    Packed(Bytes),
}

/// Reads a body.
///
/// With `pack`, numbers of inputs are packed as they are read, where datatype and shape stand before them, as every
/// client writes it: they are looked at once instead of twice. What is wrong with them is told better without it.
pub fn read<'a>(text: &'a str, limits: &RequestLimits, pack: bool) -> serde_json::Result<Body<'a>> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let body = Object(BodyMembers, Reading { limits, pack }).deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(body)
}

/// Arrays and objects around the data of an input: the request, its inputs and the input.
pub const DEPTH_OF_DATA: usize = 3;

/// How a text is read.
#[derive(Clone, Copy)]
struct Reading<'l> {
    limits: &'l RequestLimits,
    pack: bool,
}

/// What an object's members come to.
trait Members: Copy {
    type Object<'a>;

    const EXPECTED: &'static str;

    fn read<'a, A: MapAccess<'a>>(
        self,
        reading: Reading<'_>,
        members: A,
    ) -> Result<Self::Object<'a>, A::Error>;
}

/// Reads an object.
#[derive(Clone, Copy)]
struct Object<'l, M>(M, Reading<'l>);

impl<'de, M: Members> DeserializeSeed<'de> for Object<'_, M> {
    type Value = M::Object<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, M: Members> Visitor<'de> for Object<'_, M> {
    type Value = M::Object<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(M::EXPECTED)
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Self::Value, A::Error> {
        self.0.read(self.1, members)
    }
}

#[derive(Clone, Copy)]
struct BodyMembers;

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum BodyField {
    Id,
    Parameters,
    Inputs,
    Outputs,
    #[serde(other)]
    Other,
}

impl Members for BodyMembers {
    type Object<'a> = Body<'a>;

    const EXPECTED: &'static str = "a request, which is an object";

    fn read<'a, A: MapAccess<'a>>(self, reading: Reading<'_>, mut members: A) -> Result<Body<'a>, A::Error> {
        let (mut id, mut parameters, mut inputs, mut outputs) = (None, None, None, None);
        let most = reading.limits.tensors_max;
        while let Some(field) = members.next_key()? {
            match field {
                BodyField::Id => once("id", &mut id, members.next_value_seed(Maybe(Text(reading.limits)))?)?,
                BodyField::Parameters => {
                    let seed = Maybe(ParametersOf(reading.limits));
                    once("parameters", &mut parameters, members.next_value_seed(seed)?)?;
                }
                BodyField::Inputs => {
                    let seed = Maybe(List { item: Object(InputMembers, reading), most, what: "inputs" });
                    once("inputs", &mut inputs, members.next_value_seed(seed)?)?;
                }
                BodyField::Outputs => {
                    let seed = Maybe(List { item: Object(OutputMembers, reading), most, what: "outputs" });
                    once("outputs", &mut outputs, members.next_value_seed(seed)?)?;
                }
                BodyField::Other => members.next_value_seed(Passed::over(reading.limits, 1))?,
            }
        }
        Ok(Body {
            id: id.flatten(),
            parameters: parameters.flatten().unwrap_or_default(),
            inputs: inputs.flatten(),
            outputs: outputs.flatten().unwrap_or_default(),
        })
    }
}

#[derive(Clone, Copy)]
struct InputMembers;

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum InputField {
    Name,
    Datatype,
    Shape,
    Parameters,
    Data,
    #[serde(other)]
    Other,
}

impl Members for InputMembers {
    type Object<'a> = Input<'a>;

    const EXPECTED: &'static str = "an input, which is an object";

    fn read<'a, A: MapAccess<'a>>(self, reading: Reading<'_>, mut members: A) -> Result<Input<'a>, A::Error> {
        let Reading { limits, pack } = reading;
        let (mut name, mut type_name, mut dims) = (None, None, None);
        let (mut parameters, mut data) = (None, None);
        while let Some(field) = members.next_key()? {
            match field {
                InputField::Name => once("name", &mut name, members.next_value_seed(Text(limits))?)?,
                InputField::Datatype => {
                    once("datatype", &mut type_name, members.next_value_seed(Text(limits))?)?
                }
                InputField::Shape => {
                    let item = PhantomData::<i64>;
                    let seed = List { item, most: limits.rank_max, what: "dimensions in a shape" };
                    once("shape", &mut dims, members.next_value_seed(seed)?)?;
                }
                InputField::Parameters => {
                    let seed = Maybe(ParametersOf(limits));
                    once("parameters", &mut parameters, members.next_value_seed(seed)?)?;
                }
                InputField::Data => {
                    let known = type_name.as_deref().zip(dims.as_deref()).filter(|_| pack);
                    let valid = known.and_then(|(t, d)| Some((datatype("", t).ok()?, shape("", d).ok()?)));
                    let read = match valid {
                        Some((datatype, shape)) => {
                            let elements = shape.elements().expect("checked with the shape");
                            let bounds = data_bounds(limits);
                            let seed = json_data::Elements { datatype, elements, bounds };
                            Data::Packed(members.next_value_seed(seed)?)
                        }
                        None => members.next_value::<Option<&RawValue>>()?.map_or(Data::Absent, Data::Text),
                    };
                    once("data", &mut data, read)?;
                }
                InputField::Other => members.next_value_seed(Passed::over(limits, DEPTH_OF_DATA))?,
            }
        }
        Ok(Input {
            name: name.ok_or_else(|| A::Error::missing_field("name"))?,
            datatype: type_name.ok_or_else(|| A::Error::missing_field("datatype"))?,
            shape: dims.ok_or_else(|| A::Error::missing_field("shape"))?,
            parameters: parameters.flatten().unwrap_or_default(),
            data: data.unwrap_or_default(),
        })
    }
}

/// What the data of an input may be.
pub fn data_bounds(limits: &RequestLimits) -> json_data::Bounds {
    json_data::Bounds {
        depth_max: limits.json_depth_max.saturating_sub(DEPTH_OF_DATA),
        string_bytes_max: limits.string_bytes_max,
    }
}

#[derive(Clone, Copy)]
struct OutputMembers;

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum OutputField {
    Name,
    Parameters,
    #[serde(other)]
    Other,
}

impl Members for OutputMembers {
    type Object<'a> = Output<'a>;

    const EXPECTED: &'static str = "an output, which is an object";

    fn read<'a, A: MapAccess<'a>>(
        self,
        reading: Reading<'_>,
        mut members: A,
    ) -> Result<Output<'a>, A::Error> {
        let limits = reading.limits;
        let (mut name, mut parameters) = (None, None);
        while let Some(field) = members.next_key()? {
            match field {
                OutputField::Name => once("name", &mut name, members.next_value_seed(Text(limits))?)?,
                OutputField::Parameters => {
                    let seed = Maybe(ParametersOf(limits));
                    once("parameters", &mut parameters, members.next_value_seed(seed)?)?;
                }
                OutputField::Other => members.next_value_seed(Passed::over(limits, DEPTH_OF_DATA))?,
            }
        }
        Ok(Output {
            name: name.ok_or_else(|| A::Error::missing_field("name"))?,
            parameters: parameters.flatten().unwrap_or_default(),
        })
    }
}

fn once<T, E: de::Error>(name: &'static str, member: &mut Option<T>, value: T) -> Result<(), E> {
    match member.replace(value) {
        None => Ok(()),
        Some(_) => Err(E::duplicate_field(name)),
    }
}
