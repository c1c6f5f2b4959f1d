//! The first `/sync` of a device, whole and with lazy members, and the first sliding sync (MSC4186).
//!
//! Each reading is of a new device, since servers answer the same device again from memory.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use clap::Args;
use hyper::Method;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};

use super::Measured;
use crate::client::{RequestError, SyncRequest, User};
use crate::drive::drive;
use crate::error::{LoadError, with_causes};
use crate::figures::{latencies, mean, ms_since, rounded};
use crate::stage::{AT_ONCE, Stage};

/// What filling the rooms, and each log-in, set off is over.
const AFTER_FILLING: Duration = Duration::from_secs(1);
const AFTER_LOG_IN: Duration = Duration::from_millis(300);
/// A first sync leaves nothing to be done later.
const TAIL: Duration = Duration::from_millis(300);
/// MSC4186: the path under which servers offer it.
const SLIDING: &str = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync?timeout=0";

#[derive(Debug, Args)]
pub(crate) struct Sizes {
    #[arg(long, default_value = "50")]
    rooms: NonZeroUsize,
    /// Messages in each room
    #[arg(long, default_value_t = 20)]
    messages: usize,
    /// Further members of each room, besides its owner and the one who syncs
    #[arg(long, default_value_t = 3)]
    members: usize,
    /// How often each kind of sync is read
    #[arg(long, default_value = "5")]
    repeat: NonZeroUsize,
}

/// A kind of first sync.
struct Kind {
    name: &'static str,
    method: Method,
    path: String,
    body: Option<Value>,
}

pub(super) async fn measure(stage: &Stage<'_>, sizes: &Sizes) -> Result<Measured, LoadError> {
    let reader = reader(stage, sizes).await?;
    let mut result = Map::new();
    let mut summary = format!("{} rooms", sizes.rooms);
    for kind in kinds(stage, sizes.rooms.get()) {
        let figures = match read(stage, &kind, &reader, sizes.repeat.get()).await {
            Ok(figures) => figures,
            // A server may lack sliding sync, and no more than that.
            Err(error) if kind.body.is_some() => json!({"unsupported": with_causes(&error)}),
            Err(error) => return Err(error.into()),
        };
        summary.push_str(&format!("; {}: p50 {} ms", kind.name, figures["time"]["p50_ms"]));
        result.insert(kind.name.to_owned(), figures);
    }
    Ok(Measured {
        sizes: json!({
            "rooms": sizes.rooms, "messages": sizes.messages, "members": sizes.members + 2, "repeat": sizes.repeat,
        }),
        result: result.into(),
        summary,
    })
}

fn kinds(stage: &Stage<'_>, rooms: usize) -> [Kind; 4] {
    let whole = SyncRequest { presence: stage.options.presence, filter: None, timeout_ms: 0 };
    let lazy = r#"{"room":{"timeline":{"limit":20},"state":{"lazy_load_members":true}}}"#;
    let lazy = SyncRequest { filter: Some(lazy.to_owned()), ..whole.clone() };
    let sync = |name, request: SyncRequest| Kind { name, method: Method::GET, path: request.path(None), body: None };
    let sliding = |name, last, timeline_limit| {
        let body = Some(window(last, timeline_limit));
        Kind { name, method: Method::POST, path: SLIDING.to_owned(), body }
    };
    let last = rooms.saturating_sub(1);
    [
        sync("sync", whole),
        sync("sync_lazy", lazy),
        sliding("sliding_window20_timeline1", last.min(19), 1),
        sliding("sliding_all_timeline10", last, 10),
    ]
}

/// What a client asks of sliding sync when it starts: the rooms from the first to `last`.
fn window(last: usize, timeline_limit: usize) -> Value {
    json!({
        "conn_id": "load",
        "lists": {"all": {
            "ranges": [[0, last]],
            "timeline_limit": timeline_limit,
            "required_state": [
                ["m.room.create", ""], ["m.room.name", ""], ["m.room.encryption", ""], ["m.room.join_rules", ""],
                ["m.room.member", "$LAZY"], ["m.room.member", "$ME"],
            ],
        }},
        "extensions": {"to_device": {"enabled": true}, "e2ee": {"enabled": true}, "account_data": {"enabled": true}},
    })
}

