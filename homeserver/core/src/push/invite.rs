//! An invitation to a room that this server is not in reaches the invited.

use std::sync::Arc;

use matron_room::{Membership, Pdu};
use ruma::UserId;
use serde::Deserialize;
use serde_json::{Map, Value, value::RawValue};

use super::{
    evaluate::{Context, EventView, evaluate},
    worker::{Job, News},
};
use crate::{Core, Error};

/// An invitation, as a push gateway may be told of it.
#[derive(Clone, Debug)]
pub(super) struct Invite {
    pub(super) event: Pdu,
    /// What people call the room and the sender, as far as the inviting server shows it.
    pub(super) names: Vec<(&'static str, String)>,
}

#[derive(Deserialize)]
struct Stripped {
    #[serde(rename = "type")]
    kind: String,
    state_key: String,
    content: Map<String, Value>,
}

impl Core {
    /// The invited user's pushers are queued. Called after the commit; cannot fail the request.
    pub(crate) fn push_invite(&self, user: &UserId, event: &Pdu, state: &[Box<RawValue>]) {
        if let Err(error) = self.notify_invited(user, event, state) {
            tracing::warn!(%error, event.id = %event.event_id(), "push rules could not be evaluated");
        }
    }

    fn notify_invited(&self, user: &UserId, event: &Pdu, state: &[Box<RawValue>]) -> Result<(), Error> {
        let pushers = self.pushers_of(user)?;
        if pushers.is_empty() || self.ignored_users(user)?.contains(event.sender()) {
            return Ok(());
        }
        let rules = self.compiled_rules(user)?;
        let context = Context::default();
        let Some(actions) = evaluate(&rules, user, &EventView::new(event), &context) else { return Ok(()) };
        if !actions.notify {
            return Ok(());
        }
        let invite = Arc::new(Invite { event: event.clone(), names: names(event.sender(), state) });
        for pusher in pushers.iter().filter(|pusher| pusher.enabled) {
            self.push.jobs.add(Job {
                user: user.to_owned(),
                pusher: pusher.id(),
                news: News::Invite(Arc::clone(&invite), Arc::clone(&actions)),
            });
        }
        Ok(())
    }

    /// Whether the user still has this invitation.
    pub(super) fn is_still_invited(&self, user: &UserId, invite: &Invite) -> Result<bool, Error> {
        let standing = self.standing(user, invite.event.room_id())?;
        Ok(standing.is_some_and(|standing| standing.membership == Membership::Invite))
    }
}

fn names(sender: &UserId, state: &[Box<RawValue>]) -> Vec<(&'static str, String)> {
    let state: Vec<Stripped> = state.iter().filter_map(|raw| serde_json::from_str(raw.get()).ok()).collect();
    let read = |kind: &str, key: &str, field: &str| {
        let event = state.iter().find(|event| event.kind == kind && event.state_key == key)?;
        event.content.get(field)?.as_str().filter(|value| !value.is_empty()).map(str::to_owned)
    };
    let alias = read("m.room.canonical_alias", "", "alias");
    let name = read("m.room.name", "", "name").or_else(|| alias.clone());
    let sender = read("m.room.member", sender.as_str(), "displayname");
    let named = [("room_name", name), ("room_alias", alias), ("sender_display_name", sender)];
    named.into_iter().filter_map(|(field, value)| Some((field, value?))).collect()
}
