//! Three trusts, two with Matron and one with Synapse, whose servers die and come back while people go on.
//!
//! `cargo test -p matron --test trusts converge` plays one seed, `MATRON_CONVERGE_SEEDS=5` plays five,
//! `MATRON_CONVERGE_FIRST` says from which on.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{
    authority::Authority,
    http::{part, wait_for},
    install,
    person::{Person, wait_for_same_state},
    trust::{Trust, new_folder},
};

/// How many things happen in one run.
const STEPS: u64 = 60;

/// Numbers that follow from a seed.
struct Dice(u64);

impl Dice {
    /// A number below `end`.
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % end
    }

    fn one_of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[usize::try_from(self.below(all.len().try_into().unwrap())).unwrap()]
    }
}

#[test]
fn two_matrons_and_a_synapse_agree_after_kills_and_changes_on_all_sides() {
    let Some(python) = install::python() else { return };
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok()).unwrap_or(1);
    let folder = new_folder();
    let authority = Authority::found(folder.path());
    let trusts = [
        Trust::matron(&authority, &folder.path().join("north")),
        Trust::matron(&authority, &folder.path().join("south")),
        Trust::synapse(&authority, &folder.path().join("synapse"), python),
    ];
    std::thread::scope(|scope| {
        for trust in &trusts {
            scope.spawn(|| trust.start());
        }
    });
    let first = number("MATRON_CONVERGE_FIRST");
    for seed in first..first + number("MATRON_CONVERGE_SEEDS") {
        let began = std::time::Instant::now();
        let told = play(seed, &trusts);
        install::tell(&format!("seed {seed}: {told}, {} s", began.elapsed().as_secs()));
    }
}

fn play(seed: u64, trusts: &[Trust]) -> String {
    let mut dice = Dice(seed);
    let version = *dice.one_of(&["10", "11", "12"]);
    let chiefs: Vec<Person> = trusts.iter().map(|trust| Person::at(trust, "chief")).collect();
    let staff: Vec<Person> =
        trusts.iter().flat_map(|trust| [Person::at(trust, "nurse"), Person::at(trust, "aide")]).collect();
    let host = usize::try_from(dice.below(3)).unwrap();
    let room = chiefs[host].create_public_room(version);
    for chief in chiefs.iter().filter(|chief| chief.id != chiefs[host].id) {
        chief.join(&room, &trusts[host].name);
    }
    let mut levels = wait_for("everybody is in", || {
        let all = chiefs.iter().all(|chief| chiefs[host].membership(&room, &chief.id) == "join");
        all.then(|| chiefs[host].state(&room, "m.room.power_levels", "")).flatten()
    });
    for chief in chiefs.iter().filter(|chief| chief.id != chiefs[host].id) {
        levels["users"][&chief.id] = json!(90);
    }
    chiefs[host].set_state(&room, "m.room.power_levels", "", &levels);
    wait_for_same_state(&room, &chiefs.iter().collect::<Vec<_>>());

    // Event id and text of every message that its server acknowledged.
    let mut said = BTreeMap::new();
    let (mut done, mut refused, mut kills) = (0, 0, 0);
    let mut dead: Option<usize> = None;
    for step in 0..STEPS {
        if dice.below(12) == 0 {
            match dead.take() {
                Some(index) => trusts[index].start(),
                None => {
                    let index = usize::try_from(dice.below(3)).unwrap();
                    trusts[index].kill();
                    (dead, kills) = (Some(index), kills + 1);
                }
            }
        }
        match happen(&mut dice, step, &room, &chiefs, &staff, trusts) {
            Some((200, event)) => {
                done += 1;
                said.extend(event);
            }
            _ => refused += 1,
        }
    }
    if let Some(index) = dead {
        trusts[index].start();
    }
    // A word of everybody ties the ends of the graph together, and makes the servers look for each other.
    let end = std::time::Instant::now() + crate::http::PATIENCE;
    while !agree(&chiefs, &room, &mut said) {
        if std::time::Instant::now() > end {
            break;
        }
    }
    let people: Vec<&Person> = chiefs.iter().collect();
    wait_for_same_state(&room, &people);
    for chief in &chiefs {
        wait_for_each_once(chief, &room, &said);
    }
    format!(
        "version {version}, {done} acts, {refused} refused or lost, {kills} kills, {} messages everywhere",
        said.len()
    )
}

