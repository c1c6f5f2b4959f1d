//! Credentials of our own users, for homeservers that do not put them into member events themselves.

use std::collections::BTreeMap;

use matron_policy::CREDENTIAL_FIELD;
use serde_json::{Map, Value};

use crate::client::{Client, ClientError};

/// Credentials by user id; each is the object of one credential file.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    by_user: BTreeMap<String, Value>,
}

impl Credentials {
    /// These users carry these credentials.
    #[must_use]
    pub fn new(by_user: BTreeMap<String, Value>) -> Self {
        Self { by_user }
    }

    /// The user is in the room afterwards, and its member event carries its credential, if it has one.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn join(&self, client: &Client, user_id: &str, room_id: &str) -> Result<(), ClientError> {
        client.as_user(user_id).join(room_id).await?;
        self.show(client, user_id, room_id).await
    }

    /// The member event of the user, who is in the room, carries its credential, if it has one.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn show(&self, client: &Client, user_id: &str, room_id: &str) -> Result<(), ClientError> {
        let Some(credential) = self.by_user.get(user_id) else {
            return Ok(());
        };
        let session = client.as_user(user_id);
        let member = session.fetch_state(room_id, "m.room.member", user_id).await?;
        let mut content = match member {
            Some(Value::Object(content)) => content,
            _ => Map::from_iter([("membership".to_owned(), Value::from("join"))]),
        };
        if content.get(CREDENTIAL_FIELD) == Some(credential) {
            return Ok(());
        }
        content.insert(CREDENTIAL_FIELD.to_owned(), credential.clone());
        session.send_state(room_id, "m.room.member", user_id, &Value::Object(content)).await?;
        Ok(())
    }
}
