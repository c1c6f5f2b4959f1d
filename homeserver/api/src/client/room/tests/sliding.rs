//! Simplified sliding sync (MSC4186): windows, windows left and entered again, and what is told beside rooms.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{Client, Server, enc, ids, list};

const PATH: &str = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync?timeout=0";

/// A client that goes on from its last answer.
struct Slider {
    client: Client,
    pos: Option<String>,
}

impl Slider {
    fn new(client: &Client) -> Self {
        Self { client: client.clone(), pos: None }
    }

    async fn ask(&mut self, body: Value) -> Value {
        let pos = self.pos.as_ref().map(|pos| format!("&pos={pos}")).unwrap_or_default();
        let answer = self.client.ok(Method::POST, &format!("{PATH}{pos}"), body).await;
        self.pos = Some(answer["pos"].as_str().unwrap().to_owned());
        answer
    }

    async fn window(&mut self, to: u64, timeline: u64) -> Value {
        self.ask(window(to, timeline)).await
    }
}

fn window(to: u64, timeline: u64) -> Value {
    json!({"lists": {"all": {
        "ranges": [[0, to]],
        "timeline_limit": timeline,
        "required_state": [["m.room.name", ""], ["m.room.member", "$ME"], ["m.room.member", "$LAZY"]],
    }}})
}

fn rooms(answer: &Value) -> Vec<String> {
    answer["rooms"].as_object().unwrap().keys().cloned().collect()
}

fn kinds(events: &[Value]) -> Vec<String> {
    let mut kinds: Vec<_> = events
        .iter()
        .map(|event| format!("{} {}", event["type"].as_str().unwrap(), event["state_key"].as_str().unwrap_or("-")))
        .collect();
    kinds.sort();
    kinds
}

#[tokio::test]
async fn the_most_recent_rooms_are_in_the_window_and_the_list_tells_how_many_there_are() {
    let server = Server::start();
    let alice = server.user("alice").await;
    let mut all = Vec::new();
    for name in ["a", "b", "c"] {
        all.push(alice.create(json!({"name": name})).await);
    }
    let mut slider = Slider::new(&alice);
    let mut answer = slider.window(1, 1).await;
    assert_eq!(answer["lists"]["all"]["count"], 3);
    let mut expected = vec![all[2].clone(), all[1].clone()];
    expected.sort();
    assert_eq!(rooms(&answer), expected);
    let room = answer["rooms"][&all[2]].take();
    assert_eq!((&room["initial"], &room["limited"], &room["name"]), (&json!(true), &json!(true), &json!("c")));
    assert_eq!((&room["joined_count"], &room["invited_count"], &room["num_live"]), (&json!(1), &json!(0), &json!(0)));
    assert_eq!(kinds(list(&room, "/required_state")), ["m.room.member @alice:us.example", "m.room.name "]);
    assert_eq!(list(&room, "/timeline").len(), 1);
    assert!(room["prev_batch"].is_string());
    assert!(room["bump_stamp"].as_u64() > answer["rooms"][&all[1]]["bump_stamp"].as_u64());

    let answer = slider.window(1, 1).await;
    assert_eq!((rooms(&answer).len(), &answer["lists"]["all"]["count"]), (0, &json!(3)));

    // The oldest speaks, and moves into the window.
    let said = alice.say(&all[0], "hello").await;
    let answer = slider.window(1, 1).await;
    assert_eq!(rooms(&answer), [all[0].clone()]);
    assert_eq!(ids(list(&answer, &format!("/rooms/{}/timeline", all[0]))), [said]);
    assert_eq!(answer["rooms"][&all[0]]["initial"], true);
}

