//! The account's pages.

use http::StatusCode;
use serde_json::{Value, json};

use crate::{
    browser::Browser,
    oauth::{DEVICE, server, session},
    server::Server,
};

async fn signed_in<'a>(server: &'a Server, path: &str) -> (Browser<'a>, crate::browser::Shown) {
    let mut browser = Browser::new(server);
    let login = browser.get(path).await;
    let page = browser.sign_in(&login, "alice").await;
    (browser, page)
}

#[tokio::test]
async fn a_user_sees_and_ends_sessions() {
    let server = server();
    let (_, tokens) = session(&server).await;
    let token = tokens["access_token"].as_str().unwrap();
    server.get(token, "/v3/account/whoami").await.ok();
    let (mut browser, list) = signed_in(&server, "/account/?action=org.matrix.devices_list").await;
    list.says("An &lt;App&gt;");
    browser.get(&format!("/account/?action=org.matrix.session_view&device_id={DEVICE}")).await.says(DEVICE);
    let page = browser.get(&format!("/account/?action=org.matrix.device_delete&device_id={DEVICE}")).await;
    page.says("End this session?");
    let form = page.form("/account/device");
    assert_eq!(browser.submit(form.clone().with("form_token", "x")).await.status, StatusCode::FORBIDDEN);
    server.get(token, "/v3/account/whoami").await.ok();
    browser.submit(form).await.says("The session was ended");
    server.get(token, "/v3/account/whoami").await.refused(401, "M_UNKNOWN_TOKEN");
    let gone = browser.get(&format!("/account/?action=org.matrix.device_view&device_id={DEVICE}")).await;
    assert_eq!(gone.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_user_changes_the_display_name() {
    let server = server();
    let alice = server.user("alice").await;
    let (mut browser, page) = signed_in(&server, "/account/?action=org.matrix.profile").await;
    let form = page.form("/account/profile").with("display_name", "Alice <of> Ward 3");
    browser.submit(form).await.says("Alice &lt;of&gt; Ward 3");
    let profile = server.get(&alice.token, &format!("/v3/profile/{}", alice.id)).await.ok();
    assert_eq!(profile["displayname"], "Alice <of> Ward 3");
}

#[tokio::test]
async fn closing_an_account_needs_a_fresh_sign_in_and_the_user_id() {
    let server = server();
    let alice = server.user("alice").await;
    let (mut browser, _) = signed_in(&server, "/account/").await;
    server.advance_ms(6 * 60_000);
    let login = browser.get("/account/?action=org.matrix.account_deactivate").await;
    assert!(login.at.starts_with("/account/login"), "{}", login.at);
    let page = browser.sign_in(&login, "alice").await;
    let form = page.form("/account/deactivate");
    let unsure = browser.submit(form.clone().with("user_id", "@bob:us.example")).await;
    assert_eq!(unsure.status, StatusCode::BAD_REQUEST);
    server.get(&alice.token, "/v3/account/whoami").await.ok();
    browser.submit(form.with("user_id", "@alice:us.example")).await.says("closed for good");
    server.get(&alice.token, "/v3/account/whoami").await.refused(401, "M_UNKNOWN_TOKEN");
    assert!(browser.get("/account/").await.at.starts_with("/account/login"));
}

fn keys(user: &str, seed: u8) -> Value {
    use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
    let public = STANDARD_NO_PAD.encode([seed; 32]);
    let id = format!("ed25519:{public}");
    json!({ "master_key": { "user_id": user, "usage": ["master"], "keys": { id: public } } })
}

#[tokio::test]
async fn an_oauth_session_replaces_the_identity_only_after_the_user_agreed_on_the_page() {
    let server = server();
    let (_, tokens) = session(&server).await;
    let token = tokens["access_token"].as_str().unwrap();
    let upload = |body: Value| server.post(token, "/v3/keys/device_signing/upload", body);
    upload(keys("@alice:us.example", 1)).await.ok();
    let challenge = upload(keys("@alice:us.example", 2)).await;
    assert_eq!(challenge.status, StatusCode::UNAUTHORIZED);
    assert_eq!(challenge.body["flows"][0]["stages"], json!(["m.oauth"]));
    let url = challenge.body["params"]["m.oauth"]["url"].as_str().unwrap().to_owned();
    assert_eq!(url, "https://matrix.us.example/account/?action=org.matrix.cross_signing_reset");
    let mut again = keys("@alice:us.example", 2);
    again["auth"] = json!({ "session": challenge.body["session"] });
    assert_eq!(upload(again.clone()).await.status, StatusCode::UNAUTHORIZED);

    let path = url.strip_prefix("https://matrix.us.example").unwrap();
    let (mut browser, page) = signed_in(&server, path).await;
    browser.submit(page.form("/account/identity")).await.says("Go back to it");
    upload(again).await.ok();
    // Once, and no more.
    assert_eq!(upload(keys("@alice:us.example", 3)).await.status, StatusCode::UNAUTHORIZED);
    let page = browser.get(path).await;
    browser.submit(page.form("/account/identity")).await;
    server.advance_ms(10 * 60_000);
    assert_eq!(upload(keys("@alice:us.example", 3)).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn an_oauth_session_does_nothing_else_that_needs_interactive_authentication() {
    let server = server();
    let (_, tokens) = session(&server).await;
    let token = tokens["access_token"].as_str().unwrap();
    let auth = json!({ "type": "m.login.password", "password": "a long password" });
    for (path, body) in [
        ("/v3/account/password", json!({ "new_password": "another", "auth": auth })),
        ("/v3/account/deactivate", json!({ "auth": auth })),
        ("/v3/delete_devices", json!({ "devices": [DEVICE], "auth": auth })),
        ("/v1/login/get_token", json!({ "auth": auth })),
    ] {
        server.post(token, path, body).await.refused(403, "M_FORBIDDEN");
    }
    server.post(token, "/v3/logout", json!({})).await.ok();
    server.get(token, "/v3/account/whoami").await.refused(401, "M_UNKNOWN_TOKEN");
}

#[tokio::test]
async fn a_locked_account_can_log_out_and_nothing_else() {
    let server = server();
    let (client, tokens) = session(&server).await;
    let admin = server.user("operator").await;
    server.core.set_admin(admin.id.as_str().try_into().unwrap(), true).await.unwrap();
    let admin = {
        let login = json!({ "type": "m.login.password", "user": "operator", "password": "a long password" });
        crate::server::user_of(&server.post("", "/v3/login", login).await.ok())
    };
    server.put(&admin.token, "/v1/admin/lock/@alice:us.example", json!({ "locked": true })).await.ok();
    let token = tokens["access_token"].as_str().unwrap();
    let locked = server.get(token, "/v3/account/whoami").await.refused(401, "M_USER_LOCKED");
    assert_eq!(locked["soft_logout"], true);
    let refresh = [
        ("grant_type", "refresh_token"),
        ("client_id", client.as_str()),
        ("refresh_token", tokens["refresh_token"].as_str().unwrap()),
    ];
    crate::oauth::refused(&crate::oauth::form(&server, "/oauth2/token", &refresh).await, 400, "invalid_grant");
    let mut browser = Browser::new(&server);
    let login = browser.get("/account/").await;
    assert_eq!(browser.sign_in(&login, "alice").await.status, StatusCode::UNAUTHORIZED);
    server.post(token, "/v3/logout", json!({})).await.ok();
    server.put(&admin.token, "/v1/admin/lock/@alice:us.example", json!({ "locked": false })).await.ok();
    server.get(token, "/v3/account/whoami").await.refused(401, "M_UNKNOWN_TOKEN");
}
