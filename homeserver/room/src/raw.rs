//! JSON text that this crate wrote itself, or has read as a whole, as a [`RawValue`]: without being parsed once more.
//!
//! A page of a hundred events was parsed again just to be copied into an answer.

use serde::{
    Deserialize, Deserializer,
    de::{
        Visitor,
        value::{Error, MapDeserializer},
    },
    forward_to_deserialize_any,
};
use serde_json::value::RawValue;

/// Hands its text over as serde_json hands the text of a raw value from one of its readers to another.
struct Known(String);

impl<'de> Deserializer<'de> for Known {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_string(self.0)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_map(MapDeserializer::new(std::iter::once((name, self.0))))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct seq
        tuple tuple_struct map struct enum identifier ignored_any
    }
}

/// The text, which the caller knows to be one JSON value without space around it.
pub(crate) fn known_json(text: String) -> Box<RawValue> {
    // INVARIANT: a raw value takes any text that is handed to it so; the test below would tell.
    Box::<RawValue>::deserialize(Known(text)).unwrap_or_else(|_refused| RawValue::NULL.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_text_is_the_raw_value_that_parsing_it_would_give() {
        for text in ["{}", "null", r#"{"a":[1,"\"x",{"b":null}]}"#, r#""text""#, "1"] {
            let known = known_json(text.to_owned());
            assert_eq!(known.get(), RawValue::from_string(text.to_owned()).unwrap().get());
            assert_eq!(serde_json::to_string(&known).unwrap(), text);
            assert_eq!(serde_json::to_string(&[&known]).unwrap(), format!("[{text}]"));
        }
    }
}
