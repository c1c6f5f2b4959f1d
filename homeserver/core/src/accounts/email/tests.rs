use std::sync::Arc;

use matron_storage::{Batch, CommitError};
use ruma::OwnedUserId;
use serde_json::{Value, json};

use super::{EmailCredentials, EmailRequest, Purpose, is_email_address};
use crate::{
    Core, Error, Settings,
    accounts::{Account, Login, Register, threepid::Assurance},
    ports::PeerError,
    settings::{Email, RateLimit, Registration, RegistrationMode},
    test_world::World,
};

const HOUR_MS: u64 = 60 * 60 * 1000;
const ADDRESS: &str = "amira@example.org";

fn settings() -> Settings {
    Settings {
        insecure_fast_password_hash: true,
        rate_limit: None,
        public_base_url: Some("https://matrix.us.example/".to_owned()),
        registration: Registration { mode: RegistrationMode::Open, ..Registration::default() },
        email: Email {
            server: Some("smtp.us.example".to_owned()),
            from: "Matron <matron@us.example>".to_owned(),
            ..Email::default()
        },
        ..Settings::default()
    }
}

fn request(secret: &str, address: &str, attempt: u64) -> EmailRequest {
    EmailRequest { client_secret: secret.to_owned(), email: address.to_owned(), send_attempt: attempt }
}

fn credentials(sid: &str, secret: &str) -> EmailCredentials {
    EmailCredentials { sid: sid.to_owned(), client_secret: secret.to_owned() }
}

/// The session and the token of the link in the last letter, if it has one.
fn last_link(world: &World) -> Option<(String, String)> {
    let letters = world.peers.letters.lock();
    let letter = letters.last().unwrap();
    let link =
        letter.text.lines().find_map(|line| line.strip_prefix("https://matrix.us.example/account/email?sid="))?;
    let (sid, token) = link.split_once("&token=").unwrap();
    let plain = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8().unwrap().into_owned();
    Some((plain(sid), plain(token)))
}

/// A proved session of this purpose; its secret is `s3cret`.
async fn prove(world: &World, purpose: Purpose, address: &str) -> EmailCredentials {
    let sid = world.core.request_email_proof(None, purpose, &request("s3cret", address, 1)).await.unwrap();
    let (in_letter, token) = last_link(world).unwrap();
    assert_eq!(in_letter, sid);
    assert_eq!(world.core.confirm_email(&sid, &token).await.unwrap(), purpose);
    credentials(&sid, "s3cret")
}

fn errcode(error: &Error) -> &'static str {
    match error {
        Error::Custom { errcode, .. } => errcode,
        other => panic!("{other:?}"),
    }
}

fn password() -> Value {
    json!({"type": "m.login.password", "password": "a long password"})
}

async fn log_in(core: &Core, body: Value) -> Result<OwnedUserId, Error> {
    let mut login = json!({"type": "m.login.password"});
    login.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
    let login: Login = serde_json::from_value(login).unwrap();
    core.log_in(login, None).await.map(|session| session.user_id)
}

#[test]
fn addresses_are_told_from_what_would_break_a_letter() {
    for good in ["a@b", "amira.o'neill+x@nhs.example.org", "A_B@x-y.example"] {
        assert!(is_email_address(good), "{good}");
    }
    let long = format!("a@{}", "b".repeat(300));
    for bad in
        ["", "a", "@b", "a@", "a b@c", "a@b\r\nBcc: x@y", "a@b>", "<a@b", "\"a\"@b", "a,b@c", "a@b..c", "é@b", &long]
    {
        assert!(!is_email_address(bad), "{bad}");
    }
}

