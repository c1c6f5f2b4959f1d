//! Globs over event properties, in linear time.

use regex::{Regex, RegexBuilder};

/// The longest pattern, bytes; longer ones match nothing.
const MAX_PATTERN_BYTES: usize = 1024;

/// A compiled glob.
#[derive(Clone, Debug)]
pub(super) enum Pattern {
    /// No wildcard: compared without regard to case; lower case here.
    Literal(String),
    /// With wildcards, or searched for between word boundaries.
    Regex(Regex),
    /// Cannot match.
    Never,
}

impl Pattern {
    /// Matches a whole value. SPEC: "event_match".
    pub(super) fn whole(glob: &str) -> Self {
        if glob.len() > MAX_PATTERN_BYTES {
            return Self::Never;
        }
        if !glob.contains(['*', '?']) {
            return Self::Literal(glob.to_lowercase());
        }
        Self::compile(&format!("^(?:{})$", translate(glob)))
    }

    /// Matches part of a value, between word boundaries. SPEC: "event_match" of `content.body`.
    pub(super) fn words(glob: &str) -> Self {
        if glob.is_empty() || glob.len() > MAX_PATTERN_BYTES {
            return Self::Never;
        }
        Self::compile(&format!("(?:^|(?-i:[^A-Za-z0-9_]))(?:{})(?:(?-i:[^A-Za-z0-9_])|$)", translate(glob)))
    }

    fn compile(expression: &str) -> Self {
        RegexBuilder::new(expression)
            .case_insensitive(true)
            .dot_matches_new_line(true)
            .size_limit(1 << 20)
            .build()
            .map_or(Self::Never, Self::Regex)
    }

    /// Whether the value matches.
    pub(super) fn matches(&self, value: &str) -> bool {
        match self {
            Self::Literal(literal) => value.eq_ignore_ascii_case(literal) || value.to_lowercase() == *literal,
            Self::Regex(regex) => regex.is_match(value),
            Self::Never => false,
        }
    }
}

fn translate(glob: &str) -> String {
    let mut expression = String::with_capacity(glob.len().saturating_mul(2));
    for c in glob.chars() {
        match c {
            '*' => expression.push_str(".*?"),
            '?' => expression.push('.'),
            other => expression.push_str(&regex::escape(other.encode_utf8(&mut [0; 4]))),
        }
    }
    expression
}

#[cfg(test)]
mod tests {
    use super::Pattern;

    #[test]
    fn whole_values_match_without_regard_to_case() {
        let pattern = Pattern::whole("lunc?*");
        assert!(pattern.matches("Lunch plans"));
        assert!(pattern.matches("LUNCH"));
        assert!(!pattern.matches(" lunch"));
        assert!(!pattern.matches("lunc"));
        assert!(Pattern::whole("m.notice").matches("M.Notice"));
        assert!(!Pattern::whole("m.notice").matches("mxnotice"));
    }

    #[test]
    fn words_match_between_boundaries_only() {
        let pattern = Pattern::words("ex*ple");
        assert!(pattern.matches("An example event."));
        assert!(pattern.matches("exple"));
        assert!(pattern.matches("An exciting triple-whammy"));
        assert!(!pattern.matches("An examples event."));
        assert!(Pattern::words("cake").matches("I like cake, too"));
        assert!(!Pattern::words("cake").matches("pancakes"));
        assert!(!Pattern::words("").matches("anything"));
        assert!(Pattern::words("cake").matches("K\u{e4}se\u{e4}CAKE\u{e4}"), "only plain letters make words");
        assert!(Pattern::words("cake").matches("one\ncake\ntwo"));
        assert!(Pattern::words("cake*lie").matches("the cake is a\nlie."));
        assert!(Pattern::words("c[a]ke").matches("a c[a]ke"), "only * and ? are wild");
        assert!(Pattern::words("cake").matches("\u{17f}cake"), "a letter that folds to a plain one is none");
    }
}
