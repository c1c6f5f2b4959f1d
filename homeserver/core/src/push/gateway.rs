//! What a push gateway is told of an event.
//!
//! SPEC: v1.19 Push Gateway API, `POST /_matrix/push/v1/notify`.

use std::time::Duration;

use matron_room::Pdu;
use ruma::UserId;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    pusher::Pusher,
    worker::{Job, News},
};
use crate::{
    Core, Error,
    ports::{OutboundRequest, PeerError, http_method::Method},
};

/// How long a gateway may take.
const TIMEOUT: Duration = Duration::from_secs(15);

/// The largest answer of a gateway, bytes.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

#[derive(Default, Deserialize)]
struct Answer {
    #[serde(default)]
    rejected: Vec<String>,
}

/// What became of a notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delivery {
    /// The gateway has it, or it is no longer wanted.
    Done,
    /// The gateway says that the push key is dead: the pusher is gone.
    Rejected,
    /// Worth another try.
    Failed,
}

impl Core {
    /// Tells one gateway of one event.
    pub(super) async fn deliver(&self, job: &Job) -> Result<Delivery, Error> {
        let pushers = self.pushers_of(&job.user)?;
        let Some(pusher) = pushers.iter().find(|pusher| pusher.id() == job.pusher && pusher.enabled) else {
            return Ok(Delivery::Done);
        };
        let unread = self.unread_rooms(&job.user)?;
        let known = self.push.badges.lock().get(&(job.user.clone(), job.pusher.clone())).copied();
        match &job.news {
            // What expired or was redacted while the gateway was away is not told any more, nor what the user may not read.
            News::Event(event, _) => match self.load_event(event.id())? {
                Some(event) if self.can_see_event(&job.user, &event)? && !event.content_gone => {}
                _ => return Ok(Delivery::Done),
            },
            News::Invite(invite, _) if !self.is_still_invited(&job.user, invite)? => return Ok(Delivery::Done),
            News::Invite(..) => {}
            News::Badge if known.is_none_or(|known| known == unread) => return Ok(Delivery::Done),
            News::Badge => {}
        }
        let Some(url) = pusher.url() else { return Ok(Delivery::Done) };
        let request = OutboundRequest {
            method: Method::Post,
            url: url.to_owned(),
            bearer: None,
            body: Some(self.notification(job, pusher, unread)?),
            timeout: TIMEOUT,
            max_bytes: MAX_ANSWER_BYTES,
            trusted: false,
        };
        match self.federation.outbound(request).await {
            Ok(response) => {
                let answer: Answer = serde_json::from_slice(&response.body).unwrap_or_default();
                if answer.rejected.contains(&pusher.pushkey) {
                    self.remove_pusher(&job.user, &job.pusher).await?;
                    return Ok(Delivery::Rejected);
                }
                self.push.badges.lock().put((job.user.clone(), job.pusher.clone()), unread);
                Ok(Delivery::Done)
            }
            Err(PeerError::Status { status, .. }) if (400..500).contains(&status) && status != 429 => {
                Ok(Delivery::Done)
            }
            Err(error) => {
                tracing::debug!(app.id = %pusher.app_id, %error, "a push gateway did not take a notification");
                Ok(Delivery::Failed)
            }
        }
    }

    fn notification(&self, job: &Job, pusher: &Pusher, unread: u64) -> Result<Value, Error> {
        let mut data = pusher.data.clone();
        if let Some(data) = data.as_object_mut() {
            data.remove("url");
        }
        let mut device = json!({
            "app_id": pusher.app_id,
            "pushkey": pusher.pushkey,
            "pushkey_ts": pusher.pushkey_ts,
            "data": data,
        });
        let mut notification = Map::new();
        notification.insert("counts".to_owned(), json!({ "unread": unread }));
        let told = match &job.news {
            News::Event(event, actions) => Some((&event.pdu, actions)),
            News::Invite(invite, actions) => Some((&invite.event, actions)),
            News::Badge => None,
        };
        if let Some((pdu, actions)) = told {
            if let Some(device) = device.as_object_mut() {
                device.insert("tweaks".to_owned(), Value::Object(actions.tweaks.clone()));
            }
            let is_loud = actions.highlight || actions.tweaks.contains_key("sound");
            notification.insert("prio".to_owned(), if is_loud { "high" } else { "low" }.into());
            notification.insert("event_id".to_owned(), pdu.event_id().as_str().into());
            notification.insert("room_id".to_owned(), pdu.room_id().as_str().into());
            // Privacy by default: push providers see ids only, unless the operator and the client want more.
            if self.settings.push_includes_content && !pusher.wants_ids_only() {
                let names = match &job.news {
                    News::Invite(invite, _) => invite.names.clone(),
                    News::Event(..) | News::Badge => self.names_of(pdu)?,
                };
                add_content(&mut notification, &job.user, pdu, names);
            }
        }
        notification.insert("devices".to_owned(), json!([device]));
        Ok(json!({ "notification": notification }))
    }

    /// What people call the room and the sender.
    fn names_of(&self, pdu: &Pdu) -> Result<Vec<(&'static str, String)>, Error> {
        let Some(room) = self.find_room(pdu.room_id())? else { return Ok(Vec::new()) };
        let mut room = room.lock();
        let mut read = |kind: &str, key: &str, field: &str| -> Result<Option<String>, Error> {
            let content = room.state_content::<Map<String, Value>>(self, kind, key)?;
            let value = content.as_ref().and_then(|content| content.get(field)?.as_str());
            Ok(value.filter(|value| !value.is_empty()).map(str::to_owned))
        };
        let alias = read("m.room.canonical_alias", "", "alias")?;
        let name = read("m.room.name", "", "name")?.or_else(|| alias.clone());
        let sender = read("m.room.member", pdu.sender().as_str(), "displayname")?;
        let named = [("room_name", name), ("room_alias", alias), ("sender_display_name", sender)];
        Ok(named.into_iter().filter_map(|(field, value)| Some((field, value?))).collect())
    }

    /// In how many rooms the user has something unread.
    fn unread_rooms(&self, user: &UserId) -> Result<u64, Error> {
        let mut rooms: u64 = 0;
        for room in self.joined_rooms(user)? {
            if self.count_unread(user, &room)?.total().notification_count > 0 {
                rooms = rooms.saturating_add(1);
            }
        }
        Ok(rooms)
    }
}

fn add_content(notification: &mut Map<String, Value>, user: &UserId, pdu: &Pdu, names: Vec<(&'static str, String)>) {
    notification.insert("id".to_owned(), pdu.event_id().as_str().into());
    notification.insert("type".to_owned(), pdu.kind().into());
    notification.insert("sender".to_owned(), pdu.sender().as_str().into());
    notification.insert("content".to_owned(), pdu.content_value());
    for (name, value) in names {
        notification.insert(name.to_owned(), value.into());
    }
    if let (Some(key), Some(membership)) = (pdu.state_key(), pdu.membership()) {
        notification.insert("user_is_target".to_owned(), (key == user.as_str()).into());
        notification.insert("membership".to_owned(), membership.into());
    }
}
