//! What people say to the bot, and what it is called: `!matron …`.

/// Longest decision id.
const MAX_ID_BYTES: usize = 128;

/// A command to the bot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// `!matron help`, and anything that is not understood.
    Help,
    /// `!matron explain <decision id>`
    Explain(String),
    /// `!matron explain` without a sound id.
    ExplainWhat,
}

/// What `!matron help` answers.
pub const HELP: &str = "I am Matron, the governance bot of this room. I keep its rules and remove what has expired.\n\
    !matron help: this list\n\
    !matron explain <decision id>: why something was permitted or refused, in plain words. The id stands in every refusal.";

/// What `!matron explain` without an id answers.
pub const EXPLAIN_WHAT: &str = "Which decision? Write !matron explain and the id that stands in the refusal.";

impl Command {
    /// Reads a message's body; `None` where it is not for the bot.
    #[must_use]
    pub fn parse(body: &str) -> Option<Self> {
        let mut words = body.split_whitespace();
        if words.next()? != "!matron" {
            return None;
        }
        Some(match words.next() {
            Some("explain") => match words.next().filter(|id| is_decision_id(id)) {
                Some(id) => Self::Explain(id.to_owned()),
                None => Self::ExplainWhat,
            },
            _ => Self::Help,
        })
    }
}

fn is_decision_id(id: &str) -> bool {
    id.len() <= MAX_ID_BYTES && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_said_to_the_bot_is_a_command() {
        assert_eq!(Command::parse("!matron help"), Some(Command::Help));
        assert_eq!(Command::parse("  !matron  "), Some(Command::Help));
        assert_eq!(Command::parse("!matron dance"), Some(Command::Help));
        assert_eq!(Command::parse("!matron explain D-4x.1"), Some(Command::Explain("D-4x.1".to_owned())));
        assert_eq!(Command::parse("!matron explain"), Some(Command::ExplainWhat));
        assert_eq!(Command::parse("!matron explain ../../x"), Some(Command::ExplainWhat));
        assert_eq!(Command::parse(&format!("!matron explain {}", "a".repeat(200))), Some(Command::ExplainWhat));
        for other in ["", "matron help", "!matronhelp", "see !matron help"] {
            assert_eq!(Command::parse(other), None);
        }
    }
}
