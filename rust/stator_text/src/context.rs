//! A template's variables: JSON, with long texts beside it.

use std::fmt;

use minijinja::value::Value;
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde_json::de::{Deserializer, StrRead};

/// Begins a string that stands for a text: no string of a client's has it there.
const MARK: char = '\u{FDD0}';

/// The object `json`, with `texts` where it names them and `more` as a further member.
pub fn read(json: &[u8], texts: &[&[u8]], more: Option<(&str, Value)>) -> Result<Value, String> {
    // Once and fast, rather than string by string.
    let json = simdutf8::compat::from_utf8(json).map_err(|e| format!("not UTF-8: {e}"))?;
    let mut deserializer = Deserializer::new(StrRead::new(json));
    let more = more.as_ref();
    let value = Node { texts, more }
        .deserialize(&mut deserializer)
        .map_err(|e| e.to_string())?;
    deserializer.end().map_err(|e| e.to_string())?;
    Ok(value)
}

#[derive(Clone, Copy)]
struct Node<'t> {
    texts: &'t [&'t [u8]],
    /// Goes into the outermost object.
    more: Option<&'t (&'t str, Value)>,
}

impl Node<'_> {
    fn below(self) -> Self {
        Node { more: None, ..self }
    }

    fn text<E: Error>(&self, s: &str) -> Result<Value, E> {
        let Some(number) = s.strip_prefix(MARK) else {
            return Ok(Value::from(s));
        };
        let Some(text) = number.parse().ok().and_then(|i: usize| self.texts.get(i)) else {
            return Ok(Value::from(s));
        };
        simdutf8::compat::from_utf8(text)
            .map(Value::from)
            .map_err(|e| E::custom(format_args!("a text is not UTF-8: {e}")))
    }
}

/// A member's name; short ones need no memory of their own.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, d: D) -> Result<Value, D::Error> {
        d.deserialize_str(self)
    }
}

impl Visitor<'_> for Key {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: Error>(self, v: &str) -> Result<Value, E> {
        Ok(Value::from(v))
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, d: D) -> Result<Value, D::Error> {
        d.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::from(()))
    }

    fn visit_bool<E: Error>(self, v: bool) -> Result<Value, E> {
        Ok(Value::from(v))
    }

    fn visit_i64<E: Error>(self, v: i64) -> Result<Value, E> {
        Ok(Value::from(v))
    }

    fn visit_u64<E: Error>(self, v: u64) -> Result<Value, E> {
        Ok(Value::from(v))
    }

    fn visit_f64<E: Error>(self, v: f64) -> Result<Value, E> {
        Ok(Value::from(v))
    }

    fn visit_str<E: Error>(self, v: &str) -> Result<Value, E> {
        self.text(v)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element_seed(self.below())? {
            items.push(item);
        }
        Ok(Value::from(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut members = Vec::new();
        while let Some(key) = access.next_key_seed(Key)? {
            members.push((key, access.next_value_seed(self.below())?));
        }
        if let Some((name, value)) = self.more {
            members.push((Value::from(*name), value.clone()));
        }
        Ok(Value::from_pairs(members))
    }
}