#[tokio::test]
async fn where_no_letters_are_sent_nobody_proves_an_address() {
    let world = World::with(Settings { email: Email::default(), ..settings() });
    let anna = world.user("anna").await;
    let core = &world.core;
    for purpose in [Purpose::Register, Purpose::Add, Purpose::Password] {
        let refused = core.request_email_proof(None, purpose, &request("s", ADDRESS, 1)).await.unwrap_err();
        assert_eq!(errcode(&refused), "M_THREEPID_MEDIUM_NOT_SUPPORTED");
    }
    let requester = world.device(&anna, "D").await;
    let refused = core.add_email(&requester, &credentials("x", "y"), Some(&password())).await.unwrap_err();
    assert_eq!(errcode(&refused), "M_THREEPID_MEDIUM_NOT_SUPPORTED");
    assert!(matches!(core.replace_lost_password("new", true, None).await, Err(Error::MissingToken)));
}

#[tokio::test]
async fn an_address_is_an_accounts_after_a_letter_and_a_password_and_signs_it_in() {
    let world = World::with(settings());
    let anna = world.user("anna").await;
    let requester = world.device(&anna, "D").await;
    let core = &world.core;
    let sid = core.request_email_proof(None, Purpose::Add, &request("s3cret", "Amira@Example.org", 1)).await.unwrap();
    let proof = credentials(&sid, "s3cret");
    let early = core.add_email(&requester, &proof, Some(&password())).await.unwrap_err();
    assert_eq!(errcode(&early), "M_THREEPID_AUTH_FAILED");
    {
        let letters = world.peers.letters.lock();
        assert_eq!((letters.len(), letters[0].to.as_str()), (1, ADDRESS));
        assert!(letters[0].text.is_ascii());
    }
    let (_, token) = last_link(&world).unwrap();
    assert!(core.confirm_email(&sid, "mev_wrong").await.is_err());
    core.confirm_email(&sid, &token).await.unwrap();
    core.confirm_email(&sid, &token).await.unwrap();
    assert!(matches!(core.add_email(&requester, &proof, None).await, Err(Error::Interactive(_))));
    core.add_email(&requester, &proof, Some(&password())).await.unwrap();
    let owned = core.threepids(&anna).unwrap();
    assert_eq!((owned.len(), owned[0].address.as_str()), (1, ADDRESS));
    // The proof is used up.
    let again = core.add_email(&requester, &proof, Some(&password())).await.unwrap_err();
    assert_eq!(errcode(&again), "M_THREEPID_AUTH_FAILED");

    let identifier = json!({"type": "m.id.thirdparty", "medium": "email", "address": "AMIRA@example.org"});
    for body in [
        json!({"identifier": identifier, "password": "a long password"}),
        json!({"medium": "email", "address": ADDRESS, "password": "a long password"}),
    ] {
        assert_eq!(log_in(core, body).await.unwrap(), anna);
    }
    let wrong = log_in(core, json!({"medium": "email", "address": ADDRESS, "password": "wrong"})).await;
    assert!(matches!(wrong, Err(Error::Forbidden(_))), "{wrong:?}");
    core.deactivate(&anna, false).await.unwrap();
    let gone = log_in(core, json!({"medium": "email", "address": ADDRESS, "password": "a long password"})).await;
    assert!(gone.is_err());
}

#[tokio::test]
async fn a_proof_is_good_for_its_purpose_and_its_client_alone_and_for_an_hour() {
    let world = World::with(settings());
    let anna = world.user("anna").await;
    let requester = world.device(&anna, "D").await;
    let core = &world.core;
    let proof = prove(&world, Purpose::Register, ADDRESS).await;
    let other_purpose = core.add_email(&requester, &proof, Some(&password())).await.unwrap_err();
    assert_eq!(errcode(&other_purpose), "M_THREEPID_AUTH_FAILED");
    let proof = prove(&world, Purpose::Add, ADDRESS).await;
    let other_client = credentials(&proof.sid, "guess");
    let other_client = core.add_email(&requester, &other_client, Some(&password())).await.unwrap_err();
    assert_eq!(errcode(&other_client), "M_THREEPID_AUTH_FAILED");
    world.advance_ms(HOUR_MS);
    let late = core.add_email(&requester, &proof, Some(&password())).await.unwrap_err();
    assert_eq!(errcode(&late), "M_THREEPID_AUTH_FAILED");
    core.remove_expired_proofs().await.unwrap();
    let sessions = core.scan_all(matron_storage::Table::ThreepidSession, &matron_storage::Key::new()).unwrap();
    assert!(sessions.is_empty());
}

