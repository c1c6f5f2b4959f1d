//! Messages in a closed loop: each sender is its own user, and nobody syncs meanwhile.

use std::cell::Cell;
use std::num::NonZeroUsize;

use clap::Args;
use serde_json::json;

use super::Measured;
use crate::client::{RequestError, User};
use crate::drive::{Outcome, drive};
use crate::error::LoadError;
use crate::stage::{AT_ONCE, Stage};

#[derive(Debug, Args)]
pub(crate) struct Sizes {
    #[arg(long, default_value = "50")]
    users: NonZeroUsize,
    /// How many send at once
    #[arg(long, default_value = "10")]
    senders: NonZeroUsize,
    #[arg(long, default_value = "1000")]
    messages: NonZeroUsize,
    #[arg(long, default_value = "1")]
    rooms: NonZeroUsize,
    /// Members of each room where there are several; all users are in the only one
    #[arg(long, default_value = "5")]
    members: NonZeroUsize,
}

/// A room and its members.
#[derive(Clone)]
pub(super) struct Room {
    pub(super) id: String,
    pub(super) members: Vec<User>,
}

pub(super) async fn measure(stage: &Stage<'_>, sizes: &Sizes) -> Result<Measured, LoadError> {
    let (senders, messages) = (sizes.senders.get(), sizes.messages.get());
    let users = stage.users(sizes.users.get()).await?;
    let (rooms, members) = if sizes.rooms.get() == 1 {
        (vec![Room { id: stage.room_of(&users, "load: send").await?, members: users }], sizes.users.get())
    } else {
        (spread(stage, &users, sizes.rooms.get(), sizes.members.get()).await?, sizes.members.get())
    };
    // Not counted: the first requests open connections and fill the server's memory.
    load(stage, senders, (messages / 10).clamp(10, 100), &rooms, "w").await.all("messages of the warm-up")?;
    let meter = stage.meter();
    let sent = load(stage, senders, messages, &rooms, "m").await;
    let cpu = meter.stop(sent.succeeded(), stage.options.tail()).await;
    let room_version = match rooms.first().and_then(|room| Some((room.members.first()?, &room.id))) {
        Some((member, room)) => stage.a.room_version(member, room).await,
        None => None,
    };
    Ok(Measured {
        sizes: json!({
            "users": sizes.users, "senders": senders, "messages": messages, "rooms": rooms.len(),
            "members_per_room": members, "room_version": room_version,
        }),
        summary: format!(
            "{} room(s), {senders} senders: {:.1} sends/s, p99 {} ms, CPU ms a send {}, errors {}",
            rooms.len(),
            sent.per_second(),
            sent.latency()["p99_ms"],
            cpu.each(),
            sent.errors,
        ),
        result: json!({
            "sends_per_s": sent.per_second(), "latency": sent.latency(), "cpu": cpu.json(),
            "errors": sent.errors, "first_error": sent.first_error(),
        }),
    })
}

/// `senders` put `messages` messages into the rooms. In one room each sender is one member; of many rooms each sender has
/// its own, whose members take turns.
pub(super) async fn load(
    stage: &Stage<'_>,
    senders: usize,
    messages: usize,
    rooms: &[Room],
    phase: &str,
) -> Outcome<()> {
    let turns: Vec<Cell<usize>> = vec![Cell::new(0); senders];
    let send = async |sender: usize, number: usize| {
        let turn = turns.get(sender).map(|turn| turn.replace(turn.get() + 1)).unwrap_or_default();
        let (room, member) = place(sender, turn, senders, rooms.len());
        let room = rooms.get(room).ok_or_else(|| RequestError::missing("room"))?;
        let user = room.members.get(member % room.members.len().max(1));
        let user = user.ok_or_else(|| RequestError::missing("member"))?;
        let transaction = stage.unique(phase, number);
        stage.a.send(user, &room.id, &transaction, &stage.text(phase, number)).await
    };
    drive(senders, messages, send).await
}

/// The room, and which of its members, that a sender takes at its `turn`.
fn place(sender: usize, turn: usize, senders: usize, rooms: usize) -> (usize, usize) {
    if rooms <= 1 {
        return (0, sender);
    }
    if sender >= rooms {
        return (sender % rooms, turn);
    }
    // The rooms with the numbers sender, sender + senders, and so on.
    let own = (rooms - sender).div_ceil(senders);
    (sender + turn % own * senders, turn / own)
}

/// Rooms of the users, each with the next `members` of them.
async fn spread(stage: &Stage<'_>, users: &[User], rooms: usize, members: usize) -> Result<Vec<Room>, LoadError> {
    let members = members.min(users.len());
    let make = async |_, number: usize| {
        let members: Vec<User> = users.iter().cycle().skip(number * members).take(members).cloned().collect();
        let [owner, others @ ..] = members.as_slice() else {
            return Err(RequestError::missing("member"));
        };
        let id = stage.a.create_room(owner, "load: one of many").await?;
        for other in others {
            stage.a.join(other, &id, None).await?;
        }
        Ok(Room { id, members })
    };
    Ok(drive(AT_ONCE, rooms, make).await.all("rooms")?.values)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    #[test]
    fn in_one_room_each_sender_is_one_member() {
        assert_eq!([place(0, 9, 3, 1), place(2, 1, 3, 1)], [(0, 0), (0, 2)]);
    }

    #[test]
    fn no_two_senders_share_one_of_many_rooms_and_all_are_used() {
        let mut rooms: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        for sender in 0..4 {
            for turn in 0..30 {
                rooms.entry(place(sender, turn, 4, 10).0).or_default().insert(sender);
            }
        }
        assert_eq!(rooms.keys().copied().collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
        assert!(rooms.values().all(|senders| senders.len() == 1), "{rooms:?}");
    }

    #[test]
    fn the_members_of_a_room_take_turns() {
        let turns: Vec<_> = (0..6).map(|turn| place(1, turn, 4, 10)).collect();
        assert_eq!(turns, [(1, 0), (5, 0), (9, 0), (1, 1), (5, 1), (9, 1)]);
    }

    #[test]
    fn more_senders_than_rooms_share_them() {
        assert!((0..9).all(|sender| place(sender, 3, 9, 2).0 < 2));
    }
}
