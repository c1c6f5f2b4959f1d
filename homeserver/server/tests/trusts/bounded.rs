//! What a bounded room, and content with a lifetime, mean to a trust with Synapse.

use std::path::Path;

use serde_json::{Value, json};

use crate::{
    authority::Authority,
    http::{part, wait_for},
    install,
    person::{Person, wait_for_same_state},
    trust::{Trust, matron, new_folder},
};

/// How long messages live in these rooms.
const LIFETIME_MS: u64 = 4_000;

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
fn a_synapse_user_outside_the_bounds_stays_outside_and_one_inside_sees_words_die() {
    let Some(federation) = Federation::start() else { return };
    let bot = Person::made_by_operator(&federation.matron, "governance");
    stays_outside(&federation, &bot);
    needs_a_credential(&federation, &bot);
    sees_words_die(&federation, &bot);
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
