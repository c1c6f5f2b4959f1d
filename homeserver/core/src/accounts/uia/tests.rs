use futures_util::future::join_all;
use matron_storage::{Batch, CommitError, Key, Store, Table};
use ruma::OwnedUserId;
use serde_json::{Value, json};

use super::{Challenge, DUMMY, REGISTRATION_TOKEN, Session};
use crate::{
    Error, Settings,
    accounts::{Register, RegistrationToken},
    house::{from_json, to_json},
    settings::{Registration, RegistrationMode},
    test_world::World,
};

const CHALLENGE: Challenge<'static> = Challenge { user: None, operation: "POST /register", flows: &[&[DUMMY]] };

fn open() -> World {
    World::with(Settings {
        insecure_fast_password_hash: true,
        rate_limit: None,
        registration: Registration { mode: RegistrationMode::Open, ..Registration::default() },
        ..Settings::default()
    })
}

/// A session in which nothing is proved yet.
async fn begin(world: &World) -> String {
    let Err(Error::Interactive(asked)) = world.core.challenge(&CHALLENGE, None).await else { panic!("no session") };
    asked["session"].as_str().unwrap().to_owned()
}

fn named(name: &str, session: &str) -> Register {
    let auth = json!({"type": DUMMY, "session": session});
    serde_json::from_value(json!({"username": name, "password": "a long password", "auth": auth})).unwrap()
}

fn user(name: &str) -> OwnedUserId {
    format!("@{name}:us.example").try_into().unwrap()
}

/// What is written in the session now, changed; by somebody else than the test's server.
fn change(store: &dyn Store, session: &str, change: impl FnOnce(&mut Session)) {
    let key = Key::new().text(session);
    let bytes = store.get(Table::UiaSession, key.as_bytes()).unwrap().unwrap();
    let mut row: Session = from_json(Table::UiaSession, &bytes).unwrap();
    change(&mut row);
    let mut batch = Batch::new();
    batch.put(Table::UiaSession, key, to_json(&row).unwrap());
    store.submit(batch).wait().unwrap();
}

#[tokio::test]
async fn of_many_who_register_at_once_in_one_session_one_gets_an_account() {
    let world = open();
    let session = begin(&world).await;
    let names: Vec<String> = (0..8).map(|number| format!("user{number}")).collect();
    join_all(names.iter().map(|name| world.core.register(named(name, &session), None))).await;
    let made: Vec<_> = names.iter().filter(|name| world.core.account(&user(name)).unwrap().is_some()).collect();
    assert_eq!(made.len(), 1, "{made:?}");
    // The session goes on answering for that one alone.
    assert_eq!(world.core.registered_in(&session).unwrap(), Some(user(made[0])));
    let again = world.core.register(named("another", &session), None).await.unwrap();
    assert_eq!(again.user_id, user(made[0]));
    assert!(world.core.account(&user("another")).unwrap().is_none());
}

#[tokio::test]
async fn an_account_is_not_made_when_another_was_made_in_its_session_meanwhile() {
    let world = open();
    let session = begin(&world).await;
    let (mut first, mut second) = (Batch::new(), Batch::new());
    world.core.note_registered(&mut first, &session, &user("amira")).unwrap();
    world.core.note_registered(&mut second, &session, &user("ben")).unwrap();
    world.core.store.submit(first).await.unwrap();
    assert!(matches!(world.core.store.submit(second).await, Err(CommitError::Conflict(_))));
    let late = world.core.note_registered(&mut Batch::new(), &session, &user("ben"));
    assert!(matches!(late, Err(Error::Forbidden(_))), "{late:?}");
    world.core.note_registered(&mut Batch::new(), &session, &user("amira")).unwrap();
}

