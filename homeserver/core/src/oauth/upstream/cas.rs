//! Signing in at a CAS server.
//!
//! CAS Protocol 3.0. The protocol has no `state`: the attempt's is part of the service's URL, so that the server binds the
//! ticket to it, and this server binds it to the browser. Who shows a ticket that another browser asked for is nobody.

use std::{sync::Arc, time::Duration};

use ruma::OwnedUserId;
use serde_json::{Map, Value};
use url::Url;

use super::{Attempt, CasAnswer, CasPrincipal, Proved, Visitor, claims, failed};
use crate::{
    Core, Error,
    accounts::hash_token,
    ports::{OutboundRequest, http_method::Method},
    settings::{CasValidation, Protocol, Upstream},
};

/// How long a CAS server may take to validate a ticket.
const TIMEOUT: Duration = Duration::from_secs(15);

/// The largest answer that is read, bytes.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// The longest ticket, bytes; the protocol asks for 256 at most.
const MAX_TICKET_BYTES: usize = 1_024;

/// For what somebody without cookies goes to a CAS server.
#[derive(Clone, Copy, Debug)]
pub enum CasErrand<'a> {
    /// To sign in to a client, whose `redirectUrl` this is.
    Client(&'a str),
    /// To confirm something in this session of interactive authentication.
    Stage(&'a str),
}

impl CasErrand<'_> {
    /// The service's URL.
    // r0.4.0 Client-Server API, "CAS-based client login"; CAS servers that knew such a homeserver know this URL.
    fn service(self, base: &str) -> String {
        let (name, value) = match self {
            Self::Client(redirect_url) => ("redirectUrl", redirect_url),
            Self::Stage(session) => ("session", session),
        };
        let query = form_urlencoded::Serializer::new(String::new()).append_pair(name, value).finish();
        format!("{base}/_matrix/client/r0/login/cas/ticket?{query}")
    }

    /// Whether the person must show their credentials anew.
    const fn is_fresh(self) -> bool {
        matches!(self, Self::Stage(_))
    }
}

impl CasPrincipal {
    /// As an OpenID Connect provider would have said it: `sub` and `preferred_username` are the user's name, whatever the
    /// attributes say.
    fn into_claims(self) -> Map<String, Value> {
        let mut claims: Map<String, Value> =
            self.attributes.into_iter().map(|(name, values)| (name, values.into())).collect();
        for name in ["sub", "preferred_username"] {
            claims.insert(name.to_owned(), self.user.clone().into());
        }
        claims
    }
}

impl Core {
    /// The CAS server to which the deprecated `m.login.cas` leads.
    #[must_use]
    pub fn cas_provider(&self) -> Option<&Upstream> {
        self.settings.oauth.upstreams.iter().find(|upstream| upstream.protocol == Protocol::Cas)
    }

    /// The service's URL for an attempt with this state.
    pub(super) fn cas_service(&self, id: &str, state: &str) -> String {
        format!("{}?state={state}", self.upstream_redirect_uri(id))
    }

    /// The URL to which the browser goes; with `fresh`, the server must ask for credentials even from who is signed in.
    ///
    /// # Errors
    /// [`Error::Internal`] for a server whose URL is none.
    pub(super) fn cas_login_url(&self, upstream: &Upstream, service: &str, fresh: bool) -> Result<String, Error> {
        let mut url = below(upstream, "login")?;
        url.query_pairs_mut().append_pair("service", service);
        if fresh {
            url.query_pairs_mut().append_pair("renew", "true");
        }
        Ok(url.into())
    }