#[tokio::test]
async fn a_room_that_comes_back_into_the_window_goes_on_where_it_was_told() {
    let server = Server::start();
    let alice = server.user("alice").await;
    let bob = server.user("bob").await;
    let first = alice.public_room().await;
    let second = alice.public_room().await;
    bob.join(&first).await;
    let mut slider = Slider::new(&alice);
    slider.window(5, 10).await;

    let mut narrow = window(0, 10);
    let mut said = Vec::new();
    alice.say(&second, "second is first now").await;
    slider.ask(narrow.clone()).await;
    // A state event does not move a room up: it stays outside.
    said.push(alice.state(&first, "m.room.topic", "", json!({"topic": "t"})).await);
    let answer = slider.ask(narrow.clone()).await;
    assert_eq!(rooms(&answer).len(), 0);
    said.push(bob.say(&first, "and first again").await);
    narrow["lists"]["all"]["ranges"] = json!([[0, 3]]);
    let answer = slider.ask(narrow.clone()).await;
    let room = &answer["rooms"][&first];
    assert_eq!(ids(list(room, "/timeline")), said, "nothing lost, nothing repeated");
    assert_eq!((room.get("initial"), room.get("limited")), (None, None));
    assert_eq!(rooms(&slider.ask(narrow).await).len(), 0);
}

#[tokio::test]
async fn an_answer_that_was_lost_is_given_again() {
    let server = Server::start();
    let alice = server.user("alice").await;
    let room = alice.public_room().await;
    let mut slider = Slider::new(&alice);
    slider.window(5, 10).await;
    let before = slider.pos.clone();
    let said = alice.say(&room, "once").await;
    for _ in 0..2 {
        slider.pos.clone_from(&before);
        let answer = slider.window(5, 10).await;
        assert_eq!(ids(list(&answer, &format!("/rooms/{room}/timeline"))), std::slice::from_ref(&said));
    }
    assert_eq!(rooms(&slider.window(5, 10).await).len(), 0);
}

#[tokio::test]
async fn a_position_that_is_not_known_is_refused_as_such() {
    let server = Server::start();
    let alice = server.user("alice").await;
    for pos in ["0", "p0_1", "s1_2_3"] {
        let (status, answer) = alice.ask(Method::POST, &format!("{PATH}&pos={pos}"), Some(window(1, 1))).await;
        assert_eq!((status, &answer["errcode"]), (StatusCode::BAD_REQUEST, &json!("M_UNKNOWN_POS")));
    }
    let (status, answer) =
        alice.ask(Method::POST, PATH, Some(json!({"lists": {"a": {"ranges": [[3, 1]], "timeline_limit": 1}}}))).await;
    assert_eq!((status, &answer["errcode"]), (StatusCode::BAD_REQUEST, &json!("M_INVALID_PARAM")));
}

#[tokio::test]
async fn filters_choose_the_rooms_of_a_list() {
    let server = Server::start();
    let alice = server.user("alice").await;
    let bob = server.user("bob").await;
    let plain = alice.create(json!({})).await;
    let space = alice.create(json!({"creation_content": {"type": "m.space"}})).await;
    let sealed = {
        let encryption =
            json!({"type": "m.room.encryption", "state_key": "", "content": {"algorithm": "m.megolm.v1.aes-sha2"}});
        alice.create(json!({"initial_state": [encryption]})).await
    };
    let invited = bob.create(json!({"invite": [alice.user.clone()]})).await;
    let direct = json!({&bob.user: [plain.clone()]});
    alice.ok(Method::PUT, &format!("/user/{}/account_data/m.direct", enc(&alice.user)), direct).await;
    alice.state(&space, "m.space.child", &sealed, json!({"via": ["us.example"]})).await;
    let tags = format!("/user/{}/rooms/{}/tags/m.favourite", enc(&alice.user), enc(&sealed));
    alice.ok(Method::PUT, &tags, json!({})).await;

    let filters = [
        ("dm", json!({"is_dm": true}), vec![&plain]),
        ("no_dm", json!({"is_dm": false}), vec![&invited, &sealed, &space]),
        ("sealed", json!({"is_encrypted": true}), vec![&sealed]),
        ("invites", json!({"is_invite": true}), vec![&invited]),
        ("spaces", json!({"room_types": ["m.space"]}), vec![&space]),
        ("no_spaces", json!({"not_room_types": ["m.space"]}), vec![&invited, &plain, &sealed]),
        ("untyped", json!({"room_types": [null]}), vec![&invited, &plain, &sealed]),
        ("favourites", json!({"tags": ["m.favourite"]}), vec![&sealed]),
        ("no_favourites", json!({"not_tags": ["m.favourite"]}), vec![&invited, &plain, &space]),
        ("children", json!({"spaces": [space]}), vec![&sealed]),
    ];
    for (name, filter, mut expected) in filters {
        let list = json!({"ranges": [[0, 9]], "timeline_limit": 0, "required_state": [], "filters": filter});
        let answer = Slider::new(&alice).ask(json!({"lists": {name: list}})).await;
        expected.sort();
        assert_eq!(rooms(&answer).iter().collect::<Vec<_>>(), expected, "{name}");
        assert_eq!(answer["lists"][name]["count"], expected.len(), "{name}");
    }
}

