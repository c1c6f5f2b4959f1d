//! [`NetFederation`]: other servers, reached.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderValue, Method, uri::PathAndQuery};
use matron_core::{
    federation::keys::x_matrix,
    ports::{
        Clock, Federation, FederationRequest, Finding, IdentityProof, IdentityRequest, Letter, OutboundForm,
        OutboundRequest, PeerError, PeerResponse, http_method,
    },
};
use matron_room::SigningKey;
use ruma::{OwnedServerName, ServerName};
use url::Url;

use crate::{
    backoff::Backoff,
    config::{NetConfig, NetError},
    dial::Dialer,
    discovery::Discovery,
    exchange::{Exchanger, JSON, Outgoing},
    guard::AddressGuard,
    mail,
    network::{Network, SystemNetwork},
    pool::Pool,
    tls::TlsConfigs,
    url_target::{Trust, target_of},
};

/// Reaches homeservers by their names and services by their URLs.
#[derive(Debug)]
pub struct NetFederation {
    server_name: OwnedServerName,
    signing_key: Arc<SigningKey>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) discovery: Discovery,
    pub(crate) exchanger: Exchanger,
    backoff: Backoff,
    pub(crate) longest: Duration,
}

impl NetFederation {
    /// A carrier that signs as `server_name`, over the machine's own network.
    ///
    /// # Errors
    /// [`NetError`] that names the setting to change.
    pub fn new(
        config: NetConfig,
        server_name: OwnedServerName,
        signing_key: Arc<SigningKey>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, NetError> {
        Self::with_network(config, server_name, signing_key, clock, Arc::new(SystemNetwork::new()))
    }

    /// As [`NetFederation::new`], over another network.
    ///
    /// # Errors
    /// As [`NetFederation::new`].
    pub fn with_network(
        config: NetConfig,
        server_name: OwnedServerName,
        signing_key: Arc<SigningKey>,
        clock: Arc<dyn Clock>,
        network: Arc<dyn Network>,
    ) -> Result<Self, NetError> {
        let tls = TlsConfigs::new(&config)?;
        let discovery = Discovery::new(&config, Arc::clone(&clock))?;
        let pool = Pool::new(&config);
        let dialer = Dialer {
            network,
            guard: Arc::new(AddressGuard::new(config.allow_ip_ranges)),
            tls,
            connect_timeout: Duration::from_millis(config.connect_timeout_ms),
        };
        Ok(Self {
            server_name,
            signing_key,
            clock,
            discovery,
            exchanger: Exchanger { dialer, pool },
            backoff: Backoff::new(),
            longest: Duration::from_millis(config.request_timeout_ms),
        })
    }

    async fn carry(&self, request: FederationRequest) -> Result<PeerResponse, PeerError> {
        let server = &request.destination;
        if *server == self.server_name {
            return Err(PeerError::Resolve("it is this server itself".to_owned()));
        }
        if is_background(&request.path_and_query)
            && let Some(until_ms) = self.backoff.until_ms(server, self.clock.now_ms())
        {
            return Err(PeerError::Backoff { until_ms });
        }
        let outgoing = self.prepare(&request)?;
        let exchange = async {
            let route = self.discovery.find_route(&self.exchanger, server).await?;
            self.exchanger.exchange(&format!("federation {server}"), &route, &outgoing).await
        };
        let answer = tokio::time::timeout(outgoing.timeout, exchange).await.unwrap_or(Err(PeerError::Timeout));
        match &answer {
            Ok(_) => self.backoff.succeeded(server),
            Err(PeerError::Resolve(_) | PeerError::Connect(_)) => {
                self.backoff.failed(server, self.clock.now_ms());
                self.discovery.forget(server);
            }
            Err(_) => {}
        }
        answer?.into_response()
    }

    /// The request as it will stand on the wire, signed if it shall be.
    fn prepare(&self, request: &FederationRequest) -> Result<Outgoing, PeerError> {
        let method = verb(request.method);
        // Servers need not expect a body in a `GET`, so it is neither sent nor signed.
        let content = request.body.as_ref().filter(|_| method != Method::GET);
        let authorization = if request.signed {
            let header = self.sign(&method, &request.path_and_query, &request.destination, content);
            Some(HeaderValue::try_from(header).map_err(|_invalid| unwritable())?)
        } else {
            None
        };
        let limits = (request.timeout, request.max_bytes);
        self.json(method, target(&request.path_and_query)?, authorization, content, limits)
    }

    /// The `Authorization` header by which this server proves who asks.
    fn sign(&self, method: &Method, uri: &str, to: &ServerName, content: Option<&serde_json::Value>) -> String {
        let (method, origin) = (method.as_str(), &*self.server_name);
        let request = x_matrix::SignedRequest { method, uri, origin, destination: Some(to), content };
        x_matrix::sign_request(&request, &self.signing_key)
    }

    /// A request with a JSON body or none; `limits` are how long to wait and the largest answer.
    fn json(
        &self,
        method: Method,
        target: PathAndQuery,
        authorization: Option<HeaderValue>,
        content: Option<&serde_json::Value>,
        (timeout, max_bytes): (Duration, usize),
    ) -> Result<Outgoing, PeerError> {
        let timeout = timeout.min(self.longest);
        Ok(Outgoing { method, target, authorization, body: body(content)?, content_type: JSON, timeout, max_bytes })
    }

    async fn carry_outbound(&self, request: OutboundRequest) -> Result<PeerResponse, PeerError> {
        let url = Url::parse(&request.url).map_err(|_invalid| PeerError::Resolve("its URL is malformed".to_owned()))?;
        let trust = if request.trusted { Trust::Configured } else { Trust::Named };
        let (key, route, target) = target_of(&url, trust)?;
        let authorization = match &request.bearer {
            Some(token) => Some(sensitive(format!("Bearer {token}"))?),
            None => None,
        };
        let method = verb(request.method);
        let content = request.body.as_ref().filter(|_| method != Method::GET);
        let outgoing = self.json(method, target, authorization, content, (request.timeout, request.max_bytes))?;
        self.exchanger.exchange(&key, &route, &outgoing).await?.into_response()
    }

    async fn carry_identity(&self, request: IdentityRequest) -> Result<PeerResponse, PeerError> {
        let url = format!("https://{}{}", request.server, request.path_and_query);
        let url = Url::parse(&url).map_err(|_invalid| PeerError::Resolve("its name is malformed".to_owned()))?;
        let trust = if request.trusted { Trust::Configured } else { Trust::Named };
        let (key, route, _normalised) = target_of(&url, trust)?;
        let method = verb(request.method);
        let content = request.body.as_ref().filter(|_| method != Method::GET);
        let authorization = match &request.proof {
            IdentityProof::None => None,
            IdentityProof::UserToken(token) => Some(format!("Bearer {token}")),
            IdentityProof::Signed => Some(self.sign(&method, &request.path_and_query, &request.server, content)),
        };
        let authorization = authorization.map(sensitive).transpose()?;
        let (target, limits) = (target(&request.path_and_query)?, (request.timeout, request.max_bytes));
        let outgoing = self.json(method, target, authorization, content, limits)?;
        self.exchanger.exchange(&key, &route, &outgoing).await?.into_response()
    }

    async fn carry_form(&self, form: OutboundForm) -> Result<PeerResponse, PeerError> {
        let url = Url::parse(&form.url).map_err(|_invalid| PeerError::Resolve("its URL is malformed".to_owned()))?;
        let trust = if form.trusted { Trust::Configured } else { Trust::Named };
        let (key, route, target) = target_of(&url, trust)?;
        let authorization = form.basic.as_ref().map(|(name, secret)| basic(name, secret)).transpose()?;
        let outgoing = Outgoing {
            target,
            authorization,
            body: Some(Bytes::from(form.form)),
            content_type: "application/x-www-form-urlencoded",
            method: Method::POST,
            timeout: form.timeout.min(self.longest),
            max_bytes: form.max_bytes,
        };
        self.exchanger.exchange(&key, &route, &outgoing).await?.into_response()
    }
}

/// SPEC: RFC 6749, section 2.3.1: both are form-encoded first.
fn basic(name: &str, secret: &str) -> Result<HeaderValue, PeerError> {
    let encoded = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let pair = STANDARD.encode(format!("{}:{}", encoded(name), encoded(secret)));
    sensitive(format!("Basic {pair}"))
}

/// A header's value that is logged nowhere.
fn sensitive(value: String) -> Result<HeaderValue, PeerError> {
    let mut value = HeaderValue::try_from(value).map_err(|_invalid| unwritable())?;
    value.set_sensitive(true);
    Ok(value)
}

impl Federation for NetFederation {
    fn request(&self, request: FederationRequest) -> BoxFuture<'_, Result<PeerResponse, PeerError>> {
        Box::pin(self.carry(request))
    }

