//! Pushers: where a user's notifications go.

use std::sync::Arc;

use matron_storage::{Batch, Key, Order, Table};
use ruma::{DeviceId, OwnedDeviceId, OwnedUserId, UserId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Core, Error, Requester,
    house::{from_json, to_json},
};

/// How many pushers a user may have.
const MAX_PUSHERS: usize = 100;

/// Where a gateway listens. SPEC: v1.19 Push Gateway API.
const GATEWAY_PATH: &str = "/_matrix/push/v1/notify";

/// A pusher, as it is stored and shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pusher {
    /// `http`.
    pub kind: String,
    /// The app.
    pub app_id: String,
    /// Unique within the app.
    pub pushkey: String,
    /// What people call the app.
    #[serde(default)]
    pub app_display_name: String,
    /// What people call the device.
    #[serde(default)]
    pub device_display_name: String,
    /// Which rules the device wants; deprecated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile_tag: Option<String>,
    /// The user's language.
    #[serde(default)]
    pub lang: String,
    /// `url`, `format` and whatever the gateway wants back.
    pub data: Value,
    /// Whether it is told anything. MSC: 3881, `org.matrix.msc3881.enabled`.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// The device that set it: it goes with the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_id: Option<OwnedDeviceId>,
    /// When it was set, seconds since the epoch.
    #[serde(default)]
    pub pushkey_ts: u64,
}

fn yes() -> bool {
    true
}

/// Names a user's pusher.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct PusherId {
    pub(super) app_id: String,
    pub(super) pushkey: String,
}

impl Pusher {
    pub(super) fn id(&self) -> PusherId {
        PusherId { app_id: self.app_id.clone(), pushkey: self.pushkey.clone() }
    }

    pub(super) fn url(&self) -> Option<&str> {
        self.data.get("url").and_then(Value::as_str)
    }

    /// Whether the gateway must not see more than ids.
    pub(super) fn wants_ids_only(&self) -> bool {
        self.data.get("format").and_then(Value::as_str) == Some("event_id_only")
    }
}

/// The body of `POST /pushers/set`.
#[derive(Clone, Debug, Deserialize)]
pub struct PusherRequest {
    /// `http`; null removes the pusher.
    pub kind: Option<String>,
    /// See [`Pusher`].
    pub app_id: String,
    /// See [`Pusher`].
    pub pushkey: String,
    /// See [`Pusher`].
    pub app_display_name: Option<String>,
    /// See [`Pusher`].
    pub device_display_name: Option<String>,
    /// See [`Pusher`].
    pub profile_tag: Option<String>,
    /// See [`Pusher`].
    pub lang: Option<String>,
    /// See [`Pusher`].
    pub data: Option<Value>,
    /// Other users' pushers of this app and key stay.
    #[serde(default)]
    pub append: bool,
}

fn pusher_key(user: &UserId, id: &PusherId) -> Key {
    Key::new().text(user).text(&id.app_id).text(&id.pushkey)
}

/// By app and key, whose pushers there are.
fn index_key(id: &PusherId) -> Key {
    Key::new().text("pusher").text(&id.app_id).text(&id.pushkey)
}

