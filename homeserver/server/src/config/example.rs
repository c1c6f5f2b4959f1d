//! The example configuration, printed from the defaults: what is in it is what is true.

use serde_json::Value;

use super::{ConfigError, schema_tree};

/// What each key means, and a value to show where the default is "absent". `config::tests` holds the list complete.
pub(super) const COMMENTS: &[(&str, &str, Option<&str>)] = &[
    ("server_name", "The name in every user id and room id of this server. It cannot be changed later.", None),
    ("data_dir", "Where everything is kept: the database, media, keys. Created with mode 0700.", None),
    (
        "signing_key",
        "The ed25519 key that signs events and requests. Absent: `signing.key` in data_dir; made at the first start, mode 0600.",
        Some("\"/etc/matron/signing.key\""),
    ),
    ("appservices", "Registration files (YAML or JSON) of application services.", None),
    (
        "appservice_config",
        "Run Matron's own application service (governance bot, laboratory feeds) in this process, with this configuration; it is registered by itself.",
        Some("\"/etc/matron/appservice.toml\""),
    ),
    ("stop_timeout_ms", "How long a stop waits for requests that are being answered, ms.", None),
    ("default_room_version", "Version of new rooms when the client names none.", None),
    ("room_versions", "Room versions that may be created or joined here.", None),
    (
        "access_token_in_query",
        "Accept access tokens in the query string (deprecated by the specification; they end up in proxies' logs).",
        None,
    ),
    ("access_token_lifetime_ms", "How long an access token lives when the client supports refresh tokens, ms.", None),
    ("max_upload_bytes", "The largest upload, bytes.", None),
    ("public_rooms_without_auth", "Clients may list the public rooms without a token.", None),
    ("public_rooms_over_federation", "Other servers may list the public rooms.", None),
    ("anyone_may_publish", "Anyone may publish a room in the directory, not only operators.", None),
    ("insecure_fast_password_hash", "Cheap password hashing: for test suites only.", None),
    ("presence", "Tell who is online to those who share a room.", None),
    (
        "public_base_url",
        "`base_url` in /.well-known/matrix/client. Absent: derived from server_name.",
        Some("\"https://matrix.example.org\""),
    ),
    (
        "well_known_server",
        "`m.server` in /.well-known/matrix/server. Absent: not served.",
        Some("\"matrix.example.org:443\""),
    ),
    (
        "push_legacy_mentions",
        "Alert users by their name in the text too, as before Matrix 1.17: for clients that do not mark mentions.",
        None,
    ),
    (
        "push_includes_content",
        "Give push gateways what messages say, instead of their ids alone: it then passes through Apple's and Google's hands.",
        None,
    ),
    (
        "thread_subscriptions",
        "Threads notify those who subscribed to them and were mentioned, nobody else (MSC4306). Off: as the specification says.",
        None,
    ),
    (
        "peeking",
        "Let devices look into world-readable rooms by their sync (MSC2753), and tell who looks into one who of its members is there, types and has read what. Rooms with a policy are never open.",
        None,
    ),
    ("unauthenticated_media", "Give out media without a token too, as before Matrix 1.11.", None),
    ("url_previews", "Fetch pages that people link to, for previews; the pages then see this server.", None),
    (
        "key_notaries",
        "Servers to ask for the keys of servers that cannot be reached, and for keys that they no longer publish.",
        None,
    ),
    (
        "identity_servers",
        "Identity servers that users may name to be found, or to invite somebody, by e-mail address or telephone number; each with its port unless that is 443. `*` and `?` stand for more, but one so named must be at a public address. None by default.",
        None,
    ),
    ("user_directory_all_users", "The user directory finds all local users, not only those who share a room.", None),
    ("url_previews", "Fetch pages that people link to, for previews; the server learns what they talk about.", None),
    (
        "key_notaries",
        "Homeservers whose word is taken on the signing keys of servers that cannot be reached.",
        Some("[\"notary.example\"]"),
    ),
    (
        "oauth",
        "The OAuth 2.0 API, with this server as the authorization server, and identity providers that sign people in.",
        None,
    ),
    (
        "oauth.enabled",
        "Serve and advertise it; clients then prefer it to passwords in the app. Set public_base_url, under which browsers reach this server.",
        None,
    ),
    ("oauth.insecure_client_uris", "Clients may register URIs without TLS: for development only.", None),
    (
        "oauth.qr_login",
        "Who may open a channel over which one device signs another in by QR code: `off`, `authenticated` or `open`.",
        None,
    ),
    (
        "oauth.upstreams",
        "OpenID Connect providers and CAS servers, one `[[oauth.upstreams]]` each; their keys are in the operators' book.",
        None,
    ),
    (
        "email",
        "Letters to people's e-mail addresses, by which they prove to have them: to register, to sign in, to replace a lost password. Without `server` none are sent. Set public_base_url, under which browsers reach this server.",
        None,
    ),
    ("email.server", "The mail server, with its port unless that is TLS's own.", Some("\"smtp.example.org\"")),
    (
        "email.tls",
        "`starttls` (port 587), `implicit` (port 465), or `none` (port 25): for a relay on the same machine.",
        None,
    ),
    ("email.from", "Who writes, such as `Matron <matron@example.org>`.", None),
    ("email.username", "This server's name there, if it needs one.", Some("\"matron\"")),
    ("email.password", "Its password there. Prefer the file.", Some("\"long-random-text\"")),
    ("email.password_file", "The same, read from a file.", Some("\"/etc/matron/mail-password\"")),
    (
        "email.insecure_proved_by_opening",
        "Whether an address is proved by opening the letter's link alone, with no button to press there: a program that opens links for its user, as mail filters do, then proves what nobody asked for. For test suites.",
        None,
    ),
    ("storage", "The database.", None),
    ("storage.engine", "`sqlite`, `sled` or `memory` (forgets everything at the stop).", None),
    (
        "master_key",
        "The key that wraps all data keys. Keep a copy apart from backups of the data: without it nothing can be read.",
        None,
    ),
    (
        "master_key.file",
        "A file of mode 0600 or 0400. Absent: `master.key` in data_dir, made at the first start.",
        Some("\"/etc/matron/master.key\""),
    ),
    (
        "master_key.command",
        "Or a command that prints the key, for a key store or a hardware module.",
        Some("\"/usr/local/bin/print-matron-key\""),
    ),
    ("listen", "The main listener; it may serve clients, other servers, keys and media together.", None),
    ("listen.address", "Address and port.", None),
    (
        "listen.tls_certificate",
        "Certificate chain, PEM; without it the listener speaks plain HTTP, for a proxy on the same machine.",
        Some("\"/etc/matron/tls.crt\""),
    ),
    ("listen.tls_key", "Its private key, PEM.", Some("\"/etc/matron/tls.key\"")),
    (
        "listen.resources",
        "What is served: client, federation, key, media, health, metrics. Empty: all, and metrics to callers on this machine only.",
        None,
    ),
    (
        "listen.trust_forwarded_for",
        "Believe the last address in X-Forwarded-For: only behind a proxy that sets it.",
        None,
    ),
    ("listen.max_connections", "Connections at once; more wait.", None),
    ("listen.header_timeout_ms", "How long a request's head and a TLS handshake may take, ms.", None),
    (
        "listen.body_timeout_ms",
        "How long the next part of a request's body, or the client's taking of an answer, may take, ms.",
        None,
    ),
    ("listeners", "Further listeners with the same keys, one `[[listeners]]` each.", None),
    ("logging", "What is written to standard error about what happens; never content, tokens or names.", None),
    ("logging.level", "error, warn, info, debug or trace; or by part: `info,matron_net=debug`.", None),
    ("logging.format", "`text` or `json`.", None),
    ("registration", "Who may register.", None),
    ("registration.mode", "`closed` (only by the operator), `token` or `open`.", None),
    ("registration.guests", "Guests may register.", None),
    (
        "registration.shared_secret",
        "Secret of /_synapse/admin/v1/register. Absent: that endpoint is off. Prefer the file.",
        Some("\"long-random-text\""),
    ),
    ("registration.shared_secret_file", "The same, read from a file.", None),
    (
        "registration.recaptcha",
        "A captcha of Google's, version 2, for who registers. Google then sees them; a registration token is the better door.",
        None,
    ),
    ("registration.recaptcha.public_key", "This site's key. Absent: no captcha.", Some("\"6Lc\"")),
    ("registration.recaptcha.secret", "The secret that belongs to it. Prefer the file.", Some("\"long-random-text\"")),
    ("registration.recaptcha.secret_file", "The same, read from a file.", Some("\"/etc/matron/recaptcha-secret\"")),
    (
        "registration.recaptcha.url",
        "Where the service is. `https://www.recaptcha.net/recaptcha` is the same without Google's cookies.",
        None,
    ),
    (
        "registration.recaptcha.required",
        "Nobody registers without. `false`: clients may solve it and gain nothing, to try it out.",
        None,
    ),
    (
        "rtc_transports",
        "Over what calls of many go (Element Call), as clients are told.",
        Some("[{ type = \"livekit\", livekit_service_url = \"https://calls.example.org\" }]"),
    ),
    ("turn", "TURN servers for calls. Without `uris` clients are told that there are none.", None),
    ("turn.uris", "Where they are.", Some("[\"turns:turn.example.org?transport=tcp\"]")),
    (
        "turn.shared_secret",
        "The secret shared with them (coturn's `static-auth-secret`), for credentials that last for `lifetime_ms`. Prefer the file.",
        Some("\"long-random-text\""),
    ),
    ("turn.shared_secret_file", "The same, read from a file.", None),
    ("turn.username", "A fixed name, for TURN servers without shared secret.", Some("\"matron\"")),
    ("turn.password", "Its password.", Some("\"long-random-text\"")),
    ("turn.lifetime_ms", "How long credentials last, ms.", None),
    ("turn.guests", "Guests get credentials too.", None),
    (
        "rate_limit",
        "Limits per user, or per address before log-in and for what servers did not sign. `rate_limit = false` instead of this section: no limits.",
        None,
    ),
    ("rate_limit.per_second", "Requests per second, sustained.", None),
    ("rate_limit.burst", "How many may come at once.", None),
    ("retention", "The death of content.", None),
    ("retention.interval_ms", "How often expired content is looked for, ms.", None),
    ("retention.grace_ms", "How long devices have to receive the redaction before content is purged anyway, ms.", None),
    (
        "retention.self_destruct",
        "A message that names its own end (MSC2228) dies then, where its room would keep it longer. Off: rooms and policy alone decide.",
        None,
    ),
    ("policy", "The deployment's policy. Without it Matron is a plain Matrix server.", None),
    ("policy.register_file", "The signed federation register.", Some("\"/etc/matron/register.json\"")),
    (
        "policy.register_keys",
        "Base64 ed25519 keys that may sign the register, by key id.",
        Some("\"ed25519:1\" = \"1WhvjEtL6JgbZNRtRKSu6BlCVJqtYDXPxwbcVWVmwLg\""),
    ),
    ("policy.organisation", "This server's organisation code in the register.", Some("\"RJ1\"")),
    (
        "policy.layer",
        "The deployment's own rules, merged as the stricter of both with every room's.",
        Some("{ encryption_required = true }"),
    ),
    ("policy.officers", "Users who may change the policy of rooms.", None),
    ("federation", "Other servers.", None),
    ("federation.enabled", "Whether this server federates at all.", None),
    (
        "federation.addresses",
        "Where to reach servers, by name; such a server is not looked up and may be at a private address.",
        Some("\"trust-b.example\" = \"10.20.0.7:8448\""),
    ),
    (
        "federation.ca_files",
        "PEM files with extra roots, trusted for every outgoing connection beside the system's.",
        None,
    ),
    (
        "federation.allow_ip_ranges",
        "Private address ranges that may be reached, such as \"10.20.0.0/16\". None by default.",
        None,
    ),
    ("federation.connect_timeout_ms", "How long DNS, TCP and TLS together may take, ms.", None),
    ("federation.request_timeout_ms", "The longest that any request may take, ms.", None),
    ("federation.max_connections_per_destination", "Connections at once to one destination.", None),
    ("federation.max_connections", "Outgoing connections at once in all.", None),
    (
        "federation.max_answers_mib",
        "How much large answers hold together while they are read, MiB beside the first 4 of each.",
        None,
    ),
    ("federation.max_answers_per_destination_mib", "How much of that the answers of one destination hold, MiB.", None),
    ("federation.max_idle_per_destination", "Idle connections kept per destination.", None),
    ("federation.idle_timeout_ms", "How long an idle connection is kept, ms.", None),
    (
        "federation.insecure_skip_tls_verify",
        "Do not verify the certificates of services other than homeservers: for test suites only.",
        None,
    ),
];

