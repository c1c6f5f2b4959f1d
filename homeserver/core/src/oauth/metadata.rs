//! What clients need to know of the authorization server.

use serde_json::{Value, json};

use crate::{Core, Error};

/// Where the pages and endpoints are, below the public base URL.
pub(super) const ACCOUNT_PATH: &str = "/account/";

impl Core {
    /// The URL under which browsers reach this server, without a slash at its end.
    #[must_use]
    pub fn public_base(&self) -> String {
        match &self.settings.public_base_url {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => format!("https://{}", self.server_name),
        }
    }

    /// Where a client reaches something below `/_matrix/client/`.
    #[must_use]
    pub fn client_url(&self, path: &str) -> String {
        format!("{}/_matrix/client/{path}", self.public_base())
    }

    /// Passes where the OAuth 2.0 API is on.
    ///
    /// # Errors
    /// `M_UNRECOGNIZED`.
    pub fn check_oauth_enabled(&self) -> Result<(), Error> {
        if self.settings.oauth.enabled { Ok(()) } else { Err(Error::Unrecognized) }
    }

    /// Where a person manages their account, with an action of the specification.
    #[must_use]
    pub fn account_management_url(&self, action: Option<&str>) -> String {
        let base = self.public_base();
        match action {
            Some(action) => format!("{base}{ACCOUNT_PATH}?action={action}"),
            None => format!("{base}{ACCOUNT_PATH}"),
        }
    }

    /// The authorization server's metadata (RFC 8414).
    ///
    /// # Errors
    /// `M_UNRECOGNIZED` where the OAuth 2.0 API is off.
    ///
    /// SPEC: v1.19 Client-Server API, "Server metadata discovery".
    pub fn auth_metadata(&self) -> Result<Value, Error> {
        self.check_oauth_enabled()?;
        let base = self.public_base();
        Ok(json!({
            "issuer": format!("{base}/"),
            "authorization_endpoint": format!("{base}/account/authorize"),
            "token_endpoint": format!("{base}/oauth2/token"),
            "registration_endpoint": format!("{base}/oauth2/register"),
            "revocation_endpoint": format!("{base}/oauth2/revoke"),
            "device_authorization_endpoint": format!("{base}/oauth2/device"),
            "jwks_uri": format!("{base}/oauth2/keys.json"),
            "response_types_supported": ["code"],
            "response_modes_supported": ["query", "fragment"],
            "grant_types_supported": [
                "authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:device_code",
            ],
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": ["none"],
            "revocation_endpoint_auth_methods_supported": ["none"],
            "scopes_supported": ["urn:matrix:client:api:*"],
            "authorization_response_iss_parameter_supported": true,
            "prompt_values_supported": ["create"],
            "account_management_uri": self.account_management_url(None),
            "account_management_actions_supported": [
                "org.matrix.profile",
                "org.matrix.devices_list",
                "org.matrix.device_view",
                "org.matrix.device_delete",
                "org.matrix.account_deactivate",
                "org.matrix.cross_signing_reset",
                // MSC: 4191, before it was merged.
                "org.matrix.sessions_list",
                "org.matrix.session_view",
                "org.matrix.session_end",
            ],
        }))
    }
}
