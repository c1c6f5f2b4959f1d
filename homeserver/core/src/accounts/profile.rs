//! Profiles: display name, picture, and whatever fields else.
//!
//! SPEC: v1.16 Client-Server API, "Profiles".

use std::{sync::Arc, time::Duration};

use matron_storage::{Batch, Key, KeyReader, Order, Table};
use percent_encoding::utf8_percent_encode;
use ruma::UserId;
use serde_json::{Map, Value};

use crate::{
    Core, Error, Requester,
    house::{from_json, to_json},
    ports::{FederationRequest, PeerError, http_method::Method},
};

/// The largest profile, bytes of JSON.
const MAX_PROFILE_BYTES: usize = 64 * 1024;

/// The longest name of a field, bytes.
const MAX_FIELD_BYTES: usize = 255;

/// The longest display name, characters.
const MAX_DISPLAY_NAME: usize = 256;

/// The longest picture URL, bytes.
const MAX_AVATAR_URL: usize = 1000;

/// How long another server may take to tell a profile.
const PEER_TIMEOUT: Duration = Duration::from_secs(10);

impl Core {
    /// The profile of any user; of remote ones as their server tells it.
    ///
    /// # Errors
    /// `M_NOT_FOUND` for a user who does not exist; 502 when the other server does not answer.
    pub async fn profile(&self, user: &UserId, field: Option<&str>) -> Result<Map<String, Value>, Error> {
        let profile =
            if self.is_local_user(user) { self.local_profile(user)? } else { self.fetch_profile(user, field).await? };
        let Some(field) = field else { return Ok(profile) };
        if matches!(field, "displayname" | "avatar_url") && !profile.contains_key(field) {
            // Every user has these two, if only unset: clients have always been given `{}`.
            return Ok(Map::new());
        }
        let value = profile.get(field).cloned().ok_or_else(|| Error::not_found("the profile has no such field"))?;
        Ok(Map::from_iter([(field.to_owned(), value)]))
    }

    /// The profile of a local user.
    ///
    /// # Errors
    /// `M_NOT_FOUND` for a user who has no account, or closed it.
    pub fn local_profile(&self, user: &UserId) -> Result<Map<String, Value>, Error> {
        let is_appservice = self.appservices.services.iter().any(|service| *service.sender() == user);
        if !is_appservice && !self.account_exists(user)? {
            return Err(Error::not_found("there is no such user"));
        }
        self.profile_fields(user)
    }

    /// The fields of a profile as they are stored.
    pub(super) fn profile_fields(&self, user: &UserId) -> Result<Map<String, Value>, Error> {
        let rows = self.store.scan(Table::UserProfile, &Key::new().text(user).prefix(), Order::Ascending, 1000)?;
        rows.into_iter()
            .map(|(key, value)| {
                let mut reader = KeyReader::new(&key);
                let field = reader.text().and_then(|_| reader.text());
                let field = field.ok_or_else(|| Error::internal("user_profile holds a malformed key"))?;
                Ok((field, from_json(Table::UserProfile, &value)?))
            })
            .collect()
    }