#[tokio::test]
async fn whether_an_address_has_an_account_is_told_to_nobody_but_who_reads_its_letters() {
    let world = World::with(settings());
    let anna = world.user("anna").await;
    let core = &world.core;
    core.bind_threepid(&anna, "email", ADDRESS).await.unwrap();
    for (purpose, address, subject) in [
        (Purpose::Register, ADDRESS, "You have an account already"),
        (Purpose::Add, ADDRESS, "You have an account already"),
        (Purpose::Password, "nobody@example.org", "There is no account with this address"),
    ] {
        core.request_email_proof(None, purpose, &request("s", address, 1)).await.unwrap();
        assert_eq!(last_link(&world), None);
        assert_eq!(world.peers.letters.lock().last().unwrap().subject, subject);
    }
    // But the specification wants it told to who would have the address too, and has an account.
    let requester = world.device(&anna, "D").await;
    let taken = core.request_email_proof(Some(&requester), Purpose::Add, &request("t", ADDRESS, 1)).await.unwrap_err();
    assert_eq!(errcode(&taken), "M_THREEPID_IN_USE");
}

#[tokio::test]
async fn passwords_of_an_address_that_is_nobodys_are_guessed_no_longer_than_of_one_that_is_somebodys() {
    let world = World::with(Settings { rate_limit: Some(RateLimit::default()), ..settings() });
    let anna = world.user("anna").await;
    world.core.bind_threepid(&anna, "email", ADDRESS).await.unwrap();
    for address in [ADDRESS, "nobody@example.org"] {
        let identifier = json!({"type": "m.id.thirdparty", "medium": "email", "address": address});
        let body = json!({"identifier": identifier, "password": "a wrong password"});
        for _ in 0..10 {
            assert!(matches!(log_in(&world.core, body.clone()).await, Err(Error::Forbidden(_))), "{address}");
        }
        assert!(matches!(log_in(&world.core, body).await, Err(Error::LimitExceeded { .. })), "{address}");
    }
}

#[tokio::test]
async fn nobody_is_flooded_with_letters() {
    let world = World::with(Settings { rate_limit: Some(RateLimit::default()), ..settings() });
    let core = &world.core;
    let ask = |secret: &'static str, attempt: u64| {
        let core = Arc::clone(core);
        async move { core.request_email_proof(None, Purpose::Register, &request(secret, ADDRESS, attempt)).await }
    };
    let letters = || world.peers.letters.lock().len();
    let first = ask("a", 1).await.unwrap();
    assert_eq!(ask("a", 1).await.unwrap(), first, "the same attempt");
    assert_eq!(letters(), 1);
    assert_eq!(ask("a", 2).await.unwrap(), first, "a reminder");
    assert_eq!(letters(), 2);
    for secret in ["b", "c", "d"] {
        ask(secret, 1).await.unwrap();
    }
    let limited = ask("e", 1).await;
    assert!(matches!(limited, Err(Error::LimitExceeded { .. })), "{limited:?}");
    world.advance_ms(HOUR_MS);
    ask("e", 1).await.unwrap();
}

#[tokio::test]
async fn a_letter_that_could_not_be_sent_is_sent_by_the_next_try() {
    let world = World::with(settings());
    *world.peers.mail_fails.lock() = true;
    let failed = world.core.request_email_proof(None, Purpose::Register, &request("s", ADDRESS, 1)).await;
    assert!(matches!(failed, Err(Error::Peer(_))), "{failed:?}");
    *world.peers.mail_fails.lock() = false;
    world.core.request_email_proof(None, Purpose::Register, &request("s", ADDRESS, 1)).await.unwrap();
    assert!(last_link(&world).is_some());
    assert!(!format!("{:?} {:?}", PeerError::Timeout, world.peers.letters.lock()).contains(ADDRESS));
}

