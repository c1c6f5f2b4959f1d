//! Single sign-on of the legacy API: from these pages back to a client, with a login token.
//!
//! SPEC: v1.19 Client-Server API, "SSO client login/authentication".

use ruma::UserId;
use url::Url;

use super::authorize::source_of;
use crate::{Core, Error};

/// How long the token is good, ms: the client uses it at once.
const TOKEN_LIFETIME_MS: u64 = 30_000;

/// How long the token in a link is good, ms: a person reads first what the link does.
const LINK_LIFETIME_MS: u64 = 2 * 60 * 1000;

/// Where a client wants its user back.
#[derive(Clone, Debug)]
pub struct SsoTarget {
    url: Url,
}

impl SsoTarget {
    /// The target that a client names.
    ///
    /// # Errors
    /// `M_INVALID_PARAM` for what is no URL, or one that a browser would run or read from its own machine.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let wrong = || Error::invalid("`redirectUrl` is no URL that a browser may be sent to");
        if text.len() > 4_096 {
            return Err(wrong());
        }
        let url = Url::parse(text).map_err(|_| wrong())?;
        let is_run = ["javascript", "data", "vbscript", "file", "blob", "about", "filesystem", "view-source"];
        if is_run.contains(&url.scheme()) || !url.username().is_empty() || url.password().is_some() {
            return Err(wrong());
        }
        Ok(Self { url })
    }

    /// What the user is asked to trust.
    #[must_use]
    pub fn shown(&self) -> String {
        match self.url.host_str() {
            Some(_) if self.url.has_host() && ["http", "https"].contains(&self.url.scheme()) => {
                self.url.origin().ascii_serialization()
            }
            _ => format!("{}:", self.url.scheme()),
        }
    }

    /// `form-action` of the page's policy.
    #[must_use]
    pub fn source(&self) -> String {
        source_of(self.url.as_str())
    }

    /// The whole URL.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.url.as_str()
    }

    fn with_token(&self, token: &str) -> String {
        let mut url = self.url.clone();
        let others: Vec<(String, String)> = url
            .query_pairs()
            .filter(|(name, _)| name != "loginToken")
            .map(|(n, v)| (n.into_owned(), v.into_owned()))
            .collect();
        url.query_pairs_mut().clear().extend_pairs(others).append_pair("loginToken", token);
        url.into()
    }
}

impl Core {
    /// The user trusts the target: the URL with a login token, to which the browser goes.
    ///
    /// # Errors
    /// `M_USER_LOCKED`, `M_USER_DEACTIVATED`.
    pub async fn grant_sso(&self, target: &SsoTarget, user: &UserId) -> Result<String, Error> {
        self.check_may_sign_in(user)?;
        let token = self.write_login_token(user, TOKEN_LIFETIME_MS).await?;
        Ok(target.with_token(&token))
    }

    /// The URL with a login token, for a link that the user follows if they trust the target.
    ///
    /// # Errors
    /// As [`Core::grant_sso`].
    pub async fn sso_link(&self, target: &SsoTarget, user: &UserId) -> Result<String, Error> {
        self.check_may_sign_in(user)?;
        let token = self.write_login_token(user, LINK_LIFETIME_MS).await?;
        Ok(target.with_token(&token))
    }

    /// Whether clients of the legacy API may sign in through these pages.
    #[must_use]
    pub fn offers_sso(&self) -> bool {
        self.settings.oauth.enabled || !self.settings.oauth.upstreams.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_that_a_browser_would_run_is_refused() {
        for bad in ["javascript:alert(1)", "JaVaScript:alert(1)", "data:text/html,x", "file:///etc/passwd", "//x", "x"]
        {
            assert!(SsoTarget::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(SsoTarget::parse("https://app.example/#/login?a=1").unwrap().shown(), "https://app.example");
        assert_eq!(SsoTarget::parse("element://connect").unwrap().shown(), "element:");
    }

    #[test]
    fn the_token_replaces_any_that_was_there() {
        let target = SsoTarget::parse("https://app.example/x?loginToken=planted&a=1#f").unwrap();
        assert_eq!(target.with_token("good"), "https://app.example/x?a=1&loginToken=good#f");
    }
}
