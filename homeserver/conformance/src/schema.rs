//! The part of JSON Schema (2020-12) that the specification's answers use; `make.py` refuses any other keyword.

use std::{collections::BTreeMap, fmt};

use regex::Regex;
use serde::Deserialize;
use serde_json::{Map, Value};

/// How many faults of one answer are told.
const TOLD: usize = 20;

/// Schemas that others refer to, by name.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub struct Schemas(BTreeMap<String, Value>);

/// Something in a value that its schema does not allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where, as a JSON pointer.
    pub place: String,
    /// What.
    pub what: String,
}

impl Fault {
    pub(crate) fn at_root(what: &str) -> Self {
        Self { place: String::new(), what: what.to_owned() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "  at {}: {}", if self.place.is_empty() { "/" } else { &self.place }, self.what)
    }
}

impl Schemas {
    /// The schema with this name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// What the schema does not allow in the value: nothing, if it conforms.
    #[must_use]
    pub fn check(&self, schema: &Value, value: &Value) -> Vec<Fault> {
        let mut check = Check { schemas: self, faults: Vec::new() };
        check.value(schema, value, "");
        check.faults
    }
}

struct Check<'a> {
    schemas: &'a Schemas,
    faults: Vec<Fault>,
}

impl Check<'_> {
    fn fault(&mut self, place: &str, what: String) {
        if self.faults.len() < TOLD {
            self.faults.push(Fault { place: place.to_owned(), what });
        }
    }

    fn value(&mut self, schema: &Value, value: &Value, place: &str) {
        let schema = match schema {
            Value::Object(schema) => schema,
            Value::Bool(false) => return self.fault(place, "nothing may be here".to_owned()),
            _ => return,
        };
        if let Some(name) = schema.get("$ref").and_then(Value::as_str) {
            match self.schemas.find(name) {
                Some(found) => self.value(found, value, place),
                None => self.fault(place, format!("there is no schema {name}")),
            }
        }
        if let Some(kinds) = schema.get("type")
            && !list(kinds).iter().any(|kind| is_a(kind, value))
        {
            return self.fault(place, format!("{} is not {kinds}", kind_of(value)));
        }
        if let Some(allowed) = schema.get("enum").and_then(Value::as_array)
            && !allowed.contains(value)
        {
            self.fault(place, format!("{value} is none of {}", Value::from(allowed.clone())));
        }
        if let Some(constant) = schema.get("const")
            && constant != value
        {
            self.fault(place, format!("{value} is not {constant}"));
        }
        self.combined(schema, value, place);
        match value {
            Value::Object(fields) => self.object(schema, fields, place),
            Value::Array(items) => self.array(schema, items, place),
            Value::String(text) => self.text(schema, text, place),
            Value::Number(number) => self.number(schema, number.as_f64().unwrap_or(0.0), place),
            Value::Bool(_) | Value::Null => {}
        }
    }

    fn combined(&mut self, schema: &Map<String, Value>, value: &Value, place: &str) {
        let of = |name: &str| schema.get(name).and_then(Value::as_array);
        for part in of("allOf").into_iter().flatten() {
            self.value(part, value, place);
        }
        if let Some(parts) = of("anyOf")
            && !parts.iter().any(|part| self.schemas.check(part, value).is_empty())
        {
            self.fault(place, "it is none of what it may be (anyOf)".to_owned());
        }
        if let Some(parts) = of("oneOf") {
            let fitting = parts.iter().filter(|part| self.schemas.check(part, value).is_empty()).count();
            if fitting != 1 {
                self.fault(place, format!("it fits {fitting} of what it may be (oneOf)"));
            }
        }
    }

    fn object(&mut self, schema: &Map<String, Value>, fields: &Map<String, Value>, place: &str) {
        for name in schema.get("required").and_then(Value::as_array).into_iter().flatten() {
            if name.as_str().is_some_and(|name| !fields.contains_key(name)) {
                self.fault(place, format!("{name} is missing"));
            }
        }
        self.bounds(schema, ["minProperties", "maxProperties"], fields.len(), place);
        let properties = schema.get("properties").and_then(Value::as_object);
        let patterns: Vec<_> = schema
            .get("patternProperties")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .filter_map(|(pattern, schema)| Regex::new(pattern).ok().map(|pattern| (pattern, schema)))
            .collect();
        for (name, value) in fields {
            let place = format!("{place}/{}", name.replace('~', "~0").replace('/', "~1"));
            let mut known = false;
            if let Some(schema) = properties.and_then(|properties| properties.get(name)) {
                known = true;
                self.value(schema, value, &place);
            }
            for (_, schema) in patterns.iter().filter(|(pattern, _)| pattern.is_match(name)) {
                known = true;
                self.value(schema, value, &place);
            }
            if let (false, Some(schema)) = (known, schema.get("additionalProperties")) {
                self.value(schema, value, &place);
            }
        }
    }

    fn array(&mut self, schema: &Map<String, Value>, items: &[Value], place: &str) {
        self.bounds(schema, ["minItems", "maxItems"], items.len(), place);
        if let Some(schema) = schema.get("items") {
            for (index, item) in items.iter().enumerate() {
                self.value(schema, item, &format!("{place}/{index}"));
            }
        }
    }

    fn text(&mut self, schema: &Map<String, Value>, text: &str, place: &str) {
        if let Some(pattern) = schema.get("pattern").and_then(Value::as_str)
            && !Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(text))
        {
            self.fault(place, format!("it does not match {pattern}"));
        }
        if let Some(format) = schema.get("format").and_then(Value::as_str)
            && !has_format(format, text)
        {
            self.fault(place, format!("it is no {format}"));
        }
    }

    fn number(&mut self, schema: &Map<String, Value>, number: f64, place: &str) {
        let of = |name: &str| schema.get(name).and_then(Value::as_f64);
        if of("minimum").is_some_and(|least| number < least) || of("maximum").is_some_and(|most| number > most) {
            self.fault(place, format!("{number} is out of bounds"));
        }
    }

    fn bounds(&mut self, schema: &Map<String, Value>, [least, most]: [&str; 2], count: usize, place: &str) {
        let of = |name: &str| schema.get(name).and_then(Value::as_u64).and_then(|bound| usize::try_from(bound).ok());
        if of(least).is_some_and(|least| count < least) || of(most).is_some_and(|most| count > most) {
            self.fault(place, format!("{count} is too few or too many"));
        }
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice)
}

