//! The OAuth 2.0 API, walked as a client and its user's browser walk it.

use axum::body::Body;
use http::{Request, StatusCode, header};
use matron_core::{Settings, settings::OAuth};
use serde_json::{Value, json};

use crate::{
    browser::{Browser, Shown},
    server::{Answer, Server, open_settings},
};

// RFC 7636, appendix B.
pub(crate) const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
pub(crate) const CALLBACK: &str = "https://app.example.com/callback";
pub(crate) const DEVICE: &str = "OAUTHDEVICE1";

pub(crate) fn settings() -> Settings {
    Settings {
        oauth: OAuth { enabled: true, ..OAuth::default() },
        public_base_url: Some("https://matrix.us.example".to_owned()),
        ..open_settings()
    }
}

pub(crate) fn server() -> Server {
    Server::with(settings(), Vec::new())
}

pub(crate) fn metadata() -> Value {
    json!({
        "client_name": "An <App>",
        "client_name#fr": "Une application",
        "client_uri": "https://example.com/",
        "logo_uri": "https://example.com/logo.png",
        "tos_uri": "https://example.com/tos.html",
        "redirect_uris": [CALLBACK],
        "token_endpoint_auth_method": "none",
        "response_types": ["code", "id_token"],
        "grant_types": [
            "authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:token-exchange",
            "urn:ietf:params:oauth:grant-type:device_code",
        ],
        "application_type": "web",
    })
}

pub(crate) async fn register(server: &Server, metadata: Value) -> String {
    let answer = server.post("", "/oauth2/register", metadata).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.body);
    answer.body["client_id"].as_str().unwrap().to_owned()
}

pub(crate) fn scope(device: &str) -> String {
    format!("urn:matrix:client:api:* urn:matrix:client:device:{device}")
}

pub(crate) fn query(pairs: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}

pub(crate) fn authorization(client: &str, changed: &[(&str, &str)]) -> String {
    let scope = scope(DEVICE);
    let mut pairs = std::collections::BTreeMap::from([
        ("response_type", "code"),
        ("client_id", client),
        ("redirect_uri", CALLBACK),
        ("scope", scope.as_str()),
        ("state", "a state & more"),
        ("response_mode", "fragment"),
        ("code_challenge", CHALLENGE),
        ("code_challenge_method", "S256"),
    ]);
    pairs.extend(changed.iter().copied());
    pairs.retain(|_, value| !value.is_empty());
    format!("/account/authorize?{}", query(&pairs.into_iter().collect::<Vec<_>>()))
}

pub(crate) async fn form(server: &Server, path: &str, pairs: &[(&str, &str)]) -> Answer {
    let request = Request::post(path)
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Body::from(query(pairs)))
        .unwrap();
    server.raw(request).await
}

#[track_caller]
pub(crate) fn refused(answer: &Answer, status: u16, error: &str) {
    assert_eq!((answer.status.as_u16(), answer.body["error"].as_str()), (status, Some(error)), "{}", answer.body);
    assert!(answer.body["error_description"].as_str().is_some_and(|text| !text.is_empty()));
}

/// Signs in, agrees, and gives the code.
pub(crate) async fn code(browser: &mut Browser<'_>, client: &str, device: &str) -> String {
    let scope = scope(device);
    let mut page = browser.get(&authorization(client, &[("scope", &scope)])).await;
    if page.at.starts_with("/account/login") {
        page = browser.sign_in(&page, "alice").await;
    }
    let back = browser.submit(page.form("/account/authorize").with("decision", "allow")).await;
    let answer = back.led_to(&format!("{CALLBACK}#"));
    assert_eq!(answer["state"], "a state & more");
    assert_eq!(answer["iss"], "https://matrix.us.example/");
    answer["code"].clone()
}

pub(crate) async fn exchange(server: &Server, client: &str, code: &str) -> Answer {
    let pairs = [
        ("grant_type", "authorization_code"),
        ("client_id", client),
        ("code", code),
        ("redirect_uri", CALLBACK),
        ("code_verifier", VERIFIER),
    ];
    form(server, "/oauth2/token", &pairs).await
}

