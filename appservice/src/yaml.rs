//! The plain YAML of registration files: block maps and lists, scalars, comments, and JSON as it is.
//!
//! Anchors, tags, multi-line scalars and flow collections other than one-line JSON are refused by name.

use serde_json::{Map, Value};
use thiserror::Error;

/// Deepest nesting that is read.
const MAX_DEPTH: usize = 16;

/// Why a text is not the YAML that this reader takes.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum YamlError {
    /// A line that fits nowhere.
    #[error("line {0}: expected `key: value` or `- value`")]
    Line(usize),
    /// Indented neither as its parent's child nor as a sibling.
    #[error("line {0}: unexpected indentation")]
    Indentation(usize),
    /// A tab in the indentation.
    #[error("line {0}: tabs may not indent")]
    Tab(usize),
    /// A quote that never closes or a stray character after one.
    #[error("line {0}: malformed quoted text")]
    Quote(usize),
    /// A key given twice.
    #[error("line {0}: key given twice")]
    Duplicate(usize),
    /// YAML that registration files do not use.
    #[error("line {0}: anchors, tags, block scalars and flow collections are not read")]
    Unsupported(usize),
    /// Nested deeper than any registration.
    #[error("line {0}: nested too deep")]
    Depth(usize),
}

#[derive(Debug, Clone)]
struct Line<'a> {
    number: usize,
    indent: usize,
    text: &'a str,
}

/// Reads YAML (or JSON) into a value.
///
/// # Errors
/// [`YamlError`] names the line.
pub fn parse(text: &str) -> Result<Value, YamlError> {
    if let Ok(value) = serde_json::from_str::<Value>(text) {
        return Ok(value);
    }
    let mut lines = Vec::new();
    for (index, raw) in text.lines().enumerate() {
        let number = index + 1;
        let content = strip_comment(raw).trim_end();
        let body = content.trim_start_matches(' ');
        if body.is_empty() || body == "---" {
            continue;
        }
        if body.starts_with('\t') {
            return Err(YamlError::Tab(number));
        }
        lines.push(Line { number, indent: content.len() - body.len(), text: body });
    }
    let mut position = 0;
    let Some(first) = lines.first() else {
        return Ok(Value::Null);
    };
    let value = block(&mut lines.clone(), &mut position, first.indent, 0)?;
    match lines.get(position) {
        Some(line) => Err(YamlError::Indentation(line.number)),
        None => Ok(value),
    }
}

/// A comment starts at `#` outside quotes, at the start of a word.
fn strip_comment(line: &str) -> &str {
    let mut quote: Option<char> = None;
    let mut escaped = false;
    let mut before = ' ';
    for (at, c) in line.char_indices() {
        match quote {
            Some('"') if escaped => escaped = false,
            Some('"') if c == '\\' => escaped = true,
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if matches!(c, '"' | '\'') && matches!(before, ' ' | ':' | '-') => quote = Some(c),
            None if c == '#' && before == ' ' => return line.get(..at).unwrap_or(line),
            None => {}
        }
        before = c;
    }
    line
}

fn block<'a>(lines: &mut Vec<Line<'a>>, position: &mut usize, indent: usize, depth: usize) -> Result<Value, YamlError> {
    let Some(line) = lines.get(*position) else {
        return Ok(Value::Null);
    };
    if depth > MAX_DEPTH {
        return Err(YamlError::Depth(line.number));
    }
    if is_item(line.text) {
        list(lines, position, indent, depth)
    } else if split_key(line)?.is_some() {
        map(lines, position, indent, depth)
    } else {
        let value = scalar(line.text, line.number)?;
        *position += 1;
        Ok(value)
    }
}

fn is_item(text: &str) -> bool {
    text == "-" || text.starts_with("- ")
}

