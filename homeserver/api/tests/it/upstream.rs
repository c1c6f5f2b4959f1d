//! Signing in at an identity provider.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::StatusCode;
use matron_core::{
    Settings,
    settings::{OAuth, Policy, Upstream},
};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};

use crate::{
    browser::{Browser, Shown},
    oauth::query,
    server::Server,
};

const ISSUER: &str = "https://id.trust.example/realm";

fn upstream() -> Upstream {
    Upstream {
        id: "trust".to_owned(),
        name: "The <Trust>".to_owned(),
        issuer: ISSUER.to_owned(),
        client_id: "matron".to_owned(),
        client_secret: Some("a secret".to_owned()),
        staff_number_claim: Some("staff_id".to_owned()),
        organisation_claim: Some("org".to_owned()),
        roles_claim: Some("roles".to_owned()),
        required_roles: vec!["clinician".to_owned()],
        acr_values: vec!["gold".to_owned()],
        ..Upstream::default()
    }
}

fn server(change: impl FnOnce(&mut Upstream)) -> Server {
    let mut upstream = upstream();
    change(&mut upstream);
    let settings = Settings {
        oauth: OAuth { enabled: true, upstreams: vec![upstream], ..OAuth::default() },
        policy: Policy { organisation: Some("RJ1".to_owned()), ..Policy::default() },
        ..crate::oauth::settings()
    };
    Server::with(settings, Vec::new())
}

fn discovery() -> Value {
    json!({
        "issuer": ISSUER,
        "authorization_endpoint": "https://id.trust.example/authorize?realm=1",
        "token_endpoint": "https://id.trust.example/token",
        "jwks_uri": "https://keys.elsewhere.example/jwks",
        "authorization_response_iss_parameter_supported": true,
    })
}

fn pair() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[9; 32]).unwrap()
}

fn keys() -> Value {
    let x = URL_SAFE_NO_PAD.encode(pair().public_key().as_ref());
    json!({ "keys": [{ "kty": "unknown" }, { "kty": "OKP", "crv": "Ed25519", "kid": "k", "x": x }] })
}

fn claims(nonce: &str) -> Value {
    json!({
        "iss": ISSUER, "aud": "matron", "exp": 1_800_000_300, "iat": 1_800_000_000, "auth_time": 1_800_000_000,
        "nonce": nonce, "sub": "subject-1", "acr": "gold", "preferred_username": "Amira", "name": "Amira Khan",
        "staff_id": "4711", "org": "RJ1", "roles": ["clinician", "ward-3"],
    })
}

fn id_token(claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let text = format!("{}.{}", part(&json!({ "alg": "EdDSA", "kid": "k" })), part(claims));
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(pair().sign(text.as_bytes())))
}

/// Goes to the provider; what it was asked.
async fn at_provider(browser: &mut Browser<'_>, path: &str) -> BTreeMap<String, String> {
    browser.get(path).await.led_to("https://id.trust.example/authorize?realm=1&")
}

/// Comes back from the provider with a code.
async fn back(browser: &mut Browser<'_>, asked: &BTreeMap<String, String>) -> Shown {
    let answer = query(&[("code", "c"), ("state", &asked["state"]), ("iss", ISSUER)]);
    browser.get(&format!("/account/upstream/trust/callback?{answer}")).await
}

async fn sign_in(server: &Server, browser: &mut Browser<'_>, change: impl FnOnce(&mut Value)) -> Shown {
    let asked = at_provider(browser, "/account/upstream/trust?next=/account/").await;
    let mut claims = claims(&asked["nonce"]);
    change(&mut claims);
    server.outside.will_answer([Ok(json!({ "id_token": id_token(&claims), "access_token": "a" })), Ok(keys())]);
    back(browser, &asked).await
}

