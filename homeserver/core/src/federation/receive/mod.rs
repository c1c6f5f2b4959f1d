//! Events from outside, in the order of the specification's checks on receipt of a PDU: one file per step.
//!
//! [`transaction`] takes what `/send` brings; [`pdu`] takes one event through the steps: format and
//! signatures (drop), hash (redact), [`super::fetch`] of missing authority, authority (reject),
//! [`missing`] history ([`gaps`] of it later), [`state_before`] (reject), current state (soft-fail), policy (withhold or hold), and
//! the append. [`import`] takes a room that was joined.

mod edu;
mod gaps;
mod import;
mod missing;
mod pdu;
mod run;
mod state_before;
mod transaction;

pub(crate) use gaps::Gaps;
pub use pdu::Received;
pub use transaction::Transaction;
