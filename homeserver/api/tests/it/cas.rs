//! Signing in at a CAS server.

use http::{Method, StatusCode};
use matron_core::{
    Settings,
    settings::{CasValidation, OAuth, Protocol, Upstream},
};
use serde_json::{Value, json};

use crate::{
    browser::{Browser, Form, Shown},
    oauth::query,
    server::{Answer, Server},
};

const CAS: &str = "https://cas.trust.example/cas";

fn upstream() -> Upstream {
    Upstream {
        protocol: Protocol::Cas,
        id: "trust".to_owned(),
        name: "The <Trust>".to_owned(),
        issuer: CAS.to_owned(),
        display_name: "{displayName}".to_owned(),
        ..Upstream::default()
    }
}

fn server(enabled: bool, upstream: Upstream) -> Server {
    let settings = Settings {
        oauth: OAuth { enabled, upstreams: vec![upstream], ..OAuth::default() },
        ..crate::oauth::settings()
    };
    Server::with(settings, Vec::new())
}

fn without_cookies() -> Server {
    let upstream = Upstream {
        validation: CasValidation::Proxy,
        link_existing: true,
        insecure_without_cookies: true,
        ..upstream()
    };
    server(false, upstream)
}

fn answer(inside: &str) -> Value {
    json!(format!("<cas:serviceResponse xmlns:cas='http://www.yale.edu/tp/cas'>{inside}</cas:serviceResponse>"))
}

fn valid(user: &str, attributes: &str) -> Value {
    answer(&format!(
        "<cas:authenticationSuccess><cas:user>{user}</cas:user><cas:attributes>{attributes}</cas:attributes>\
         </cas:authenticationSuccess>"
    ))
}

fn refused() -> Value {
    answer("<cas:authenticationFailure code='INVALID_TICKET'>unknown</cas:authenticationFailure>")
}

/// Goes to the CAS server; the service that it is told.
async fn at_cas(browser: &mut Browser<'_>, path: &str) -> String {
    browser.get(path).await.led_to(&format!("{CAS}/login?"))["service"].clone()
}

/// Comes back from the CAS server with a ticket.
async fn back(browser: &mut Browser<'_>, service: &str, ticket: &str) -> Shown {
    let path = service.strip_prefix("https://matrix.us.example").unwrap();
    browser.get(&format!("{path}&{}", query(&[("ticket", ticket)]))).await
}

async fn sign_in(server: &Server, browser: &mut Browser<'_>, says: Result<Value, u16>) -> Shown {
    let service = at_cas(browser, "/account/upstream/trust?next=/account/").await;
    server.outside.will_answer([says]);
    back(browser, &service, "ST-1").await
}