#[tokio::test]
async fn what_others_wrote_in_a_session_is_not_written_over() {
    let world = open();
    let session = begin(&world).await;
    let read = world.core.load_session(&CHALLENGE, &session).unwrap();
    change(&*world.core.store, &session, |row| {
        row.registered = Some(user("amira"));
        row.spoilt = true;
    });
    world.core.write_session(&session, &read).await.unwrap();
    assert_eq!(world.core.registered_in(&session).unwrap(), Some(user("amira")));
    let spoilt = world.core.load_session(&CHALLENGE, &session);
    assert!(matches!(spoilt, Err(Error::Forbidden(_))), "{spoilt:?}");

    // Nor what they write between the look and the commit.
    let session = begin(&world).await;
    let read = world.core.load_session(&CHALLENGE, &session).unwrap();
    let theirs = session.clone();
    world.meanwhile(move |store| change(store, &theirs, |row| row.registered = Some(user("ben"))));
    let written = world.core.write_session(&session, &read).await;
    assert!(matches!(written, Err(Error::LimitExceeded { .. })), "{written:?}");
    assert_eq!(world.core.registered_in(&session).unwrap(), Some(user("ben")));
}

#[tokio::test]
async fn a_session_that_was_begun_by_nobody_here_opens_nothing() {
    let world = open();
    for session in ["", "nonsense"] {
        let unknown = world.core.register(named("amira", session), None).await;
        assert!(matches!(unknown, Err(Error::Unknown(_))), "{unknown:?}");
    }
    let session = begin(&world).await;
    let other = Challenge { operation: "POST /elsewhere", ..CHALLENGE };
    let auth = json!({"type": DUMMY, "session": session});
    let refused = world.core.challenge(&other, Some(&auth)).await;
    assert!(matches!(refused, Err(Error::Forbidden(_))), "{refused:?}");
    assert!(world.core.challenge(&CHALLENGE, Some(&Value::Null)).await.is_err());
}

#[tokio::test]
async fn of_two_who_register_with_one_token_at_once_both_get_the_account_that_they_asked_for() {
    let world = World::with(Settings {
        insecure_fast_password_hash: true,
        rate_limit: None,
        registration: Registration { mode: RegistrationMode::Token, ..Registration::default() },
        ..Settings::default()
    });
    let core = &world.core;
    core.create_registration_token(Some("ward".to_owned()), Some(2), None).await.unwrap();
    let completed = |store: &dyn Store, completed: u64| {
        let mut batch = Batch::new();
        let row = RegistrationToken { uses_allowed: Some(2), completed, expiry_time: None };
        batch.put(Table::RegistrationToken, Key::new().text("ward"), to_json(&row).unwrap());
        store.submit(batch).wait().unwrap();
    };
    // As clients do: who they want to be is said once, and afterwards only what proves that they may.
    let begin = async |name: &str| {
        let asked = serde_json::from_value(json!({"username": name, "password": "a long password"})).unwrap();
        let Err(Error::Interactive(answer)) = core.register(asked, None).await else { panic!("no session") };
        let auth = json!({"type": REGISTRATION_TOKEN, "token": "ward", "session": answer["session"]});
        move || serde_json::from_value::<Register>(json!({"auth": auth})).unwrap()
    };
    // The first commit is the session's.
    let go_on = begin("amira").await;
    world.meanwhile_after(1, move |store| completed(store, 1));
    assert_eq!(core.register(go_on(), None).await.unwrap().user_id, user("amira"));
    assert!(core.account(&user("amira")).unwrap().unwrap().password_hash.is_some());
    assert_eq!(core.registration_tokens().unwrap()[0].1.completed, 2);

    // Who is refused is still who they said when they try again.
    completed(&*core.store, 1);
    let go_on = begin("ben").await;
    world.meanwhile_after(1, move |store| completed(store, 2));
    let late = core.register(go_on(), None).await;
    assert!(matches!(late, Err(Error::Forbidden(_))), "{late:?}");
    completed(&*core.store, 1);
    assert_eq!(core.register(go_on(), None).await.unwrap().user_id, user("ben"));
    assert!(core.account(&user("ben")).unwrap().unwrap().password_hash.is_some());
    assert_eq!(core.registration_tokens().unwrap()[0].1.completed, 2);
}
