use serde_json::json;

use super::*;

fn parsed(text: &str) -> Result<Config, ConfigError> {
    let tree: Value = toml::from_str(text).unwrap();
    Config::from_tree(tree, std::iter::empty())
}

/// What a configuration says, as one comparable tree.
fn said(config: &Config) -> Value {
    json!([
        serde_json::to_value(&config.server).unwrap(),
        serde_json::to_value(&config.settings).unwrap(),
        serde_json::to_value(&config.net).unwrap(),
    ])
}

#[test]
fn no_configuration_is_a_configuration() {
    let config = parsed("").unwrap();
    assert_eq!(config.server.server_name, "localhost");
    assert_eq!(config.server.listen.address.to_string(), "127.0.0.1:8008");
}

#[test]
fn the_example_says_what_the_defaults_say() {
    let example = parsed(&example().unwrap()).unwrap();
    assert_eq!(said(&example), said(&Config::default()));
}

#[test]
fn every_disabled_line_of_the_example_is_a_setting_that_parses() {
    let text = example().unwrap();
    for line in text.lines().filter(|line| line.starts_with('#') && !line.starts_with("# ") && line.contains('=')) {
        let line = line.trim_start_matches('#');
        toml::from_str::<toml::Table>(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    }
}

#[test]
fn every_key_has_its_comment_and_every_comment_its_key() {
    let mut keys: Vec<String> = schema::all_keys(&schema_tree().unwrap());
    keys.retain(|key| !key.starts_with("listeners."));
    let uncommented: Vec<_> =
        keys.iter().filter(|key| !example::COMMENTS.iter().any(|(known, _, _)| known == key)).collect();
    assert!(uncommented.is_empty(), "say in config/example.rs what these mean: {uncommented:?}");
    let stale: Vec<_> = example::COMMENTS.iter().filter(|(known, _, _)| !keys.iter().any(|key| key == known)).collect();
    assert!(stale.is_empty(), "these keys are gone: {stale:?}");
}

#[test]
fn an_unknown_key_is_named_with_the_nearest_known_one() {
    let error = parsed("[listen]\nadress = \"127.0.0.1:1\"").err().unwrap().to_string();
    assert!(error.contains("`listen.adress`") && error.contains("`listen.address`"), "{error}");
    let error = parsed("[[listeners]]\nadress = \"127.0.0.1:1\"").err().unwrap().to_string();
    assert!(error.contains("`listeners.adress`"), "{error}");
    let error = parsed("servername = \"x\"").err().unwrap().to_string();
    assert!(error.contains("`server_name`"), "{error}");
}

#[test]
fn a_value_of_the_wrong_kind_is_named_by_its_path() {
    let error = parsed("[listen]\nmax_connections = \"many\"").err().unwrap().to_string();
    assert!(error.contains("listen.max_connections"), "{error}");
    let error = parsed("[registration]\nmode = \"ajar\"").err().unwrap().to_string();
    assert!(error.contains("registration.mode") && error.contains("closed"), "{error}");
}

#[test]
fn federation_can_be_switched_off_beside_its_addresses() {
    let config =
        parsed("[federation]\nenabled = false\n[federation.addresses]\n\"a.example\" = \"127.0.0.1:9\"").unwrap();
    assert!(!config.settings.federation);
}

#[test]
fn a_certificate_without_its_key_is_refused() {
    assert!(parsed("[listen]\ntls_certificate = \"x\"").is_err());
}

#[test]
fn the_shared_secret_comes_from_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret");
    std::fs::write(&path, "correct horse\n").unwrap();
    let config = parsed(&format!("[registration]\nshared_secret_file = {path:?}")).unwrap();
    assert_eq!(config.settings.registration.shared_secret.as_deref(), Some("correct horse"));
}

#[test]
fn limits_can_be_switched_off() {
    assert!(parsed("rate_limit = false").unwrap().settings.rate_limit.is_none());
    assert!(parsed("").unwrap().settings.rate_limit.is_some());
}

#[test]
fn an_identity_provider_has_what_its_protocol_needs_and_nothing_of_the_other() {
    let upstream = |rest: &str| {
        parsed(&format!(
            "[[oauth.upstreams]]\nid = \"trust\"\nname = \"The trust\"\nissuer = \"https://id.example\"\n{rest}"
        ))
    };
    for good in ["client_id = \"x\"", "protocol = \"cas\"", "protocol = \"cas\"\nvalidation = \"proxyValidate\""] {
        assert!(upstream(good).is_ok(), "{good}");
    }
    for bad in [
        "",
        "protocol = \"saml\"",
        "protocol = \"cas\"\nclient_id = \"x\"",
        "protocol = \"cas\"\nvalidation = \"validate\"",
        "client_id = \"x\"\ninsecure_without_cookies = true",
    ] {
        assert!(upstream(bad).is_err(), "{bad}");
    }
    assert!(!upstream("protocol = \"cas\"").unwrap().settings.oauth.upstreams[0].insecure_without_cookies);
}

#[test]
fn a_captcha_has_both_its_keys_and_the_secret_comes_from_its_file() {
    let captcha = |rest: &str| parsed(&format!("[registration.recaptcha]\n{rest}"));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret");
    std::fs::write(&path, "hush\n").unwrap();
    let config = captcha(&format!("public_key = \"p\"\nsecret_file = {path:?}")).unwrap();
    let recaptcha = &config.settings.registration.recaptcha;
    assert_eq!((recaptcha.secret.as_deref(), recaptcha.required), (Some("hush"), true));
    assert!(parsed("").unwrap().settings.registration.recaptcha.public_key.is_none());
    std::fs::write(&path, "\n").unwrap();
    for bad in [
        "public_key = \"p\"".to_owned(),
        "secret = \"s\"".to_owned(),
        format!("public_key = \"p\"\nsecret = \"s\"\nsecret_file = {path:?}"),
        format!("public_key = \"p\"\nsecret_file = {path:?}"),
        "url = \"www.google.com/recaptcha\"".to_owned(),
        "url = \"https://x.example/; script-src *\"".to_owned(),
    ] {
        assert!(captcha(&bad).is_err(), "{bad}");
    }
}