/// Waits until the person's server shows every acknowledged message, and none twice.
fn wait_for_each_once(person: &Person, room: &str, said: &BTreeMap<String, String>) {
    let end = std::time::Instant::now() + crate::http::PATIENCE;
    loop {
        let found = person.messages(room);
        let times = |event: &String| found.iter().filter(|(id, _)| id == event).count();
        let wrong: Vec<_> =
            said.iter().map(|(id, text)| (id, text, times(id))).filter(|(_, _, times)| *times != 1).collect();
        if wrong.is_empty() {
            return;
        }
        assert!(std::time::Instant::now() < end, "{} does not see these once: {wrong:#?}", person.id);
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

/// Everybody says a word; whether the states are the same soon after.
fn agree(chiefs: &[Person], room: &str, said: &mut BTreeMap<String, String>) -> bool {
    for chief in chiefs {
        let text = crate::person::unique("the end");
        said.insert(chief.say(room, &text), text);
    }
    let end = std::time::Instant::now() + std::time::Duration::from_secs(5);
    while std::time::Instant::now() < end {
        let states: Vec<_> = chiefs.iter().map(|chief| chief.whole_state(room)).collect();
        if states.iter().all(|state| *state == states[0]) {
            return true;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    false
}

/// Whether the person's Synapse was asked to sign an invite that it has not received as a part of the room yet.
///
/// Whoever answers such an invite there makes an event that no other server can understand as Synapse does: it names the
/// invite among its prev events, after the state before it was worked out without the invite and all that led to it
/// (Synapse 1.163, `EventBuilder.build`). Nobody answers in these tests before Synapse has caught up.
fn awaits_its_invite(who: &Person, chiefs: &[Person], staff: &[Person], trusts: &[Trust], room: &str) -> bool {
    let home = staff.iter().position(|person| person.id == who.id).unwrap() * trusts.len() / staff.len();
    let told = || {
        let filter = part(&json!({"room": {"timeline": {"limit": 1}, "include_leave": false}}).to_string());
        let sync = who.try_ask("GET", &format!("v3/sync?timeout=0&filter={filter}"), &Value::Null).ok()?.json();
        let path = format!("v3/rooms/{room}/state/m.room.member/{}", part(&who.id));
        let member = chiefs[home].try_ask("GET", &path, &Value::Null).ok()?.json();
        let is_invited =
            sync["rooms"]["invite"].as_object().is_some_and(|rooms| rooms.keys().any(|id| part(id) == room));
        Some(is_invited && member["membership"] != "invite")
    };
    trusts[home].is_synapse() && told().unwrap_or(false)
}

/// One act of somebody; its status and, for a message, its event. None if the server was dead.
fn happen(
    dice: &mut Dice,
    step: u64,
    room: &str,
    chiefs: &[Person],
    staff: &[Person],
    trusts: &[Trust],
) -> Option<(u16, Option<(String, String)>)> {
    let (chief, someone) = (dice.one_of(chiefs), dice.one_of(staff));
    let room = part(room);
    let txn = crate::person::unique("txn");
    let state = |kind: &str, key: &str| format!("v3/rooms/{room}/state/{kind}/{}", part(key));
    let act = |verb: &str| ("POST", format!("v3/rooms/{room}/{verb}"), json!({"user_id": someone.id}));
    let text = format!("word {step}");
    let mut who = chief;
    let mut message = false;
    let (method, path, body): (&str, String, Value) = match dice.below(10) {
        0..=2 => {
            message = true;
            ("PUT", format!("v3/rooms/{room}/send/m.room.message/{txn}"), json!({"msgtype": "m.text", "body": text}))
        }
        3 => ("PUT", state("m.room.topic", ""), json!({"topic": text})),
        4 => ("PUT", state("org.example.bed", &dice.below(4).to_string()), json!({"patient": step})),
        5 => {
            who = someone;
            // Drawn in any case: how many numbers are drawn follows from the seed alone.
            let via = part(&dice.one_of(trusts).name);
            if awaits_its_invite(who, chiefs, staff, trusts, &room) {
                return None;
            }
            ("POST", format!("v3/join/{room}?via={via}"), json!({}))
        }
        6 => act(dice.one_of::<&str>(&["kick", "ban", "unban", "invite"])),
        7 => {
            who = someone;
            if awaits_its_invite(who, chiefs, staff, trusts, &room) {
                return None;
            }
            ("POST", format!("v3/rooms/{room}/leave"), json!({}))
        }
        8 => {
            let rule = *dice.one_of(&["public", "invite", "knock"]);
            ("PUT", state("m.room.join_rules", ""), json!({"join_rule": rule}))
        }
        _ => {
            let mut levels: Value = who.try_ask("GET", &state("m.room.power_levels", ""), &Value::Null).ok()?.json();
            levels["users"][&someone.id] = json!(dice.below(60));
            ("PUT", state("m.room.power_levels", ""), levels)
        }
    };
    let reply = who.try_ask(method, &path, &body).ok()?;
    let event = reply.json()["event_id"].as_str().filter(|_| message).map(|id| (id.to_owned(), text));
    Some((reply.status, event))
}
