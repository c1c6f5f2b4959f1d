//! Which keys exist, taken from the types themselves: every default, printed as a tree.

use serde_json::{Map, Value};

/// A key that no type has, and the known one that looks most like it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct UnknownKey {
    /// The whole dotted path of the key.
    pub(crate) path: String,
    /// The nearest known key, dotted.
    pub(crate) nearest: Option<String>,
}

/// Refuses a tree that has a key unknown to `schema`.
///
/// An empty object in the schema is a map with free keys; `null` is an optional value that the types check later.
///
/// # Errors
/// [`UnknownKey`] for the first key that the schema has not.
pub(crate) fn check_keys(value: &Value, schema: &Value) -> Result<(), UnknownKey> {
    walk(value, schema, schema, "")
}

fn walk(value: &Value, schema: &Value, root: &Value, path: &str) -> Result<(), UnknownKey> {
    match (value, schema) {
        (Value::Object(given), Value::Object(known)) if !known.is_empty() => {
            for (key, inner) in given {
                let here = join(path, key);
                match known.get(key) {
                    Some(schema) => walk(inner, schema, root, &here)?,
                    None => return Err(UnknownKey { nearest: nearest(key, path, known, root), path: here }),
                }
            }
            Ok(())
        }
        (Value::Array(items), Value::Array(samples)) => match samples.first() {
            Some(sample) => items.iter().try_for_each(|item| walk(item, sample, root, path)),
            None => Ok(()),
        },
        _ => Ok(()),
    }
}

/// Every known key, dotted, sections included.
pub(crate) fn all_keys(schema: &Value) -> Vec<String> {
    fn collect(schema: &Value, path: &str, keys: &mut Vec<String>) {
        let fields = match schema {
            Value::Object(fields) => fields,
            Value::Array(samples) => match samples.first() {
                Some(Value::Object(fields)) => fields,
                _ => return,
            },
            _ => return,
        };
        for (key, inner) in fields {
            let here = join(path, key);
            collect(inner, &here, keys);
            keys.push(here);
        }
    }
    let mut keys = Vec::new();
    collect(schema, "", &mut keys);
    keys
}

fn nearest(key: &str, path: &str, siblings: &Map<String, Value>, root: &Value) -> Option<String> {
    let beside = siblings.keys().map(|sibling| (strsim::damerau_levenshtein(key, sibling), join(path, sibling)));
    let best = beside.min_by_key(|(distance, _)| *distance)?;
    if best.0 <= 3.max(key.len() / 3) {
        return Some(best.1);
    }
    // Perhaps the right key in the wrong section.
    let elsewhere = all_keys(root)
        .into_iter()
        .map(|known| (strsim::damerau_levenshtein(key, known.rsplit('.').next().unwrap_or(&known)), known))
        .min_by_key(|(distance, _)| *distance)?;
    Some(if elsewhere.0 < best.0 { elsewhere.1 } else { best.1 })
}

pub(crate) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_misspelt_key_is_named_with_its_neighbour() {
        let schema = json!({"listen": {"address": "x", "tls_key": null}, "addresses": {}});
        let unknown = check_keys(&json!({"listen": {"adress": "y"}}), &schema).unwrap_err();
        assert_eq!(unknown.path, "listen.adress");
        assert_eq!(unknown.nearest.as_deref(), Some("listen.address"));
        assert_eq!(check_keys(&json!({"addresses": {"any.example": "1.2.3.4:8448"}}), &schema), Ok(()));
    }

    #[test]
    fn a_key_in_the_wrong_section_is_sent_to_the_right_one() {
        let schema = json!({"registration": {"shared_secret_file": null}, "logging": {"level": "info"}});
        let unknown = check_keys(&json!({"logging": {"shared_secret_file": "y"}}), &schema).unwrap_err();
        assert_eq!(unknown.nearest.as_deref(), Some("registration.shared_secret_file"));
    }
}
