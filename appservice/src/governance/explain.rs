//! Where explanations of decisions come from.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;

use serde_json::Value;
use thiserror::Error;

use crate::client::{ClientError, Session};

/// Longest explanation that is said, in characters.
const MAX_CHARS: usize = 4_000;

/// Why there is no explanation.
#[derive(Debug, Error)]
pub enum ExplainError {
    /// Nobody knows a decision of this id.
    #[error("there is no decision of this id")]
    Unknown,
    /// The homeserver keeps no decisions.
    #[error("the homeserver does not explain decisions")]
    Unsupported,
    /// The homeserver refused or could not be reached.
    #[error(transparent)]
    Homeserver(#[from] ClientError),
}

impl ExplainError {
    /// What the asker reads.
    #[must_use]
    pub fn sentence(&self) -> &'static str {
        match self {
            Self::Unknown => "I know no decision of this id.",
            Self::Unsupported => "This homeserver keeps no decisions that I could explain.",
            Self::Homeserver(_) => "I cannot look this decision up now. Please ask again later.",
        }
    }
}

/// The answer to come.
pub type Explanation<'a> = Pin<Box<dyn Future<Output = Result<String, ExplainError>> + Send + 'a>>;

/// Explains decisions.
pub trait ExplainSource: Send + Sync + Debug {
    /// The decision in words, without message content. `room_id` is where it is asked.
    fn explain<'a>(&'a self, decision_id: &'a str, room_id: &'a str) -> Explanation<'a>;
}

/// Asks `GET /_matron/v1/policy/explain/{decisionId}` of the homeserver.
#[derive(Debug, Clone)]
pub struct HomeserverExplains {
    session: Session,
}

impl HomeserverExplains {
    /// Asks as the bot.
    #[must_use]
    pub fn new(session: Session) -> Self {
        Self { session }
    }
}

impl ExplainSource for HomeserverExplains {
    fn explain<'a>(&'a self, decision_id: &'a str, room_id: &'a str) -> Explanation<'a> {
        Box::pin(async move {
            let answer = match self.session.fetch_explanation(decision_id).await {
                Ok(answer) => answer,
                Err(error) if error.is_errcode("M_NOT_FOUND") => return Err(ExplainError::Unknown),
                Err(error) if error.is_status(404) || error.is_errcode("M_UNRECOGNIZED") => {
                    return Err(ExplainError::Unsupported);
                }
                Err(error) => return Err(error.into()),
            };
            // A decision about another room is nobody's business here.
            let about = answer.get("room_id").and_then(Value::as_str);
            if about.is_some_and(|about| about != room_id) {
                return Err(ExplainError::Unknown);
            }
            sentences(&answer).ok_or(ExplainError::Unknown)
        })
    }
}

/// The text of an explanation: `explanation` (or `text`), else the sentences of its `reasons`.
fn sentences(answer: &Value) -> Option<String> {
    let whole = ["explanation", "text"].iter().find_map(|name| answer.get(name)?.as_str());
    let text = match whole {
        Some(text) => text.to_owned(),
        None => answer
            .get("reasons")?
            .as_array()?
            .iter()
            .filter_map(|reason| reason.as_str().or_else(|| reason.get("sentence")?.as_str()))
            .collect::<Vec<_>>()
            .join("\n"),
    };
    let text: String = text.chars().take(MAX_CHARS).collect();
    (!text.trim().is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_explanation_is_its_text_or_its_reasons() {
        assert_eq!(sentences(&json!({"explanation": "Refused."})).unwrap(), "Refused.");
        assert_eq!(sentences(&json!({"reasons": [{"sentence": "One."}, "Two."]})).unwrap(), "One.\nTwo.");
        assert_eq!(sentences(&json!({"reasons": []})), None);
        assert_eq!(sentences(&json!([])), None);
        assert_eq!(sentences(&json!({"text": "x".repeat(9_000)})).unwrap().len(), MAX_CHARS);
    }
}