#[tokio::test]
async fn somebody_registers_with_an_address() {
    let world = World::with(settings());
    let core = &world.core;
    let register = |name: &str, auth: Option<Value>| {
        let body = json!({"username": name, "password": "a long password", "auth": auth});
        let body: Register = serde_json::from_value(body).unwrap();
        async move { core.register(body, None).await }
    };
    let Err(Error::Interactive(asked)) = register("amira", None).await else { panic!("no flows") };
    assert_eq!(asked["flows"], json!([{"stages": ["m.login.dummy"]}, {"stages": ["m.login.email.identity"]}]));
    let auth = |proof: &EmailCredentials| {
        let creds = json!({"sid": proof.sid, "client_secret": proof.client_secret, "id_server": "id.example"});
        json!({"type": "m.login.email.identity", "session": asked["session"], "threepid_creds": creds})
    };
    let Err(Error::Interactive(early)) = register("amira", Some(auth(&credentials("x", "y")))).await else {
        panic!("an address that nobody has proved")
    };
    assert_eq!(early["errcode"], "M_THREEPID_AUTH_FAILED");
    let proof = prove(&world, Purpose::Register, ADDRESS).await;
    let made = register("amira", Some(auth(&proof))).await.unwrap();
    assert_eq!(core.threepids(&made.user_id).unwrap()[0].address, ADDRESS);
    assert!(core.may_reset_by(&made.user_id, "email", ADDRESS).unwrap());

    // A proof that was used makes no second account.
    let mut again = auth(&proof);
    again.as_object_mut().unwrap().remove("session");
    assert!(matches!(register("second", Some(again)).await, Err(Error::Interactive(_))));
}

#[tokio::test]
async fn where_registration_needs_a_token_an_address_may_be_proved_too() {
    let mut settings = settings();
    settings.registration.mode = RegistrationMode::Token;
    let world = World::with(settings);
    let body: Register = serde_json::from_value(json!({"username": "amira", "password": "a long password"})).unwrap();
    let Err(Error::Interactive(asked)) = world.core.register(body, None).await else { panic!("no flows") };
    let token = "m.login.registration_token";
    // Without the dummy, whoever completes the token first would have an account before the address is proved.
    assert_eq!(
        asked["flows"],
        json!([{"stages": [token, "m.login.dummy"]}, {"stages": [token, "m.login.email.identity"]}])
    );
}

#[tokio::test]
async fn a_lost_password_is_replaced_by_who_reads_the_accounts_letters() {
    let world = World::with(settings());
    let (anna, ben) = (world.user("anna").await, world.user("ben").await);
    let core = &world.core;
    let requester = world.device(&anna, "D").await;
    core.add_email(&requester, &prove(&world, Purpose::Add, ADDRESS).await, Some(&password())).await.unwrap();
    let reset = |proof: EmailCredentials, new: &'static str| async move {
        let creds = json!({"sid": proof.sid, "client_secret": proof.client_secret});
        let auth = json!({"type": "m.login.email.identity", "threepid_creds": creds});
        core.replace_lost_password(new, true, Some(&auth)).await
    };
    let proof = prove(&world, Purpose::Password, ADDRESS).await;
    reset(proof.clone(), "quite another one").await.unwrap();
    let body = |password: &str| json!({"identifier": {"type": "m.id.user", "user": "anna"}, "password": password});
    assert!(log_in(core, body("a long password")).await.is_err());
    assert_eq!(log_in(core, body("quite another one")).await.unwrap(), anna);
    assert!(core.find_device(&anna, "D".into()).unwrap().is_none(), "sessions are gone");
    assert!(matches!(reset(proof, "a third one").await, Err(Error::Interactive(_))), "once");

    // An address that came by a found session takes no account over.
    let requester = world.device(&ben, "D").await;
    core.add_email_unconfirmed(&requester, &prove(&world, Purpose::Add, "ben@example.org").await).await.unwrap();
    let refused = reset(prove(&world, Purpose::Password, "ben@example.org").await, "mine now").await;
    assert!(matches!(refused, Err(Error::Forbidden(_))), "{refused:?}");
    assert_eq!(
        log_in(core, json!({"medium": "email", "address": "ben@example.org", "password": "a long password"}))
            .await
            .unwrap(),
        ben
    );

    // Nor one of an account that never had a password.
    let carl = core.create_user("carl", None, false).await.unwrap();
    core.bind_threepid(&carl, "email", "carl@example.org").await.unwrap();
    let refused = reset(prove(&world, Purpose::Password, "carl@example.org").await, "mine now").await;
    assert!(matches!(refused, Err(Error::Forbidden(_))), "{refused:?}");
}