#[tokio::test]
async fn invites_joins_and_leaves_are_told_as_they_come() {
    let server = Server::start();
    let alice = server.user("alice").await;
    let bob = server.user("bob").await;
    let mut slider = Slider::new(&bob);
    slider.window(9, 10).await;
    let room = alice.create(json!({"invite": [bob.user.clone()], "name": "ward"})).await;
    let answer = slider.window(9, 10).await;
    let told = &answer["rooms"][&room];
    assert_eq!((&told["initial"], &told["name"]), (&json!(true), &json!("ward")));
    assert!(list(told, "/invite_state").iter().any(|event| event["state_key"] == json!(bob.user)));
    assert_eq!(told.get("timeline"), None);
    assert_eq!(rooms(&slider.window(9, 10).await).len(), 0);

    bob.join(&room).await;
    let answer = slider.window(9, 10).await;
    let told = &answer["rooms"][&room];
    assert_eq!((&told["initial"], told.get("invite_state")), (&json!(true), None));
    assert_eq!(told["heroes"].as_array().map(Vec::len), None, "the room has a name");
    assert!(told["num_live"].as_u64() > Some(0));

    bob.leave(&room).await;
    alice.say(&room, "he is gone").await;
    let answer = slider.window(9, 10).await;
    let told = &answer["rooms"][&room];
    let own = list(told, "/required_state").iter().find(|event| event["state_key"] == json!(bob.user)).unwrap();
    assert_eq!(own["content"]["membership"], "leave");
    assert_eq!(list(told, "/timeline").last().unwrap()["content"]["membership"], "leave");
    assert_eq!(answer["lists"]["all"]["count"], 0);
    alice.say(&room, "still").await;
    assert_eq!(rooms(&slider.window(9, 10).await).len(), 0);

    alice.ok(Method::POST, &format!("/rooms/{}/invite", enc(&room)), json!({"user_id": bob.user})).await;
    bob.join(&room).await;
    let answer = slider.window(9, 10).await;
    assert_eq!(answer["rooms"][&room]["initial"], true, "he comes anew");
}

#[tokio::test]
async fn who_is_put_out_keeps_the_room_in_the_list_up_to_then() {
    let server = Server::start();
    let alice = server.user("alice").await;
    let bob = server.user("bob").await;
    let room = alice.public_room().await;
    bob.join(&room).await;
    let kick = json!({"user_id": bob.user});
    alice.ok(Method::POST, &format!("/rooms/{}/kick", enc(&room)), kick).await;
    alice.say(&room, "not for bob").await;
    let mut slider = Slider::new(&bob);
    let answer = slider.window(9, 1).await;
    let told = &answer["rooms"][&room];
    assert_eq!(list(told, "/timeline")[0]["content"]["membership"], "leave");
    assert!(kinds(list(told, "/required_state")).contains(&"m.room.member @bob:us.example".to_owned()));
    alice.say(&room, "nor this").await;
    assert_eq!(rooms(&slider.window(9, 1).await).len(), 0);
}