    /// One field of a local user's profile.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn profile_field(&self, user: &UserId, field: &str) -> Result<Option<Value>, Error> {
        self.load(Table::UserProfile, &Key::new().text(user).text(field))
    }

    /// The display name of a local user.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn display_name(&self, user: &UserId) -> Result<Option<String>, Error> {
        Ok(self.profile_field(user, "displayname")?.and_then(|value| value.as_str().map(str::to_owned)))
    }

    /// The picture of a local user, as an `mxc:` URL.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn avatar_url(&self, user: &UserId) -> Result<Option<String>, Error> {
        Ok(self.profile_field(user, "avatar_url")?.and_then(|value| value.as_str().map(str::to_owned)))
    }

    /// The requester may change this user's profile: their own, or anyone's as an operator.
    ///
    /// # Errors
    /// `M_FORBIDDEN`; `M_USER_SUSPENDED`; `M_GUEST_ACCESS_FORBIDDEN`.
    pub async fn change_profile(
        self: &Arc<Self>,
        requester: &Requester,
        user: &UserId,
        field: &str,
        value: Option<Value>,
    ) -> Result<(), Error> {
        if *user != requester.user_id && !(requester.is_admin && self.is_local_user(user)) {
            return Err(Error::forbidden("you may only change your own profile"));
        }
        self.check_not_suspended(requester)?;
        self.set_profile_field(user, field, value).await
    }

    /// The field has this value, or none; rooms show the new name or picture.
    ///
    /// # Errors
    /// `M_INVALID_PARAM`, `M_KEY_TOO_LARGE`, `M_PROFILE_TOO_LARGE`.
    pub async fn set_profile_field(
        self: &Arc<Self>,
        user: &UserId,
        field: &str,
        value: Option<Value>,
    ) -> Result<(), Error> {
        check_field(field, value.as_ref())?;
        // An empty name or picture means none.
        let value = value.filter(|value| !value.is_null() && value.as_str() != Some(""));
        let before = self.profile_fields(user)?;
        if before.get(field) == value.as_ref() {
            return Ok(());
        }
        if let Some(value) = &value {
            let mut after = before;
            after.insert(field.to_owned(), value.clone());
            if to_json(&after)?.len() > MAX_PROFILE_BYTES {
                return Err(too_large("M_PROFILE_TOO_LARGE", "a profile has at most 64 KiB"));
            }
        }
        let mut batch = Batch::new();
        let key = Key::new().text(user).text(field);
        match &value {
            Some(value) => batch.put(Table::UserProfile, key, to_json(value)?),
            None => batch.delete(Table::UserProfile, key),
        };
        self.commit(batch).await?;
        if matches!(field, "displayname" | "avatar_url") {
            self.profile_changed(user).await?;
        }
        Ok(())
    }

    async fn fetch_profile(&self, user: &UserId, field: Option<&str>) -> Result<Map<String, Value>, Error> {
        let encode = |text: &str| utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string();
        let mut path = format!("/_matrix/federation/v1/query/profile?user_id={}", encode(user.as_str()));
        if let Some(field) = field {
            path.push_str("&field=");
            path.push_str(&encode(field));
        }
        let request = FederationRequest {
            destination: user.server_name().to_owned(),
            method: Method::Get,
            path_and_query: path,
            body: None,
            signed: true,
            timeout: PEER_TIMEOUT,
            max_bytes: 2 * MAX_PROFILE_BYTES,
        };
        match self.federation.request(request).await {
            Ok(response) => serde_json::from_slice(&response.body)
                .map_err(|_| Error::Peer("the other server's answer is not a profile".into())),
            Err(PeerError::Status { status: 403, .. }) => {
                Err(Error::forbidden("the other server does not tell this profile"))
            }
            Err(PeerError::Status { status: 404, .. }) => Err(Error::not_found("there is no such user")),
            Err(_) => Err(Error::Peer("the other server did not tell the profile".into())),
        }
    }
}

fn too_large(errcode: &'static str, message: &'static str) -> Error {
    Error::Custom { status: 400, errcode, message: message.into() }
}

fn check_field(field: &str, value: Option<&Value>) -> Result<(), Error> {
    if field.len() > MAX_FIELD_BYTES {
        return Err(too_large("M_KEY_TOO_LARGE", "the name of a profile field has at most 255 bytes"));
    }
    let grammar = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
    if !field.starts_with(|c: char| c.is_ascii_lowercase()) || !field.chars().all(grammar) {
        return Err(Error::invalid("the name of a profile field consists of a-z 0-9 . _ - and begins with a letter"));
    }
    let Some(value) = value.filter(|value| !value.is_null()) else { return Ok(()) };
    match (field, value) {
        ("displayname", Value::String(name)) if name.chars().count() > MAX_DISPLAY_NAME => {
            Err(Error::invalid("a display name has at most 256 characters"))
        }
        ("avatar_url", Value::String(url)) if url.len() > MAX_AVATAR_URL => {
            Err(Error::invalid("an avatar URL has at most 1000 bytes"))
        }
        ("displayname" | "avatar_url" | "m.tz", Value::String(_)) => Ok(()),
        ("displayname" | "avatar_url" | "m.tz", _) => Err(Error::invalid("this profile field is a text")),
        _ => Ok(()),
    }
}
