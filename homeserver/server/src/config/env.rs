//! `MATRON_*` variables: `MATRON_LISTEN__ADDRESS` is `listen.address`.

use serde_json::{Map, Value};

use super::ConfigError;

/// Variables that tools around Matron use; they are no settings.
const NOT_SETTINGS: [&str; 3] = ["MATRON_CONFIG", "MATRON_BINARY", "MATRON_LOG_DIR"];

/// Lays the variables over `tree`, where each replaces what the file said.
///
/// A variable is read by the type of the key's default: text as it stands, everything else as a TOML value.
///
/// # Errors
/// [`ConfigError::Variable`] when the value is no TOML value, or its path leads through something that is no section.
pub(crate) fn overlay(
    tree: &mut Value,
    schema: &Value,
    variables: impl Iterator<Item = (String, String)>,
) -> Result<(), ConfigError> {
    let mut variables: Vec<_> =
        variables.filter(|(name, _)| name.starts_with("MATRON_") && !NOT_SETTINGS.contains(&name.as_str())).collect();
    variables.sort();
    for (name, text) in variables {
        let path: Vec<String> = name.trim_start_matches("MATRON_").split("__").map(str::to_ascii_lowercase).collect();
        let known = path.iter().try_fold(schema, |schema, key| schema.get(key));
        let value = read(&text, known).map_err(|what| ConfigError::Variable { name: name.clone(), what })?;
        set(tree, &path, value).ok_or_else(|| ConfigError::Variable {
            name,
            what: "it leads into a value that is no section".to_owned(),
        })?;
    }
    Ok(())
}

fn read(text: &str, known: Option<&Value>) -> Result<Value, String> {
    match known {
        Some(Value::String(_)) => Ok(Value::String(text.to_owned())),
        // An optional value or an unknown key: a TOML value if it is one, else text.
        Some(Value::Null) | None => Ok(toml_value(text).unwrap_or_else(|_| Value::String(text.to_owned()))),
        Some(_) => toml_value(text),
    }
}

fn toml_value(text: &str) -> Result<Value, String> {
    let mut table: Map<String, Value> =
        toml::from_str(&format!("value = {text}")).map_err(|error| error.message().to_owned())?;
    match (table.remove("value"), table.is_empty()) {
        (Some(value), true) => Ok(value),
        _ => Err("it is more than one value".to_owned()),
    }
}

fn set(tree: &mut Value, path: &[String], value: Value) -> Option<()> {
    let (key, rest) = path.split_first()?;
    let section = tree.as_object_mut()?;
    if rest.is_empty() {
        section.insert(key.clone(), value);
        return Some(());
    }
    let inner = section.entry(key.clone()).or_insert_with(|| Value::Object(Map::new()));
    set(inner, rest, value)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn laid_over(pairs: &[(&str, &str)]) -> Result<Value, ConfigError> {
        let schema = json!({"server_name": "", "listen": {"max_connections": 1, "tls_key": null}});
        let mut tree = json!({"server_name": "file.example"});
        overlay(&mut tree, &schema, pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))?;
        Ok(tree)
    }

    #[test]
    fn variables_replace_what_the_file_said() {
        let tree = laid_over(&[
            ("MATRON_SERVER_NAME", "12345"),
            ("MATRON_LISTEN__MAX_CONNECTIONS", "7"),
            ("MATRON_LISTEN__TLS_KEY", "/run/tls.key"),
            ("PATH", "/bin"),
            ("MATRON_BINARY", "/usr/bin/matron"),
        ])
        .unwrap();
        assert_eq!(tree, json!({"server_name": "12345", "listen": {"max_connections": 7, "tls_key": "/run/tls.key"}}));
    }

    #[test]
    fn a_number_that_is_none_is_refused_by_name() {
        let error = laid_over(&[("MATRON_LISTEN__MAX_CONNECTIONS", "many")]).unwrap_err().to_string();
        assert!(error.contains("MATRON_LISTEN__MAX_CONNECTIONS"), "{error}");
    }
}
