//! Registering and logging in the application service's users.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{ClientError, Repeat, Session, segment};
use crate::secret::Secret;

/// A device of one of our users, with its access token.
#[derive(Debug, Clone, Deserialize)]
pub struct Login {
    /// The user.
    pub user_id: String,
    /// The device.
    pub device_id: String,
    /// The device's own token.
    pub access_token: Secret,
}

fn localpart(user_id: &str) -> &str {
    user_id.trim_start_matches('@').split(':').next().unwrap_or_default()
}

impl Session {
    /// The user exists afterwards; an existing one is left as it is.
    ///
    /// Spec: `POST /_matrix/client/v3/register` with `m.login.application_service`.
    ///
    /// # Errors
    /// [`ClientError`]; `M_EXCLUSIVE` where the name is outside the registration's namespaces.
    pub async fn register(&self) -> Result<(), ClientError> {
        let body = json!({
            "type": "m.login.application_service",
            "username": localpart(&self.user_id),
            "inhibit_login": true,
        });
        // Registration takes no masquerade: the user may not exist yet.
        let bare = Session { masquerade: false, ..self.clone() };
        let path = "/_matrix/client/v3/register";
        match bare.post::<Value>(path, &body, Repeat::Idempotent).await {
            Err(error) if !error.is_errcode("M_USER_IN_USE") => Err(error),
            _ => Ok(()),
        }
    }

    /// A new device is logged in afterwards.
    ///
    /// Spec: `POST /_matrix/client/v3/login` with `m.login.application_service`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn login(&self, device_id: &str, device_name: &str) -> Result<Login, ClientError> {
        let body = json!({
            "type": "m.login.application_service",
            "identifier": {"type": "m.id.user", "user": self.user_id},
            "device_id": device_id,
            "initial_device_display_name": device_name,
        });
        let bare = Session { masquerade: false, ..self.clone() };
        bare.post("/_matrix/client/v3/login", &body, Repeat::Idempotent).await
    }

    /// Who the homeserver takes us for; proves that a stored token still works.
    ///
    /// # Errors
    /// [`ClientError`]; `M_UNKNOWN_TOKEN` where the device is gone.
    pub async fn whoami(&self) -> Result<Value, ClientError> {
        self.get("/_matrix/client/v3/account/whoami", &[]).await
    }

    /// The user's display name is `name` afterwards.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn set_displayname(&self, name: &str) -> Result<(), ClientError> {
        let path = format!("/_matrix/client/v3/profile/{}/displayname", segment(&self.user_id));
        self.put::<Value>(&path, &json!({"displayname": name})).await.map(drop)
    }

    /// The room version that the homeserver gives to new rooms.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn default_room_version(&self) -> Result<Option<String>, ClientError> {
        let answer: Value = self.get("/_matrix/client/v3/capabilities", &[]).await?;
        Ok(answer.pointer("/capabilities/m.room_versions/default").and_then(Value::as_str).map(str::to_owned))
    }

    /// The homeserver has proven that it reaches this application service.
    ///
    /// # Errors
    /// [`ClientError`]; `M_CONNECTION_FAILED` or `M_BAD_STATUS` where it does not.
    pub async fn ping_appservice(&self, id: &str, transaction_id: &str) -> Result<(), ClientError> {
        let path = format!("/_matrix/client/v1/appservice/{}/ping", segment(id));
        let body = json!({"transaction_id": transaction_id});
        let bare = Session { masquerade: false, ..self.clone() };
        bare.post::<Value>(&path, &body, Repeat::Never).await.map(drop)
    }
}
