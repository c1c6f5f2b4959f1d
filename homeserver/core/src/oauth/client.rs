//! Clients register themselves; the same description gives the same client.
//!
//! SPEC: v1.19 Client-Server API, "Client registration"; RFC 7591.

use std::collections::BTreeSet;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use matron_storage::{Batch, CommitError, Key, KeyRange, KeyReader, Order, Table};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use url::Url;

use super::{OAuthError, redirect_uri};
use crate::{
    Core, Error,
    accounts::Device,
    house::{from_json, to_json},
};

/// How many clients may be registered.
const MAX_CLIENTS: usize = 5_000;

/// How long a client that nobody uses is kept when there is no room for others, ms.
const UNUSED_LIFETIME_MS: u64 = 60 * 60 * 1000;

/// How often room is made, ms.
const SWEEP_INTERVAL_MS: u64 = 10 * 60 * 1000;

const MAX_REDIRECT_URIS: usize = 10;
const MAX_URI_BYTES: usize = 512;
const MAX_NAME_CHARS: usize = 100;

/// What a client can do here, in the order in which it is told.
const GRANT_TYPES: [&str; 3] = ["authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:device_code"];

/// The body of a registration; what is not known is ignored.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ClientMetadata {
    /// A page about the client; the base of all other URIs.
    pub client_uri: Option<String>,
    /// For people.
    pub client_name: Option<String>,
    /// A picture.
    pub logo_uri: Option<String>,
    /// Terms of service.
    pub tos_uri: Option<String>,
    /// Privacy policy.
    pub policy_uri: Option<String>,
    /// Where codes may be sent.
    #[serde(default)]
    pub redirect_uris: Vec<String>,
    /// `code`.
    #[serde(default)]
    pub response_types: Option<Vec<String>>,
    /// What the client will use at the token endpoint.
    #[serde(default)]
    pub grant_types: Option<Vec<String>>,
    /// `none`.
    pub token_endpoint_auth_method: Option<String>,
    /// `web` (default) or `native`.
    pub application_type: Option<String>,
}

/// A registered client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// A page about the client.
    pub client_uri: String,
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_name: Option<String>,
    /// A picture.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logo_uri: Option<String>,
    /// Terms of service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tos_uri: Option<String>,
    /// Privacy policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy_uri: Option<String>,
    /// Where codes may be sent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[serde(default)]
    pub redirect_uris: Vec<String>,
    /// `code`, or nothing.
    #[serde(default)]
    pub response_types: Vec<String>,
    /// What of [`GRANT_TYPES`] the client uses.
    #[serde(default)]
    pub grant_types: Vec<String>,
    /// `none`.
    pub token_endpoint_auth_method: String,
    /// `web` or `native`.
    pub application_type: String,
}

/// A client with its id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Registered {
    /// Follows from what the client says of itself.
    pub client_id: String,
    /// When it was registered first, seconds since the epoch.
    pub client_id_issued_at: u64,
    /// What was taken of what it said.
    #[serde(flatten)]
    pub client: Client,
}

#[derive(Serialize, Deserialize)]
struct Row {
    registered_ms: u64,
    client: Client,
}

/// How many clients there are.
#[derive(Debug, Default)]
pub(super) struct Count {
    known: Option<usize>,
    swept_ms: u64,
}

impl Client {
    /// What people read as its name: what it says, or its host.
    #[must_use]
    pub fn shown_name(&self) -> String {
        self.client_name.clone().unwrap_or_else(|| self.host())
    }

    /// The host of its own page, which its redirect URIs prove.
    #[must_use]
    pub fn host(&self) -> String {
        Url::parse(&self.client_uri).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default()
    }

    pub(super) fn may_use(&self, grant: &str) -> bool {
        self.grant_types.iter().any(|known| known == grant)
    }

    fn id(&self) -> Result<String, Error> {
        // The field order of the struct is fixed, so that equal clients have equal bytes.
        let hash = Sha256::digest(to_json(self)?);
        Ok(format!("mcl_{}", URL_SAFE_NO_PAD.encode(hash.get(..18).unwrap_or_default())))
    }
}

