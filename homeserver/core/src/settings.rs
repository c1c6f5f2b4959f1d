//! What an operator may choose, as far as the use cases need to know. The binary reads it from TOML.

use serde::{Deserialize, Serialize};

/// Choices of the operator; every field has a default that is safe on a hospital's network.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Version of new rooms when the client names none: `1` to `12`.
    pub default_room_version: String,
    /// Room versions that may be created or joined here.
    pub room_versions: Vec<String>,
    /// Who may register.
    pub registration: Registration,
    /// Access tokens in the query string (deprecated by the specification) are accepted.
    pub access_token_in_query: bool,
    /// How long an access token lives when the client supports refresh tokens, ms.
    pub access_token_lifetime_ms: u64,
    /// The largest upload, bytes.
    pub max_upload_bytes: u64,
    /// Requests per second and burst per user or address; absent: no limits.
    pub rate_limit: Option<RateLimit>,
    /// Whether servers may list the public rooms, and clients without a token.
    pub public_rooms_without_auth: bool,
    /// Whether servers may list the public rooms.
    pub public_rooms_over_federation: bool,
    /// Anyone may publish a room in the directory.
    pub anyone_may_publish: bool,
    /// Cheap password hashing, for test suites only.
    pub insecure_fast_password_hash: bool,
    /// Presence is told to others.
    pub presence: bool,
    /// Whether this server federates at all.
    pub federation: bool,
    /// `base_url` in `/.well-known/matrix/client`; absent: derived from the server's name.
    pub public_base_url: Option<String>,
    /// `m.server` in `/.well-known/matrix/server`, if it is served.
    pub well_known_server: Option<String>,
    /// How content without a lifetime is bucketed and other limits of retention.
    pub retention: Retention,
    /// The deployment's policy.
    pub policy: Policy,
    /// TURN servers for calls.
    pub turn: Turn,
    /// Over what calls of many go: MSC4143's transports, as clients get them.
    pub rtc_transports: Vec<serde_json::Value>,
    /// Search of the user directory covers all local users, not only those sharing a room.
    pub user_directory_all_users: bool,
    /// Users are also alerted by their name in the text, as before specification 1.17; for clients and devices that do
    /// not mark mentions.
    pub push_legacy_mentions: bool,
    /// Push gateways are told sender and content, unless the client asks for ids only; otherwise ids only.
    pub push_includes_content: bool,
    /// Threads notify those who subscribed to them and nobody else, and clients are told so (MSC4306). Subscriptions are
    /// kept in any case.
    pub thread_subscriptions: bool,
    /// Devices may look into world-readable rooms by their sync (MSC2753), and who looks into one also learns who of its
    /// members is there, types and has read what.
    pub peeking: bool,
    /// Media may be fetched at the deprecated paths, without an access token.
    pub unauthenticated_media: bool,
    /// The server fetches pages that people link to, and so learns what they talk about.
    pub url_previews: bool,
    /// The OAuth 2.0 API, and single sign-on.
    pub oauth: OAuth,
    /// Homeservers whose word is taken on the signing keys of servers that cannot be reached.
    pub key_notaries: Vec<ruma::OwnedServerName>,
    /// Identity servers that users may name: names with their ports, in which `*` and `?` stand for more as in access
    /// control lists. Empty: none.
    pub identity_servers: Vec<String>,
    /// Letters to people's e-mail addresses.
    pub email: Email,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            default_room_version: "12".to_owned(),
            room_versions: ["6", "7", "8", "9", "10", "11", "12"].map(str::to_owned).to_vec(),
            registration: Registration::default(),
            access_token_in_query: false,
            access_token_lifetime_ms: 60 * 60 * 1000,
            max_upload_bytes: 50 * 1024 * 1024,
            rate_limit: Some(RateLimit::default()),
            public_rooms_without_auth: false,
            public_rooms_over_federation: false,
            anyone_may_publish: false,
            insecure_fast_password_hash: false,
            presence: true,
            federation: true,
            public_base_url: None,
            well_known_server: None,
            retention: Retention::default(),
            policy: Policy::default(),
            turn: Turn::default(),
            rtc_transports: Vec::new(),
            user_directory_all_users: false,
            unauthenticated_media: false,
            url_previews: false,
            oauth: OAuth::default(),
            key_notaries: Vec::new(),
            identity_servers: Vec::new(),
            email: Email::default(),
            push_legacy_mentions: false,
            thread_subscriptions: false,
            peeking: false,
            push_includes_content: false,
        }
    }
}

