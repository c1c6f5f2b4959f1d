//! Pages backwards through a long room, from its end to its beginning, with lazy members.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use clap::Args;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::Measured;
use super::send::{Room, load};
use crate::client::{Page, RequestError, User};
use crate::error::LoadError;
use crate::figures::{latencies, median, ms_since, per_second, spread};
use crate::meter::Cost;
use crate::stage::Stage;

#[derive(Debug, Args)]
pub(crate) struct Sizes {
    /// Messages in the room
    #[arg(long, default_value = "10000")]
    events: NonZeroUsize,
    /// Events of a page
    #[arg(long, default_value = "100")]
    limit: NonZeroUsize,
    /// How often the whole room is read
    #[arg(long, default_value = "3")]
    repeat: NonZeroUsize,
    /// How many fill the room at once
    #[arg(long, default_value = "10")]
    senders: NonZeroUsize,
}

/// One reading of the whole room.
struct Pass {
    pages_ms: Vec<f64>,
    events: usize,
    bytes: usize,
    wall_s: f64,
    cost: Cost,
}

pub(super) async fn measure(stage: &Stage<'_>, sizes: &Sizes) -> Result<Measured, LoadError> {
    let users = stage.users(sizes.senders.get()).await?;
    let (room, fill) = filled_room(stage, sizes, &users).await?;
    let mut passes = Vec::new();
    // A pass is too short to tell what others took meanwhile.
    let all = stage.meter_around();
    for user in users.iter().cycle().take(sizes.repeat.get()) {
        passes.push(read(stage, user, &room, sizes.limit.get()).await?);
    }
    let foreign_cores = all.stop(passes.len(), Duration::ZERO).await.foreign_cores();
    let room_version = match users.first() {
        Some(user) => stage.a.room_version(user, &room).await,
        None => None,
    };
    let rates: Vec<f64> = passes.iter().map(Pass::pages_per_s).collect();
    let all_ms: Vec<f64> = passes.iter().flat_map(|pass| pass.pages_ms.iter().copied()).collect();
    let each_ms: Vec<f64> = passes.iter().filter_map(|pass| pass.cost.get("server_cpu_ms_per_op")).collect();
    let (page, cpu_ms) = (latencies(&all_ms), spread(&each_ms));
    let last_cost = passes.last().map(|pass| pass.cost.clone().json());
    Ok(Measured {
        sizes: json!({
            "events": sizes.events, "limit": sizes.limit, "repeat": sizes.repeat, "room_version": room_version,
        }),
        summary: format!(
            "pages of {}: {:.1}/s, p50 {} p99 {} ms, CPU ms a page {}",
            sizes.limit,
            median(&rates),
            page["p50_ms"],
            page["p99_ms"],
            cpu_ms["mean"],
        ),
        result: json!({
            "pages_per_s": median(&rates),
            "first_pass_pages_per_s": rates.first(),
            "page": page,
            "cpu_ms_per_page": cpu_ms,
            "cpu": last_cost,
            "foreign_cores": foreign_cores,
            "passes": passes.into_iter().map(Pass::json).collect::<Vec<_>>(),
            "fill": fill,
        }),
    })
}

impl Sizes {
    /// Under what a room is kept: those who read it are the ones who filled it.
    fn room_key(&self) -> String {
        format!("{} events, {} members", self.events, self.senders)
    }
}

/// A room with that many messages, from the cache if it has one, and what it took to fill it.
async fn filled_room(stage: &Stage<'_>, sizes: &Sizes, users: &[User]) -> Result<(String, Value), LoadError> {
    let events = sizes.events.get();
    let key = sizes.room_key();
    let known = stage.known(|known| known.rooms.get(&key).cloned());
    if let (Some(room), Some(user)) = (known, users.first())
        && stage.a.count_joined(user, &room).await.is_ok()
    {
        return Ok((room, Value::Null));
    }
    let id = stage.room_of(users, "load: a long past").await?;
    let rooms = [Room { id: id.clone(), members: users.to_vec() }];
    let meter = stage.meter();
    let sent = load(stage, sizes.senders.get(), events, &rooms, "h").await.all("messages of the past")?;
    let cpu = meter.stop(events, stage.options.tail()).await;
    stage.keep(|known| known.rooms.insert(key, id.clone()))?;
    Ok((id, json!({"sends_per_s": sent.per_second(), "latency": sent.latency(), "cpu": cpu.json()})))
}

async fn read(stage: &Stage<'_>, user: &User, room: &str, limit: usize) -> Result<Pass, RequestError> {
    let (mut pages_ms, mut events, mut bytes) = (Vec::new(), 0, 0);
    let mut from: Option<String> = None;
    let meter = stage.meter();
    let began = Instant::now();
    loop {
        let asked = Instant::now();
        let (page, size): (Page<IgnoredAny>, _) = stage.a.page_back(user, room, from.as_deref(), limit).await?;
        bytes += size;
        if page.chunk.is_empty() {
            break;
        }
        pages_ms.push(ms_since(asked));
        events += page.chunk.len();
        if page.end.is_none() || page.end == from {
            break;
        }
        from = page.end;
    }
    let wall_s = began.elapsed().as_secs_f64();
    let cost = meter.stop(pages_ms.len(), stage.options.tail()).await;
    Ok(Pass { pages_ms, events, bytes, wall_s, cost })
}

impl Pass {
    fn pages_per_s(&self) -> f64 {
        per_second(self.pages_ms.len(), self.wall_s)
    }

    fn json(self) -> Value {
        json!({
            "pages_per_s": self.pages_per_s(),
            "events_per_s": per_second(self.events, self.wall_s),
            "pages": self.pages_ms.len(),
            "events": self.events,
            "bytes": self.bytes,
            "page": latencies(&self.pages_ms),
            "cpu": self.cost.json(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_with_other_members_is_another() {
        let sizes = |events, senders| Sizes { events, limit: NonZeroUsize::MIN, repeat: NonZeroUsize::MIN, senders };
        let [two, three] = [2, 3].map(|number| NonZeroUsize::new(number).unwrap());
        assert_eq!(sizes(two, three).room_key(), "2 events, 3 members");
        assert_ne!(sizes(two, two).room_key(), sizes(two, three).room_key());
    }
}