/// A whole configuration with every key, its meaning and its default.
///
/// # Errors
/// [`ConfigError`] when the defaults themselves have no TOML form.
pub(crate) fn example() -> Result<String, ConfigError> {
    let mut text = String::from(
        "# Matron's configuration: every key, with its default. Lines that begin with \"#\" and no space are\n\
         # settings that are absent by default. Environment variables win over this file: MATRON_SERVER_NAME,\n\
         # MATRON_LISTEN__ADDRESS and so on.\n",
    );
    write_table(&mut text, &schema_tree()?, "")?;
    Ok(text)
}

fn write_table(text: &mut String, table: &Value, path: &str) -> Result<(), ConfigError> {
    let Value::Object(fields) = table else { return Ok(()) };
    let is_section = |value: &Value| match value {
        Value::Object(_) => true,
        Value::Array(items) => items.first().is_some_and(Value::is_object),
        _ => false,
    };
    for (key, value) in fields.iter().filter(|(_, value)| !is_section(value)) {
        write_leaf(text, &super::schema::join(path, key), key, value)?;
    }
    for (key, value) in fields.iter().filter(|(_, value)| is_section(value)) {
        let here = super::schema::join(path, key);
        text.push('\n');
        write_comment(text, &here);
        match value {
            Value::Array(items) => {
                text.push_str(&format!("#[[{here}]]\n"));
                if let Some(address) = items.first().and_then(|item| item.get("address")) {
                    text.push_str(&format!("#address = {}\n", toml_form(&here, address)?));
                }
            }
            _ => {
                text.push_str(&format!("[{here}]\n"));
                if let (Some(sample), Some(true)) = (sample(&here), value.as_object().map(serde_json::Map::is_empty)) {
                    text.push_str(&format!("#{sample}\n"));
                }
                write_table(text, value, &here)?;
            }
        }
    }
    Ok(())
}

fn write_leaf(text: &mut String, path: &str, key: &str, value: &Value) -> Result<(), ConfigError> {
    write_comment(text, path);
    if value.is_null() {
        text.push_str(&format!("#{key} = {}\n", sample(path).unwrap_or("\"\"")));
    } else {
        text.push_str(&format!("{key} = {}\n", toml_form(path, value)?));
    }
    Ok(())
}

fn write_comment(text: &mut String, path: &str) {
    if let Some((_, comment, _)) = COMMENTS.iter().find(|(known, _, _)| *known == path) {
        text.push_str(&format!("# {comment}\n"));
    }
}

fn sample(path: &str) -> Option<&'static str> {
    COMMENTS.iter().find(|(known, _, _)| *known == path).and_then(|(_, _, sample)| *sample)
}

fn toml_form(path: &str, value: &Value) -> Result<String, ConfigError> {
    toml::Value::try_from(value)
        .map(|value| value.to_string())
        .map_err(|error| ConfigError::Value { path: path.to_owned(), what: error.to_string() })
}