fn list<'a>(lines: &mut Vec<Line<'a>>, position: &mut usize, indent: usize, depth: usize) -> Result<Value, YamlError> {
    let mut items = Vec::new();
    while let Some(line) = lines.get(*position).cloned() {
        if line.indent < indent || (line.indent == indent && !is_item(line.text)) {
            break;
        }
        if line.indent > indent {
            return Err(YamlError::Indentation(line.number));
        }
        let after = line.text.get(1..).unwrap_or_default();
        let body = after.trim_start_matches(' ');
        if body.is_empty() {
            *position += 1;
            items.push(child(lines, position, indent + 1, depth)?);
        } else {
            // The item's own text becomes a line at its column, so `- key: value` opens a map there.
            let column = indent + 1 + (after.len() - body.len());
            if let Some(slot) = lines.get_mut(*position) {
                *slot = Line { number: line.number, indent: column, text: body };
            }
            items.push(block(lines, position, column, depth + 1)?);
        }
    }
    Ok(Value::Array(items))
}

fn map<'a>(lines: &mut Vec<Line<'a>>, position: &mut usize, indent: usize, depth: usize) -> Result<Value, YamlError> {
    let mut entries = Map::new();
    while let Some(line) = lines.get(*position).cloned() {
        if line.indent < indent || is_item(line.text) {
            break;
        }
        if line.indent > indent {
            return Err(YamlError::Indentation(line.number));
        }
        let Some((key, rest)) = split_key(&line)? else {
            return Err(YamlError::Line(line.number));
        };
        *position += 1;
        let value = if rest.is_empty() {
            // A list may sit at its key's own column.
            let at_same = lines.get(*position).is_some_and(|next| next.indent == indent && is_item(next.text));
            child(lines, position, if at_same { indent } else { indent + 1 }, depth)?
        } else {
            scalar(rest, line.number)?
        };
        if entries.insert(key, value).is_some() {
            return Err(YamlError::Duplicate(line.number));
        }
    }
    Ok(Value::Object(entries))
}

fn child<'a>(
    lines: &mut Vec<Line<'a>>,
    position: &mut usize,
    at_least: usize,
    depth: usize,
) -> Result<Value, YamlError> {
    match lines.get(*position).map(|line| line.indent) {
        Some(indent) if indent >= at_least => block(lines, position, indent, depth + 1),
        _ => Ok(Value::Null),
    }
}

fn split_key<'a>(line: &Line<'a>) -> Result<Option<(String, &'a str)>, YamlError> {
    let text = line.text;
    if text.starts_with('"') || text.starts_with('\'') {
        let (key, rest) = quoted(text, line.number)?;
        return match rest.strip_prefix(':') {
            Some(value) if value.is_empty() || value.starts_with(' ') => Ok(Some((key, value.trim()))),
            _ => Ok(None),
        };
    }
    if let Some(key) = text.strip_suffix(':').filter(|key| !key.contains(": ")) {
        return Ok(Some((key.to_owned(), "")));
    }
    Ok(text.split_once(": ").map(|(key, value)| (key.trim_end().to_owned(), value.trim())))
}

fn scalar(text: &str, number: usize) -> Result<Value, YamlError> {
    match text.chars().next() {
        Some('"' | '\'') => {
            let (value, rest) = quoted(text, number)?;
            if rest.trim().is_empty() { Ok(Value::String(value)) } else { Err(YamlError::Quote(number)) }
        }
        Some('[' | '{') => serde_json::from_str(text).map_err(|_not_json| YamlError::Unsupported(number)),
        Some('&' | '*' | '!' | '|' | '>' | '%' | '@' | '`') => Err(YamlError::Unsupported(number)),
        _ => Ok(match text {
            "null" | "~" | "Null" | "NULL" => Value::Null,
            "true" | "True" | "TRUE" => Value::Bool(true),
            "false" | "False" | "FALSE" => Value::Bool(false),
            _ => match text.parse::<i64>() {
                Ok(integer) => Value::from(integer),
                Err(_not_a_number) => Value::String(text.to_owned()),
            },
        }),
    }
}