/// The figures of one kind.
///
/// # Errors
///
/// Where a sync is not answered with 200.
async fn read(stage: &Stage<'_>, kind: &Kind, reader: &User, repeat: usize) -> Result<Value, RequestError> {
    let (mut times_ms, mut cpu_ms) = (Vec::new(), Vec::new());
    let (mut bytes, mut rooms) = (0, None);
    // A sync is too short to tell what others took meanwhile.
    let all = stage.meter_around();
    for _ in 0..repeat {
        let device = stage.a.log_in(reader).await?;
        tokio::time::sleep(AFTER_LOG_IN).await;
        let meter = stage.meter();
        let asked = Instant::now();
        let answer =
            stage.a.answer(kind.method.clone(), &kind.path, Some(&device.access_token), kind.body.as_ref()).await?;
        times_ms.push(ms_since(asked));
        cpu_ms.extend(meter.stop(1, TAIL).await.get("server_cpu_ms_per_op"));
        bytes = answer.len();
        rooms = count_rooms(&answer);
    }
    let foreign_cores = all.stop(times_ms.len(), Duration::ZERO).await.foreign_cores();
    let server_cpu_ms = if cpu_ms.is_empty() { None } else { Some(rounded(mean(&cpu_ms))) };
    Ok(json!({
        "first_ms": times_ms.first().copied().map(rounded),
        "time": latencies(&times_ms),
        "bytes": bytes,
        "rooms": rooms,
        "server_cpu_ms_per_sync": server_cpu_ms,
        "foreign_cores": foreign_cores,
    }))
}

/// How many rooms an answer has, of either kind of sync; none where it is neither.
fn count_rooms(answer: &[u8]) -> Option<usize> {
    #[derive(Deserialize)]
    struct Sync {
        rooms: Joined,
    }
    #[derive(Deserialize)]
    struct Joined {
        join: BTreeMap<String, IgnoredAny>,
    }
    #[derive(Deserialize)]
    struct Sliding {
        rooms: BTreeMap<String, IgnoredAny>,
    }
    let sync = serde_json::from_slice::<Sync>(answer).map(|sync| sync.rooms.join.len());
    sync.or_else(|_| serde_json::from_slice::<Sliding>(answer).map(|sliding| sliding.rooms.len())).ok()
}

/// A user in that many filled rooms, from the cache if it has one.
async fn reader(stage: &Stage<'_>, sizes: &Sizes) -> Result<User, LoadError> {
    let (rooms, messages, members) = (sizes.rooms.get(), sizes.messages, sizes.members);
    let users = stage.users(members + 1).await?;
    let key = format!("{rooms} rooms, {messages} messages, {members} members");
    let known = stage.known(|known| known.readers.get(&key).cloned());
    if let Some(reader) = known
        && stage.a.knows(&reader).await
    {
        return Ok(reader);
    }
    let reader = stage.a.register(&stage.unique("reader", 0)).await?;
    let fill = async |_, number: usize| fill(stage, &users, &reader, number, messages).await;
    drive(AT_ONCE, rooms, fill).await.all("filled rooms")?;
    stage.keep(|known| known.readers.insert(key, reader.clone()))?;
    tokio::time::sleep(AFTER_FILLING).await;
    Ok(reader)
}

/// A room of the users and the reader, in which the first two have spoken by turns.
async fn fill(
    stage: &Stage<'_>,
    users: &[User],
    reader: &User,
    number: usize,
    messages: usize,
) -> Result<(), RequestError> {
    let [owner, others @ ..] = users else {
        return Err(RequestError::missing("user"));
    };
    let room = stage.a.create_room(owner, &format!("load: first sync {number}")).await?;
    stage.a.join(reader, &room, None).await?;
    for other in others {
        stage.a.join(other, &room, None).await?;
    }
    for (message, user) in users.iter().take(2).cycle().take(messages).enumerate() {
        let transaction = stage.unique(&format!("i{number}x"), message);
        stage.a.send(user, &room, &transaction, &stage.text("i", message)).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rooms_are_counted_in_either_kind_of_answer() {
        assert_eq!(count_rooms(br#"{"rooms":{"join":{"!a:b":{},"!c:b":{}}}}"#), Some(2));
        assert_eq!(count_rooms(br#"{"pos":"1","rooms":{"!a:b":{"initial":true}}}"#), Some(1));
        assert_eq!(count_rooms(b"{}"), None);
    }
}