impl Core {
    /// The user's pushers. Warm users read no disk.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn pushers_of(&self, user: &UserId) -> Result<Arc<Vec<Pusher>>, Error> {
        let generation = match self.push.pushers.find(user) {
            Ok(pushers) => return Ok(pushers),
            Err(generation) => generation,
        };
        let rows =
            self.store.scan(Table::UserPusher, &Key::new().text(user).prefix(), Order::Ascending, MAX_PUSHERS)?;
        let pushers: Result<Vec<Pusher>, Error> =
            rows.iter().map(|(_, value)| from_json(Table::UserPusher, value)).collect();
        let pushers = Arc::new(pushers?);
        self.push.pushers.remember(generation, user, Arc::clone(&pushers));
        Ok(pushers)
    }

    /// The pusher is as the client wished: set, changed or gone.
    ///
    /// # Errors
    /// `M_MISSING_PARAM`; `M_INVALID_PARAM` for a kind or URL that is not allowed, or one pusher too many.
    pub async fn set_pusher(&self, requester: &Requester, request: PusherRequest) -> Result<(), Error> {
        let user = &requester.user_id;
        if request.app_id.len() > 64 || request.pushkey.len() > 512 {
            return Err(Error::invalid("an app id has at most 64 bytes, a push key 512"));
        }
        let id = PusherId { app_id: request.app_id.clone(), pushkey: request.pushkey.clone() };
        let Some(kind) = request.kind.clone() else { return self.remove_pusher(user, &id).await };
        let pusher = self.checked_pusher(requester, &kind, &request)?;
        if self.pushers_of(user)?.iter().filter(|known| known.id() != id).count() >= MAX_PUSHERS {
            return Err(Error::invalid(format!("a user has at most {MAX_PUSHERS} pushers")));
        }
        if !request.append {
            for other in self.users_of_pusher(&id)? {
                if other != *user {
                    self.remove_pusher(&other, &id).await?;
                }
            }
        }
        let mut batch = Batch::new();
        batch.put(Table::UserPusher, pusher_key(user, &id), to_json(&pusher)?);
        batch.put(Table::Misc, index_key(&id).text(user), to_json(&true)?);
        let changing = self.push.pushers.begin(user);
        self.push.reached.add(user);
        self.commit(batch).await?;
        drop(changing);
        Ok(())
    }

    fn checked_pusher(&self, requester: &Requester, kind: &str, request: &PusherRequest) -> Result<Pusher, Error> {
        let needed = |value: &Option<String>, name: &str| {
            value.clone().ok_or_else(|| Error::MissingParam(format!("`{name}` is missing").into()))
        };
        if kind != "http" {
            return Err(Error::invalid("the only kind of pusher here is `http`"));
        }
        let data = request.data.clone().ok_or_else(|| Error::MissingParam("`data` is missing".into()))?;
        let url = data.get("url").and_then(Value::as_str);
        let url = url.ok_or_else(|| Error::MissingParam("`data.url` is missing".into()))?;
        let path = url.strip_prefix("https://").and_then(|rest| rest.find('/').and_then(|at| rest.get(at..)));
        if path.is_none_or(|path| path.split('?').next() != Some(GATEWAY_PATH)) {
            return Err(Error::invalid("`data.url` is an https URL with the path /_matrix/push/v1/notify"));
        }
        if to_json(&data)?.len() > 16 * 1024 {
            return Err(Error::invalid("`data` has at most 16 KiB"));
        }
        Ok(Pusher {
            kind: kind.to_owned(),
            app_id: request.app_id.clone(),
            pushkey: request.pushkey.clone(),
            app_display_name: needed(&request.app_display_name, "app_display_name")?,
            device_display_name: needed(&request.device_display_name, "device_display_name")?,
            profile_tag: request.profile_tag.clone(),
            lang: needed(&request.lang, "lang")?,
            data,
            enabled: true,
            device_id: requester.device_id.clone(),
            pushkey_ts: self.now_ms() / 1000,
        })
    }

    fn users_of_pusher(&self, id: &PusherId) -> Result<Vec<OwnedUserId>, Error> {
        let prefix = index_key(id);
        let rows = self.store.scan(Table::Misc, &prefix.prefix(), Order::Ascending, 1000)?;
        Ok(rows
            .iter()
            .filter_map(|(key, _)| {
                let rest = key.get(prefix.as_bytes().len()..)?;
                OwnedUserId::try_from(matron_storage::KeyReader::new(rest).text()?).ok()
            })
            .collect())
    }

    /// The pusher is gone.
    pub(super) async fn remove_pusher(&self, user: &UserId, id: &PusherId) -> Result<(), Error> {
        let mut batch = Batch::new();
        batch.delete(Table::UserPusher, pusher_key(user, id));
        batch.delete(Table::Misc, index_key(id).text(user));
        let changing = self.push.pushers.begin(user);
        self.commit(batch).await?;
        drop(changing);
        Ok(())
    }

    /// The pushers that a device set go with it, in this batch. After the commit, call [`Core::forget_pushers`].
    pub(crate) fn remove_pushers_of_device(
        &self,
        batch: &mut Batch,
        user: &UserId,
        device: &DeviceId,
    ) -> Result<(), Error> {
        for pusher in self.pushers_of(user)?.iter() {
            if pusher.device_id.as_deref() == Some(device) {
                batch.delete(Table::UserPusher, pusher_key(user, &pusher.id()));
                batch.delete(Table::Misc, index_key(&pusher.id()).text(user));
            }
        }
        Ok(())
    }

    /// The user's pushers are read from the store the next time.
    pub(crate) fn forget_pushers(&self, user: &UserId) {
        self.push.pushers.forget(user);
    }
}