/// Reads a quoted scalar at the start of `text`; gives what follows it.
fn quoted(text: &str, number: usize) -> Result<(String, &str), YamlError> {
    let mut chars = text.char_indices().peekable();
    let Some((_, open)) = chars.next() else {
        return Err(YamlError::Quote(number));
    };
    let mut out = String::new();
    while let Some((at, c)) = chars.next() {
        if c == open {
            if open == '\'' && chars.peek().is_some_and(|(_, next)| *next == '\'') {
                out.push('\'');
                let _second = chars.next();
                continue;
            }
            let rest = text.get(at + c.len_utf8()..).unwrap_or_default();
            return Ok((out, rest));
        }
        if open == '"' && c == '\\' {
            match chars.next() {
                Some((_, 'n')) => out.push('\n'),
                Some((_, 't')) => out.push('\t'),
                Some((_, escaped @ ('"' | '\\' | '/'))) => out.push(escaped),
                _ => return Err(YamlError::Quote(number)),
            }
            continue;
        }
        out.push(c);
    }
    Err(YamlError::Quote(number))
}

/// Writes a value as block-style YAML with every string quoted.
#[must_use]
pub fn write(value: &Value) -> String {
    let mut out = String::new();
    write_at(value, 0, &mut out);
    out
}

fn write_at(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(entries) => {
            for (key, value) in entries {
                out.push_str(&" ".repeat(indent));
                out.push_str(key);
                out.push(':');
                write_child(value, indent, out);
            }
        }
        Value::Array(items) => {
            for item in items {
                out.push_str(&" ".repeat(indent));
                out.push('-');
                if let Value::Object(_) = item {
                    let mut inner = String::new();
                    write_at(item, indent + 2, &mut inner);
                    out.push(' ');
                    out.push_str(inner.trim_start_matches(' '));
                } else {
                    write_child(item, indent, out);
                }
            }
        }
        other => {
            out.push_str(&other.to_string());
            out.push('\n');
        }
    }
}

fn write_child(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(entries) if !entries.is_empty() => {
            out.push('\n');
            write_at(value, indent + 2, out);
        }
        Value::Array(items) if !items.is_empty() => {
            out.push('\n');
            write_at(value, indent + 2, out);
        }
        // A JSON scalar, and an empty collection, are YAML as they stand.
        other => {
            out.push(' ');
            out.push_str(&other.to_string());
            out.push('\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn block_maps_lists_and_scalars_are_read() {
        let text = "a: 1\nb:\n- x\n- 'it''s'\nc:\n  d: \"q\\\"r # no comment\" # comment\n  e: ~\n  f: [1, 2]\n";
        assert_eq!(
            parse(text).unwrap(),
            json!({"a": 1, "b": ["x", "it's"], "c": {"d": "q\"r # no comment", "e": null, "f": [1, 2]}})
        );
    }

    #[test]
    fn what_is_not_read_is_named_with_its_line() {
        assert_eq!(parse("a: |\n  text"), Err(YamlError::Unsupported(1)));
        assert_eq!(parse("a: 1\na: 2"), Err(YamlError::Duplicate(2)));
        assert_eq!(parse("a: \"x"), Err(YamlError::Quote(1)));
        assert_eq!(parse("a: 1\n   b: 2"), Err(YamlError::Indentation(2)));
        assert_eq!(parse("\ta: 1"), Err(YamlError::Tab(1)));
    }

    fn tree() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[ -~]{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 1..4).prop_filter_map("lists of lists", |items| {
                    (!items.iter().any(Value::is_array)).then_some(Value::Array(items))
                }),
                prop::collection::btree_map("[a-z_]{1,8}", inner, 1..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(value in prop::collection::btree_map("[a-z_]{1,8}", tree(), 1..4)
            .prop_map(|map| Value::Object(map.into_iter().collect())))
        {
            // An empty map inside a list has no block form; generators above never make one.
            prop_assert_eq!(parse(&write(&value)).unwrap(), value);
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in "[\\PC\n ]{0,200}") {
            let _any = parse(&text);
        }
    }
}