#[tokio::test]
async fn a_subscription_asks_for_more_and_gets_what_is_new_to_the_client() {
    let server = Server::start();
    let alice = server.user("alice").await;
    let room = alice.create(json!({"name": "n", "topic": "t"})).await;
    let mut said = Vec::new();
    for text in ["1", "2", "3"] {
        said.push(alice.say(&room, text).await);
    }
    let mut slider = Slider::new(&alice);
    let mut body = window(9, 1);
    slider.ask(body.clone()).await;
    let details = json!({"timeline_limit": 3, "required_state": [["m.room.topic", ""], ["m.room.name", ""]]});
    body["room_subscriptions"] = json!({&room: details});
    let answer = slider.ask(body.clone()).await;
    let told = &answer["rooms"][&room];
    assert_eq!(ids(list(told, "/timeline")), said);
    assert_eq!((&told["unstable_expanded_timeline"], &told["num_live"]), (&json!(true), &json!(0)));
    assert_eq!(kinds(list(told, "/required_state")), ["m.room.topic "], "the name was told");
    assert_eq!(told.get("initial"), None);
    assert_eq!(rooms(&slider.ask(body.clone()).await).len(), 0);
    alice.state(&room, "m.room.topic", "", json!({"topic": "new"})).await;
    let answer = slider.ask(body).await;
    assert_eq!(kinds(list(&answer["rooms"][&room], "/required_state")), ["m.room.topic "]);
}

#[tokio::test]
async fn what_changes_unread_counts_is_told_though_nothing_was_said() {
    let server = Server::start();
    let alice = server.user("alice").await;
    let bob = server.user("bob").await;
    let room = alice.public_room().await;
    bob.join(&room).await;
    let said = alice.say(&room, "read me").await;
    let mut slider = Slider::new(&bob);
    let answer = slider.window(9, 1).await;
    assert_eq!(answer["rooms"][&room]["notification_count"], 1);
    bob.ok(Method::POST, &format!("/rooms/{}/receipt/m.read/{}", enc(&room), enc(&said)), json!({})).await;
    let answer = slider.window(9, 1).await;
    assert_eq!(answer["rooms"][&room]["notification_count"], 0);
    assert_eq!(list(&answer["rooms"][&room], "/timeline").len(), 0);
}

#[tokio::test]
async fn a_gap_is_marked_and_can_be_read_backwards() {
    let server = Server::start();
    let alice = server.user("alice").await;
    let room = alice.public_room().await;
    let mut slider = Slider::new(&alice);
    slider.window(9, 2).await;
    let mut said = Vec::new();
    for text in ["1", "2", "3", "4", "5"] {
        said.push(alice.say(&room, text).await);
    }
    let answer = slider.window(9, 2).await;
    let told = &answer["rooms"][&room];
    assert_eq!((&told["limited"], &told["num_live"]), (&json!(true), &json!(2)));
    assert_eq!(ids(list(told, "/timeline")), said[3..]);
    let from = told["prev_batch"].as_str().unwrap();
    let page = alice.get(&format!("/rooms/{}/messages?dir=b&limit=3&from={from}", enc(&room))).await;
    let mut before = ids(list(&page, "/chunk"));
    before.reverse();
    assert_eq!(before, said[..3]);
}

fn with_extensions(mut body: Value) -> Value {
    let on = json!({"enabled": true});
    body["extensions"] = json!({"to_device": on, "e2ee": on, "account_data": on, "receipts": on, "typing": on});
    body
}

