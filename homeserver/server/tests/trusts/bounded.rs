//! What a bounded room, and content with a lifetime, mean to a trust with Synapse.

use std::path::Path;

use serde_json::{Value, json};

use crate::{
    authority::Authority,
    http::{part, request, wait_for},
    install,
    person::{Person, unique, wait_for_same_state},
    trust::{Trust, matron, new_folder},
};

/// How long messages live in these rooms.
const LIFETIME_MS: u64 = 4_000;
/// How long they live where nobody waits for their end.
const LONG_LIFETIME_MS: u64 = 24 * 60 * 60 * 1000;
const MEGOLM: &str = "m.megolm.v1.aes-sha2";

/// A Matron and a Synapse of one federation: `NGT` has the Matron, `RVS` has the Synapse.
struct Federation {
    matron: Trust,
    synapse: Trust,
    folder: tempfile::TempDir,
}

impl Federation {
    fn start() -> Option<Self> {
        let python = install::python()?;
        let folder = new_folder();
        let authority = Authority::found(folder.path());
        let synapse = Trust::synapse(&authority, &folder.path().join("synapse"), python);
        let north = Trust::matron(&authority, &folder.path().join("matron"));
        let public_key = register(folder.path(), &[("NGT", &north.name), ("RVS", &synapse.name)]);
        north.configure(&json!({"policy": {
            "register_file": folder.path().join("register.json"),
            "register_keys": {"test": public_key},
            "organisation": "NGT",
            "officers": [format!("@governance:{}", north.name)],
        }}));
        std::thread::scope(|scope| {
            scope.spawn(|| synapse.start());
            north.start();
        });
        Some(Self { matron: north, synapse, folder })
    }

    /// A room of these organisations; anyone may ask to come in, words die.
    fn bounded_room(bot: &Person, organisations: &[&str], credential_required: bool) -> String {
        let state = |kind: &str, content: Value| json!({"type": kind, "state_key": "", "content": content});
        bot.create_room(&json!({
            "preset": "private_chat",
            "initial_state": [
                state("m.room.join_rules", json!({"join_rule": "knock"})),
                state("m.room.guest_access", json!({"guest_access": "forbidden"})),
                state("m.room.retention", json!({"max_lifetime": LIFETIME_MS})),
                state("org.matron.room.policy", json!({
                    "organisations": organisations,
                    "credential_required": credential_required,
                    "encryption_required": false,
                    "max_lifetime_ms": LIFETIME_MS,
                })),
            ],
        }))
    }
}

/// An encrypted room of both organisations.
fn ward(bot: &Person) -> String {
    let state = |kind: &str, content: Value| json!({"type": kind, "state_key": "", "content": content});
    bot.create_room(&json!({
        "preset": "private_chat",
        "initial_state": [
            state("m.room.guest_access", json!({"guest_access": "forbidden"})),
            state("m.room.encryption", json!({"algorithm": MEGOLM, "rotation_period_ms": LONG_LIFETIME_MS})),
            state("m.room.retention", json!({"max_lifetime": LONG_LIFETIME_MS})),
            state("org.matron.room.policy", json!({
                "organisations": ["NGT", "RVS"],
                "credential_required": false,
                "encryption_required": true,
                "max_lifetime_ms": LONG_LIFETIME_MS,
            })),
        ],
    }))
}

/// Says something that only its readers can read; the event's id.
fn say_sealed(person: &Person, room: &str) -> String {
    let content = json!({"algorithm": MEGOLM, "ciphertext": unique("sealed"), "session_id": "s"});
    person.send(room, "m.room.encrypted", &content)
}

/// The event as the person's server got it from others, with its signatures.
fn as_signed(person: &Person, room: &str, event: &str) -> Value {
    let filter = json!({"event_format": "federation", "room": {"timeline": {"limit": 50}}});
    let synced = person.get(&format!("v3/sync?timeout=0&filter={}", part(&filter.to_string())));
    let timeline = synced["rooms"]["join"][room]["timeline"]["events"].as_array().unwrap();
    timeline.iter().find(|told| told["event_id"] == event).cloned().unwrap()
}

