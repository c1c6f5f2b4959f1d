//! What can be measured: a file for each.

mod delivery;
mod fanout;
mod federate;
mod initial_sync;
mod join_local;
mod mem;
mod messages;
mod polls;
mod register;
mod send;

use clap::Subcommand;
use serde_json::Value;

use crate::error::LoadError;
use crate::stage::Stage;

/// A measure, with its sizes.
#[derive(Debug, Subcommand)]
pub(crate) enum Measure {
    /// Registrations, then log-ins by password
    Register(register::Sizes),
    /// Several senders at once, into one room or into many
    Send(send::Sizes),
    /// One sends while many wait in /sync: at a pace for the latency, then in a burst
    Fanout(fanout::Sizes),
    /// The first /sync of a new device, and the first sliding sync where the server has it
    InitialSync(initial_sync::Sizes),
    /// Pages backwards through a long room
    Messages(messages::Sizes),
    /// Many join one public room
    JoinLocal(join_local::Sizes),
    /// A user of the second server joins a room of the first, which then hears messages
    Federate(federate::Sizes),
    /// Memory before and after a load, and the CPU time of an idle server
    Mem(mem::Sizes),
    /// Memory while many wait in /sync and nothing happens
    Polls(polls::Sizes),
}

/// What was measured.
pub(crate) struct Measured {
    /// The sizes, and what the server chose itself.
    pub(crate) sizes: Value,
    pub(crate) result: Value,
    /// The main figures, for a person.
    pub(crate) summary: String,
}

impl Measure {
    /// The subcommand.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Register(_) => "register",
            Self::Send(_) => "send",
            Self::Fanout(_) => "fanout",
            Self::InitialSync(_) => "initial-sync",
            Self::Messages(_) => "messages",
            Self::JoinLocal(_) => "join-local",
            Self::Federate(_) => "federate",
            Self::Mem(_) => "mem",
            Self::Polls(_) => "polls",
        }
    }

    /// Prepares the servers and measures.
    pub(crate) async fn run(&self, stage: &Stage<'_>) -> Result<Measured, LoadError> {
        match self {
            Self::Register(sizes) => register::measure(stage, sizes).await,
            Self::Send(sizes) => send::measure(stage, sizes).await,
            Self::Fanout(sizes) => fanout::measure(stage, sizes).await,
            Self::InitialSync(sizes) => initial_sync::measure(stage, sizes).await,
            Self::Messages(sizes) => messages::measure(stage, sizes).await,
            Self::JoinLocal(sizes) => join_local::measure(stage, sizes).await,
            Self::Federate(sizes) => federate::measure(stage, sizes).await,
            Self::Mem(sizes) => mem::measure(stage, sizes).await,
            Self::Polls(sizes) => polls::measure(stage, sizes).await,
        }
    }
}
