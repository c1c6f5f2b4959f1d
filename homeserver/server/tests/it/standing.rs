//! What guests, locked and suspended users may do, at every endpoint that wants a token.

use serde_json::{Value, json};

use crate::{
    authorisation::{House, OPEN_BELOW, OPEN_TO_ALL, PASSWORD, is_named, is_signed, refused, shown},
    routes::{Endpoint, endpoints},
    wire::{Answer, Wire},
};

/// SPEC: v1.19 Client-Server API, "Guest Access", and what is the same under another name.
const FOR_GUESTS: &[(&str, &str)] = &[
    ("GET …/rooms/{room_id}/state", "listed"),
    ("GET …/rooms/{room_id}/context/{event_id}", "listed"),
    ("GET …/rooms/{room_id}/event/{event_id}", "listed"),
    ("GET …/rooms/{room_id}/state/{event_type}", "listed"),
    ("GET …/rooms/{room_id}/state/{event_type}/", "listed"),
    ("GET …/rooms/{room_id}/state/{event_type}/{state_key}", "listed"),
    ("GET …/rooms/{room_id}/messages", "listed"),
    ("GET …/rooms/{room_id}/members", "listed"),
    ("GET …/rooms/{room_id}/initialSync", "listed"),
    ("GET …/sync", "listed"),
    ("GET …/media/download/{server}/{id}", "listed"),
    ("GET …/media/download/{server}/{id}/{file_name}", "listed"),
    ("GET …/media/thumbnail/{server}/{id}", "listed"),
    ("POST …/rooms/{room_id}/join", "listed"),
    ("POST …/rooms/{room_id}/leave", "listed"),
    ("PUT …/rooms/{room_id}/send/{event_type}/{txn_id}", "listed"),
    ("PUT …/rooms/{room_id}/state/{event_type}", "listed"),
    ("PUT …/rooms/{room_id}/state/{event_type}/", "listed"),
    ("PUT …/rooms/{room_id}/state/{event_type}/{state_key}", "listed"),
    ("PUT …/sendToDevice/{event_type}/{txn_id}", "listed"),
    ("PUT …/profile/{user_id}/{field}", "listed, for the display name"),
    ("DELETE …/profile/{user_id}/{field}", "listed, for the display name"),
    ("GET …/devices", "listed"),
    ("GET …/devices/{device_id}", "listed"),
    ("PUT …/devices/{device_id}", "listed"),
    ("GET …/account/whoami", "listed"),
    ("POST …/keys/upload", "listed"),
    ("POST …/keys/upload/{device_id}", "the same"),
    ("POST …/keys/query", "listed"),
    ("POST …/keys/claim", "listed"),
    ("POST …/join/{room_id_or_alias}", "as `/rooms/…/join`"),
    ("POST …/rooms/{room_id}/send/{event_type}", "as with a transaction"),
    ("POST …/rooms/{room_id}/redact/{event_id}", "as `/send`, of any event"),
    ("PUT …/rooms/{room_id}/redact/{event_id}/{txn_id}", "as `/send`, of any event"),
    ("POST …/sync", "the other sync"),
    ("GET …/joined_rooms", "told by `/sync`"),
    ("GET …/rooms/{room_id}/joined_members", "told by `/members`"),
    ("GET …/rooms/{room_id}/aliases", "told by `/state`"),
    ("GET …/rooms/{room_id}/relations/{event_id}", "told by `/messages`"),
    ("GET …/rooms/{room_id}/relations/{event_id}/{rel_type}", "told by `/messages`"),
    ("GET …/rooms/{room_id}/relations/{event_id}/{rel_type}/{event_type}", "told by `/messages`"),
    ("GET …/rooms/{room_id}/threads", "told by `/messages`"),
    ("GET …/rooms/{room_id}/timestamp_to_event", "told by `/messages`"),
    ("GET …/rooms/{room_id}/hierarchy", "told by `/state`"),
    ("GET …/keys/changes", "told by `/sync`"),
    ("GET …/capabilities", "what a client asks first"),
    ("GET …/user/{user_id}/filter/{filter_id}", "a part of `/sync`"),
    ("POST …/user/{user_id}/filter", "a part of `/sync`"),
    ("GET …/media/config", "what a client asks first"),
    ("GET …/voip/turnServer", "tells guests what the operator wants them to know"),
    ("POST …/logout", "whoever came can go"),
    ("POST …/logout/all", "whoever came can go"),
];

/// SPEC: v1.19 Client-Server API, "Account suspension": what the suspended may not do; everything else is as ever.
const NOT_WHILE_SUSPENDED: &[(&str, &str)] = &[
    ("POST …/createRoom", "it invites and speaks"),
    ("POST …/join/{room_id_or_alias}", "joining"),
    ("POST …/rooms/{room_id}/join", "joining"),
    ("POST …/knock/{room_id_or_alias}", "knocking"),
    ("POST …/rooms/{room_id}/invite", "sending invites"),
    ("PUT …/rooms/{room_id}/send/{event_type}/{txn_id}", "sending messages"),
    ("POST …/rooms/{room_id}/send/{event_type}", "sending messages"),
    ("PUT …/rooms/{room_id}/state/{event_type}", "sending messages"),
    ("PUT …/rooms/{room_id}/state/{event_type}/", "sending messages"),
    ("PUT …/rooms/{room_id}/state/{event_type}/{state_key}", "sending messages"),
    ("POST …/rooms/{room_id}/upgrade", "sending messages"),
    ("PUT …/profile/{user_id}/{field}", "changing profile data"),
    ("DELETE …/profile/{user_id}/{field}", "changing profile data"),
    ("POST …/media/v3/upload", "publishing files"),
    ("POST …/media/r0/upload", "publishing files"),
    ("POST …/media/v1/upload", "publishing files"),
    ("PUT …/media/v3/upload/{server}/{id}", "publishing files"),
    ("PUT …/media/r0/upload/{server}/{id}", "publishing files"),
    ("PUT …/media/v1/upload/{server}/{id}", "publishing files"),
    ("POST …/media/v1/create", "publishing files"),
    ("POST …/media/unstable/fi.mau.msc2246/create", "publishing files"),
];