/// Signs a register of these organisations; gives the key that verifies it.
fn register(folder: &Path, organisations: &[(&str, &str)]) -> String {
    let path = |name: &str| folder.join(name).display().to_string();
    let (file, key) = (path("register.json"), path("register.key"));
    let made = matron(None, &["register", "new", &file, "--key", &key, "--name", "Test federation"]);
    for (code, server) in organisations {
        let credential_key = path(&format!("{code}.key"));
        let governance = format!("@governance:{server}");
        let words = ["register", "add", &file, "--code", code, "--name", code, "--server", server];
        let more = ["--jurisdiction", "GB-ENG", "--credential-key", &credential_key, "--governance", &governance];
        matron(None, &[&words[..], &more[..]].concat());
    }
    matron(None, &["register", "sign", &file, "--key", &key]);
    made.lines().last().unwrap().trim().to_owned()
}

fn join_path(room: &str, via: &str) -> String {
    format!("v3/join/{}?via={}", part(room), part(via))
}

#[test]
fn a_synapse_user_stays_within_the_bounds_sees_words_die_and_is_held_to_the_rules() {
    let Some(federation) = Federation::start() else { return };
    let bot = Person::made_by_operator(&federation.matron, "governance");
    stays_outside(&federation, &bot);
    needs_a_credential(&federation, &bot);
    sees_words_die(&federation, &bot);
    is_held_to_the_rules_by_the_policy_server(&federation, &bot);
    let verified = federation.matron.operate(&["audit", "verify"]);
    assert!(!verified.is_empty());
}

fn stays_outside(federation: &Federation, bot: &Person) {
    let oscar = Person::at(&federation.synapse, "oscar");
    let room = Federation::bounded_room(bot, &["NGT"], false);
    let word = bot.say(&room, "for Northgate alone");
    // Refused by Matron's policy on each way in, though the room is public.
    assert_eq!(oscar.refused("POST", &join_path(&room, &federation.matron.name), &json!({})), "M_FORBIDDEN");
    let invite = format!("v3/rooms/{}/invite", part(&room));
    let reply = bot.ask("POST", &invite, &json!({"user_id": oscar.id}));
    assert_eq!(reply.status, 403, "{}", reply.text());
    let error = reply.json()["error"].as_str().unwrap().to_owned();
    let decision = error.split("(decision ").nth(1).and_then(|rest| rest.split(')').next()).unwrap();
    assert!(federation.matron.operate(&["policy", "explain", decision]).contains("RVS"), "{error}");
    assert_eq!(bot.membership(&room, &oscar.id), "none");
    assert!(oscar.event(&room, &word).is_none());
}

fn needs_a_credential(federation: &Federation, bot: &Person) {
    let rosa = Person::at(&federation.synapse, "rosa");
    let room = Federation::bounded_room(bot, &["NGT", "RVS"], true);
    assert_eq!(rosa.refused("POST", &join_path(&room, &federation.matron.name), &json!({})), "M_FORBIDDEN");
    let key = federation.folder.path().join("RVS.key").display().to_string();
    let words = ["credential", "issue", &rosa.id, "--organisation", "RVS", "--key", &key, "--profession", "doctor"];
    let credential: Value = serde_json::from_str(&federation.matron.operate(&words)).unwrap();
    bot.act("invite", &room, &rosa.id);
    // Her own server knows nothing of credentials: her client puts it into the join, as Synapse lets it.
    let shown = json!({"org.matron.credential": credential});
    rosa.done("POST", &join_path(&room, &federation.matron.name), &shown);
    bot.wait_for_membership(&room, &rosa.id, "join");
}

fn sees_words_die(federation: &Federation, bot: &Person) {
    let ruth = Person::at(&federation.synapse, "ruth");
    let room = Federation::bounded_room(bot, &["NGT", "RVS"], false);
    bot.act("invite", &room, &ruth.id);
    ruth.join(&room, &federation.matron.name);
    bot.wait_for_membership(&room, &ruth.id, "join");
    let retention = ruth.state(&room, "m.room.retention", "").unwrap();
    assert_eq!(retention["max_lifetime"], LIFETIME_MS);
    for (author, reader) in [(bot, &ruth), (&ruth, bot)] {
        let event = author.say(&room, "potassium 6.9");
        reader.wait_for_text(&room, &event, "potassium 6.9");
        wait_for("Synapse forgets what it said", || {
            ruth.event(&room, &event).filter(|event| event["content"] == json!({}))
        });
        wait_for("Matron forgets what it said", || {
            bot.event(&room, &event).is_none_or(|event| event["content"] == json!({})).then_some(())
        });
    }
    wait_for_same_state(&room, &[bot, &ruth]);
}

