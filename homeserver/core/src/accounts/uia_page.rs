//! Stages of interactive authentication that are completed on a page of this server.
//!
//! SPEC: v1.19 Client-Server API, "Fallback".

use matron_storage::{Key, Table};
use ruma::OwnedUserId;

use super::uia::{DUMMY, PASSWORD, RECAPTCHA, REGISTRATION_TOKEN, SSO, Session};
use crate::{Core, Error};

/// What a person showed on the page.
pub enum StageProof {
    /// `m.login.password`.
    Password(String),
    /// `m.login.registration_token`.
    RegistrationToken(String),
    /// `m.login.recaptcha`: the captcha's answer.
    Captcha(String),
    /// `m.login.sso`: who has just signed in at the browser.
    SignedIn(OwnedUserId),
    /// `m.login.dummy`.
    Nothing,
}

impl std::fmt::Debug for StageProof {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("StageProof")
    }
}

impl Core {
    /// Whose session of interactive authentication this is; nobody's for registration.
    ///
    /// # Errors
    /// `M_UNKNOWN` for a session that is not known; `M_FORBIDDEN` for one for which somebody else signed in.
    pub fn user_of_uia_session(&self, session: &str) -> Result<Option<OwnedUserId>, Error> {
        Ok(self.live_session(session)?.user)
    }

    /// The stage is complete in this session. If somebody else than its user signed in, the session is over.
    ///
    /// # Errors
    /// `M_UNKNOWN` for a session that is not known; `M_FORBIDDEN` for wrong proof.
    pub async fn complete_uia_stage(&self, id: &str, proof: StageProof) -> Result<(), Error> {
        let mut session = self.live_session(id)?;
        let stage = match proof {
            StageProof::Nothing => DUMMY,
            StageProof::Password(password) => {
                let user = session.user.clone().ok_or_else(|| Error::forbidden("this session has no user"))?;
                if self.check_password(user.as_str(), &password).await? != user {
                    return Err(Error::forbidden("the password is wrong"));
                }
                PASSWORD
            }
            StageProof::RegistrationToken(token) => {
                if !self.registration_token_is_valid(&token)? {
                    return Err(Error::forbidden("the registration token is not valid"));
                }
                session.registration_token = Some(token);
                REGISTRATION_TOKEN
            }
            StageProof::Captcha(answer) => {
                self.check_captcha(Some(&answer)).await?;
                RECAPTCHA
            }
            StageProof::SignedIn(user) => {
                if session.user.as_ref() != Some(&user) {
                    session.spoilt = true;
                    self.write_session(id, &session).await?;
                    return Err(Error::forbidden("this must be confirmed by the user whose session it is"));
                }
                SSO
            }
        };
        if !session.completed.iter().any(|done| done == stage) {
            session.completed.push(stage.to_owned());
        }
        self.write_session(id, &session).await
    }

    fn live_session(&self, id: &str) -> Result<Session, Error> {
        let session = self.load::<Session>(Table::UiaSession, &Key::new().text(id))?;
        let session = session.filter(|session| session.expires_at_ms > self.now_ms());
        let session = session.ok_or_else(|| Error::Unknown("this session is not known, or has ended".into()))?;
        session.check_unspoilt()?;
        Ok(session)
    }
}