    fn outbound(&self, request: OutboundRequest) -> BoxFuture<'_, Result<PeerResponse, PeerError>> {
        Box::pin(self.carry_outbound(request))
    }

    fn outbound_form(&self, form: OutboundForm) -> BoxFuture<'_, Result<PeerResponse, PeerError>> {
        Box::pin(self.carry_form(form))
    }

    fn identity(&self, request: IdentityRequest) -> BoxFuture<'_, Result<PeerResponse, PeerError>> {
        Box::pin(self.carry_identity(request))
    }

    fn mail(&self, letter: Letter) -> BoxFuture<'_, Result<(), PeerError>> {
        Box::pin(
            async move { mail::deliver(&self.exchanger.dialer, &letter, &self.server_name, self.clock.now_ms()).await },
        )
    }

    fn heard_from(&self, server: &ServerName) {
        self.backoff.succeeded(server);
    }

    fn probe<'a>(&'a self, server: &'a ServerName) -> BoxFuture<'a, Vec<Finding>> {
        Box::pin(self.examine(server))
    }
}

/// Transactions can wait; everything else has somebody waiting for it.
fn is_background(path_and_query: &str) -> bool {
    path_and_query.starts_with("/_matrix/federation/v1/send/")
}

fn verb(method: http_method::Method) -> Method {
    match method {
        http_method::Method::Get => Method::GET,
        http_method::Method::Put => Method::PUT,
        http_method::Method::Post => Method::POST,
    }
}

fn target(path_and_query: &str) -> Result<PathAndQuery, PeerError> {
    // What was signed must be what is sent: a fragment, say, would be cut off.
    PathAndQuery::try_from(path_and_query)
        .ok()
        .filter(|target| target.as_str() == path_and_query && path_and_query.starts_with('/'))
        .ok_or_else(unwritable)
}

fn body(value: Option<&serde_json::Value>) -> Result<Option<Bytes>, PeerError> {
    value.map(|value| serde_json::to_vec(value).map(Bytes::from).map_err(|_error| unwritable())).transpose()
}

fn unwritable() -> PeerError {
    PeerError::Malformed("the request cannot be written".to_owned())
}
