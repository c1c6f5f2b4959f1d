//! One user sends while many wait in `/sync`: at a pace, for the latency, then in a burst, for the throughput.
//!
//! A latency is from the start of the request that sends to the parsed answer of a sync, one for each receiver. CPU for
//! each delivery is comparable only at a pace that every server keeps: one that is behind answers several messages in
//! one sync and looks cheaper, which `sync_answers` shows.

use std::num::NonZeroUsize;
use std::time::Duration;

use clap::Args;
use serde_json::{Map, json};

use super::Measured;
use super::delivery::{Phase, deliver};
use crate::client::{RequestError, User};
use crate::drive::drive;
use crate::error::LoadError;
use crate::options::rate;
use crate::stage::{AT_ONCE, Stage};

/// How long receivers wait after the last message.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
pub(crate) struct Sizes {
    /// How many wait
    #[arg(long, default_value = "50")]
    users: NonZeroUsize,
    /// Messages at a pace; 0 for none
    #[arg(long, default_value_t = 60)]
    messages: usize,
    /// Messages a second of these
    #[arg(long, default_value = "2", value_parser = rate)]
    rate: f64,
    /// Messages after them, each as soon as the last is answered; 0 for none
    #[arg(long, default_value_t = 100)]
    burst: usize,
}

pub(super) async fn measure(stage: &Stage<'_>, sizes: &Sizes) -> Result<Measured, LoadError> {
    let users = stage.users(sizes.users.get() + 1).await?;
    let room = stage.room_of(&users, "load: fanout").await?;
    let (senders, receivers) = users.split_at(1);
    let room_version = match senders.first() {
        Some(sender) => stage.a.room_version(sender, &room).await,
        None => None,
    };
    let mut since = catch_up(stage, receivers).await?;
    let mut result = Map::new();
    let mut summary = format!("{} users", receivers.len());
    for (name, messages, rate) in [("paced", sizes.messages, Some(sizes.rate)), ("burst", sizes.burst, None)] {
        if messages == 0 {
            continue;
        }
        let phase =
            Phase { name, messages, rate, room: &room, senders, receivers, federated: false, patience: PATIENCE };
        let figures = deliver(stage, &phase, &mut since).await?;
        let (delivery, cpu) = (&figures["delivery"], &figures["cpu"]);
        summary.push_str(&format!(
            "; {name}: p50 {} p99 {} ms, {} deliveries/s, CPU ms a delivery {}, missing {}",
            delivery["p50_ms"],
            delivery["p99_ms"],
            figures["delivered_per_s"],
            cpu["server_cpu_ms_per_op"],
            figures["missing"],
        ));
        result.insert(name.to_owned(), figures);
    }
    Ok(Measured {
        sizes: json!({
            "users": receivers.len(), "paced": sizes.messages, "rate": sizes.rate, "burst": sizes.burst,
            "presence": stage.options.presence.as_str(), "room_version": room_version,
        }),
        result: result.into(),
        summary,
    })
}

/// For each receiver the token after which it has heard everything, in their order.
async fn catch_up(stage: &Stage<'_>, receivers: &[User]) -> Result<Vec<String>, LoadError> {
    let request = stage.sync_of_messages();
    let listen = async |_, number: usize| {
        let user = receivers.get(number).ok_or_else(|| RequestError::missing("receiver"))?;
        Ok((number, stage.a.catch_up(user, &request).await?))
    };
    let mut tokens = drive(AT_ONCE, receivers.len(), listen).await.all("first syncs")?.values;
    tokens.sort_unstable();
    Ok(tokens.into_iter().map(|(_, token)| token).collect())
}
