//! The governance bot: creates bounded rooms, explains decisions, redacts what expired.

mod bot;
mod bounds;
mod command;
mod create;
mod credential;
mod explain;
mod retention;
mod room;

pub use bot::Bot;
pub use bounds::{Bounds, BoundsError, Organisations};
pub use command::{Command, EXPLAIN_WHAT, HELP};
pub use create::BotCreates;
pub use credential::Credentials;
pub use explain::{ExplainError, ExplainSource, Explanation, HomeserverExplains};
pub use retention::Retention;
pub use room::{ClinicalRoomSpec, SpecError};