    /// What the server says of who has this ticket for this service. With `fresh`, only if they showed their credentials for it.
    ///
    /// # Errors
    /// `M_FORBIDDEN` for a ticket that the server refuses, or that a proxy holds; 502 when it does not answer as it should.
    ///
    /// CAS Protocol 3.0, section 2.5.
    pub(super) async fn validate_ticket(
        &self,
        upstream: &Upstream,
        ticket: &str,
        service: &str,
        fresh: bool,
    ) -> Result<Proved, Error> {
        let refused = || Error::forbidden(format!("{} did not confirm the sign-in; please begin again", upstream.name));
        if ticket.is_empty() || ticket.len() > MAX_TICKET_BYTES || !ticket.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(refused());
        }
        let mut url = below(upstream, path(upstream.validation))?;
        url.query_pairs_mut().append_pair("service", service).append_pair("ticket", ticket);
        if fresh {
            url.query_pairs_mut().append_pair("renew", "true");
        }
        let request = OutboundRequest {
            trusted: true,
            method: Method::Get,
            url: url.into(),
            bearer: None,
            body: None,
            timeout: TIMEOUT,
            max_bytes: MAX_ANSWER_BYTES,
        };
        let answer = self.federation.outbound(request).await.map_err(|error| failed(upstream, &error))?;
        let principal = match CasAnswer::parse(&answer.body) {
            Ok(CasAnswer::Valid(principal)) => principal,
            Ok(CasAnswer::Refused(code)) => {
                tracing::warn!(provider.id = %upstream.id, %code, "a CAS server refused a ticket");
                return Err(refused());
            }
            Ok(CasAnswer::Proxied) => {
                tracing::warn!(provider.id = %upstream.id, "a ticket that a proxy holds was refused");
                return Err(refused());
            }
            Err(error) => {
                tracing::warn!(provider.id = %upstream.id, %error, "a CAS server's answer was not understood");
                return Err(Error::Peer(format!("{} does not answer as it should", upstream.name).into()));
            }
        };
        let is_new = |values: &Vec<String>| values.iter().all(|value| value == "true");
        let is_fresh = fresh || principal.attributes.get("isFromNewLogin").is_some_and(is_new);
        let claims = principal.into_claims();
        claims::check_authentication(upstream, &claims)?;
        Ok(Proved { claims, is_fresh })
    }

    /// The provider at which browsers without cookies may sign in.
    ///
    /// # Errors
    /// `M_UNRECOGNIZED` where there is none.
    fn cas_without_cookies(&self) -> Result<&Upstream, Error> {
        self.cas_provider().filter(|cas| cas.insecure_without_cookies).ok_or(Error::Unrecognized)
    }

    /// The URL at the CAS server to which the browser goes, whether it keeps cookies or not.
    ///
    /// # Errors
    /// `M_UNRECOGNIZED` where the settings do not allow this.
    pub fn begin_cas_without_cookies(&self, visitor: &Visitor, errand: CasErrand<'_>) -> Result<String, Error> {
        let upstream = self.cas_without_cookies()?;
        let service = errand.service(&self.public_base());
        let attempt = Attempt { fresh: errand.is_fresh(), ..self.attempt(&upstream.id, visitor) };
        self.oauth.upstream.attempts.lock().put(hash_token(&bound(visitor, &service)), attempt);
        self.cas_login_url(upstream, &service, errand.is_fresh())
    }

    /// Who came back from the CAS server with a ticket; they have an account. A browser that has a cookie must have asked
    /// for the ticket; of one that has none nothing is known.
    ///
    /// # Errors
    /// As [`Core::finish_upstream`]; `M_UNRECOGNIZED` where the settings do not allow this.
    pub async fn finish_cas_without_cookies(
        self: &Arc<Self>,
        visitor: &Visitor,
        errand: CasErrand<'_>,
        ticket: &str,
    ) -> Result<OwnedUserId, Error> {
        let upstream = self.cas_without_cookies()?;
        let service = errand.service(&self.public_base());
        if !visitor.is_new {
            self.take_attempt(&upstream.id, visitor, &bound(visitor, &service))?;
        }
        let proved = self.validate_ticket(upstream, ticket, &service, errand.is_fresh()).await?;
        self.user_of_claims(upstream, &proved.claims).await
    }
}

/// What stands for the state where the service's URL has none.
fn bound(visitor: &Visitor, service: &str) -> String {
    format!("{} {service}", visitor.cookie())
}

const fn path(validation: CasValidation) -> &'static str {
    match validation {
        CasValidation::P3Service => "p3/serviceValidate",
        CasValidation::P3Proxy => "p3/proxyValidate",
        CasValidation::Service => "serviceValidate",
        CasValidation::Proxy => "proxyValidate",
    }
}

fn below(upstream: &Upstream, path: &str) -> Result<Url, Error> {
    Url::parse(&format!("{}/{path}", upstream.issuer.trim_end_matches('/')))
        .map_err(|_| Error::internal("`oauth.upstreams.issuer` is no URL"))
}