async fn refresh(server: &Server, client: &str, token: &Value) -> Answer {
    let token = token.as_str().unwrap();
    let pairs = [("grant_type", "refresh_token"), ("client_id", client), ("refresh_token", token)];
    form(server, "/oauth2/token", &pairs).await
}

/// A server with alice, a client, and her session with it.
pub(crate) async fn session(server: &Server) -> (String, Value) {
    server.user("alice").await;
    let client = register(server, metadata()).await;
    let code = code(&mut Browser::new(server), &client, DEVICE).await;
    let tokens = exchange(server, &client, &code).await.ok();
    (client, tokens)
}

fn is_strict(page: &Shown) {
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'; style-src 'self'; form-action 'self'"), "{policy}");
    assert!(policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"), "{policy}");
    assert!(!page.headers.contains_key("access-control-allow-origin"));
    assert_eq!(page.headers["cache-control"], "no-store");
    assert!(!page.html.contains("<script") && !page.html.contains("src=\"http"), "{}", page.html);
}

#[tokio::test]
async fn a_server_without_oauth_says_so_everywhere() {
    let server = Server::new();
    for path in ["/v1/auth_metadata", "/unstable/org.matrix.msc2965/auth_metadata", "/.well-known/openid-configuration"]
    {
        server.get("", path).await.refused(404, "M_UNRECOGNIZED");
    }
    let answer = form(&server, "/oauth2/token", &[("grant_type", "refresh_token")]).await;
    answer.refused(404, "M_UNRECOGNIZED");
    assert_eq!(Browser::new(&server).get("/account/").await.status, StatusCode::NOT_FOUND);
    let flows = server.get("", "/v3/login").await.ok();
    assert!(!flows.to_string().contains("m.login.sso"));
}

#[tokio::test]
async fn the_metadata_is_found_at_every_path_and_names_what_clients_need() {
    let server = server();
    let metadata = server.get("", "/v1/auth_metadata").await.ok();
    assert_eq!(metadata["issuer"], "https://matrix.us.example/");
    assert_eq!(metadata["token_endpoint"], "https://matrix.us.example/oauth2/token");
    assert_eq!(metadata["code_challenge_methods_supported"], json!(["S256"]));
    for path in ["/unstable/org.matrix.msc2965/auth_metadata", "/.well-known/openid-configuration"] {
        assert_eq!(server.get("", path).await.ok(), metadata);
    }
    let issuer = server.get("", "/unstable/org.matrix.msc2965/auth_issuer").await.ok();
    assert_eq!(issuer["issuer"], metadata["issuer"]);
    let well_known = server.get("", "/.well-known/matrix/client").await.ok();
    assert_eq!(well_known["org.matrix.msc2965.authentication"]["issuer"], metadata["issuer"]);
    let flows = server.get("", "/v3/login").await.ok();
    let sso = flows["flows"].as_array().unwrap().iter().find(|flow| flow["type"] == "m.login.sso").unwrap();
    assert_eq!(sso["oauth_aware_preferred"], true);
}

#[tokio::test]
async fn a_client_that_describes_itself_alike_is_the_same_client() {
    let server = server();
    let first = server.post("", "/oauth2/register", metadata()).await;
    assert_eq!(first.status, StatusCode::CREATED);
    assert!(first.body.get("client_name#fr").is_none());
    let grants = json!(["authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:device_code"]);
    assert_eq!(first.body["grant_types"], grants);
    assert_eq!(first.body["response_types"], json!(["code"]));
    let again = register(&server, metadata()).await;
    assert_eq!(first.body["client_id"], again);
    let mut other = metadata();
    other["client_name"] = json!("Another");
    assert_ne!(first.body["client_id"], register(&server, other).await);
}

#[tokio::test]
async fn a_client_with_unsound_metadata_is_refused() {
    let server = server();
    for (field, value, error) in [
        ("client_uri", json!("http://example.com/"), "invalid_client_metadata"),
        ("client_uri", Value::Null, "invalid_client_metadata"),
        ("client_uri", json!(7), "invalid_client_metadata"),
        ("logo_uri", json!("https://elsewhere.example/logo.png"), "invalid_client_metadata"),
        ("application_type", json!("toaster"), "invalid_client_metadata"),
        ("token_endpoint_auth_method", json!("client_secret_basic"), "invalid_client_metadata"),
        ("response_types", json!(["id_token"]), "invalid_client_metadata"),
        ("redirect_uris", json!([]), "invalid_redirect_uri"),
        ("redirect_uris", json!(["https://evil.example/"]), "invalid_redirect_uri"),
        ("redirect_uris", json!(["https://example.com/#x"]), "invalid_redirect_uri"),
        ("redirect_uris", json!(["javascript:alert(1)"]), "invalid_redirect_uri"),
        ("redirect_uris", json!(["http://localhost/"]), "invalid_redirect_uri"),
    ] {
        let mut metadata = metadata();
        metadata[field] = value;
        refused(&server.post("", "/oauth2/register", metadata).await, 400, error);
    }
}

#[tokio::test]
async fn a_user_lets_a_client_in_and_it_acts_on_the_device_that_it_named() {
    let server = server();
    server.user("alice").await;
    let client = register(&server, metadata()).await;
    let mut browser = Browser::new(&server);
    let login = browser.get(&authorization(&client, &[])).await;
    assert!(login.at.starts_with("/account/login?next="));
    is_strict(&login);
    let before = browser.cookie().cloned();
    let question = browser.sign_in(&login, "alice").await;
    assert_ne!(before, browser.cookie().cloned(), "the cookie changes at sign-in");
    question.says("An &lt;App&gt;").says("example.com").says("@alice:us.example").says(DEVICE);
    is_strict(&question);
    assert!(question.headers["content-security-policy"].to_str().unwrap().contains("https://app.example.com"));
    let back = browser.submit(question.form("/account/authorize").with("decision", "allow")).await;
    assert_eq!(back.status, StatusCode::SEE_OTHER);
    let code = back.led_to(&format!("{CALLBACK}#"))["code"].clone();

    let tokens = exchange(&server, &client, &code).await;
    assert_eq!(tokens.headers["cache-control"], "no-store");
    let tokens = tokens.ok();
    assert_eq!((tokens["token_type"].as_str(), tokens["expires_in"].as_u64()), (Some("Bearer"), Some(3600)));
    assert_eq!(tokens["scope"], scope(DEVICE));
    let who = server.get(tokens["access_token"].as_str().unwrap(), "/v3/account/whoami").await.ok();
    assert_eq!((who["user_id"].as_str(), who["device_id"].as_str()), (Some("@alice:us.example"), Some(DEVICE)));
}

#[tokio::test]
async fn a_user_refuses_and_the_client_hears_of_it() {
    let server = server();
    server.user("alice").await;
    let client = register(&server, metadata()).await;
    let mut browser = Browser::new(&server);
    let login = browser.get(&authorization(&client, &[("response_mode", "query")])).await;
    let question = browser.sign_in(&login, "alice").await;
    let back = browser.submit(question.form("/account/authorize").with("decision", "deny")).await;
    let answer = back.led_to(&format!("{CALLBACK}?"));
    assert_eq!((answer["error"].as_str(), answer["state"].as_str()), ("access_denied", "a state & more"));
}

#[tokio::test]
async fn an_unsound_request_goes_back_to_the_client_and_one_from_nowhere_goes_nowhere() {
    let server = server();
    let client = register(&server, metadata()).await;
    let mut browser = Browser::new(&server);
    for (field, value, error) in [
        ("response_type", "token", "unsupported_response_type"),
        ("code_challenge", "", "invalid_request"),
        ("code_challenge", "short", "invalid_request"),
        ("code_challenge_method", "plain", "invalid_request"),
        ("code_challenge_method", "", "invalid_request"),
        ("response_mode", "form_post", "invalid_request"),
        ("scope", "openid", "invalid_scope"),
        ("prompt", "none", "login_required"),
    ] {
        let shown = browser.get(&authorization(&client, &[(field, value)])).await;
        let answer = shown.led_to(CALLBACK);
        assert_eq!((answer["error"].as_str(), answer["state"].as_str()), (error, "a state & more"), "{field}");
        assert!(!answer.contains_key("code"));
    }
    for (field, value) in [
        ("client_id", "mcl_nobody"),
        ("client_id", ""),
        ("redirect_uri", ""),
        ("redirect_uri", "https://evil.example/callback"),
        ("redirect_uri", "https://app.example.com/callback/../evil"),
        ("redirect_uri", "https://app.example.com/callback?x=y"),
        ("redirect_uri", "https://app.example.com/callback#x"),
    ] {
        let shown = browser.get(&authorization(&client, &[(field, value)])).await;
        assert_eq!(shown.status, StatusCode::BAD_REQUEST, "{field} {value}");
        shown.says("This did not work");
    }
    let twice = format!("{}&client_id=x", authorization(&client, &[]));
    assert_eq!(browser.get(&twice).await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_code_is_good_once_and_its_second_use_ends_the_session() {
    let server = server();
    server.user("alice").await;
    let client = register(&server, metadata()).await;
    let mut browser = Browser::new(&server);
    let used = code(&mut browser, &client, DEVICE).await;
    let tokens = exchange(&server, &client, &used).await.ok();
    let token = tokens["access_token"].as_str().unwrap();
    server.get(token, "/v3/account/whoami").await.ok();
    refused(&exchange(&server, &client, &used).await, 400, "invalid_grant");
    server.get(token, "/v3/account/whoami").await.refused(401, "M_UNKNOWN_TOKEN");
    refused(&refresh(&server, &client, &tokens["refresh_token"]).await, 400, "invalid_grant");

    let late = code(&mut browser, &client, DEVICE).await;
    server.advance_ms(60_001);
    refused(&exchange(&server, &client, &late).await, 400, "invalid_grant");
    refused(&exchange(&server, &client, "nonsense").await, 400, "invalid_grant");
}

#[tokio::test]
async fn a_code_is_worthless_to_whoever_did_not_begin() {
    let server = server();
    server.user("alice").await;
    let client = register(&server, metadata()).await;
    let mut other = metadata();
    other["client_name"] = json!("Another");
    let other = register(&server, other).await;
    let mut browser = Browser::new(&server);
    for (field, value, error) in [
        ("client_id", other.as_str(), "invalid_grant"),
        ("redirect_uri", "https://app.example.com/other", "invalid_grant"),
        ("redirect_uri", "", "invalid_grant"),
        ("code_verifier", "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXK", "invalid_grant"),
        ("code_verifier", "", "invalid_request"),
    ] {
        let code = code(&mut browser, &client, DEVICE).await;
        let mut pairs = std::collections::BTreeMap::from([
            ("grant_type", "authorization_code"),
            ("client_id", client.as_str()),
            ("code", code.as_str()),
            ("redirect_uri", CALLBACK),
            ("code_verifier", VERIFIER),
        ]);
        pairs.insert(field, value);
        pairs.retain(|_, value| !value.is_empty());
        let pairs: Vec<_> = pairs.into_iter().collect();
        refused(&form(&server, "/oauth2/token", &pairs).await, 400, error);
        // What was tried with a code that is not fitting has used it up.
        refused(&exchange(&server, &client, &code).await, 400, "invalid_grant");
    }
}

#[tokio::test]
async fn the_token_endpoint_refuses_what_it_does_not_understand() {
    let server = server();
    let client = register(&server, metadata()).await;
    refused(&form(&server, "/oauth2/token", &[]).await, 401, "invalid_client");
    refused(
        &form(&server, "/oauth2/token", &[("client_id", "x"), ("grant_type", "refresh_token")]).await,
        401,
        "invalid_client",
    );
    refused(&form(&server, "/oauth2/token", &[("client_id", &client)]).await, 400, "invalid_request");
    let password = [("client_id", client.as_str()), ("grant_type", "password")];
    refused(&form(&server, "/oauth2/token", &password).await, 400, "unsupported_grant_type");
    let twice = [("client_id", client.as_str()), ("grant_type", "refresh_token"), ("grant_type", "refresh_token")];
    refused(&form(&server, "/oauth2/token", &twice).await, 400, "invalid_request");
    let json = Request::post("/oauth2/token").header(header::CONTENT_TYPE, "application/json").body(Body::from("{}"));
    refused(&server.raw(json.unwrap()).await, 400, "invalid_request");
}

#[tokio::test]
async fn refresh_tokens_rotate_survive_a_lost_answer_and_give_away_a_thief() {
    let server = server();
    let (client, first) = session(&server).await;
    let lost = refresh(&server, &client, &first["refresh_token"]).await.ok();
    // The answer was lost: the client tries again.
    let second = refresh(&server, &client, &first["refresh_token"]).await.ok();
    assert_eq!(second["scope"], scope(DEVICE));
    assert_ne!(lost["refresh_token"], second["refresh_token"]);
    let token = second["access_token"].as_str().unwrap();
    server.get(token, "/v3/account/whoami").await.ok();
    // The new tokens were used, so that the old one is dead; whoever shows it has stolen it.
    refused(&refresh(&server, &client, &first["refresh_token"]).await, 400, "invalid_grant");
    server.get(token, "/v3/account/whoami").await.refused(401, "M_UNKNOWN_TOKEN");
    refused(&refresh(&server, &client, &second["refresh_token"]).await, 400, "invalid_grant");
}

#[tokio::test]
async fn a_refresh_token_is_good_for_its_client_alone() {
    let server = server();
    let (client, tokens) = session(&server).await;
    let mut other = metadata();
    other["client_name"] = json!("Another");
    let other = register(&server, other).await;
    refused(&refresh(&server, &other, &tokens["refresh_token"]).await, 400, "invalid_grant");
    let legacy = json!({ "refresh_token": tokens["refresh_token"] });
    server.post("", "/v3/refresh", legacy).await.refused(401, "M_UNKNOWN_TOKEN");
    refresh(&server, &client, &tokens["refresh_token"]).await.ok();
    refused(&refresh(&server, &client, &json!("mrt_AAAAAAAAAAAAAAAAAAAAAA.x")).await, 400, "invalid_grant");
}

#[tokio::test]
async fn either_token_revokes_the_session() {
    let server = server();
    let (client, tokens) = session(&server).await;
    let access = tokens["access_token"].as_str().unwrap();
    form(&server, "/oauth2/revoke", &[("token", "nonsense")]).await.ok();
    refused(&form(&server, "/oauth2/revoke", &[]).await, 400, "invalid_request");
    server.get(access, "/v3/account/whoami").await.ok();
    form(&server, "/oauth2/revoke", &[("token", access), ("client_id", &client)]).await.ok();
    server.get(access, "/v3/account/whoami").await.refused(401, "M_UNKNOWN_TOKEN");
    form(&server, "/oauth2/revoke", &[("token", access)]).await.ok();

    let again = code(&mut Browser::new(&server), &client, DEVICE).await;
    let tokens = exchange(&server, &client, &again).await.ok();
    form(&server, "/oauth2/revoke", &[("token", tokens["refresh_token"].as_str().unwrap())]).await.ok();
    let access = tokens["access_token"].as_str().unwrap();
    server.get(access, "/v3/account/whoami").await.refused(401, "M_UNKNOWN_TOKEN");
}

#[tokio::test]
async fn a_form_from_elsewhere_changes_nothing() {
    let server = server();
    server.user("alice").await;
    let client = register(&server, metadata()).await;
    let mut browser = Browser::new(&server);
    let login = browser.get(&authorization(&client, &[])).await;
    let form = login.form("/account/login").with("username", "alice").with("password", "a long password");
    let forged = browser.submit(form.clone().with("form_token", "forged")).await;
    assert_eq!(forged.status, StatusCode::FORBIDDEN);
    // The token of one browser is worth nothing at another.
    let stolen = Browser::new(&server).submit(form.clone()).await;
    assert_eq!(stolen.status, StatusCode::FORBIDDEN);

    let question = browser.submit(form).await;
    let agreed = question.form("/account/authorize").with("decision", "allow");
    let forged = browser.submit(agreed.clone().with("form_token", "forged")).await;
    assert_eq!(forged.status, StatusCode::FORBIDDEN);
    // Without a sign-in the same form leads to the login page, and to no code.
    let mut nobody = Browser::new(&server);
    let page = nobody.get("/account/login").await;
    let token = page.form("/account/login").fields["form_token"].clone();
    let shown = nobody.submit(agreed.with("form_token", &token)).await;
    assert!(shown.at.starts_with("/account/login"), "{}", shown.at);
}

#[tokio::test]
async fn wrong_passwords_say_nothing_of_the_user_and_signing_in_leads_nowhere_else() {
    let server = server();
    server.user("alice").await;
    let mut browser = Browser::new(&server);
    let login = browser.get("/account/login?next=https%3A%2F%2Fevil.example%2F").await;
    let form = login.form("/account/login");
    assert_eq!(form.fields["next"], "/account/");
    let wrong = browser.submit(form.clone().with("username", "alice").with("password", "wrong")).await;
    let nobody = browser.submit(form.clone().with("username", "nobody").with("password", "wrong")).await;
    assert_eq!((wrong.status, nobody.status), (StatusCode::FORBIDDEN, StatusCode::FORBIDDEN));
    assert_eq!(wrong.html.replace("alice", "nobody"), nobody.html);
    let form = form.with("next", "//evil.example").with("username", "alice").with("password", "a long password");
    assert_eq!(browser.submit(form).await.at, "/account/");
}

#[tokio::test]
async fn whoever_wants_an_account_makes_one_and_goes_on_to_the_client() {
    let server = server();
    let client = register(&server, metadata()).await;
    let mut browser = Browser::new(&server);
    let page = browser.get(&authorization(&client, &[("prompt", "create")])).await;
    assert!(page.at.starts_with("/account/register"), "{}", page.at);
    let form = page.form("/account/register").with("username", "New.Person").with("password", "a long password");
    let unlike = browser.submit(form.clone().with("password_again", "another")).await;
    assert_eq!(unlike.status, StatusCode::BAD_REQUEST);
    let question = browser.submit(form.with("password_again", "a long password")).await;
    question.says("@new.person:us.example");
    browser.submit(question.form("/account/authorize").with("decision", "allow")).await.led_to(CALLBACK);
}

#[tokio::test]
async fn closed_registration_is_closed_at_the_browser_too() {
    let closed = Settings { registration: matron_core::settings::Registration::default(), ..settings() };
    let server = Server::with(closed, Vec::new());
    let mut browser = Browser::new(&server);
    let page = browser.get("/account/register").await;
    page.says("made by its operator");
    let login = browser.get("/account/login").await.form("/account/login");
    let mut form = login.with("username", "eve").with("password", "x").with("password_again", "x");
    form.action = "/account/register".to_owned();
    assert_eq!(browser.submit(form).await.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_sign_in_at_a_browser_ends_with_time_with_a_new_password_and_with_the_account() {
    let server = server();
    let alice = server.user("alice").await;
    let id: &ruma::UserId = alice.id.as_str().try_into().unwrap();
    let mut browser = Browser::new(&server);
    let signed_in = |page: &Shown| page.html.contains("@alice:us.example");
    for ending in 0..3 {
        let login = browser.get("/account/").await;
        assert!(signed_in(&browser.sign_in(&login, "alice").await));
        match ending {
            0 => server.advance_ms(31 * 60_000),
            1 => server.core.set_password(id, "a long password", false).await.unwrap(),
            _ => server.core.log_out_all(id).await.unwrap(),
        }
        assert!(browser.get("/account/").await.at.starts_with("/account/login"), "{ending}");
    }
    let login = browser.get("/account/").await;
    let page = browser.sign_in(&login, "alice").await;
    browser.submit(page.form("/account/logout")).await;
    assert!(browser.get("/account/").await.at.starts_with("/account/login"));
}
