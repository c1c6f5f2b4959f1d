//! A public room with as many members as a test asks for, all of one adversary's making.

use std::sync::Arc;

use matron_room::{Pdu, RoomVersion};
use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId};
use serde_json::{Value, json};

use crate::{Adversary, Draft, Reply};

/// The room: nobody but the adversary knows it until somebody joins.
#[derive(Debug)]
pub struct Crowd {
    /// Its id.
    pub room: OwnedRoomId,
    /// Its state, in the order in which it came: create event, creator, power levels, join rule, the other members.
    pub state: Vec<Pdu>,
    owner: Arc<Adversary>,
}

impl Crowd {
    /// A room of this version with so many members, of whom the first two may set state.
    #[must_use]
    pub fn of(owner: &Arc<Adversary>, version: &'static RoomVersion, members: usize) -> Self {
        let room = OwnedRoomId::try_from(format!("!big:{}", owner.name())).unwrap();
        let mut crowd = Self { room, state: Vec::new(), owner: Arc::clone(owner) };
        let (creator, second) = (crowd.member(0), crowd.member(1));
        let join = json!({"membership": "join"});
        let create = json!({"creator": creator, "room_version": version.id});
        let levels = json!({"users": {creator.as_str(): 100, second.as_str(): 100}});
        crowd.add(version, &creator, "m.room.create", "", create, &[]);
        crowd.add(version, &creator, "m.room.member", creator.as_str(), join.clone(), &[0]);
        crowd.add(version, &creator, "m.room.power_levels", "", levels, &[0, 1]);
        crowd.add(version, &creator, "m.room.join_rules", "", json!({"join_rule": "public"}), &[0, 1, 2]);
        for number in 1..members {
            let member = crowd.member(number);
            crowd.add(version, &member, "m.room.member", member.as_str(), join.clone(), &[0, 2, 3]);
        }
        crowd
    }

    fn add(
        &mut self,
        version: &'static RoomVersion,
        sender: &OwnedUserId,
        kind: &str,
        key: &str,
        content: Value,
        authority: &[usize],
    ) {
        let draft =
            Draft::new(version, &self.room, sender, kind, content).state_key(key).authorised_by(self.ids(authority));
        let draft = match self.state.last() {
            Some(last) => draft.after([last]),
            None => draft.depth(1),
        };
        self.state.push(draft.seal(self.owner.key(), self.owner.name()));
    }

    fn ids(&self, at: &[usize]) -> Vec<OwnedEventId> {
        at.iter().map(|at| self.state[*at].event_id().to_owned()).collect()
    }

    /// The user id of a member, by number.
    #[must_use]
    pub fn member(&self, number: usize) -> OwnedUserId {
        OwnedUserId::try_from(format!("@user{number}:{}", self.owner.name())).unwrap()
    }

    /// What allows a member to speak: create event, power levels and own membership.
    #[must_use]
    pub fn authority(&self, member: usize) -> Vec<OwnedEventId> {
        self.ids(&[0, 2, if member == 0 { 1 } else { 3 + member }])
    }

    /// The whole room, as `send_join` gives it.
    #[must_use]
    pub fn whole(&self) -> Value {
        let told: Vec<Value> =
            self.state.iter().map(|event| serde_json::from_str(event.json().get()).unwrap()).collect();
        let chain: Vec<Value> = told.iter().take(4).cloned().collect();
        json!({"state": told, "auth_chain": chain, "origin": self.owner.name(), "members_omitted": false})
    }

    /// The adversary lets this user in, and answers a `send_join` with what `answer` gives.
    pub fn let_in(&self, user: &str, mut answer: impl FnMut() -> Value + Send + 'static) {
        let last = self.state.last().unwrap();
        let template = json!({
            "room_version": last.room_version().id,
            "event": {
                "type": "m.room.member", "room_id": self.room, "sender": user, "state_key": user,
                "content": {"membership": "join"}, "depth": last.depth() + 1,
                "prev_events": [last.event_id()], "auth_events": self.ids(&[0, 2, 3]),
            },
        });
        self.owner.answers(move |question| {
            if question.is("make_join") {
                Reply::Json(template.clone())
            } else if question.is("send_join") {
                Reply::Json(answer())
            } else if question.is("send") {
                Reply::Json(json!({"pdus": {}}))
            } else {
                Reply::Status(404)
            }
        });
    }
}