fn is_held_to_the_rules_by_the_policy_server(federation: &Federation, bot: &Person) {
    let sana = Person::at(&federation.synapse, "sana");
    let room = ward(bot);
    bot.act("invite", &room, &sana.id);
    sana.join(&room, &federation.matron.name);
    bot.wait_for_membership(&room, &sana.id, "join");
    assert_eq!(sana.state(&room, "m.room.retention", "").unwrap()["max_lifetime"], LONG_LIFETIME_MS);
    let lets_out_what_matron_keeps_back = || {
        // Her own server knows no rules of the room. What follows has arrived: so the word before it was refused, not late.
        let in_the_clear = sana.say(&room, "potassium 6.9");
        let behind = say_sealed(&sana, &room);
        wait_for("the sealed word crosses", || bot.event(&room, &behind));
        assert!(bot.event(&room, &in_the_clear).is_none());
    };
    lets_out_what_matron_keeps_back();

    let published = request(federation.matron.clients, "GET", "/.well-known/matrix/policy_server", None, "", b"");
    let named = json!({"via": federation.matron.name, "public_keys": published.unwrap().json()["public_keys"]});
    bot.set_state(&room, "m.room.policy", "", &named);
    wait_for("Synapse knows the policy server", || {
        sana.state(&room, "m.room.policy", "").filter(|content| *content == named)
    });
    let path = format!("v3/rooms/{}/send/m.room.message/{}", part(&room), unique("txn"));
    let reply = sana.ask("PUT", &path, &json!({"msgtype": "m.text", "body": "she is worse"}));
    assert_eq!(reply.json()["errcode"], "M_FORBIDDEN", "{} {}", reply.status, reply.text());
    assert_eq!(reply.json()["error"], "the room's policy refuses this event");
    let shown = sana.messages(&room);
    assert!(
        shown.iter().any(|(_, text)| text == "potassium 6.9") && shown.iter().all(|(_, text)| text != "she is worse")
    );
    // What the rules permit is recommended: what either says, and who comes.
    let hers = say_sealed(&sana, &room);
    wait_for("her word crosses", || bot.event(&room, &hers));
    let his = say_sealed(bot, &room);
    wait_for("his word crosses", || sana.event(&room, &his));
    let tariq = Person::at(&federation.synapse, "tariq");
    bot.act("invite", &room, &tariq.id);
    tariq.wait_in_sync("the invitation", |sync| sync["rooms"]["invite"].get(&room).map(drop));
    tariq.join(&room, &federation.matron.name);
    bot.wait_for_membership(&room, &tariq.id, "join");
    for event in [&hers, &his] {
        let signed = as_signed(&sana, &room, event);
        assert!(signed["signatures"][&federation.matron.name]["ed25519:policy_server"].is_string(), "{signed}");
    }
    wait_for_same_state(&room, &[bot, &sana, &tariq]);

    // Without the policy server nothing is said.
    federation.matron.kill();
    let content = json!({"algorithm": MEGOLM, "ciphertext": "nobody is there", "session_id": "s"});
    let path = format!("v3/rooms/{}/send/m.room.encrypted/{}", part(&room), unique("txn"));
    let reply = sana.ask("PUT", &path, &content);
    assert!(reply.status >= 400, "{}", reply.text());
    federation.matron.start();

    // Whoever may, lets the policy server go without asking it; the deployment's rules stay.
    bot.set_state(&room, "m.room.policy", "", &json!({}));
    wait_for("Synapse asks nobody any more", || {
        sana.state(&room, "m.room.policy", "").filter(|content| *content == json!({}))
    });
    lets_out_what_matron_keeps_back();
}