/// Every endpoint that wants a client's token; those that end the session or the account come last.
fn of_clients() -> Vec<Endpoint> {
    let mut endpoints = endpoints();
    endpoints.retain(|endpoint| {
        let is_below = OPEN_BELOW.iter().any(|(path, _)| endpoint.path.starts_with(path));
        !is_below && !is_named(OPEN_TO_ALL, endpoint) && !is_signed(endpoint)
    });
    endpoints.sort_by_key(|endpoint| {
        let ends = ["/devices", "/delete_devices", "/leave", "/forget"];
        let is_end = ends.iter().any(|part| endpoint.path.contains(part)) && endpoint.method != "GET";
        (endpoint.path.contains("/logout"), is_end)
    });
    endpoints
}

/// The house with somebody who may lock and suspend the owner.
fn house_with_operator() -> (House, String) {
    let house = House::open_with(json!({"registration": {"mode": "open", "guests": true}}));
    let made = house.home.matron_with_input(&["user", "create", "root", "--admin"], &format!("{PASSWORD}\n"));
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let root = log_in(&house, "root");
    (house, root)
}

fn log_in(house: &House, name: &str) -> String {
    let body = json!({
        "type": "m.login.password", "identifier": {"type": "m.id.user", "user": name}, "password": PASSWORD,
    });
    let reply = house.server.post("/_matrix/client/v3/login", None, &body);
    assert_eq!(reply.status, 200, "{}", reply.body);
    reply.json()["access_token"].as_str().unwrap().to_owned()
}

fn moderate(house: &House, root: &str, how: &str, what: &Value) {
    let path = format!("/_matrix/client/v1/admin/{how}/%40owner%3Amatron.test");
    let reply = house.server.put(&path, Some(root), what);
    assert_eq!(reply.status, 200, "{}", reply.body);
}

/// Asks every endpoint; gives what `judge` says is wrong. Whoever is logged out meanwhile comes back.
fn walk(
    house: &House,
    mut token: String,
    again: impl Fn() -> String,
    judge: impl Fn(&Endpoint, &Answer) -> bool,
) -> Vec<String> {
    let mut wire = Wire::new(&house.server.address);
    let mut wrong = Vec::new();
    for endpoint in of_clients() {
        let mut ask =
            |token: &str| wire.exchange(&house.good_request(&endpoint, Some(&format!("Bearer {token}")))).unwrap();
        let mut answer = ask(&token);
        if refused(&answer, 401, &["M_UNKNOWN_TOKEN"]) {
            token = again();
            answer = ask(&token);
        }
        if !judge(&endpoint, &answer) {
            wrong.push(shown(&endpoint, "them", &answer));
        }
    }
    wrong
}

#[test]
fn guests_may_call_what_the_specification_lists_and_nothing_else() {
    let (house, _root) = house_with_operator();
    let guest = || {
        let reply = house.server.post("/_matrix/client/v3/register?kind=guest", None, &json!({}));
        assert_eq!(reply.status, 200, "{}", reply.body);
        reply.json()["access_token"].as_str().unwrap().to_owned()
    };
    let wrong = walk(&house, guest(), guest, |endpoint, answer| {
        let is_refused = refused(answer, 403, &["M_GUEST_ACCESS_FORBIDDEN"]);
        // Without a room it tells of all rooms; with one it is in the list.
        let depends = endpoint.path.ends_with("/events") && endpoint.method == "GET";
        let in_the_room = endpoint.path.ends_with("/join") || endpoint.path.contains("/join/");
        let is_listed = endpoint.path.starts_with("/_matrix/client/") && is_named(FOR_GUESTS, endpoint);
        depends || is_listed != is_refused || (in_the_room && is_refused)
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_locked_can_log_out_and_nothing_else() {
    let (house, root) = house_with_operator();
    moderate(&house, &root, "lock", &json!({"locked": true}));
    let wrong = walk(
        &house,
        house.owner.clone(),
        || house.owner.clone(),
        |endpoint, answer| {
            let may = endpoint.path.ends_with("/logout") || endpoint.path.ends_with("/logout/all");
            may || (refused(answer, 401, &["M_USER_LOCKED"]) && answer.json()["soft_logout"] == true)
        },
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_suspended_are_refused_what_the_specification_names_and_nothing_else() {
    let (house, root) = house_with_operator();
    moderate(&house, &root, "suspend", &json!({"suspended": true}));
    let wrong = walk(
        &house,
        house.owner.clone(),
        || log_in(&house, "owner"),
        |endpoint, answer| is_named(NOT_WHILE_SUSPENDED, endpoint) == refused(answer, 403, &["M_USER_SUSPENDED"]),
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