#[tokio::test]
async fn a_provider_signs_somebody_in_and_an_account_is_made_with_what_it_says() {
    let server = server(|_| {});
    server.outside.will_answer([Ok(discovery())]);
    let mut browser = Browser::new(&server);
    browser.get("/account/login").await.says("Continue with The &lt;Trust&gt;");
    let asked = at_provider(&mut browser, "/account/upstream/trust?next=/account/").await;
    assert_eq!(asked["redirect_uri"], "https://matrix.us.example/account/upstream/trust/callback");
    assert_eq!((asked["scope"].as_str(), asked["acr_values"].as_str()), ("openid profile", "gold"));
    assert_eq!(asked["code_challenge_method"], "S256");
    let tokens = json!({ "id_token": id_token(&claims(&asked["nonce"])), "access_token": "a" });
    server.outside.will_answer([Ok(tokens), Ok(keys())]);
    let page = back(&mut browser, &asked).await;
    assert_eq!(page.at, "/account/");
    page.says("@amira:us.example").says("Amira Khan");

    let forms = server.outside.forms();
    assert_eq!(forms[0].basic, Some(("matron".to_owned(), "a secret".to_owned())));
    assert!(forms[0].trusted && forms[0].form.contains("code_verifier=") && !forms[0].form.contains("a+secret"));
    let asked_urls = server.outside.wait_for(2).await;
    // The issuer is the operator's choice and may be private; what it points to elsewhere may not.
    assert_eq!(asked_urls.iter().map(|request| request.trusted).collect::<Vec<_>>(), [true, false]);
    let user: &ruma::UserId = "@amira:us.example".try_into().unwrap();
    let account = server.core.account(user).unwrap().unwrap();
    let identity = &account.identities[0];
    assert_eq!((identity.staff_number.as_deref(), identity.organisation.as_deref()), (Some("4711"), Some("RJ1")));
    assert!(identity.roles.contains("ward-3") && account.password_hash.is_none());

    // The same person under another name has the same account; the provider's keys are remembered.
    let asked = at_provider(&mut browser, "/account/upstream/trust").await;
    let mut claims = claims(&asked["nonce"]);
    claims["preferred_username"] = json!("married");
    server.outside.will_answer([Ok(json!({ "id_token": id_token(&claims) }))]);
    back(&mut browser, &asked).await.says("@amira:us.example");
}

