//! Single sign-on of the legacy API, and the fallback pages.

use http::StatusCode;
use serde_json::{Value, json};

use crate::{
    browser::Browser,
    oauth::{query, server},
    server::Server,
};

fn redirect(target: &str) -> String {
    format!("/_matrix/client/v3/login/sso/redirect?{}", query(&[("redirectUrl", target)]))
}

#[tokio::test]
async fn a_legacy_client_gets_a_login_token_after_the_user_agreed_to_its_address() {
    let server = server();
    server.user("alice").await;
    let mut browser = Browser::new(&server);
    let login = browser.get(&redirect("https://app.example/#/done?x=1")).await;
    let question = browser.sign_in(&login, "alice").await;
    question.says("https://app.example").says("@alice:us.example");
    let form = question.form("/account/sso");
    assert_eq!(browser.submit(form.clone().with("form_token", "x")).await.status, StatusCode::FORBIDDEN);
    let back = browser.submit(form).await;
    let token = back.led_to("https://app.example/?loginToken=")["loginToken"].clone();
    let token = token.split('#').next().unwrap();
    let body = json!({ "type": "m.login.token", "token": token });
    let session = server.post("", "/v3/login", body.clone()).await.ok();
    assert_eq!(session["user_id"], "@alice:us.example");
    server.post("", "/v3/login", body).await.refused(403, "M_FORBIDDEN");
}

#[tokio::test]
async fn a_login_token_is_never_sent_where_a_script_would_run() {
    let server = server();
    let mut browser = Browser::new(&server);
    for bad in ["javascript:alert(1)", "data:text/html,x", "nonsense", "https://user:pass@app.example/"] {
        assert_eq!(browser.get(&redirect(bad)).await.status, StatusCode::BAD_REQUEST, "{bad}");
    }
    let missing = browser.get("/_matrix/client/v3/login/sso/redirect").await;
    assert_eq!(missing.status, StatusCode::BAD_REQUEST);
    let nobody = browser.get("/_matrix/client/v3/login/sso/redirect/nobody?redirectUrl=https%3A%2F%2Fa.example").await;
    assert_eq!(nobody.status, StatusCode::NOT_FOUND);
}

async fn challenge(server: &Server, token: &str) -> Value {
    let answer = server.post(token, "/v3/account/password", json!({ "new_password": "another long one" })).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    answer.body["session"].clone()
}

#[tokio::test]
async fn a_stage_can_be_completed_on_its_page() {
    let server = Server::new();
    let alice = server.user("alice").await;
    let session = challenge(&server, &alice.token).await;
    let path = format!("/_matrix/client/v3/auth/m.login.password/fallback/web?session={}", session.as_str().unwrap());
    let mut browser = Browser::new(&server);
    let page = browser.get(&path).await;
    assert!(page.headers["content-security-policy"].to_str().unwrap().contains("frame-ancestors 'none'"));
    let form = page.form("/_matrix/client/v3/auth/m.login.password/fallback/web");
    let wrong = browser.submit(form.clone().with("password", "wrong")).await;
    assert_eq!(wrong.status, StatusCode::FORBIDDEN);
    let done = browser.submit(form.with("password", "a long password")).await;
    done.says("auth-done.js");
    let body = json!({ "new_password": "another long one", "auth": { "session": session } });
    server.post(&alice.token, "/v3/account/password", body).await.ok();
}

#[tokio::test]
async fn pages_for_unknown_stages_and_sessions_are_refused() {
    let server = Server::new();
    let alice = server.user("alice").await;
    let session = challenge(&server, &alice.token).await;
    let session = session.as_str().unwrap();
    let mut browser = Browser::new(&server);
    let unknown = browser.get("/_matrix/client/v3/auth/m.login.password/fallback/web?session=nonsense").await;
    assert_eq!(unknown.status, StatusCode::BAD_REQUEST);
    for kind in ["m.login.nonsense", "m.login.sso"] {
        let shown = browser.get(&format!("/_matrix/client/v3/auth/{kind}/fallback/web?session={session}")).await;
        assert_eq!(shown.status, StatusCode::NOT_FOUND, "{kind}");
    }
    let page = browser.get("/_matrix/static/client/login/?device_id=X").await;
    page.says("/_matrix/static/client/login/login.js");
    assert!(browser.get("/_matrix/static/client/login/login.js").await.html.contains("matrixLogin"));
}
