//! Values inside a request's JSON, each within its limit: lists, strings, parameters, and what is passed over.

use std::borrow::Cow;
use std::fmt;

use serde::Deserializer;
use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor};

use super::json_body::DEPTH_OF_DATA;
use super::{Parameter, RequestLimits};

/// Parameters as the client wrote them. Of a name that stands twice, the last counts.
#[derive(Debug, Default)]
pub struct Parameters(Vec<(String, Scalar)>);

/// A parameter's value.
#[derive(Debug)]
enum Scalar {
    Null,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(String),
    /// A list or an object, which no parameter takes.
    Nested,
}

impl Parameters {
    /// Those that are there: null counts as absent. `None` for a list or an object.
    pub fn present(&self) -> impl Iterator<Item = (&str, Option<Parameter<'_>>)> {
        let all = self.0.iter().map(|(name, value)| (name.as_str(), value.read()));
        all.filter_map(|(name, value)| Some((name, value?)))
    }

    /// One of them as text: a route may keep clients on their arm by it.
    pub fn text(&self, name: &str) -> Option<Cow<'_, str>> {
        let (_, value) = self.0.iter().rev().find(|(known, _)| known == name)?;
        value.read().flatten().map(Parameter::into_text)
    }
}

impl Scalar {
    fn read(&self) -> Option<Option<Parameter<'_>>> {
        Some(Some(match self {
            Self::Null => return None,
            Self::Nested => return Some(None),
            Self::Bool(b) => Parameter::Bool(*b),
            Self::Unsigned(n) => Parameter::Unsigned(*n),
            Self::Signed(n) => Parameter::Signed(*n),
            Self::Float(v) => Parameter::Float(*v),
            Self::Text(text) => Parameter::Text(text),
        }))
    }
}

/// A value, or null.
pub struct Maybe<S>(pub S);

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Maybe<S> {
    type Value = Option<S::Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de, S: DeserializeSeed<'de>> Visitor<'de> for Maybe<S> {
    type Value = Option<S::Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value or null")
    }

    fn visit_none<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        self.0.deserialize(deserializer).map(Some)
    }
}

/// A list of no more than so many items.
pub struct List<S> {
    pub item: S,
    pub most: usize,
    pub what: &'static str,
}

impl<'de, S: DeserializeSeed<'de> + Copy> DeserializeSeed<'de> for List<S> {
    type Value = Vec<S::Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, S: DeserializeSeed<'de> + Copy> Visitor<'de> for List<S> {
    type Value = Vec<S::Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of {}", self.what)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self.item)? {
            if list.len() == self.most {
                return Err(too_many(self.most, self.what));
            }
            list.push(item);
        }
        Ok(list)
    }
}

fn too_many<E: de::Error>(most: usize, what: &str) -> E {
    E::custom(format_args!("there are more than {most} {what}"))
}

fn check_length<E: de::Error>(text: &str, most: usize) -> Result<(), E> {
    match text.len() > most {
        false => Ok(()),
        true => Err(E::custom(format_args!("a string has {} bytes, the limit is {most}", text.len()))),
    }
}

/// A string, borrowed where nothing in it is escaped.
#[derive(Clone, Copy)]
pub struct Text<'l>(pub &'l RequestLimits);

impl<'de> DeserializeSeed<'de> for Text<'_> {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Text<'_> {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
        check_length(text, self.0.string_bytes_max)?;
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        check_length(text, self.0.string_bytes_max)?;
        Ok(Cow::Owned(text.to_owned()))
    }
}

/// Parameters.
pub struct ParametersOf<'l>(pub &'l RequestLimits);

impl<'de> DeserializeSeed<'de> for ParametersOf<'_> {
    type Value = Parameters;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for ParametersOf<'_> {
    type Value = Parameters;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("parameters, which are an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Parameters, A::Error> {
        let mut parameters = Vec::new();
        while let Some(name) = members.next_key_seed(Text(self.0))? {
            if parameters.len() == self.0.parameters_max {
                return Err(too_many(self.0.parameters_max, "parameters"));
            }
            let value = members.next_value_seed(ScalarOf(self.0))?;
            parameters.push((name.into_owned(), value));
        }
        Ok(Parameters(parameters))
    }
}

/// A parameter's value. What is inside a list or an object is passed over.
struct ScalarOf<'l>(&'l RequestLimits);

impl<'de> DeserializeSeed<'de> for ScalarOf<'_> {
    type Value = Scalar;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ScalarOf<'_> {
    type Value = Scalar;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a parameter's value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Scalar, E> {
        Ok(Scalar::Null)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Scalar, E> {
        Ok(Scalar::Bool(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Scalar, E> {
        Ok(Scalar::Unsigned(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Scalar, E> {
        Ok(Scalar::Signed(value))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Scalar, E> {
        Ok(Scalar::Float(value))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Scalar, E> {
        check_length(value, self.0.string_bytes_max)?;
        Ok(Scalar::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Scalar, A::Error> {
        Passed::over(self.0, DEPTH_OF_DATA).visit_seq(items)?;
        Ok(Scalar::Nested)
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Scalar, A::Error> {
        Passed::over(self.0, DEPTH_OF_DATA).visit_map(members)?;
        Ok(Scalar::Nested)
    }
}

/// A value that means nothing here.
#[derive(Clone, Copy)]
pub struct Passed<'l> {
    limits: &'l RequestLimits,
    /// How many arrays and objects may still be opened.
    deeper: usize,
}

impl<'l> Passed<'l> {
    /// Inside of so many arrays and objects.
    pub fn over(limits: &'l RequestLimits, depth: usize) -> Self {
        Self { limits, deeper: limits.json_depth_max.saturating_sub(depth) }
    }

    fn inside<E: de::Error>(self) -> Result<Self, E> {
        match self.deeper.checked_sub(1) {
            Some(deeper) => Ok(Self { deeper, ..self }),
            None => Err(E::custom(format_args!("it is nested deeper than {}", self.limits.json_depth_max))),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Passed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Passed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<(), E> {
        check_length(value, self.limits.string_bytes_max)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let inside = self.inside()?;
        while items.next_element_seed(inside)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let inside = self.inside()?;
        while members.next_key_seed(Text(self.limits))?.is_some() {
            members.next_value_seed(inside)?;
        }
        Ok(())
    }
}