impl Core {
    /// The client is registered; one that describes itself alike has the same id.
    ///
    /// # Errors
    /// `invalid_redirect_uri`, `invalid_client_metadata`; `temporarily_unavailable` when too many are registered and in use.
    pub async fn register_client(&self, metadata: ClientMetadata) -> Result<Registered, OAuthError> {
        let client = check(metadata, self.settings.oauth.insecure_client_uris)?;
        let client_id = client.id()?;
        let key = Key::new().text(&client_id);
        if let Some(row) = self.load::<Row>(Table::OauthClient, &key)? {
            return Ok(Registered { client_id, client_id_issued_at: row.registered_ms / 1000, client: row.client });
        }
        self.make_room_for_client().await?;
        let now_ms = self.now_ms();
        let mut batch = Batch::new();
        batch.expect_absent(Table::OauthClient, key.clone());
        batch.put(Table::OauthClient, key, to_json(&Row { registered_ms: now_ms, client: client.clone() })?);
        match self.store.submit(batch).await {
            Ok(_) => {
                let mut count = self.oauth.clients.lock();
                count.known = count.known.map(|known| known.saturating_add(1));
            }
            // Somebody registered the same client at the same time.
            Err(CommitError::Conflict(_)) => {}
            Err(CommitError::Store(error)) => return Err(Error::from(error).into()),
        }
        Ok(Registered { client_id, client_id_issued_at: now_ms / 1000, client })
    }

    /// A registered client.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn find_client(&self, client_id: &str) -> Result<Option<Client>, Error> {
        if client_id.len() > 64 {
            return Ok(None);
        }
        Ok(self.load::<Row>(Table::OauthClient, &Key::new().text(client_id))?.map(|row| row.client))
    }

    async fn make_room_for_client(&self) -> Result<(), OAuthError> {
        let known = self.oauth.clients.lock().known;
        let known = match known {
            Some(known) => known,
            None => {
                let known = self.all_clients()?.len();
                self.oauth.clients.lock().known = Some(known);
                known
            }
        };
        if known < MAX_CLIENTS {
            return Ok(());
        }
        let now_ms = self.now_ms();
        {
            let mut count = self.oauth.clients.lock();
            if now_ms < count.swept_ms.saturating_add(SWEEP_INTERVAL_MS) {
                return Err(full());
            }
            count.swept_ms = now_ms;
        }
        let left = self.remove_unused_clients(now_ms).await?;
        if left < MAX_CLIENTS { Ok(()) } else { Err(full()) }
    }

    fn all_clients(&self) -> Result<Vec<(String, u64)>, Error> {
        let rows = self.store.scan(Table::OauthClient, &KeyRange::all(), Order::Ascending, MAX_CLIENTS * 2)?;
        rows.into_iter()
            .map(|(key, value)| {
                let id = KeyReader::new(&key).text();
                let id = id.ok_or_else(|| Error::internal("oauth_client holds a malformed key"))?;
                Ok((id, from_json::<Row>(Table::OauthClient, &value)?.registered_ms))
            })
            .collect()
    }

    /// Clients without a session are gone, unless they registered just now; the number that is left.
    ///
    /// SPEC: v1.19: a client with an active session must be kept.
    async fn remove_unused_clients(&self, now_ms: u64) -> Result<usize, Error> {
        let used = self.clients_in_use()?;
        let clients = self.all_clients()?;
        let mut batch = Batch::new();
        let mut left = 0_usize;
        for (id, registered_ms) in clients {
            if used.contains(&id) || registered_ms.saturating_add(UNUSED_LIFETIME_MS) > now_ms {
                left = left.saturating_add(1);
            } else {
                batch.delete(Table::OauthClient, Key::new().text(&id));
            }
        }
        if !batch.is_empty() {
            self.commit(batch).await?;
        }
        self.oauth.clients.lock().known = Some(left);
        Ok(left)
    }

    fn clients_in_use(&self) -> Result<BTreeSet<String>, Error> {
        let mut used = BTreeSet::new();
        let mut range = KeyRange::all();
        loop {
            let rows = self.store.scan(Table::UserDevice, &range, Order::Ascending, 1_000)?;
            let Some((last, _)) = rows.last() else { return Ok(used) };
            range = range.after(last);
            for (_, value) in &rows {
                if let Some(session) = from_json::<Device>(Table::UserDevice, value)?.oauth {
                    used.insert(session.client_id);
                }
            }
        }
    }
}