#[tokio::test]
async fn a_cas_server_signs_somebody_in_and_an_account_is_made_with_what_it_says() {
    let server = server(
        true,
        Upstream {
            staff_number_claim: Some("staffId".to_owned()),
            roles_claim: Some("role".to_owned()),
            required_roles: vec!["ward nurse".to_owned()],
            ..upstream()
        },
    );
    let mut browser = Browser::new(&server);
    browser.get("/account/login").await.says("Continue with The &lt;Trust&gt;");
    let service = at_cas(&mut browser, "/account/upstream/trust?next=/account/").await;
    assert!(service.starts_with("https://matrix.us.example/account/upstream/trust/callback?state=mus_"), "{service}");
    let attributes = "<cas:displayName>Amira Khan</cas:displayName><cas:staffId>4711</cas:staffId>\
                      <cas:role>ward nurse</cas:role><cas:preferred_username>root</cas:preferred_username>";
    server.outside.will_answer([Ok(valid("Amira", attributes))]);
    let page = back(&mut browser, &service, "ST-1&x=é").await;
    // Whatever the ticket is, it is one parameter; but no ticket looks like this.
    assert_eq!((page.status, server.outside.count()), (StatusCode::FORBIDDEN, 0));

    let service = at_cas(&mut browser, "/account/upstream/trust?next=/account/").await;
    let page = back(&mut browser, &service, "ST-1&service=x").await;
    assert_eq!(page.at, "/account/");
    page.says("@amira:us.example").says("Amira Khan");
    let asked = server.outside.wait_for(1).await.remove(0);
    let expected = query(&[("service", &service), ("ticket", "ST-1&service=x")]);
    assert_eq!(asked.url, format!("{CAS}/p3/serviceValidate?{expected}"));
    assert!(asked.trusted && asked.max_bytes <= 64 * 1024 && asked.timeout.as_secs() <= 15);
    let user: &ruma::UserId = "@amira:us.example".try_into().unwrap();
    let identity = server.core.account(user).unwrap().unwrap().identities[0].clone();
    assert_eq!((identity.subject.as_str(), identity.staff_number.as_deref()), ("Amira", Some("4711")));
    assert!(identity.roles.contains("ward nurse"));

    // The same way back leads nowhere a second time, whatever the CAS server would say.
    assert_eq!(back(&mut browser, &service, "ST-1").await.status, StatusCode::FORBIDDEN);
    assert_eq!(server.outside.count(), 1);
    // Who lost the role is not let in.
    let shown = sign_in(&server, &mut Browser::new(&server), Ok(valid("Amira", "<cas:role>ward</cas:role>"))).await;
    assert_eq!(shown.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_ticket_that_another_browser_asked_for_signs_nobody_in() {
    let server = server(true, upstream());
    let (mut victim, mut attacker) = (Browser::new(&server), Browser::new(&server));
    let service = at_cas(&mut attacker, "/account/upstream/trust").await;
    for browser in [&mut victim, &mut Browser::new(&server)] {
        assert_eq!(back(browser, &service, "ST-1").await.status, StatusCode::FORBIDDEN);
    }
    victim.get("/account/login").await;
    assert_eq!(back(&mut victim, &service, "ST-1").await.status, StatusCode::FORBIDDEN);
    server.advance_ms(10 * 60_000);
    assert_eq!(back(&mut attacker, &service, "ST-1").await.status, StatusCode::FORBIDDEN);
    let shown = attacker.get("/account/upstream/trust/callback?ticket=ST-1").await;
    assert_eq!(shown.status, StatusCode::FORBIDDEN);
    assert_eq!(server.outside.count(), 0);
}

#[tokio::test]
async fn an_answer_of_the_cas_server_that_is_no_success_signs_nobody_in() {
    let proxied = "<cas:authenticationSuccess><cas:user>a</cas:user><cas:proxies><cas:proxy>x</cas:proxy></cas:proxies>\
                   </cas:authenticationSuccess>";
    let bomb = format!("<!DOCTYPE x [<!ENTITY a 'amira'>]>{}", valid("&a;", "").as_str().unwrap());
    for (says, expected) in [
        (Ok(refused()), StatusCode::FORBIDDEN),
        (Ok(answer(proxied)), StatusCode::FORBIDDEN),
        (Err(404), StatusCode::FORBIDDEN),
        (Err(500), StatusCode::BAD_GATEWAY),
        (Ok(json!("yes\namira\n")), StatusCode::BAD_GATEWAY),
        (Ok(json!({ "user": "amira" })), StatusCode::BAD_GATEWAY),
        (Ok(json!(bomb)), StatusCode::BAD_GATEWAY),
        (Ok(valid("", "")), StatusCode::BAD_GATEWAY),
    ] {
        let server = server(true, upstream());
        let mut browser = Browser::new(&server);
        let shown = sign_in(&server, &mut browser, says.clone()).await;
        assert_eq!(shown.status, expected, "{says:?}");
        assert!(browser.get("/account/").await.at.starts_with("/account/login"));
    }
}

/// A session of a client that signed in with the browser at the CAS server.
async fn client(server: &Server, browser: &mut Browser<'_>, user: &str) -> Value {
    let redirect = "/_matrix/client/v3/login/cas/redirect?redirectUrl=https%3A%2F%2Fapp.example%2F";
    let service = at_cas(browser, redirect).await;
    server.outside.will_answer([Ok(valid(user, "<cas:isFromNewLogin>true</cas:isFromNewLogin>"))]);
    let question = back(browser, &service, "ST-1").await;
    question.says("https://app.example").says(&format!("@{user}:us.example"));
    let token = browser.submit(question.form("/account/sso")).await.led_to("https://app.example/?loginToken=");
    server.post("", "/v3/login", json!({ "type": "m.login.token", "token": token["loginToken"] })).await.ok()
}

async fn delete_device(server: &Server, session: &Value, auth: Value) -> Answer {
    let path = format!("/v3/devices/{}", session["device_id"].as_str().unwrap());
    server.send(session["access_token"].as_str().unwrap(), Method::DELETE, &path, Some(auth)).await
}

fn page_of_stage(challenge: &Answer) -> String {
    assert_eq!(challenge.status, StatusCode::UNAUTHORIZED, "{}", challenge.body);
    let id = challenge.body["session"].as_str().unwrap();
    format!("/_matrix/client/v3/auth/m.login.sso/fallback/web?session={id}")
}

#[tokio::test]
async fn a_legacy_client_signs_in_by_cas_and_only_the_same_user_confirms_with_it() {
    let server = server(false, upstream());
    let flows = server.get("", "/v3/login").await.ok();
    let kinds: Vec<&Value> = flows["flows"].as_array().unwrap().iter().map(|flow| &flow["type"]).collect();
    assert!(kinds.contains(&&json!("m.login.sso")) && kinds.contains(&&json!("m.login.cas")), "{kinds:?}");
    let (mut amira, mut bob) = (Browser::new(&server), Browser::new(&server));
    let session = client(&server, &mut amira, "amira").await;
    client(&server, &mut bob, "bob").await;

    let challenge = delete_device(&server, &session, json!({})).await;
    assert_eq!(challenge.body["flows"], json!([{ "stages": ["m.login.sso"] }]));
    let (page, id) = (page_of_stage(&challenge), challenge.body["session"].clone());
    // Somebody else is asked to sign in again; and a form that they make by themselves ends the session.
    assert!(bob.get(&page).await.at.starts_with("/account/login?"));
    let own = bob.get("/account/").await.form("/account/logout");
    let forged = Form { action: page.clone(), fields: own.fields };
    assert_eq!(bob.submit(forged).await.status, StatusCode::FORBIDDEN);
    delete_device(&server, &session, json!({ "auth": { "session": id } })).await.refused(403, "M_FORBIDDEN");
    assert_eq!(amira.get(&page).await.status, StatusCode::FORBIDDEN);

    let challenge = delete_device(&server, &session, json!({})).await;
    let (page, id) = (page_of_stage(&challenge), challenge.body["session"].clone());
    // After a while the CAS server must see the credentials again.
    server.advance_ms(6 * 60_000);
    let login = amira.get(&page).await;
    assert!(login.at.contains("again=1"), "{}", login.at);
    let again = format!("/account/upstream/trust?{}&again=1", query(&[("next", &page)]));
    let asked = amira.get(&again).await.led_to(&format!("{CAS}/login?"));
    assert_eq!(asked["renew"], "true");
    server.outside.will_answer([Ok(valid("amira", ""))]);
    let shown = back(&mut amira, &asked["service"], "ST-2").await;
    assert!(server.outside.wait_for(3).await[2].url.ends_with("&renew=true"));
    amira.submit(shown.form("/_matrix/client/v3/auth/m.login.sso/fallback/web")).await.says("auth-done.js");
    delete_device(&server, &session, json!({ "auth": { "session": id } })).await.ok();
}

#[tokio::test]
async fn single_sign_on_leads_to_the_only_provider_and_another_account_is_asked_for_there() {
    let server = server(false, upstream());
    let mut browser = Browser::new(&server);
    let redirect = "/_matrix/client/v3/login/sso/redirect?redirectUrl=https%3A%2F%2Fapp.example%2F";
    let service = at_cas(&mut browser, redirect).await;
    server.outside.will_answer([Ok(valid("amira", ""))]);
    let question = back(&mut browser, &service, "ST-1").await;
    let asked = browser.submit(question.form("/account/logout")).await.led_to(&format!("{CAS}/login?"));
    assert_eq!(asked["renew"], "true");
    // Where there are passwords or other providers, people choose.
    let server = self::server(true, upstream());
    let login = Browser::new(&server).get(redirect).await;
    assert!(login.at.starts_with("/account/login?"), "{}", login.at);
}

#[tokio::test]
async fn the_ways_of_cas_are_closed_where_they_are_not_configured() {
    let plain = crate::oauth::server();
    let redirect = "/_matrix/client/v3/login/cas/redirect?redirectUrl=https%3A%2F%2Fapp.example%2F";
    assert_eq!(Browser::new(&plain).get(redirect).await.status, StatusCode::NOT_FOUND);
    assert!(!plain.get("", "/v3/login").await.ok().to_string().contains("m.login.cas"));
    let server = server(false, upstream());
    let ticket = "/_matrix/client/r0/login/cas/ticket?redirectUrl=https%3A%2F%2Fapp.example%2F&ticket=ST-1";
    assert_eq!(Browser::new(&server).get(ticket).await.status, StatusCode::NOT_FOUND);
    assert_eq!(server.outside.count(), 0);
}

#[tokio::test]
async fn where_it_is_allowed_a_browser_without_cookies_signs_in_and_reads_who_signs_in_where() {
    let server = without_cookies();
    let target = "https://app.example?p=http%3A%2F%2Fserver";
    for kind in ["cas", "sso"] {
        let redirect = format!("/_matrix/client/v3/login/{kind}/redirect?{}", query(&[("redirectUrl", target)]));
        let shown = Browser::new(&server).get(&redirect).await;
        assert_eq!(shown.status, StatusCode::FOUND);
        let service = shown.led_to(&format!("{CAS}/login?"))["service"].clone();
        let expected = query(&[("redirectUrl", target)]);
        assert_eq!(service, format!("https://matrix.us.example/_matrix/client/r0/login/cas/ticket?{expected}"));
        server.outside.will_answer([Ok(valid("amira", ""))]);
        let page = back(&mut Browser::new(&server), &service, "ST-1").await;
        page.says("@amira:us.example").says("https://app.example<");
        let link = page.html.split("href=\"https://app.example/").nth(1).unwrap().split('"').next().unwrap();
        let token = link.split("loginToken=").nth(1).unwrap();
        server.post("", "/v3/login", json!({ "type": "m.login.token", "token": token })).await.ok();
    }
    let asked = server.outside.wait_for(2).await;
    assert!(asked[0].url.starts_with(&format!("{CAS}/proxyValidate?service=https%3A%2F%2Fmatrix.us.example%2F")));

    // A browser that does keep cookies must have asked for the ticket, and for this one.
    let mut browser = Browser::new(&server);
    browser.get("/account/login").await;
    let service = |target: &str| {
        let query = query(&[("redirectUrl", target)]);
        format!("https://matrix.us.example/_matrix/client/r0/login/cas/ticket?{query}")
    };
    assert_eq!(back(&mut browser, &service(target), "ST-2").await.status, StatusCode::FORBIDDEN);
    let redirect = format!("/_matrix/client/v3/login/cas/redirect?{}", query(&[("redirectUrl", target)]));
    browser.get(&redirect).await;
    assert_eq!(back(&mut browser, &service("https://evil.example"), "ST-2").await.status, StatusCode::FORBIDDEN);
    server.outside.will_answer([Ok(valid("amira", ""))]);
    assert_eq!(back(&mut browser, &service(target), "ST-2").await.status, StatusCode::OK);
    assert_eq!(back(&mut browser, &service(target), "ST-2").await.status, StatusCode::FORBIDDEN);
    assert_eq!(back(&mut browser, &service("javascript:alert(1)"), "ST-2").await.status, StatusCode::BAD_REQUEST);
    assert_eq!(server.outside.count(), 3);
}

#[tokio::test]
async fn where_it_is_allowed_a_browser_without_cookies_confirms_as_the_same_user_alone() {
    let server = without_cookies();
    let alice = server.user("alice").await;
    let session = json!({ "device_id": alice.device, "access_token": alice.token });
    let challenge = delete_device(&server, &session, json!({})).await;
    assert_eq!(challenge.body["flows"], json!([{ "stages": ["m.login.password"] }, { "stages": ["m.login.sso"] }]));
    let (page, id) = (page_of_stage(&challenge), challenge.body["session"].clone());
    let shown = Browser::new(&server).get(&page).await;
    let link = shown.html.split("class=\"button\" href=\"").nth(1).unwrap().split('"').next().unwrap();
    assert!(link.starts_with(&format!("{CAS}/login?service=")) && link.ends_with("&amp;renew=true"), "{link}");
    let service = |id: &Value| {
        let session = id.as_str().unwrap();
        format!("https://matrix.us.example/_matrix/client/r0/login/cas/ticket?session={session}")
    };
    server.outside.will_answer([Ok(valid("mallory", ""))]);
    let shown = back(&mut Browser::new(&server), &service(&id), "ST-1").await;
    shown.says("as another user");
    delete_device(&server, &session, json!({ "auth": { "session": id } })).await.refused(403, "M_FORBIDDEN");

    let id = delete_device(&server, &session, json!({})).await.body["session"].clone();
    server.outside.will_answer([Ok(valid("alice", ""))]);
    back(&mut Browser::new(&server), &service(&id), "ST-2").await.says("auth-done.js");
    delete_device(&server, &session, json!({ "auth": { "session": id } })).await.ok();
    let unknown = back(&mut Browser::new(&server), &service(&json!("nonsense")), "ST-3").await;
    assert_eq!((unknown.status, server.outside.count()), (StatusCode::BAD_REQUEST, 2));
}
