//! The device authorization grant.

use http::StatusCode;
use serde_json::Value;

use crate::{
    browser::Browser,
    oauth::{DEVICE, form, metadata, query, refused, register, scope, server},
    server::{Answer, Server},
};

async fn begin(server: &Server, client: &str) -> Value {
    form(server, "/oauth2/device", &[("client_id", client), ("scope", &scope(DEVICE))]).await.ok()
}

async fn poll(server: &Server, client: &str, device_code: &Value) -> Answer {
    let pairs = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
        ("client_id", client),
        ("device_code", device_code.as_str().unwrap()),
    ];
    form(server, "/oauth2/token", &pairs).await
}

#[tokio::test]
async fn a_device_is_let_in_by_its_code_once() {
    let server = server();
    server.user("alice").await;
    let client = register(&server, metadata()).await;
    let begun = begin(&server, &client).await;
    assert_eq!(begun["verification_uri"], "https://matrix.us.example/account/link");
    assert_eq!((begun["interval"].as_u64(), begun["expires_in"].as_u64()), (Some(5), Some(1200)));
    refused(&poll(&server, &client, &begun["device_code"]).await, 400, "authorization_pending");

    let mut browser = Browser::new(&server);
    let login = browser.get("/account/link").await;
    let page = browser.sign_in(&login, "alice").await;
    page.says("The code that the device shows");
    let typed = begun["user_code"].as_str().unwrap().to_lowercase().replace('-', " ");
    let question = browser.get(&format!("/account/link?{}", query(&[("user_code", &typed)]))).await;
    question.says("An &lt;App&gt;").says(DEVICE).says("Nobody from your organisation will ever send you a code");
    let form = question.form("/account/link").with("decision", "allow");
    let forged = browser.submit(form.clone().with("form_token", "forged")).await;
    assert_eq!(forged.status, StatusCode::FORBIDDEN);
    browser.submit(form.clone()).await.says("signed in");
    assert_eq!(browser.submit(form).await.status, StatusCode::NOT_FOUND);

    server.advance_ms(5_000);
    let tokens = poll(&server, &client, &begun["device_code"]).await.ok();
    let who = server.get(tokens["access_token"].as_str().unwrap(), "/v3/account/whoami").await.ok();
    assert_eq!(who["device_id"], DEVICE);
    assert!(tokens["refresh_token"].is_string());
    refused(&poll(&server, &client, &begun["device_code"]).await, 400, "invalid_grant");
}

#[tokio::test]
async fn a_device_that_asks_too_often_is_slowed_down() {
    let server = server();
    let client = register(&server, metadata()).await;
    let begun = begin(&server, &client).await;
    refused(&poll(&server, &client, &begun["device_code"]).await, 400, "authorization_pending");
    server.advance_ms(4_000);
    refused(&poll(&server, &client, &begun["device_code"]).await, 400, "slow_down");
    server.advance_ms(5_000);
    refused(&poll(&server, &client, &begun["device_code"]).await, 400, "slow_down");
    server.advance_ms(15_000);
    refused(&poll(&server, &client, &begun["device_code"]).await, 400, "authorization_pending");
}

#[tokio::test]
async fn a_device_that_is_refused_or_too_late_hears_of_it() {
    let server = server();
    server.user("alice").await;
    let client = register(&server, metadata()).await;
    let begun = begin(&server, &client).await;
    let mut browser = Browser::new(&server);
    let complete = begun["verification_uri_complete"].as_str().unwrap();
    let login = browser.get(complete.strip_prefix("https://matrix.us.example").unwrap()).await;
    let question = browser.sign_in(&login, "alice").await;
    browser.submit(question.form("/account/link").with("decision", "deny")).await.says("refused");
    refused(&poll(&server, &client, &begun["device_code"]).await, 400, "access_denied");

    let begun = begin(&server, &client).await;
    server.advance_ms(20 * 60_000 + 1);
    refused(&poll(&server, &client, &begun["device_code"]).await, 400, "expired_token");
    let code = begun["user_code"].as_str().unwrap();
    assert_eq!(browser.get(&format!("/account/link?user_code={code}")).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_device_code_is_its_client_s_alone_and_only_registered_clients_get_one() {
    let server = server();
    let client = register(&server, metadata()).await;
    let begun = begin(&server, &client).await;
    let mut other = metadata();
    other["client_name"] = "Another".into();
    let other_id = register(&server, other.clone()).await;
    refused(&poll(&server, &other_id, &begun["device_code"]).await, 400, "invalid_grant");
    other["grant_types"] = serde_json::json!(["authorization_code"]);
    let codes_only = register(&server, other).await;
    let asked = form(&server, "/oauth2/device", &[("client_id", &codes_only), ("scope", &scope(DEVICE))]).await;
    refused(&asked, 400, "unauthorized_client");
    refused(&form(&server, "/oauth2/device", &[("client_id", "x"), ("scope", "")]).await, 401, "invalid_client");
    refused(&form(&server, "/oauth2/device", &[("client_id", &client), ("scope", "x")]).await, 400, "invalid_scope");
}

#[tokio::test]
async fn one_address_cannot_fill_the_waiting_room() {
    let server = server();
    let client = register(&server, metadata()).await;
    for _ in 0..50 {
        begin(&server, &client).await;
    }
    let asked = form(&server, "/oauth2/device", &[("client_id", &client), ("scope", &scope(DEVICE))]).await;
    refused(&asked, 503, "temporarily_unavailable");
}