fn full() -> OAuthError {
    OAuthError::refused("temporarily_unavailable", "too many clients are registered; try again later")
}

fn check(metadata: ClientMetadata, insecure: bool) -> Result<Client, OAuthError> {
    let wrong = |sentence: &'static str| OAuthError::refused("invalid_client_metadata", sentence);
    let text = metadata.client_uri.as_deref().ok_or_else(|| wrong("`client_uri` is missing"))?;
    let client_uri = web_uri(text, insecure).map_err(wrong)?;
    let native = match metadata.application_type.as_deref() {
        None | Some("web") => false,
        Some("native") => true,
        Some(_) => return Err(wrong("`application_type` is `web` or `native`")),
    };
    if metadata.token_endpoint_auth_method.as_deref().is_some_and(|method| method != "none") {
        return Err(wrong("`token_endpoint_auth_method` is `none`: clients are public"));
    }
    for uri in [&metadata.logo_uri, &metadata.tos_uri, &metadata.policy_uri].into_iter().flatten() {
        let url = web_uri(uri, insecure).map_err(wrong)?;
        redirect_uri::check_common_base(&url, &client_uri).map_err(wrong)?;
    }
    if metadata.redirect_uris.len() > MAX_REDIRECT_URIS {
        return Err(wrong("a client has at most 10 redirect URIs"));
    }
    for uri in &metadata.redirect_uris {
        if uri.len() > MAX_URI_BYTES {
            return Err(OAuthError::refused("invalid_redirect_uri", "a redirect URI has at most 512 bytes"));
        }
        redirect_uri::check(uri, &client_uri, native, insecure)
            .map_err(|sentence| OAuthError::refused("invalid_redirect_uri", sentence))?;
    }
    let wanted = metadata.grant_types.unwrap_or_else(|| vec!["authorization_code".to_owned()]);
    let grant_types: Vec<String> = GRANT_TYPES
        .iter()
        .filter(|known| wanted.iter().any(|given| given == *known))
        .map(|t| (*t).to_owned())
        .collect();
    let uses_codes = grant_types.iter().any(|grant| grant == "authorization_code");
    if uses_codes && metadata.redirect_uris.is_empty() {
        return Err(OAuthError::refused("invalid_redirect_uri", "the authorization code grant needs a redirect URI"));
    }
    let response_types = metadata.response_types.unwrap_or_else(|| vec!["code".to_owned()]);
    let says_code = response_types.iter().any(|given| given == "code");
    if uses_codes && !says_code {
        return Err(wrong("`response_types` lacks `code`, which the authorization code grant needs"));
    }
    Ok(Client {
        client_uri: text.to_owned(),
        client_name: metadata.client_name.map(|name| shown(&name)).filter(|name| !name.is_empty()),
        logo_uri: metadata.logo_uri,
        tos_uri: metadata.tos_uri,
        policy_uri: metadata.policy_uri,
        redirect_uris: metadata.redirect_uris,
        response_types: if uses_codes { vec!["code".to_owned()] } else { Vec::new() },
        grant_types,
        token_endpoint_auth_method: "none".to_owned(),
        application_type: if native { "native" } else { "web" }.to_owned(),
    })
}

fn web_uri(text: &str, insecure: bool) -> Result<Url, &'static str> {
    if text.len() > MAX_URI_BYTES {
        return Err("a URI has at most 512 bytes");
    }
    let url = Url::parse(text).map_err(|_| "a URI is not absolute")?;
    if url.scheme() != "https" && !(insecure && url.scheme() == "http") {
        return Err("a URI has another scheme than https");
    }
    if url.host().is_none() || !url.username().is_empty() || url.password().is_some() {
        return Err("a URI has no host, or holds a user or password");
    }
    Ok(url)
}

/// A name without what would confuse whoever reads it.
fn shown(name: &str) -> String {
    let is_mark = |c: &char| {
        c.is_control()
            || matches!(*c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    name.trim().chars().filter(|c| !is_mark(c)).take(MAX_NAME_CHARS).collect()
}
