//! What people do in a room: read, type, be there, take back, react.

use serde_json::json;

use crate::{
    http::{part, wait_for},
    person::{Person, wait_for_same_state},
    trusts::Trusts,
};

pub(crate) fn a_receipt_crosses(trusts: &Trusts) {
    for (host, guest) in trusts.both_ways() {
        let (owner, visitor, room) = Trusts::together(host, guest, "11");
        for (author, reader) in [(&owner, &visitor), (&visitor, &owner)] {
            let event = author.say(&room, "seen this?");
            reader.wait_for_text(&room, &event, "seen this?");
            reader.post(&format!("v3/rooms/{}/receipt/m.read/{}", part(&room), part(&event)), &json!({}));
            author.wait_in_sync("the receipt", |sync| {
                let events = sync["rooms"]["join"][&room]["ephemeral"]["events"].as_array()?.clone();
                let receipts = events.into_iter().find(|event| event["type"] == "m.receipt")?;
                receipts["content"][&event]["m.read"].get(&reader.id).map(drop)
            });
        }
    }
}

pub(crate) fn typing_crosses(trusts: &Trusts) {
    for (host, guest) in trusts.both_ways() {
        let (owner, visitor, room) = Trusts::together(host, guest, "11");
        for (typist, watcher) in [(&owner, &visitor), (&visitor, &owner)] {
            for typing in [true, false] {
                watcher.forget_syncs();
                let path = format!("v3/rooms/{}/typing/{}", part(&room), part(&typist.id));
                typist.put(&path, &json!({"typing": typing, "timeout": 60_000}));
                watcher.wait_in_sync("who types", |sync| {
                    let events = sync["rooms"]["join"][&room]["ephemeral"]["events"].as_array()?.clone();
                    let who =
                        events.into_iter().rfind(|event| event["type"] == "m.typing")?["content"]["user_ids"].clone();
                    (who.as_array()?.contains(&json!(typist.id)) == typing).then_some(())
                });
            }
        }
    }
}

pub(crate) fn presence_crosses(trusts: &Trusts) {
    for (host, guest) in trusts.both_ways() {
        let (owner, visitor, _room) = Trusts::together(host, guest, "11");
        for (who, watcher) in [(&owner, &visitor), (&visitor, &owner)] {
            let path = format!("v3/presence/{}/status", part(&who.id));
            who.put(&path, &json!({"presence": "online", "status_msg": "on call"}));
            watcher.wait_in_sync("the presence", |sync| {
                let events = sync["presence"]["events"].as_array()?.clone();
                let told = |event: &serde_json::Value| {
                    event["sender"] == who.id.as_str() && event["content"]["status_msg"] == "on call"
                };
                events.iter().any(told).then_some(())
            });
        }
    }
}

pub(crate) fn a_redaction_takes_the_words_away_on_both_sides(trusts: &Trusts) {
    for version in ["10", "11", "12"] {
        for (host, guest) in trusts.both_ways() {
            let (owner, visitor, room) = Trusts::together(host, guest, version);
            // The own message, each way; then the owner takes back the visitor's.
            for (author, reader, redactor) in
                [(&owner, &visitor, &owner), (&visitor, &owner, &visitor), (&visitor, &owner, &owner)]
            {
                let event = author.say(&room, "wrong patient");
                reader.wait_for_text(&room, &event, "wrong patient");
                redactor.put(
                    &format!("v3/rooms/{}/redact/{}/{}", part(&room), part(&event), crate::person::unique("txn")),
                    &json!({"reason": "wrong room"}),
                );
                for person in [author, reader] {
                    wait_for("the words are gone", || {
                        person.event(&room, &event).filter(|event| event["content"] == json!({}))
                    });
                }
            }
        }
    }
}

pub(crate) fn reactions_threads_and_edits_are_found_on_both_sides(trusts: &Trusts) {
    for (host, guest) in trusts.both_ways() {
        let (owner, visitor, room) = Trusts::together(host, guest, "11");
        let root = owner.say(&room, "bloods are back");
        visitor.wait_for_text(&room, &root, "bloods are back");
        let reaction = visitor.send(
            &room,
            "m.reaction",
            &json!({"m.relates_to": {"rel_type": "m.annotation", "event_id": root, "key": "ok"}}),
        );
        let reply = visitor.send(
            &room,
            "m.room.message",
            &json!({"msgtype": "m.text", "body": "reading", "m.relates_to": {"rel_type": "m.thread", "event_id": root}}),
        );
        for person in [&owner, &visitor] {
            for (kind, event) in [("m.annotation", &reaction), ("m.thread", &reply)] {
                wait_for("the relation is found", || {
                    let found = person.get(&format!("v1/rooms/{}/relations/{}/{kind}", part(&room), part(&root)));
                    let chunk = found["chunk"].as_array()?.clone();
                    chunk.iter().any(|found| found["event_id"] == event.as_str()).then_some(())
                });
            }
        }
    }
}

pub(crate) fn a_message_to_a_device_arrives_once(trusts: &Trusts) {
    for (host, guest) in trusts.both_ways() {
        let (from, to) = (Person::at(host, "from"), Person::at(guest, "to"));
        let body = json!({"messages": {&to.id: {"*": {"number": 7}}}});
        from.put(&format!("v3/sendToDevice/org.example.ping/{}", crate::person::unique("txn")), &body);
        to.wait_in_sync("the message", |sync| {
            let events = sync["to_device"]["events"].as_array()?.clone();
            events
                .iter()
                .any(|event| event["sender"] == from.id.as_str() && event["content"]["number"] == 7)
                .then_some(())
        });
    }
}

pub(crate) fn a_name_and_a_picture_are_seen_by_the_other_trust(trusts: &Trusts) {
    for (host, guest) in trusts.both_ways() {
        let (owner, visitor, room) = Trusts::together(host, guest, "11");
        for (who, watcher) in [(&owner, &visitor), (&visitor, &owner)] {
            who.put(&format!("v3/profile/{}/displayname", part(&who.id)), &json!({"displayname": "Dr Amira"}));
            let asked = watcher.get(&format!("v3/profile/{}", part(&who.id)));
            assert_eq!(asked["displayname"], "Dr Amira");
            wait_for("the name crosses into the room", || {
                watcher.state(&room, "m.room.member", &who.id).filter(|member| member["displayname"] == "Dr Amira")
            });
        }
        wait_for_same_state(&room, &[&owner, &visitor]);
    }
}
