//! A user of the second server joins a room of the first, which then sends at a pace and in a burst.
//!
//! A join lasts for milliseconds of CPU time, so one reading says little: with `--joins` it is repeated, each time by
//! another new user into another room of the same members and as much state, and the figures are means with their
//! spread. The first join between two servers that never met is the dearest, since each fetches the other's keys and
//! opens its connections; it is given apart.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Map, Value, json};

use super::Measured;
use super::delivery::{Phase, deliver};
use crate::client::{RequestError, User};
use crate::error::LoadError;
use crate::figures::{latencies, mean, ms_since, rounded, spread};
use crate::meter::Cost;
use crate::options::rate;
use crate::stage::Stage;

/// What the preparation of a room set off is over.
const LEAD: Duration = Duration::from_millis(500);
/// How often the second server is asked whether it knows all members yet.
const ASK_EVERY: Duration = Duration::from_millis(20);

#[derive(Debug, Args)]
pub(crate) struct Sizes {
    /// Members of the room, at the first server
    #[arg(long, default_value = "50")]
    members: NonZeroUsize,
    /// Further pieces of state in the room
    #[arg(long, default_value_t = 200)]
    state_events: usize,
    /// How often a room of these is joined
    #[arg(long, default_value = "1")]
    joins: NonZeroUsize,
    /// Messages in a burst, into the last room; 0 for none
    #[arg(long, default_value_t = 500)]
    messages: usize,
    /// How many send at once in the burst
    #[arg(long, default_value = "4")]
    senders: NonZeroUsize,
    /// Messages at a pace before the burst; 0 for none
    #[arg(long, default_value_t = 40)]
    paced: usize,
    /// Messages a second of these
    #[arg(long, default_value = "4", value_parser = rate)]
    rate: f64,
    /// How long members and messages may take to arrive, in seconds
    #[arg(long, default_value_t = 120)]
    timeout_s: u64,
}

/// A join that was measured.
struct Join {
    /// Until the request was answered.
    answered_ms: f64,
    /// Until the joining server listed every member; none where it never did.
    complete_ms: Option<f64>,
    cost: Cost,
}

/// Where the joined user is.
struct Place {
    user: User,
    room: String,
}

pub(super) async fn measure(stage: &Stage<'_>, sizes: &Sizes) -> Result<Measured, LoadError> {
    let b = stage.b()?;
    let users = stage.users(sizes.members.max(sizes.senders).get()).await?;
    // New users, so that nothing of earlier rooms is in their syncs.
    let mut visitors = stage.new_users(b, "visitor", sizes.joins.get()).await?;
    let mut joins = Vec::new();
    let mut last = None;
    while let Some(visitor) = visitors.pop() {
        let (place, join) = join(stage, sizes, &users, visitor).await?;
        joins.push(join);
        last = Some(place);
    }
    let Place { user, room } = last.ok_or_else(|| RequestError::missing("visitor"))?;
    let mut result = figures(&joins);
    let mut summary = format!("join {} ms, CPU ms {}", result["join_ms"], result["join_cpu"]["server_cpu_ms_per_op"]);

    let mut since = [b.sync(&user, &stage.sync_of_messages(), None).await?.next_batch];
    for (name, messages, rate) in [("paced", sizes.paced, Some(sizes.rate)), ("burst", sizes.messages, None)] {
        if messages == 0 {
            continue;
        }
        let phase = Phase {
            name,
            messages,
            rate,
            room: &room,
            senders: users.get(..sizes.senders.get()).unwrap_or(&users),
            receivers: std::slice::from_ref(&user),
            federated: true,
            patience: Duration::from_secs(sizes.timeout_s),
        };
        let figures = deliver(stage, &phase, &mut since).await?;
        let (delivery, cpu) = (&figures["delivery"], &figures["cpu"]);
        summary.push_str(&format!(
            "; {name}: p50 {} p99 {} ms, {} messages/s, CPU ms {} and {}, missing {}",
            delivery["p50_ms"],
            delivery["p99_ms"],
            figures["messages_visible_per_s"],
            cpu["server_a_cpu_ms_per_op"],
            cpu["server_b_cpu_ms_per_op"],
            figures["missing"],
        ));
        result.insert(name.to_owned(), figures);
    }
    let room_version = match users.first() {
        Some(owner) => stage.a.room_version(owner, &room).await,
        None => None,
    };
    Ok(Measured {
        sizes: json!({
            "members": users.len(), "state_events": sizes.state_events, "joins": sizes.joins,
            "messages": sizes.messages, "senders": sizes.senders, "paced": sizes.paced, "rate": sizes.rate,
            "room_version": room_version,
        }),
        result: result.into(),
        summary,
    })
}

/// A visitor joins a new room of the users.
async fn join(stage: &Stage<'_>, sizes: &Sizes, users: &[User], visitor: User) -> Result<(Place, Join), LoadError> {
    let b = stage.b()?;
    let owner = users.first().ok_or_else(|| RequestError::missing("user"))?;
    let room = stage.room_of(users, "load: federate").await?;
    stage.fill_with_state(owner, &room, sizes.state_events).await?;
    tokio::time::sleep(LEAD).await;

    let meter = stage.meter_both();
    let began = Instant::now();
    b.join(&visitor, &room, Some(owner.server_name())).await?;
    let answered_ms = ms_since(began);
    let mut complete_ms = None;
    // Some servers answer before they have the room's state.
    while complete_ms.is_none() && began.elapsed().as_secs() < sizes.timeout_s {
        if b.count_joined(&visitor, &room).await.is_ok_and(|joined| joined > users.len()) {
            complete_ms = Some(ms_since(began));
        } else {
            tokio::time::sleep(ASK_EVERY).await;
        }
    }
    let cost = meter.stop(1, stage.options.tail()).await;
    Ok((Place { user: visitor, room }, Join { answered_ms, complete_ms, cost }))
}

/// The means of all joins, how far they lie apart, and the first alone.
fn figures(joins: &[Join]) -> Map<String, Value> {
    let answered_ms: Vec<f64> = joins.iter().map(|join| join.answered_ms).collect();
    let complete_ms: Option<Vec<f64>> = joins.iter().map(|join| join.complete_ms).collect();
    let readings = |figure: &str| joins.iter().filter_map(|join| join.cost.get(figure)).collect::<Vec<f64>>();
    let mut spreads = Map::new();
    let mut means = Map::new();
    for figure in ["server_cpu_ms_per_op", "server_a_cpu_ms_per_op", "server_b_cpu_ms_per_op"] {
        let spread = spread(&readings(figure));
        means.insert(figure.to_owned(), spread["mean"].clone());
        spreads.insert(figure.replace("_per_op", ""), spread);
    }
    // Most joins are too short to have one.
    means.insert("foreign_cores".to_owned(), spread(&readings("foreign_cores"))["mean"].clone());
    let first = joins.first().map(|join| {
        let (answered, complete) = (rounded(join.answered_ms), join.complete_ms.map(rounded));
        json!({"join_ms": answered, "join_full_state_ms": complete, "cpu": join.cost.clone().json()})
    });
    let joins = json!({
        "n": joins.len(),
        "first": first,
        "time": latencies(&answered_ms),
        "time_full_state": complete_ms.as_deref().map(latencies),
        "cpu": spreads,
    });
    Map::from_iter([
        ("join_ms".to_owned(), json!(rounded(mean(&answered_ms)))),
        // A mean of those that came would hide one that never did.
        ("join_full_state_ms".to_owned(), json!(complete_ms.as_deref().map(mean).map(rounded))),
        ("join_cpu".to_owned(), means.into()),
        ("joins".to_owned(), joins),
    ])
}