#[tokio::test]
async fn an_answer_that_this_browser_did_not_ask_for_signs_nobody_in() {
    let server = server(|_| {});
    server.outside.will_answer([Ok(discovery())]);
    let mut victim = Browser::new(&server);
    let mut attacker = Browser::new(&server);
    let asked = at_provider(&mut attacker, "/account/upstream/trust").await;
    victim.get("/account/login").await;
    assert_eq!(back(&mut victim, &asked).await.status, StatusCode::FORBIDDEN);
    assert!(server.outside.forms().is_empty());
    // Nor does one that was used, that is late, or that comes from another provider.
    let wrong = query(&[("code", "c"), ("state", &asked["state"]), ("iss", "https://evil.example")]);
    let shown = attacker.get(&format!("/account/upstream/trust/callback?{wrong}")).await;
    assert_eq!(shown.status, StatusCode::FORBIDDEN);
    assert_eq!(back(&mut attacker, &asked).await.status, StatusCode::FORBIDDEN);
    let asked = at_provider(&mut attacker, "/account/upstream/trust").await;
    server.advance_ms(10 * 60_000);
    assert_eq!(back(&mut attacker, &asked).await.status, StatusCode::FORBIDDEN);
    assert!(server.outside.forms().is_empty());
    let asked = at_provider(&mut attacker, "/account/upstream/trust").await;
    let said_no = query(&[("error", "access_denied"), ("state", &asked["state"])]);
    let shown = attacker.get(&format!("/account/upstream/trust/callback?{said_no}")).await;
    assert_eq!(shown.status, StatusCode::FORBIDDEN);
    assert_eq!(attacker.get("/account/upstream/nobody").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn claims_that_do_not_fit_sign_nobody_in() {
    let changes: [(&str, Value); 8] = [
        ("iss", json!("https://evil.example")),
        ("aud", json!("another")),
        ("exp", json!(1_799_999_000)),
        ("nonce", json!("another")),
        ("sub", json!("")),
        ("acr", json!("bronze")),
        ("org", json!("RJ2")),
        ("roles", json!(["visitor"])),
    ];
    for (claim, value) in changes {
        let server = server(|_| {});
        server.outside.will_answer([Ok(discovery())]);
        let mut browser = Browser::new(&server);
        let shown = sign_in(&server, &mut browser, |claims| claims[claim] = value).await;
        assert_eq!(shown.status, StatusCode::FORBIDDEN, "{claim}: {}", shown.html);
        assert!(browser.get("/account/").await.at.starts_with("/account/login"));
    }
}

#[tokio::test]
async fn an_account_that_exists_is_taken_over_only_where_the_operator_allows_it_and_never_an_operator_s() {
    for (link_existing, admin, expected) in
        [(false, false, StatusCode::FORBIDDEN), (true, false, StatusCode::OK), (true, true, StatusCode::FORBIDDEN)]
    {
        let server = server(|upstream| upstream.link_existing = link_existing);
        let amira = server.user("amira").await;
        server.core.set_admin(amira.id.as_str().try_into().unwrap(), admin).await.unwrap();
        server.outside.will_answer([Ok(discovery())]);
        let shown = sign_in(&server, &mut Browser::new(&server), |_| {}).await;
        assert_eq!(shown.status, expected, "{}", shown.html);
    }
    let server = server(|upstream| upstream.create_accounts = false);
    server.outside.will_answer([Ok(discovery())]);
    assert_eq!(sign_in(&server, &mut Browser::new(&server), |_| {}).await.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_legacy_client_chooses_the_provider_and_confirms_with_it() {
    let server = server(|_| {});
    server.outside.will_answer([Ok(discovery())]);
    let flows = server.get("", "/v3/login").await.ok();
    let sso = flows["flows"].as_array().unwrap().iter().find(|flow| flow["type"] == "m.login.sso").unwrap();
    assert_eq!(sso["identity_providers"], json!([{ "id": "trust", "name": "The <Trust>" }]));
    let mut browser = Browser::new(&server);
    let redirect = "/_matrix/client/v3/login/sso/redirect/trust?redirectUrl=https%3A%2F%2Fapp.example%2F";
    let asked = at_provider(&mut browser, redirect).await;
    server.outside.will_answer([Ok(json!({ "id_token": id_token(&claims(&asked["nonce"])) })), Ok(keys())]);
    let question = back(&mut browser, &asked).await;
    let token = browser.submit(question.form("/account/sso")).await.led_to("https://app.example/?loginToken=");
    let body = json!({ "type": "m.login.token", "token": token["loginToken"] });
    let session = server.post("", "/v3/login", body).await.ok();
    let access = session["access_token"].as_str().unwrap();

    // The account has no password: what needs confirmation is confirmed at the browser.
    let path = format!("/v3/devices/{}", session["device_id"].as_str().unwrap());
    let challenge = server.send(access, http::Method::DELETE, &path, Some(json!({}))).await;
    assert_eq!(challenge.status, StatusCode::UNAUTHORIZED);
    assert_eq!(challenge.body["flows"], json!([{ "stages": ["m.login.sso"] }]));
    let id = challenge.body["session"].as_str().unwrap();
    let page = browser.get(&format!("/_matrix/client/v3/auth/m.login.sso/fallback/web?session={id}")).await;
    let done = browser.submit(page.form("/_matrix/client/v3/auth/m.login.sso/fallback/web")).await;
    done.says("auth-done.js");
    let auth = json!({ "auth": { "session": id } });
    server.send(access, http::Method::DELETE, &path, Some(auth)).await.ok();
}

#[tokio::test]
async fn a_provider_that_is_down_or_lies_about_itself_is_no_defect_of_ours() {
    let server = server(|_| {});
    let mut other = discovery();
    other["issuer"] = json!("https://evil.example");
    let mut plain = discovery();
    plain["authorization_endpoint"] = json!("http://id.trust.example/authorize");
    server.outside.will_answer([Err(500), Ok(json!([])), Ok(other), Ok(plain)]);
    let mut browser = Browser::new(&server);
    for _ in 0..4 {
        assert_eq!(browser.get("/account/upstream/trust").await.status, StatusCode::BAD_GATEWAY);
    }
}
