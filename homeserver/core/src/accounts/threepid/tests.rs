use matron_storage::{Batch, Key, Table};
use ruma::OwnedUserId;

use super::by_address;
use crate::{Error, house::to_json, test_world::World};

const ADDRESS: &str = "amira@example.org";

fn owner(world: &World) -> Option<OwnedUserId> {
    world.core.user_of_threepid("email", ADDRESS).unwrap()
}

#[tokio::test]
async fn an_address_that_is_taken_away_is_free_for_others() {
    let world = World::new();
    let (anna, ben) = (world.user("anna").await, world.user("ben").await);
    let core = &world.core;
    core.bind_threepid(&anna, "email", ADDRESS).await.unwrap();
    assert!(matches!(
        core.bind_threepid(&ben, "email", ADDRESS).await,
        Err(Error::Custom { errcode: "M_THREEPID_IN_USE", .. })
    ));
    // Who has it not takes it from nobody.
    core.remove_threepid(&ben, "email", ADDRESS).await.unwrap();
    assert_eq!(owner(&world), Some(anna.clone()));
    core.remove_threepid(&anna, "email", "Amira@Example.ORG").await.unwrap();
    assert_eq!(owner(&world), None);
    assert!(core.threepids(&anna).unwrap().is_empty());
    core.bind_threepid(&ben, "email", ADDRESS).await.unwrap();
    assert_eq!(owner(&world), Some(ben));
}

#[tokio::test]
async fn an_address_that_became_anothers_meanwhile_stays_theirs() {
    let world = World::new();
    let (anna, ben) = (world.user("anna").await, world.user("ben").await);
    let core = &world.core;
    core.bind_threepid(&anna, "email", ADDRESS).await.unwrap();
    let next = ben.clone();
    world.meanwhile(move |store| {
        let mut batch = Batch::new();
        batch.delete(Table::UserThreepid, Key::new().text("@anna:us.example").text("email").text(ADDRESS));
        batch.put(Table::Misc, by_address("email", ADDRESS), to_json(next.as_str()).unwrap());
        store.submit(batch).wait().unwrap();
    });
    core.remove_threepid(&anna, "email", ADDRESS).await.unwrap();
    assert_eq!(owner(&world), Some(ben.clone()));
    // And so it does when the request comes again.
    core.remove_threepid(&anna, "email", ADDRESS).await.unwrap();
    assert_eq!(owner(&world), Some(ben));
}

#[tokio::test]
async fn an_account_closes_whole_though_its_user_takes_an_address_away_meanwhile() {
    let world = World::new();
    let anna = world.user("anna").await;
    let room = world.room(&[&anna]).await;
    let core = &world.core;
    core.bind_threepid(&anna, "email", ADDRESS).await.unwrap();
    // Of the commits of a closing account, the one that takes its addresses is the fourth.
    world.meanwhile_after(3, |store| {
        let address = by_address("email", ADDRESS);
        assert!(store.get(Table::Misc, address.as_bytes()).unwrap().is_some(), "it is not taken yet");
        let mut batch = Batch::new();
        batch.delete(Table::UserThreepid, Key::new().text("@anna:us.example").text("email").text(ADDRESS));
        batch.delete(Table::Misc, address);
        store.submit(batch).wait().unwrap();
    });
    core.deactivate(&anna, false).await.unwrap();
    assert_eq!(owner(&world), None);
    assert!(!core.is_joined(&anna, &room).unwrap());
}