#[tokio::test]
async fn an_address_has_one_account() {
    let world = World::with(settings());
    let (anna, ben) = (world.user("anna").await, world.user("ben").await);
    let core = &world.core;
    // Both prove it before either has it.
    let first = prove(&world, Purpose::Add, ADDRESS).await;
    let sid = core.request_email_proof(None, Purpose::Add, &request("other", ADDRESS, 1)).await.unwrap();
    let (_, token) = last_link(&world).unwrap();
    core.confirm_email(&sid, &token).await.unwrap();
    let (annas, bens) = (world.device(&anna, "D").await, world.device(&ben, "D").await);
    core.add_email(&annas, &first, Some(&password())).await.unwrap();
    let taken = core.add_email(&bens, &credentials(&sid, "other"), Some(&password())).await.unwrap_err();
    assert_eq!(errcode(&taken), "M_THREEPID_IN_USE");
    core.remove_threepid(&anna, "email", "AMIRA@example.org").await.unwrap();
    core.add_email(&bens, &credentials(&sid, "other"), Some(&password())).await.unwrap();
    assert_eq!(core.user_of_threepid("email", ADDRESS).unwrap(), Some(ben));
}

#[tokio::test]
async fn of_two_who_register_with_one_address_at_once_the_second_hears_that_it_has_an_account() {
    let world = World::with(settings());
    let core = &world.core;
    let user = |name: &str| OwnedUserId::try_from(format!("@{name}:us.example")).unwrap();
    let (amira, other) = (user("amira"), user("other"));
    let put =
        |batch: &mut Batch, user| core.put_threepid(batch, user, "email", ADDRESS, core.now_ms(), Assurance::Full);
    let mut first = Batch::new();
    put(&mut first, &amira).unwrap();
    world.meanwhile(move |store| {
        store.submit(first).wait().unwrap();
    });
    let late = core.insert_account(&other, &Account::default(), |batch| put(batch, &other)).await.unwrap_err();
    assert_eq!(errcode(&late), "M_THREEPID_IN_USE");
    core.insert_account(&amira, &Account::default(), |batch| put(batch, &amira)).await.unwrap();
    let late = core.insert_account(&amira, &Account::default(), |_| Ok(())).await;
    assert!(matches!(late, Err(Error::UserInUse)));
}

#[tokio::test]
async fn an_account_that_closes_gets_no_address_any_more() {
    let world = World::with(settings());
    let (anna, ben) = (world.user("anna").await, world.user("ben").await);
    let core = &world.core;
    // Begun before it closes, and ended after.
    let mut begun = Batch::new();
    core.put_threepid(&mut begun, &anna, "email", ADDRESS, core.now_ms(), Assurance::Full).unwrap();
    core.deactivate(&anna, false).await.unwrap();
    assert!(matches!(core.store.submit(begun).await, Err(CommitError::Conflict(_))));
    assert!(matches!(core.bind_threepid(&anna, "email", ADDRESS).await, Err(Error::Forbidden(_))));
    assert!(core.threepids(&anna).unwrap().is_empty());
    // What else changes an account takes nothing away from who adds an address.
    let lock = core.update_account(&ben, |account| {
        account.browser_epoch += 1;
        Ok(())
    });
    let (added, changed) = tokio::join!(core.bind_threepid(&ben, "email", ADDRESS), lock);
    added.and(changed).unwrap();
}