/// The OAuth 2.0 API, with this server as the authorization server, and providers that it trusts to sign people in.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OAuth {
    /// The OAuth 2.0 API is served and advertised. It needs `public_base_url`.
    pub enabled: bool,
    /// Clients may register URIs without TLS: for development only.
    pub insecure_client_uris: bool,
    /// Devices that sign each other in by QR code find each other here (MSC4108, MSC4388).
    pub qr_login: QrLogin,
    /// Identity providers that may sign people in.
    pub upstreams: Vec<Upstream>,
}

/// Who may open a channel over which one device signs another in by QR code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QrLogin {
    /// There are none.
    #[default]
    Off,
    /// Devices that are signed in (MSC4388).
    Authenticated,
    /// Anyone, for a short time and little data: a new device may show the code (MSC4108, MSC4388).
    Open,
}

/// How an identity provider is spoken to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// OpenID Connect.
    #[default]
    Openid,
    /// Central Authentication Service, protocol 3.0 or 2.0.
    Cas,
}

/// Where below its URL a CAS server validates tickets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum CasValidation {
    /// CAS 3.0, with attributes.
    #[default]
    #[serde(rename = "p3/serviceValidate")]
    P3Service,
    /// The same for a server that serves only this; tickets of proxies are refused all the same.
    #[serde(rename = "p3/proxyValidate")]
    P3Proxy,
    /// CAS 2.0: most servers give no attributes there.
    #[serde(rename = "serviceValidate")]
    Service,
    /// The same for a server that serves only this; tickets of proxies are refused all the same.
    #[serde(rename = "proxyValidate")]
    Proxy,
}

/// An identity provider that may sign people in.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Upstream {
    /// How it is spoken to.
    pub protocol: Protocol,
    /// Its name in URLs and in the store, never changed: a-z, 0-9, `-`, `_`.
    pub id: String,
    /// Its name for people.
    pub name: String,
    /// A hint for clients how its button looks, such as `github`.
    pub brand: Option<String>,
    /// Its issuer, below which `.well-known/openid-configuration` is; or the CAS server's URL, below which `login` is.
    pub issuer: String,
    /// This server's name there.
    pub client_id: String,
    /// This server's secret there, if it has one.
    pub client_secret: Option<String>,
    /// The same, in a file.
    pub client_secret_file: Option<String>,
    /// What is asked for.
    pub scopes: Vec<String>,
    /// How the person must have been authenticated: the ID token's `acr` is one of these. Empty: any.
    pub acr_values: Vec<String>,
    /// Methods that must have been used: the ID token's `amr` holds all of these.
    pub amr_values: Vec<String>,
    /// Claims are taken from the userinfo endpoint too.
    pub userinfo: bool,
    /// The user name of a new account: text with `{claim}` in it.
    pub localpart: String,
    /// The display name of a new account.
    pub display_name: String,
    /// The claim that holds the staff number.
    pub staff_number_claim: Option<String>,
    /// The claim that holds the organisation; if `policy.organisation` is set, it must be the same.
    pub organisation_claim: Option<String>,
    /// The claim that holds the roles.
    pub roles_claim: Option<String>,
    /// Roles of which a person must have one to sign in. Empty: none is needed.
    pub required_roles: Vec<String>,
    /// Whoever the provider vouches for gets an account at the first sign-in.
    pub create_accounts: bool,
    /// An account that exists already is taken over by whom the provider gives its name to.
    pub link_existing: bool,
    /// CAS: where tickets are validated.
    pub validation: CasValidation,
    /// CAS: browsers that keep no cookies may sign in too, at the addresses of Matrix r0.4. Nothing then binds a ticket to the
    /// browser that asked for it: for test suites only.
    pub insecure_without_cookies: bool,
}

impl Default for Upstream {
    fn default() -> Self {
        Self {
            protocol: Protocol::default(),
            id: String::new(),
            name: String::new(),
            brand: None,
            issuer: String::new(),
            client_id: String::new(),
            client_secret: None,
            client_secret_file: None,
            scopes: ["openid", "profile"].map(str::to_owned).to_vec(),
            acr_values: Vec::new(),
            amr_values: Vec::new(),
            userinfo: false,
            localpart: "{preferred_username}".to_owned(),
            display_name: "{name}".to_owned(),
            staff_number_claim: None,
            organisation_claim: None,
            roles_claim: None,
            required_roles: Vec::new(),
            create_accounts: true,
            link_existing: false,
            validation: CasValidation::default(),
            insecure_without_cookies: false,
        }
    }
}

