//! Kicks, bans, power and walls between the trusts.

use serde_json::json;

use crate::{
    http::{part, wait_for},
    person::{Person, wait_for_same_state},
    trusts::Trusts,
};

pub(crate) fn who_is_kicked_may_come_back_and_who_is_banned_may_not(trusts: &Trusts) {
    for (host, guest) in trusts.both_ways() {
        let (owner, visitor, room) = Trusts::together(host, guest, "11");
        let colleague = Person::at(guest, "colleague");
        colleague.join(&room, &host.name);
        visitor.forget_syncs();
        owner.act("kick", &room, &visitor.id);
        colleague.wait_for_membership(&room, &visitor.id, "leave");
        visitor.wait_in_sync("the own leave", |sync| sync["rooms"]["leave"].get(&room).map(drop));
        visitor.join(&room, &host.name);
        owner.wait_for_membership(&room, &visitor.id, "join");
        owner.act("ban", &room, &visitor.id);
        colleague.wait_for_membership(&room, &visitor.id, "ban");
        let path = format!("v3/join/{}?via={}", part(&room), part(&host.name));
        assert_eq!(visitor.ask("POST", &path, &json!({})).status, 403);
        owner.act("unban", &room, &visitor.id);
        colleague.wait_for_membership(&room, &visitor.id, "leave");
        visitor.join(&room, &host.name);
        wait_for_same_state(&room, &[&owner, &visitor, &colleague]);
    }
}

pub(crate) fn power_given_across_the_trusts_counts_and_power_not_given_does_not(trusts: &Trusts) {
    for version in ["10", "12"] {
        for (host, guest) in trusts.both_ways() {
            let (owner, visitor, room) = Trusts::together(host, guest, version);
            let path = format!("v3/rooms/{}/state/m.room.topic/", part(&room));
            assert_eq!(visitor.refused("PUT", &path, &json!({"topic": "mine"})), "M_FORBIDDEN");
            let mut levels = owner.state(&room, "m.room.power_levels", "").unwrap();
            levels["users"][&visitor.id] = json!(50);
            let given = owner.set_state(&room, "m.room.power_levels", "", &levels);
            wait_for("the power crosses", || visitor.event(&room, &given));
            visitor.set_state(&room, "m.room.topic", "", &json!({"topic": "ours"}));
            wait_for("the topic crosses", || {
                owner.state(&room, "m.room.topic", "").filter(|topic| topic["topic"] == "ours")
            });
            wait_for_same_state(&room, &[&owner, &visitor]);
        }
    }
}

pub(crate) fn a_server_that_the_rooms_acl_denies_is_not_heard_any_more(trusts: &Trusts) {
    let (owner, visitor, room) = Trusts::together(&trusts.matron, &trusts.synapse, "11");
    // Both trusts are `localhost` to an ACL, which knows no ports: everything is denied, the own server included,
    // whose own users are not asked.
    let denied = owner.set_state(&room, "m.room.server_acl", "", &json!({"allow": ["other.example"], "deny": []}));
    wait_for("the wall crosses", || visitor.state(&room, "m.room.server_acl", ""));
    let unheard = visitor.say(&room, "can you hear me");
    let answer = owner.say(&room, "nobody speaks");
    // What Synapse sends in another room afterwards arrives: so the message before it was refused, not late.
    let (other, guest, elsewhere) = Trusts::together(&trusts.matron, &trusts.synapse, "11");
    let heard = guest.say(&elsewhere, "here I am");
    other.wait_for_text(&elsewhere, &heard, "here I am");
    assert!(owner.event(&room, &unheard).is_none());
    assert!(owner.event(&room, &answer).is_some() && owner.event(&room, &denied).is_some());
}
