//! What the head of a page says of itself, read without a parser of pages: tags in order, nothing nested, nothing run.

use std::collections::BTreeMap;

/// How much of a page is read, bytes.
const MAX_READ_BYTES: usize = 512 * 1024;

/// How many properties are taken.
const MAX_PROPERTIES: usize = 50;

/// The longest value, characters.
const MAX_VALUE_CHARS: usize = 1_000;

/// The OpenGraph properties of a page; title and description stand in for missing ones.
pub(super) fn properties(page: &str) -> BTreeMap<String, String> {
    let page = page.get(..page.floor_char_boundary(MAX_READ_BYTES)).unwrap_or_default();
    let mut found = BTreeMap::new();
    let mut description = None;
    let mut title = None;
    let mut rest = page;
    while let Some(start) = rest.find('<') {
        rest = rest.get(start.saturating_add(1)..).unwrap_or_default();
        if let Some(after) = rest.strip_prefix("!--") {
            rest = after.split_once("-->").map_or("", |(_, after)| after);
            continue;
        }
        let Some((tag, after)) = split_tag(rest) else { break };
        let name = tag.split(|letter: char| letter.is_whitespace() || letter == '/').next().unwrap_or_default();
        match name.to_ascii_lowercase().as_str() {
            "meta" => {
                let attributes = attributes(tag);
                let content = attributes.get("content").map(|text| tidy(text)).filter(|text| !text.is_empty());
                let name = attributes.get("property").or_else(|| attributes.get("name"));
                if let (Some(name), Some(content)) = (name, content) {
                    if name.starts_with("og:") && name.len() <= 64 && found.len() < MAX_PROPERTIES {
                        found.entry(name.clone()).or_insert(content);
                    } else if name.eq_ignore_ascii_case("description") {
                        description.get_or_insert(content);
                    }
                }
                rest = after;
            }
            "title" => {
                let (text, after) = after.split_once('<').unwrap_or((after, ""));
                title.get_or_insert_with(|| tidy(text));
                rest = after;
            }
            // What scripts and styles hold is no markup.
            element @ ("script" | "style") => {
                let end = format!("</{element}");
                rest = after.find(&end).and_then(|at| after.get(at..)).unwrap_or_default();
            }
            "body" => break,
            _ => rest = after,
        }
    }
    for (name, value) in [("og:title", title), ("og:description", description)] {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            found.entry(name.to_owned()).or_insert(value);
        }
    }
    found
}

/// The inside of a tag and what follows it; quoted values may hold `>`.
fn split_tag(text: &str) -> Option<(&str, &str)> {
    let mut quote = None;
    for (at, letter) in text.char_indices() {
        match (quote, letter) {
            (None, '>') => return Some((text.get(..at)?, text.get(at.saturating_add(1)..)?)),
            (None, '"' | '\'') => quote = Some(letter),
            (Some(open), letter) if open == letter => quote = None,
            _ => {}
        }
    }
    None
}

fn attributes(tag: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut rest = tag;
    while let Some((before, after)) = rest.split_once('=') {
        let name = before.split_whitespace().next_back().unwrap_or_default().to_ascii_lowercase();
        let after = after.trim_start();
        let (value, following) = match after.chars().next() {
            Some(quote @ ('"' | '\'')) => {
                after.get(1..).and_then(|inside| inside.split_once(quote)).unwrap_or((after, ""))
            }
            _ => after.split_once(char::is_whitespace).unwrap_or((after, "")),
        };
        found.entry(name).or_insert_with(|| value.to_owned());
        rest = following;
    }
    found
}

/// References resolved, space collapsed, length bounded.
fn tidy(text: &str) -> String {
    let mut resolved = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        resolved.push_str(before);
        let reference = after.split_once(';').filter(|(name, _)| name.len() <= 8);
        match reference.and_then(|(name, after)| Some((letter_of(name)?, after))) {
            Some((letter, after)) => {
                resolved.push(letter);
                rest = after;
            }
            None => {
                resolved.push('&');
                rest = after;
            }
        }
    }
    resolved.push_str(rest);
    let words: Vec<_> = resolved.split_whitespace().collect();
    words.join(" ").chars().take(MAX_VALUE_CHARS).collect()
}

fn letter_of(name: &str) -> Option<char> {
    match name {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        "nbsp" => Some(' '),
        _ => {
            let number = name.strip_prefix('#')?;
            let code = match number.strip_prefix(['x', 'X']) {
                Some(hex) => u32::from_str_radix(hex, 16).ok()?,
                None => number.parse().ok()?,
            };
            char::from_u32(code)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_described_by_its_properties() {
        let found = properties(
            "<html><head><!-- <meta property='og:type' content='no'> --><script>'<meta property=og:type content=no>'</script>
             <title>The  Rock &amp; the &#72;ard &#x50;lace</title>
             <meta property=\"og:type\" content=\"video > movie\" /><META content='a&quot;b' PROPERTY='og:site_name'>
             <meta name=description content=short><meta property=\"og:type\" content=\"later\"></head>
             <body><meta property=\"og:url\" content=\"no\"></body>",
        );
        let found: Vec<_> = found.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(
            found,
            [
                ("og:description", "short"),
                ("og:site_name", "a\"b"),
                ("og:title", "The Rock & the Hard Place"),
                ("og:type", "video > movie"),
            ]
        );
    }

    #[test]
    fn broken_pages_are_read_as_far_as_they_go() {
        for page in [
            "",
            "<",
            "<meta",
            "<meta property=\"og:x\" content=\"",
            "<title>",
            "<script>",
            "<!--",
            "&#xFFFFFFFF;",
            "<title>&",
        ] {
            properties(page);
        }
        assert_eq!(properties("<title>&#99999999; &unknown;")["og:title"], "&#99999999; &unknown;");
        let long = format!("<title>{}</title>", "é".repeat(400_000));
        assert_eq!(properties(&long)["og:title"].chars().count(), MAX_VALUE_CHARS);
    }
}
