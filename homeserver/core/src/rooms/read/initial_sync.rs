//! `GET /rooms/{roomId}/initialSync` and `GET /initialSync`: deprecated, and answered from what `/sync` uses.

use std::sync::Arc;

use matron_room::Membership;
use matron_storage::StreamPos;
use ruma::{RoomId, UserId};
use serde_json::{Value, json, value::RawValue};

use super::{messages::MessagesRequest, token::Gap};
use crate::{Core, Error, Requester, presence::PresenceUpdate, rooms::UserRoom, sync::SyncToken};

/// How many messages of each room are told.
const MAX_LIMIT: u64 = 100;

impl Core {
    /// A room in one answer: its state, its last messages, receipts and presence.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for anyone who never was in the room, unless it is world readable.
    pub async fn room_initial_sync(
        self: &Arc<Self>,
        requester: &Requester,
        room: &RoomId,
        limit: Option<u64>,
    ) -> Result<Value, Error> {
        let user = &requester.user_id;
        let request = MessagesRequest {
            from: Some(Gap::after((1 << 63) | self.position().0).min(self.sight_of(user, room)?)),
            limit: Some(limit.unwrap_or(10).min(MAX_LIMIT)),
            ..MessagesRequest::default()
        };
        let mut messages = self.room_messages(requester, room, &request).await?;
        messages.chunk.reverse();
        // The old form names the oldest end `start`.
        let (newest, oldest) = (messages.start.clone(), messages.end.clone().unwrap_or_else(|| "t0".to_owned()));
        let state = self.room_state(user, room)?;
        let standing = self.standing(user, room)?;
        let inside = standing.as_ref().is_some_and(|standing| standing.membership == Membership::Join);
        let joined = if inside { self.joined_members(room)? } else { Vec::new() };
        let presence = self.presence_in_old_form(joined.iter().map(|member| &**member));
        let ignored = self.ignored_users(user)?;
        let receipts =
            if inside { self.receipts_between(user, room, StreamPos(0), self.position(), &ignored)? } else { None };
        let listed = self.is_room_listed(room)?;
        Ok(json!({
            "room_id": room,
            "membership": standing.map_or(Membership::Leave, |standing| standing.membership).as_str(),
            "visibility": if listed { "public" } else { "private" },
            "messages": {"chunk": old_form(&messages.chunk)?, "start": oldest, "end": newest},
            "state": old_form(&self.for_client(requester, &state)?)?,
            "presence": presence,
            "receipts": receipts.into_iter().collect::<Vec<_>>(),
            "account_data": self.account_data_of_room(requester, room)?,
        }))
    }

    /// The presence of these users, as old clients read it: the content names its user.
    fn presence_in_old_form<'a>(&self, users: impl Iterator<Item = &'a UserId>) -> Vec<Value> {
        let told = |update: PresenceUpdate| {
            let mut content = json!(update.content);
            if let Value::Object(content) = &mut content {
                content.insert("user_id".to_owned(), json!(update.user_id));
            }
            json!({"type": "m.presence", "sender": update.user_id, "content": content})
        };
        self.presence_of_users(users).into_iter().map(told).collect()
    }

    /// Every room in one answer.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn initial_sync(
        self: &Arc<Self>,
        requester: &Requester,
        limit: Option<u64>,
        archived: bool,
    ) -> Result<Value, Error> {
        let user = &requester.user_id;
        let end = SyncToken { stream: self.position(), to_device: self.position(), ephemeral: self.ephemeral_serial() };
        let mut rooms = Vec::new();
        let mut receipts = Vec::new();
        for (room_id, standing) in self.user_rooms(user)?.iter() {
            if let Some(mut room) = self.initial_room(requester, room_id, standing, limit, archived).await? {
                if let Value::Object(room) = &mut room {
                    room.remove("presence");
                    if let Some(Value::Array(own)) = room.remove("receipts") {
                        receipts.extend(own.into_iter().map(|mut receipt| {
                            if let Value::Object(receipt) = &mut receipt {
                                receipt.insert("room_id".to_owned(), json!(room_id));
                            }
                            receipt
                        }));
                    }
                }
                rooms.push(room);
            }
        }
        let mut sharing = self.users_sharing_room(user)?;
        sharing.insert(user.to_owned());
        let presence = self.presence_in_old_form(sharing.iter().map(|member| &**member));
        let mut account_data = Vec::new();
        // SPEC: v1.19 Client-Server API, "GET /initialSync": the data "created by this user". Push rules that nobody changed are
        // the server's; clients of this endpoint ask for them at `/pushrules`.
        let created = self.account_data_since(user, Some(StreamPos(0)))?;
        for entry in created.into_iter().filter(|entry| entry.room_id.is_none()) {
            account_data.push(json!({"type": entry.kind, "content": serde_json::from_str::<Value>(entry.content.get()).unwrap_or_default()}));
        }
        Ok(json!({
            "end": end.to_string(),
            "rooms": rooms,
            "presence": presence,
            "receipts": receipts,
            "account_data": account_data,
        }))
    }

    async fn initial_room(
        self: &Arc<Self>,
        requester: &Requester,
        room_id: &RoomId,
        standing: &UserRoom,
        limit: Option<u64>,
        archived: bool,
    ) -> Result<Option<Value>, Error> {
        match standing.membership {
            Membership::Join => self.room_initial_sync(requester, room_id, limit).await.map(Some),
            Membership::Invite => {
                let events = self.stripped_for(requester, room_id, false)?;
                let invite = events.last();
                Ok(Some(json!({
                    "room_id": room_id,
                    "membership": "invite",
                    "inviter": standing.sender,
                    "invite": invite,
                    "invite_state": {"events": events},
                })))
            }
            Membership::Leave | Membership::Ban if archived && !standing.forgotten => {
                match self.room_initial_sync(requester, room_id, limit).await {
                    Ok(room) => Ok(Some(room)),
                    Err(Error::Forbidden(_)) => Ok(None),
                    Err(error) => Err(error),
                }
            }
            Membership::Leave | Membership::Ban | Membership::Knock => Ok(None),
        }
    }

    fn account_data_of_room(&self, requester: &Requester, room: &RoomId) -> Result<Vec<Value>, Error> {
        Ok(self
            .account_data_since(&requester.user_id, None)?
            .into_iter()
            .filter(|entry| entry.room_id.as_deref() == Some(room))
            .map(|entry| json!({"type": entry.kind, "content": serde_json::from_str::<Value>(entry.content.get()).unwrap_or_default()}))
            .collect())
    }
}

/// The events as these endpoints have always given them: the sender under a second name.
fn old_form(events: &[Box<RawValue>]) -> Result<Vec<Value>, Error> {
    events
        .iter()
        .map(|event| {
            let mut event: Value = serde_json::from_str(event.get())
                .map_err(|error| Error::internal(format!("an event is not JSON: {error}")))?;
            if let Value::Object(event) = &mut event
                && let Some(sender) = event.get("sender").cloned()
            {
                event.insert("user_id".to_owned(), sender);
            }
            Ok(event)
        })
        .collect()
}
