//! Rooms: creating, joining, sending, redacting, and what the homeserver says is due to expire.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{ClientError, Repeat, Session, segment};

#[derive(Deserialize)]
struct RoomId {
    room_id: String,
}

#[derive(Deserialize)]
struct EventId {
    event_id: String,
}

#[derive(Deserialize)]
struct JoinedMembers {
    joined: std::collections::BTreeMap<String, serde::de::IgnoredAny>,
}

/// One event whose lifetime is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DueEvent {
    /// Its room.
    pub room_id: String,
    /// The event to redact.
    pub event_id: String,
}

/// What is due, and when the next will be.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct RetentionDue {
    /// Events to redact now.
    #[serde(default)]
    pub events: Vec<DueEvent>,
    /// Milliseconds since the epoch at which the next event falls due.
    #[serde(default)]
    pub next_due_ms: Option<u64>,
}

fn room_path(room_id: &str, rest: &str) -> String {
    format!("/_matrix/client/v3/rooms/{}/{rest}", segment(room_id))
}

impl Session {
    /// The room exists afterwards; gives its id.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn create_room(&self, body: &Value) -> Result<String, ClientError> {
        let made: RoomId = self.post("/_matrix/client/v3/createRoom", body, Repeat::OnlyUntouched).await?;
        Ok(made.room_id)
    }

    /// `user_id` is invited afterwards.
    ///
    /// # Errors
    /// [`ClientError`]; `M_FORBIDDEN` where policy or power levels refuse, or the user is in the room.
    pub async fn invite(&self, room_id: &str, user_id: &str) -> Result<(), ClientError> {
        let body = json!({"user_id": user_id});
        self.post::<Value>(&room_path(room_id, "invite"), &body, Repeat::Idempotent).await.map(drop)
    }

    /// This user is in the room afterwards.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn join(&self, room_id: &str) -> Result<(), ClientError> {
        self.post::<Value>(&room_path(room_id, "join"), &json!({}), Repeat::Idempotent).await.map(drop)
    }

    /// This user is out of the room afterwards.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn leave(&self, room_id: &str) -> Result<(), ClientError> {
        self.post::<Value>(&room_path(room_id, "leave"), &json!({}), Repeat::Idempotent).await.map(drop)
    }

    /// The event is in the room afterwards, once however often it is sent with this transaction id.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn send_event(
        &self,
        room_id: &str,
        event_type: &str,
        txn_id: &str,
        content: &Value,
    ) -> Result<String, ClientError> {
        let path = room_path(room_id, &format!("send/{}/{}", segment(event_type), segment(txn_id)));
        let sent: EventId = self.put(&path, content).await?;
        Ok(sent.event_id)
    }

    /// The room's state has this event afterwards.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn send_state(
        &self,
        room_id: &str,
        event_type: &str,
        state_key: &str,
        content: &Value,
    ) -> Result<String, ClientError> {
        let path = room_path(room_id, &format!("state/{}/{}", segment(event_type), segment(state_key)));
        let sent: EventId = self.put(&path, content).await?;
        Ok(sent.event_id)
    }

    /// The content of a state event, or `None` where the room has none.
    ///
    /// # Errors
    /// [`ClientError`]; `M_FORBIDDEN` outside the room.
    pub async fn fetch_state(
        &self,
        room_id: &str,
        event_type: &str,
        state_key: &str,
    ) -> Result<Option<Value>, ClientError> {
        let path = room_path(room_id, &format!("state/{}/{}", segment(event_type), segment(state_key)));
        match self.get(&path, &[]).await {
            Ok(content) => Ok(Some(content)),
            Err(error) if error.is_status(404) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The ids of everyone joined to the room.
    ///
    /// # Errors
    /// [`ClientError`]; `M_FORBIDDEN` outside the room.
    pub async fn fetch_joined_members(&self, room_id: &str) -> Result<Vec<String>, ClientError> {
        let members: JoinedMembers = self.get(&room_path(room_id, "joined_members"), &[]).await?;
        Ok(members.joined.into_keys().collect())
    }

    /// The ids of everyone invited to the room.
    ///
    /// # Errors
    /// [`ClientError`]; `M_FORBIDDEN` outside the room.
    pub async fn fetch_invited_members(&self, room_id: &str) -> Result<Vec<String>, ClientError> {
        #[derive(Deserialize)]
        struct Member {
            state_key: String,
        }
        #[derive(Deserialize)]
        struct Members {
            chunk: Vec<Member>,
        }
        let query = [("membership", "invite".to_owned())];
        let members: Members = self.get(&room_path(room_id, "members"), &query).await?;
        Ok(members.chunk.into_iter().map(|member| member.state_key).collect())
    }

    /// The event is redacted afterwards.
    ///
    /// # Errors
    /// [`ClientError`]; `M_FORBIDDEN` without the power for it.
    pub async fn redact(
        &self,
        room_id: &str,
        event_id: &str,
        txn_id: &str,
        reason: &str,
    ) -> Result<String, ClientError> {
        let path = room_path(room_id, &format!("redact/{}/{}", segment(event_id), segment(txn_id)));
        let body = if reason.is_empty() { json!({}) } else { json!({"reason": reason}) };
        let sent: EventId = self.put(&path, &body).await?;
        Ok(sent.event_id)
    }

    /// What has expired in rooms where this user may redact, at most `limit` events.
    ///
    /// # Errors
    /// [`ClientError`]; `M_UNRECOGNIZED` on a homeserver that is not Matron.
    pub async fn fetch_retention_due(&self, limit: u32) -> Result<RetentionDue, ClientError> {
        self.get("/_matron/v1/retention/due", &[("limit", limit.to_string())]).await
    }

    /// The explanation of a policy decision, as the homeserver gives it.
    ///
    /// # Errors
    /// [`ClientError`]; `M_NOT_FOUND` for an unknown id, `M_UNRECOGNIZED` on a homeserver that is not Matron.
    pub async fn fetch_explanation(&self, decision_id: &str) -> Result<Value, ClientError> {
        self.get(&format!("/_matron/v1/policy/explain/{}", segment(decision_id)), &[]).await
    }
}
