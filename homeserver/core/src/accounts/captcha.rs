//! `m.login.recaptcha`: whoever registers shows that they are no machine.
//!
//! SPEC: v1.19 Client-Server API, "Google ReCaptcha". The service is told the answer and nothing of who gives it.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::uia::{Challenge, RECAPTCHA};
use crate::{Core, Error, ports::OutboundForm, settings::Recaptcha};

/// How long the service may take to judge an answer.
const TIMEOUT: Duration = Duration::from_secs(15);

/// The largest judgement that is read, bytes.
const MAX_JUDGEMENT_BYTES: usize = 16 * 1024;

/// The longest answer, bytes; the service's are some thousand.
const MAX_ANSWER_BYTES: usize = 16 * 1024;

#[derive(Deserialize)]
struct Judgement {
    success: bool,
}

impl Core {
    /// The captcha, where one is configured.
    #[must_use]
    pub fn captcha(&self) -> Option<&Recaptcha> {
        Some(&self.settings.registration.recaptcha).filter(|captcha| captcha.public_key.is_some())
    }

    /// The captcha, where nobody registers without it.
    #[must_use]
    pub fn required_captcha(&self) -> Option<&Recaptcha> {
        self.captcha().filter(|captcha| captcha.required)
    }

    /// `params` of a challenge: what a client needs to know of its stages.
    pub(super) fn stage_params(&self, challenge: &Challenge<'_>) -> Value {
        match self.captcha().and_then(|captcha| captcha.public_key.as_deref()) {
            Some(key) if challenge.user.is_none() => json!({ RECAPTCHA: { "public_key": key } }),
            _ => json!({}),
        }
    }

    /// Passes for an answer that the service takes for a person's.
    ///
    /// # Errors
    /// `M_CAPTCHA_NEEDED` without an answer, `M_CAPTCHA_INVALID` for a wrong one; 502 when the service does not judge.
    pub(super) async fn check_captcha(&self, answer: Option<&str>) -> Result<(), Error> {
        let captcha = self.captcha().ok_or(Error::Unrecognized)?;
        let Some(answer) = answer.filter(|answer| !answer.is_empty()) else {
            return Err(refused("M_CAPTCHA_NEEDED", "the captcha was not solved"));
        };
        let wrong = || refused("M_CAPTCHA_INVALID", "the captcha was not solved, or too long ago");
        if answer.len() > MAX_ANSWER_BYTES {
            return Err(wrong());
        }
        let silent = || Error::Peer("the captcha cannot be checked now".into());
        let secret = captcha.secret.as_deref().unwrap_or_default();
        let form = OutboundForm {
            trusted: true,
            url: format!("{}/api/siteverify", captcha.url.trim_end_matches('/')),
            form: form_urlencoded::Serializer::new(String::new())
                .append_pair("secret", secret)
                .append_pair("response", answer)
                .finish(),
            basic: None,
            timeout: TIMEOUT,
            max_bytes: MAX_JUDGEMENT_BYTES,
        };
        let judgement = self.federation.outbound_form(form).await.map_err(|error| {
            tracing::warn!(%error, "the captcha service did not answer");
            silent()
        })?;
        let judgement: Judgement = serde_json::from_slice(&judgement.body).map_err(|_| silent())?;
        if judgement.success { Ok(()) } else { Err(wrong()) }
    }
}

fn refused(errcode: &'static str, message: &'static str) -> Error {
    Error::Custom { status: 403, errcode, message: message.into() }
}
