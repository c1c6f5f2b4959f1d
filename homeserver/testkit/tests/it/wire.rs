//! What anyone may write into a request between servers: read or refused, never the server's own failure.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use matron_core::{
    federation::keys::x_matrix::{SignedRequest, XMatrix, sign_request},
    ports::http_method::Method,
};
use matron_room::SigningKey;
use matron_testkit::{Adversary, Foothold, TestNet, TestServer};
use proptest::{collection::vec, prelude::*, test_runner::TestRunner};
use ruma::ServerName;
use serde_json::{Value, json};

/// Any JSON, not too deep.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        // Others are spelt in more than one way, and a signature is over a spelling.
        any::<i16>().prop_map(|number| json!(f64::from(number) / 2.0)),
        ".{0,40}".prop_map(Value::from),
        "[@!$#][a-z]{1,8}:[a-z.]{1,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::from),
            proptest::collection::btree_map("[a-z_.]{1,10}", inner, 0..6).prop_map(|map| json!(map)),
        ]
    })
}

/// An event with some of its fields replaced, one level down too.
fn bent_event(event: Value) -> impl Strategy<Value = Value> {
    let fields: Vec<String> = event.as_object().unwrap().keys().cloned().collect();
    let bend = (proptest::sample::select(fields), any_json(), 0..3_u8);
    vec(bend, 0..4).prop_map(move |bends| {
        let mut event = event.clone();
        for (field, value, how) in bends {
            match how {
                0 => event[&field] = value,
                1 => {
                    event.as_object_mut().unwrap().remove(&field);
                }
                _ => {
                    let into = event[&field].as_object_mut();
                    into.map(|into| into.insert("content".to_owned(), value));
                }
            }
        }
        event
    })
}

/// The body of a transaction, more or less.
fn any_transaction(event: Value) -> impl Strategy<Value = Value> {
    let kinds =
        ["m.typing", "m.presence", "m.receipt", "m.direct_to_device", "m.device_list_update", "m.signing_key_update"];
    let kind = prop_oneof![proptest::sample::select(kinds.to_vec()).prop_map(str::to_owned), "[a-z.]{0,12}"];
    let edu = (kind, any_json()).prop_map(|(kind, content)| json!({"edu_type": kind, "content": content}));
    let pdu = prop_oneof![3 => bent_event(event), 1 => any_json()];
    prop_oneof![
        4 => (vec(pdu, 0..5), vec(prop_oneof![3 => edu, 1 => any_json()], 0..4))
            .prop_map(|(pdus, edus)| json!({"origin": "evil.example", "pdus": pdus, "edus": edus})),
        1 => any_json(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_text_is_read_or_refused_as_an_authorization_header(text in ".{0,200}", scheme in any::<bool>()) {
        let header = if scheme { format!("X-Matrix {text}") } else { text };
        if let Ok(read) = XMatrix::parse(&header) {
            prop_assert!(ServerName::parse(read.origin.as_str()).is_ok());
        }
    }

    #[test]
    fn parameters_in_any_order_quoted_or_not_are_read_alike(
        quoted in any::<[bool; 4]>(),
        spaces in vec(0..3_usize, 4),
        order in Just([0, 1, 2, 3]).prop_shuffle(),
        signature in "[A-Za-z0-9+/]{86}",
    ) {
        let parameters =
            [("origin", "a.example"), ("destination", "b.example:8448"), ("key", "ed25519:k"), ("sig", signature.as_str())];
        let mut text = "X-Matrix ".to_owned();
        for (place, at) in order.into_iter().enumerate() {
            let (name, value) = parameters[at];
            let quote = if quoted[at] { "\"" } else { "" };
            let comma = if place == 0 { "" } else { "," };
            text.push_str(&format!("{comma}{}{name}={quote}{value}{quote}", " ".repeat(spaces[at])));
        }
        let read = XMatrix::parse(&text).unwrap();
        prop_assert_eq!(read.origin.as_str(), "a.example");
        prop_assert_eq!(read.destination.as_deref().map(ServerName::as_str), Some("b.example:8448"));
        prop_assert_eq!(read.key_id.as_str(), "ed25519:k");
        prop_assert_eq!(read.signature, signature);
    }

    #[test]
    fn our_own_header_reads_back(uri in "/[a-z/%0-9]{0,60}", content in any_json()) {
        let key = SigningKey::from_seed("k", &[4; 32]).unwrap();
        let (origin, destination) = ("a.example".try_into().unwrap(), "b.example".try_into().unwrap());
        let request =
            SignedRequest { method: "PUT", uri: &uri, origin, destination: Some(destination), content: Some(&content) };
        let read = XMatrix::parse(&sign_request(&request, &key)).unwrap();
        prop_assert_eq!(&*read.origin, origin);
        let valid = matron_core::federation::keys::x_matrix::request_verifies(&request, &key.verify_key(), &read.signature);
        prop_assert!(valid);
    }
}

struct Listener {
    server: TestServer,
    evil: Arc<Adversary>,
    foothold: Foothold,
    _net: Arc<TestNet>,
}

async fn listener() -> Listener {
    let net = TestNet::new();
    let server = net.server("north.example");
    let alice = server.person("alice").await;
    let room = alice.room(json!({"preset": "public_chat"})).await;
    let evil = net.adversary("evil.example");
    let foothold = evil.join(&server, &room, "mallory").await;
    net.set_patience(std::time::Duration::from_millis(2000));
    Listener { server, evil, foothold, _net: net }
}

#[test]
fn any_body_of_a_transaction_is_answered_with_200_or_400() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let listener = runtime.block_on(listener());
    let event = listener.foothold.message("as it should be").seal(listener.evil.key(), listener.evil.name());
    let event: Value = serde_json::from_str(event.json().get()).unwrap();
    let mut runner =
        TestRunner::new(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() });
    let next = AtomicU64::new(0);
    runner
        .run(&any_transaction(event), |body| {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let path = format!("/_matrix/federation/v1/send/{number}");
            let asked = listener.evil.ask(&listener.server.name, Method::Put, &path, Some(body));
            let (status, answer) = runtime.block_on(asked);
            prop_assert!(status == 200 || status == 400, "{} {}", status, answer);
            prop_assert!(status == 200 || answer["errcode"].is_string(), "{}", answer);
            Ok(())
        })
        .unwrap();
}
