//! Signing in: at a real OpenID Connect provider, and with the public client library.
//!
//! The provider comes from PyPI into `target/identity-provider` at the first run. Without Python that test is skipped
//! with a notice, unless `CI` is set: then it is a failure.

use std::{
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use matrix_sdk::{
    Client,
    authentication::oauth::{
        ClientRegistrationData,
        registration::{ApplicationType, ClientMetadata, Localized, OAuthGrantType},
    },
    reqwest::Url,
    ruma::serde::Raw,
    utils::UrlOrQuery,
};
use serde_json::json;

use crate::{
    free_address::free_address,
    support::{Home, wait_until},
    walk::{Walk, fetch, form},
};

const REQUIREMENTS: &str = include_str!("identity-requirements.txt");

fn has_python() -> bool {
    let mut command = Command::new("python3");
    command.args(["-c", "import venv, ensurepip, sys; sys.exit(sys.version_info < (3, 10))"]);
    command.stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The Python that has the provider.
fn install() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("identity-provider");
    std::fs::create_dir_all(&folder).unwrap();
    // Two test runs at once share one installation.
    let lock = File::create(folder.join("lock")).unwrap();
    lock.lock().unwrap();
    let (python, done, list) = (folder.join("venv/bin/python"), folder.join("installed"), folder.join("requirements"));
    if std::fs::read_to_string(&done).is_ok_and(|installed| installed == REQUIREMENTS) {
        return python;
    }
    std::fs::write(&list, REQUIREMENTS).unwrap();
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(folder.join("venv")));
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"]);
    run(pip.arg("-r").arg(&list));
    std::fs::write(&done, REQUIREMENTS).unwrap();
    python
}

/// A running provider; killed when dropped.
struct Provider {
    child: Child,
    address: String,
}

impl Provider {
    fn start() -> Self {
        let port = free_address().port();
        let claims = json!({ "sub": "staff-4711", "preferred_username": "amira", "name": "Amira Khan" });
        let child = Command::new(install())
            .args(["-m", "oidc_provider_mock", "--require-nonce", "true", "--port", &port.to_string()])
            .args(["--user-claims", &claims.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let provider = Self { child, address: format!("localhost:{port}") };
        wait_until("the provider listens", || std::net::TcpStream::connect(&provider.address).is_ok());
        provider
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_real_provider_signs_somebody_in() {
    if !has_python() {
        assert!(std::env::var_os("CI").is_none(), "Python 3.10 with venv is required here");
        let _ = writeln!(std::io::stderr().lock(), "\n**** SKIPPED: no Python 3.10 with venv for a provider ****\n");
        return;
    }
    let provider = Provider::start();
    let home = Home::new();
    home.configure(json!({
        "public_base_url": "https://matrix.trust.test",
        "oauth": {
            "enabled": true,
            "upstreams": [{
                "id": "trust",
                "name": "The trust",
                "issuer": format!("http://{}", provider.address),
                "client_id": "matron",
                "client_secret": "a secret",
                "userinfo": true,
            }],
        },
    }));
    let server = home.start();
    let mut browser = Walk::new(&server.address, "https://matrix.trust.test");
    let there = browser.go("GET", "/account/upstream/trust?next=/account/", &[]);
    let question = there.at.strip_prefix(&format!("http://{}", provider.address)).unwrap();
    let agreed = fetch(&provider.address, "POST", question, "", &form(&[("sub", "staff-4711")]));
    let back = agreed.location("https://matrix.trust.test");
    let page = browser.go("GET", &back, &[]);
    assert_eq!((page.status, page.at.as_str()), (200, "/account/"), "{}", page.html);
    assert!(page.html.contains("@amira:matron.test") && page.html.contains("Amira Khan"), "{}", page.html);
    // What the provider gave is good once.
    assert_eq!(browser.go("GET", &back, &[]).status, 403);
}

fn registration() -> ClientRegistrationData {
    let redirect = Url::parse("http://127.0.0.1/callback").unwrap();
    let grants = vec![OAuthGrantType::AuthorizationCode { redirect_uris: vec![redirect] }, OAuthGrantType::DeviceCode];
    let about = Localized::new(Url::parse("https://app.example.com/").unwrap(), []);
    let metadata = ClientMetadata {
        client_name: Some(Localized::new("A client".to_owned(), [])),
        ..ClientMetadata::new(ApplicationType::Native, grants, about)
    };
    Raw::new(&metadata).unwrap().into()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_public_client_library_signs_in_refreshes_and_signs_out() {
    let home = Home::new();
    let base = format!("http://{}", free_address());
    let address = base.strip_prefix("http://").unwrap();
    home.configure(json!({
        "listen": { "address": address },
        "public_base_url": base,
        "oauth": { "enabled": true },
    }));
    let server = home.start();
    server.register("alice", "a long password");
    let client = Client::builder().server_name_or_homeserver_url(&base).handle_refresh_tokens().build().await.unwrap();
    let oauth = client.oauth();
    let redirect = Url::parse("http://127.0.0.1:49152/callback").unwrap();
    let begun = oauth.login(redirect, None, Some(registration()), None).build().await.unwrap();

    let mut browser = Walk::new(&server.address, &base);
    let login = browser.go("GET", begun.url.as_str().strip_prefix(&base).unwrap(), &[]);
    let (token, next) = (login.field("form_token"), login.field("next").replace("&amp;", "&"));
    let fields =
        [("form_token", token.as_str()), ("next", &next), ("username", "alice"), ("password", "a long password")];
    let question = browser.go("POST", "/account/login", &fields);
    assert!(question.html.contains("A client"), "{}", question.html);
    let token = question.field("form_token");
    let back = browser.go("POST", &question.at, &[("form_token", &token), ("decision", "allow")]);
    oauth.finish_login(UrlOrQuery::Url(Url::parse(&back.at).unwrap())).await.unwrap();

    assert_eq!(client.user_id().unwrap(), "@alice:matron.test");
    let before = client.access_token().unwrap();
    oauth.refresh_access_token().await.unwrap();
    let after = client.access_token().unwrap();
    assert_ne!(before, after);
    assert_eq!(client.whoami().await.unwrap().device_id.as_deref(), client.device_id());
    // The library revokes over TLS alone.
    let revoked = fetch(&server.address, "POST", "/oauth2/revoke", "", &form(&[("token", &after)]));
    assert_eq!(revoked.status, 200, "{}", revoked.html);
    assert_eq!(server.get("/_matrix/client/v3/account/whoami", Some(&after)).status, 401);
}