/// The mail server that takes letters to people's e-mail addresses.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Email {
    /// `host` or `host:port`; absent: no letters are sent, and nobody can prove an address here.
    pub server: Option<String>,
    /// How the connection to it is secured.
    pub tls: MailTls,
    /// Who writes: `address`, or `Name <address>`.
    pub from: String,
    /// This server's name there, if it has one.
    pub username: Option<String>,
    /// Its password there.
    pub password: Option<String>,
    /// The same, in a file.
    pub password_file: Option<String>,
    /// Whether an address is proved, to register or to add it, by opening the letter's link, with no button on the page.
    pub insecure_proved_by_opening: bool,
}

/// How the connection to a mail server is secured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MailTls {
    /// TLS is begun in the conversation, or there is none.
    #[default]
    Starttls,
    /// TLS from the first byte.
    Implicit,
    /// Not at all: for a relay on the same machine.
    None,
}

/// Who may register.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Registration {
    /// `closed` (default), `token` or `open`.
    pub mode: RegistrationMode,
    /// Guests may register.
    pub guests: bool,
    /// Secret of `/_synapse/admin/v1/register`; absent: that endpoint is off.
    pub shared_secret: Option<String>,
    /// What tells people from machines.
    pub recaptcha: Recaptcha,
}

/// A captcha of Google's, version 2: the service then sees who registers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Recaptcha {
    /// This site's key, which clients are told; absent: there is no captcha.
    pub public_key: Option<String>,
    /// The secret that belongs to it.
    pub secret: Option<String>,
    /// The same, in a file.
    pub secret_file: Option<String>,
    /// Where the service is: below are `api.js`, for the server's own pages, and `api/siteverify`.
    pub url: String,
    /// Nobody registers without. Otherwise clients may solve it, and gain nothing: to try it out.
    pub required: bool,
}

impl Default for Recaptcha {
    fn default() -> Self {
        Self {
            public_key: None,
            secret: None,
            secret_file: None,
            url: "https://www.google.com/recaptcha".to_owned(),
            required: true,
        }
    }
}

/// How accounts come to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RegistrationMode {
    /// Only by the operator.
    #[default]
    Closed,
    /// With a registration token (`m.login.registration_token`).
    Token,
    /// By anyone (`m.login.dummy`).
    Open,
}

/// A token bucket.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RateLimit {
    /// Sustained requests per second.
    pub per_second: f64,
    /// How many may come at once.
    pub burst: u32,
}

impl Default for RateLimit {
    fn default() -> Self {
        Self { per_second: 20.0, burst: 200 }
    }
}

/// Limits of retention.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retention {
    /// How often expired content is looked for, ms.
    pub interval_ms: u64,
    /// How long the redaction of expired content may take to reach devices before content is purged anyway, ms.
    pub grace_ms: u64,
    /// A message that says when it ends (MSC2228) ends then, if that is before its room's messages do.
    pub self_destruct: bool,
}

impl Default for Retention {
    fn default() -> Self {
        Self { interval_ms: 60_000, grace_ms: 24 * 60 * 60 * 1000, self_destruct: false }
    }
}

/// TURN servers, and how clients prove to them that they may.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Turn {
    /// Where they are; empty: there are none.
    pub uris: Vec<String>,
    /// The secret shared with them, for credentials that expire.
    pub shared_secret: Option<String>,
    /// A fixed name, where there is no shared secret.
    pub username: Option<String>,
    /// Its password.
    pub password: Option<String>,
    /// How long credentials last, ms.
    pub lifetime_ms: u64,
    /// Guests get credentials too.
    pub guests: bool,
}

impl Default for Turn {
    fn default() -> Self {
        Self {
            uris: Vec::new(),
            shared_secret: None,
            username: None,
            password: None,
            lifetime_ms: 60 * 60 * 1000,
            guests: false,
        }
    }
}

/// The deployment's policy: which register, which floor.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// The signed federation register, a file.
    pub register_file: Option<String>,
    /// Base64 ed25519 keys that may sign the register, by key id.
    pub register_keys: std::collections::BTreeMap<String, String>,
    /// This server's organisation code.
    pub organisation: Option<String>,
    /// The deployment's own layer (`matron_policy::PolicyLayer`), merged as a strict meet with every room's.
    pub layer: Option<serde_json::Value>,
    /// User ids of governance bots and officers that may change the policy of rooms.
    pub officers: Vec<String>,
}
