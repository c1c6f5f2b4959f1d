use std::collections::BTreeSet;

use matron_storage::{Batch, Key, Store, Table};
use ruma::OwnedUserId;

use super::{Facts, Identity};
use crate::{
    Error, Settings,
    accounts::Account,
    house::{from_json, to_json},
    settings::Upstream,
    test_world::World,
};

fn world() -> World {
    World::with(Settings { insecure_fast_password_hash: true, ..Settings::default() })
}

fn upstream(id: &str) -> Upstream {
    Upstream { id: id.to_owned(), name: "Trust".to_owned(), link_existing: true, ..Upstream::default() }
}

fn facts(subject: &str, localpart: &str) -> Facts {
    Facts {
        subject: subject.to_owned(),
        localpart: localpart.to_owned(),
        display_name: None,
        staff_number: None,
        organisation: None,
        roles: BTreeSet::new(),
    }
}

/// Who of which provider has the account.
fn people(world: &World, user: &OwnedUserId) -> Vec<(String, String)> {
    let account = world.core.account(user).unwrap().unwrap();
    account.identities.iter().map(|known| (known.provider.clone(), known.subject.clone())).collect()
}

fn pair(provider: &str, subject: &str) -> (String, String) {
    (provider.to_owned(), subject.to_owned())
}

#[tokio::test]
async fn an_account_is_one_persons_of_a_provider_and_may_be_anothers_of_another() {
    let world = world();
    let amira = world.user("amira").await;
    let core = &world.core;
    for _ in 0..2 {
        assert_eq!(core.account_of_identity(&upstream("trust"), facts("1", "amira")).await.unwrap(), amira);
    }
    let refused = core.account_of_identity(&upstream("trust"), facts("2", "amira")).await;
    assert!(matches!(refused, Err(Error::Forbidden(_))), "{refused:?}");
    assert_eq!(core.account_of_identity(&upstream("region"), facts("2", "amira")).await.unwrap(), amira);
    assert_eq!(people(&world, &amira), [pair("trust", "1"), pair("region", "2")]);

    // Also of one that the first of them made.
    let made = core.account_of_identity(&upstream("trust"), facts("Ben", "ben")).await.unwrap();
    let refused = core.account_of_identity(&upstream("trust"), facts("ben", "ben")).await;
    assert!(matches!(refused, Err(Error::Forbidden(_))), "{refused:?}");
    assert_eq!(people(&world, &made), [pair("trust", "Ben")]);
}

#[tokio::test]
async fn of_two_people_who_come_at_once_one_gets_the_account() {
    let world = world();
    let amira = world.user("amira").await;
    world.meanwhile(|store: &dyn Store| {
        let key = Key::new().text("@amira:us.example");
        let bytes = store.get(Table::UserAccount, key.as_bytes()).unwrap().unwrap();
        let mut account: Account = from_json(Table::UserAccount, &bytes).unwrap();
        account.identities.push(Identity {
            provider: "trust".to_owned(),
            subject: "1".to_owned(),
            staff_number: None,
            organisation: None,
            roles: BTreeSet::new(),
        });
        let mut batch = Batch::new();
        batch.put(Table::UserAccount, key, to_json(&account).unwrap());
        store.submit(batch).wait().unwrap();
    });
    let second = world.core.account_of_identity(&upstream("trust"), facts("2", "amira")).await;
    assert!(matches!(second, Err(Error::Forbidden(_))), "{second:?}");
    // The first one's link was not written yet when they were cut off: they come again.
    assert_eq!(world.core.account_of_identity(&upstream("trust"), facts("1", "amira")).await.unwrap(), amira);
    assert_eq!(people(&world, &amira), [pair("trust", "1")]);
}