#[tokio::test]
async fn extensions_tell_each_thing_once() {
    let server = Server::start();
    let alice = server.user("alice").await;
    let bob = server.user("bob").await;
    let room = alice.public_room().await;
    bob.join(&room).await;
    let said = alice.say(&room, "hello").await;
    alice.ok(Method::PUT, &format!("/user/{}/account_data/x.global", enc(&alice.user)), json!({"a": 1})).await;
    let mut slider = Slider::new(&alice);
    let mut body = with_extensions(window(9, 1));
    let answer = slider.ask(body.clone()).await;
    let extensions = &answer["extensions"];
    let global = list(extensions, "/account_data/global");
    assert!(global.iter().any(|entry| entry["type"] == "x.global"), "{global:?}");
    assert!(global.iter().any(|entry| entry["type"] == "m.push_rules"), "{global:?}");
    assert_eq!(extensions["e2ee"]["device_one_time_keys_count"]["signed_curve25519"], 0);
    body["extensions"]["to_device"]["since"] = extensions["to_device"]["next_batch"].clone();

    let device = alice.get("/account/whoami").await["device_id"].as_str().unwrap().to_owned();
    let messages = json!({"messages": {&alice.user: {&device: {"k": "v"}}}});
    bob.ok(Method::PUT, "/sendToDevice/x.test/t1", messages).await;
    bob.ok(Method::POST, &format!("/rooms/{}/receipt/m.read/{}", enc(&room), enc(&said)), json!({})).await;
    let typing = format!("/rooms/{}/typing/{}", enc(&room), enc(&bob.user));
    bob.ok(Method::PUT, &typing, json!({"typing": true, "timeout": 30_000})).await;
    let data = format!("/user/{}/rooms/{}/account_data/x.room", enc(&alice.user), enc(&room));
    alice.ok(Method::PUT, &data, json!({"b": 2})).await;
    let answer = slider.ask(body.clone()).await;
    let extensions = &answer["extensions"];
    assert_eq!(list(extensions, "/to_device/events").len(), 1);
    assert!(extensions["receipts"]["rooms"][&room]["content"][&said]["m.read"][&bob.user].is_object());
    assert_eq!(extensions["typing"]["rooms"][&room]["content"]["user_ids"], json!([bob.user]));
    assert_eq!(extensions["account_data"]["rooms"][&room][0]["type"], "x.room");
    assert_eq!(extensions["account_data"].get("global"), None);
    body["extensions"]["to_device"]["since"] = extensions["to_device"]["next_batch"].clone();

    let answer = slider.ask(body.clone()).await;
    let extensions = &answer["extensions"];
    assert_eq!(list(extensions, "/to_device/events").len(), 0);
    for name in ["receipts", "typing", "account_data"] {
        assert_eq!(extensions.get(name), None, "{name}");
    }
}

#[tokio::test]
async fn what_is_kept_with_a_room_waits_until_the_room_is_in_the_window() {
    let server = Server::start();
    let alice = server.user("alice").await;
    let bob = server.user("bob").await;
    let first = alice.public_room().await;
    bob.join(&first).await;
    let said = alice.say(&first, "hello").await;
    let second = alice.public_room().await;
    let mut slider = Slider::new(&alice);
    let wide = with_extensions(window(9, 1));
    let narrow = with_extensions(window(0, 1));
    slider.ask(wide.clone()).await;
    let data = format!("/user/{}/rooms/{}/account_data/x.room", enc(&alice.user), enc(&first));
    alice.ok(Method::PUT, &data, json!({"b": 2})).await;
    bob.ok(Method::POST, &format!("/rooms/{}/receipt/m.read/{}", enc(&first), enc(&said)), json!({})).await;
    for _ in 0..2 {
        let answer = slider.ask(narrow.clone()).await;
        assert_eq!(answer["extensions"].get("account_data"), None);
        assert_eq!(answer["extensions"].get("receipts"), None);
    }
    let answer = slider.ask(wide.clone()).await;
    let extensions = &answer["extensions"];
    assert_eq!(extensions["account_data"]["rooms"][&first][0]["type"], "x.room");
    assert!(extensions["receipts"]["rooms"][&first]["content"][&said]["m.read"][&bob.user].is_object());
    let answer = slider.ask(wide).await;
    assert_eq!(answer["extensions"].get("account_data"), None);
    assert_eq!(rooms(&answer).len(), 0, "{second}");
}