fn is_a(kind: &Value, value: &Value) -> bool {
    match kind.as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("null") => value.is_null(),
        Some("number") => value.is_number(),
        Some("integer") => value.is_i64() || value.is_u64(),
        _ => false,
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// SPEC: v1.19 Appendices, "Common identifier format": the sigil, the parts, the greatest length.
fn has_format(format: &str, text: &str) -> bool {
    let identifier = |sigil: char| text.starts_with(sigil) && text.len() <= 255;
    match format {
        "mx-user-id" => identifier('@') && text.contains(':'),
        "mx-room-alias" => identifier('#') && text.contains(':'),
        // Rooms of version 12 and events since version 3 name no server.
        "mx-room-id" => identifier('!'),
        "mx-event-id" => identifier('$'),
        "mx-server-name" => !text.is_empty() && text.len() <= 230 && !text.contains(['/', ' ', '@']),
        "mx-mxc-uri" => text.strip_prefix("mxc://").is_some_and(|rest| rest.contains('/')),
        // An avatar that was removed may be an empty text.
        "uri" => text.is_empty() || text.contains(':'),
        "email" => text.contains('@'),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn faults(schema: &Value, value: &Value) -> usize {
        Schemas(BTreeMap::from([("even".to_owned(), json!({ "enum": [2, 4] }))])).check(schema, value).len()
    }

    #[test]
    fn objects_are_checked_by_name_by_pattern_and_otherwise() {
        let schema = json!({
            "type": "object",
            "required": ["a"],
            "properties": { "a": { "type": "integer" } },
            "patternProperties": { "^@": { "type": "boolean" } },
            "additionalProperties": { "$ref": "even" },
        });
        assert_eq!(faults(&schema, &json!({ "a": 1, "@b": true, "c": 4 })), 0);
        assert_eq!(faults(&schema, &json!({ "a": 1.5, "@b": 1, "c": 3 })), 3);
        assert_eq!(faults(&schema, &json!({})), 1);
        assert_eq!(faults(&schema, &json!([])), 1);
    }

    #[test]
    fn combinations_bounds_and_formats_are_checked() {
        let either = json!({ "oneOf": [{ "type": "string" }, { "type": ["null", "integer"], "minimum": 1 }] });
        assert_eq!(faults(&either, &json!(null)), 0);
        assert_eq!(faults(&either, &json!(0)), 1);
        let all = json!({ "allOf": [{ "minItems": 1 }, { "items": { "format": "mx-room-id" } }] });
        assert_eq!(faults(&all, &json!(["!a:b"])), 0);
        assert_eq!(faults(&all, &json!(["a:b"])), 1);
        assert_eq!(faults(&all, &json!([])), 1);
        assert_eq!(faults(&json!({ "anyOf": [{ "const": 1 }, { "pattern": "^x" }] }), &json!("y")), 1);
    }
}
