//! Registering with a captcha.

use http::StatusCode;
use matron_core::{
    Settings,
    settings::{OAuth, Recaptcha, Registration, RegistrationMode},
};
use serde_json::{Value, json};

use crate::{
    browser::Browser,
    server::{Server, open_settings},
};

fn server(mode: RegistrationMode, required: bool) -> Server {
    let recaptcha = Recaptcha {
        public_key: Some("a \"public\" key".to_owned()),
        secret: Some("a secret".to_owned()),
        url: "https://captcha.example/recaptcha/".to_owned(),
        required,
        ..Recaptcha::default()
    };
    let settings = Settings {
        registration: Registration { mode, recaptcha, ..Registration::default() },
        oauth: OAuth { enabled: true, ..OAuth::default() },
        ..open_settings()
    };
    Server::with(settings, Vec::new())
}

fn register(auth: Value) -> Value {
    json!({ "username": "alice", "password": "a long password", "auth": auth })
}

#[tokio::test]
async fn nobody_registers_without_the_captcha_that_the_server_demands() {
    let server = server(RegistrationMode::Open, true);
    let asked = server.post("", "/v3/register", register(Value::Null)).await;
    assert_eq!(asked.status, StatusCode::UNAUTHORIZED);
    assert_eq!(asked.body["flows"], json!([{ "stages": ["m.login.recaptcha"] }]));
    assert_eq!(asked.body["params"], json!({ "m.login.recaptcha": { "public_key": "a \"public\" key" } }));
    let session = &asked.body["session"];

    let dummy = register(json!({ "type": "m.login.dummy", "session": session }));
    server.post("", "/v3/register", dummy).await.refused(401, "M_UNRECOGNIZED");
    let without = register(json!({ "type": "m.login.recaptcha", "session": session }));
    server.post("", "/v3/register", without).await.refused(401, "M_CAPTCHA_NEEDED");
    assert!(server.outside.forms().is_empty());

    let with = register(json!({ "type": "m.login.recaptcha", "response": "I am&me", "session": session }));
    server.outside.will_answer([Ok(json!({ "success": false, "error-codes": ["timeout-or-duplicate"] }))]);
    server.post("", "/v3/register", with.clone()).await.refused(401, "M_CAPTCHA_INVALID");
    let long = register(json!({ "type": "m.login.recaptcha", "response": "x".repeat(20_000), "session": session }));
    server.post("", "/v3/register", long).await.refused(401, "M_CAPTCHA_INVALID");
    // A service that says nothing that can be understood lets nobody in.
    server.outside.will_answer([Err(500), Ok(json!("<html>"))]);
    for _ in 0..2 {
        assert_eq!(server.post("", "/v3/register", with.clone()).await.status, StatusCode::BAD_GATEWAY);
    }
    server.outside.will_answer([Ok(json!({ "success": true }))]);
    assert_eq!(server.post("", "/v3/register", with).await.ok()["user_id"], "@alice:us.example");

    let forms = server.outside.forms();
    assert_eq!(forms.len(), 4);
    assert_eq!(forms[3].url, "https://captcha.example/recaptcha/api/siteverify");
    assert_eq!(forms[3].form, "secret=a+secret&response=I+am%26me");
    assert!(forms[3].trusted);
}

#[tokio::test]
async fn a_captcha_comes_before_the_registration_token_and_can_be_solved_on_its_page() {
    let server = server(RegistrationMode::Token, true);
    let asked = server.post("", "/v3/register", register(Value::Null)).await;
    assert_eq!(asked.body["flows"], json!([{ "stages": ["m.login.recaptcha", "m.login.registration_token"] }]));
    let session = asked.body["session"].as_str().unwrap();
    let path = "/_matrix/client/v3/auth/m.login.recaptcha/fallback/web";
    let mut browser = Browser::new(&server);
    let page = browser.get(&format!("{path}?session={session}")).await;
    page.says("src=\"https://captcha.example/recaptcha/api.js\"").says("data-sitekey=\"a &quot;public&quot; key\"");
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    for part in [
        "default-src 'none'; style-src 'self';",
        "script-src 'self' https://captcha.example/recaptcha/ https://www.gstatic.com/recaptcha/;",
        "frame-src https://captcha.example/recaptcha/ ",
        "form-action 'self';",
        "frame-ancestors 'none'",
    ] {
        assert!(policy.contains(part), "{part}: {policy}");
    }
    let form = page.form(path).with("g-recaptcha-response", "I am me");
    server.outside.will_answer([Ok(json!({ "success": false })), Ok(json!({ "success": true }))]);
    assert_eq!(browser.submit(form.clone()).await.status, StatusCode::FORBIDDEN);
    let done = browser.submit(form).await;
    done.says("auth-done.js");
    assert!(!done.headers["content-security-policy"].to_str().unwrap().contains("captcha.example"));
    let asked = server.post("", "/v3/register", register(json!({ "session": session }))).await;
    assert_eq!((asked.status, &asked.body["completed"]), (StatusCode::UNAUTHORIZED, &json!(["m.login.recaptcha"])));
}

#[tokio::test]
async fn the_server_s_own_page_demands_the_captcha_too() {
    let server = server(RegistrationMode::Open, true);
    let mut browser = Browser::new(&server);
    let page = browser.get("/account/register").await;
    let form = page.form("/account/register").with("username", "alice");
    let form = form.with("password", "a long password").with("password_again", "a long password");
    page.says("class=\"g-recaptcha\"");
    assert_eq!(browser.submit(form.clone()).await.status, StatusCode::FORBIDDEN);
    server.outside.will_answer([Ok(json!({ "success": true }))]);
    let shown = browser.submit(form.with("g-recaptcha-response", "I am me")).await;
    assert_eq!((shown.status, shown.at.as_str()), (StatusCode::OK, "/account/"), "{}", shown.html);
}

#[tokio::test]
async fn a_captcha_that_is_not_required_can_be_solved_and_opens_nothing() {
    let server = server(RegistrationMode::Open, false);
    server.outside.will_answer([Ok(json!({ "success": true }))]);
    let auth = json!({ "type": "m.login.recaptcha", "response": "I am me" });
    let asked = server.post("", "/v3/register", register(auth.clone())).await;
    assert_eq!(asked.body["flows"], json!([{ "stages": ["m.login.dummy"] }]));
    assert_eq!((asked.status, &asked.body["completed"]), (StatusCode::UNAUTHORIZED, &json!(["m.login.recaptcha"])));
    assert!(!Browser::new(&server).get("/account/register").await.html.contains("captcha"));
    server.user("bob").await;

    // Nor is there a page of it, or a stage, where none is configured.
    let plain = Server::new();
    let asked = plain.post("", "/v3/register", register(auth)).await;
    asked.refused(401, "M_UNRECOGNIZED");
    let asked = plain.post("", "/v3/register", register(Value::Null)).await;
    assert_eq!(asked.body["params"], json!({}));
    let session = asked.body["session"].as_str().unwrap();
    let path = format!("/_matrix/client/v3/auth/m.login.recaptcha/fallback/web?session={session}");
    assert_eq!(Browser::new(&plain).get(&path).await.status, StatusCode::NOT_FOUND);
    assert!(plain.outside.forms().is_empty());
}