#[tokio::test]
async fn extensions_speak_only_of_the_rooms_they_are_asked_for() {
    let server = Server::start();
    let alice = server.user("alice").await;
    let one = alice.public_room().await;
    let two = alice.public_room().await;
    for room in [&one, &two] {
        let data = format!("/user/{}/rooms/{}/account_data/x.room", enc(&alice.user), enc(room));
        alice.ok(Method::PUT, &data, json!({})).await;
    }
    let mut slider = Slider::new(&alice);
    let mut body = window(9, 1);
    body["room_subscriptions"] = json!({&one: {"timeline_limit": 1, "required_state": []}});
    body["extensions"] = json!({"account_data": {"enabled": true, "lists": [], "rooms": ["*"]}});
    let answer = slider.ask(body.clone()).await;
    let told = answer["extensions"]["account_data"]["rooms"].as_object().unwrap();
    assert_eq!(told.keys().collect::<Vec<_>>(), [&one]);
    body["extensions"]["account_data"]["lists"] = json!(["all"]);
    let answer = slider.ask(body).await;
    let told = answer["extensions"]["account_data"]["rooms"].as_object().unwrap();
    assert_eq!(told.keys().collect::<Vec<_>>(), [&two]);
}

#[tokio::test]
async fn a_poll_waits_for_something_in_its_windows() {
    let server = Server::start();
    let alice = server.user("alice").await;
    let bob = server.user("bob").await;
    let room = alice.public_room().await;
    bob.join(&room).await;
    let mut slider = Slider::new(&bob);
    slider.window(9, 5).await;
    let path = format!("{}&pos={}", PATH.replace("timeout=0", "timeout=60000"), slider.pos.clone().unwrap());
    let poll = tokio::spawn({
        let bob = bob.clone();
        async move { bob.ok(Method::POST, &path, window(9, 5)).await }
    });
    let said = alice.say(&room, "wake up").await;
    let answer = tokio::time::timeout(std::time::Duration::from_secs(30), poll).await.unwrap().unwrap();
    assert_eq!(ids(list(&answer, &format!("/rooms/{room}/timeline"))), [said]);
}

#[tokio::test]
async fn an_unnamed_room_has_heroes() {
    let server = Server::start();
    let alice = server.user("alice").await;
    let bob = server.user("bob").await;
    let room = alice.public_room().await;
    bob.join(&room).await;
    let answer = Slider::new(&alice).window(9, 1).await;
    let hero = &answer["rooms"][&room]["heroes"];
    assert_eq!(hero, &json!([{"user_id": bob.user}]));
}

#[tokio::test]
async fn members_come_with_what_they_say_and_when_they_change() {
    let server = Server::start();
    let alice = server.user("alice").await;
    let bob = server.user("bob").await;
    let room = alice.public_room().await;
    bob.join(&room).await;
    alice.say(&room, "hello").await;
    let mut slider = Slider::new(&alice);
    let told = |answer: &Value| kinds(list(&answer["rooms"][&room], "/required_state"));
    assert_eq!(told(&slider.window(9, 1).await), ["m.room.member @alice:us.example"]);
    bob.say(&room, "hello").await;
    assert_eq!(told(&slider.window(9, 1).await), ["m.room.member @bob:us.example"]);
    bob.say(&room, "hello again").await;
    assert_eq!(told(&slider.window(9, 1).await).len(), 0);
    let name = json!({"membership": "join", "displayname": "Dr Bob"});
    bob.state(&room, "m.room.member", &bob.user, name).await;
    assert_eq!(told(&slider.window(9, 1).await), ["m.room.member @bob:us.example"]);
}
