//! Rooms: creating and joining them, sending, and asking what is in them.

use std::collections::BTreeMap;

use hyper::Method;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::{Homeserver, RequestError, User, encoded};

#[derive(Deserialize)]
struct Created {
    room_id: String,
}

#[derive(Deserialize)]
struct Create {
    room_version: Option<String>,
}

#[derive(Deserialize)]
struct Joined {
    joined: BTreeMap<String, IgnoredAny>,
}

impl Homeserver {
    /// A new room that anybody may join; its id.
    pub(crate) async fn create_room(&self, user: &User, name: &str) -> Result<String, RequestError> {
        let mut body = json!({"preset": "public_chat", "visibility": "private", "name": name});
        if let Some(version) = &self.room_version {
            body["room_version"] = json!(version);
        }
        let path = "/_matrix/client/v3/createRoom";
        let (created, _) = self.parsed::<Created>(Method::POST, path, Some(&user.access_token), Some(&body)).await?;
        Ok(created.room_id)
    }

    /// The user is in the room, which another server knows if `via` names it.
    pub(crate) async fn join(&self, user: &User, room: &str, via: Option<&str>) -> Result<(), RequestError> {
        // `server_name` is what servers before Matrix 1.12 read.
        let query = via.map(|via| format!("?via={0}&server_name={0}", encoded(via))).unwrap_or_default();
        let path = format!("/_matrix/client/v3/join/{}{query}", encoded(room));
        self.answer(Method::POST, &path, Some(&user.access_token), Some(&json!({}))).await.map(drop)
    }

    /// A text message is in the room.
    pub(crate) async fn send(
        &self,
        user: &User,
        room: &str,
        transaction: &str,
        text: &str,
    ) -> Result<(), RequestError> {
        let path = format!("/_matrix/client/v3/rooms/{}/send/m.room.message/{}", encoded(room), encoded(transaction));
        let body = json!({"msgtype": "m.text", "body": text});
        self.answer(Method::PUT, &path, Some(&user.access_token), Some(&body)).await.map(drop)
    }

    /// A piece of state of a type that no server knows is in the room.
    pub(crate) async fn put_state(
        &self,
        user: &User,
        room: &str,
        key: &str,
        content: &Value,
    ) -> Result<(), RequestError> {
        let path = format!("/_matrix/client/v3/rooms/{}/state/org.example.load/{}", encoded(room), encoded(key));
        self.answer(Method::PUT, &path, Some(&user.access_token), Some(content)).await.map(drop)
    }

    /// The room's version, where the server tells.
    pub(crate) async fn room_version(&self, user: &User, room: &str) -> Option<String> {
        let path = format!("/_matrix/client/v3/rooms/{}/state/m.room.create/", encoded(room));
        let (create, _) = self.parsed::<Create>(Method::GET, &path, Some(&user.access_token), None).await.ok()?;
        Some(create.room_version.unwrap_or_else(|| "1".to_owned()))
    }

    /// How many are in the room.
    pub(crate) async fn count_joined(&self, user: &User, room: &str) -> Result<usize, RequestError> {
        let path = format!("/_matrix/client/v3/rooms/{}/joined_members", encoded(room));
        let (members, _) = self.parsed::<Joined>(Method::GET, &path, Some(&user.access_token), None).await?;
        Ok(members.joined.len())
    }
}
