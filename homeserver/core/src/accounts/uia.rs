//! User-interactive authentication: a session collects completed stages until one flow is whole.
//!
//! SPEC: v1.19 Client-Server API, "User-Interactive Authentication API".

#[cfg(test)]
mod tests;

use matron_storage::{Batch, Key, KeyRange, Order, Table};
use ruma::{OwnedUserId, UserId};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    email::{EmailCredentials, ProvenEmail, Purpose},
    token::fresh_name,
};
use crate::{
    Core, Error, Requester,
    error::Sentence,
    house::{from_json, to_json},
};

/// How long a session lives, ms.
const SESSION_LIFETIME_MS: u64 = 60 * 60 * 1000;

/// How long an agreement to replace one's identity is good, ms.
const IDENTITY_RESET_MS: u64 = 10 * 60 * 1000;

/// The operation of replacing one's identity.
const IDENTITY_RESET: &str = "keys/device_signing/upload";

/// The operation of replacing a lost password.
pub(super) const RESET: &str = "POST /account/password, lost";

/// No proof beyond asking.
pub(super) const DUMMY: &str = "m.login.dummy";
/// The user's password.
pub(super) const PASSWORD: &str = "m.login.password";
/// A sign-in at this server's own pages.
pub(super) const SSO: &str = "m.login.sso";
/// A captcha that was solved.
pub(super) const RECAPTCHA: &str = "m.login.recaptcha";
/// An e-mail address, proved by a letter.
pub(super) const EMAIL_IDENTITY: &str = "m.login.email.identity";
/// A registration token.
pub(super) const REGISTRATION_TOKEN: &str = "m.login.registration_token";

/// What must be proved before an operation.
#[derive(Clone, Debug)]
pub(super) struct Challenge<'a> {
    /// Whose operation it is; `None` for registration.
    pub(super) user: Option<&'a UserId>,
    /// What the session is good for, and nothing else.
    pub(super) operation: &'a str,
    /// Each flow is a list of stages; one whole flow suffices.
    pub(super) flows: &'a [&'a [&'a str]],
}

/// What was proved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Proof {
    /// The registration token, if that was a stage; it is not used up yet.
    pub(super) registration_token: Option<String>,
    /// The e-mail address, if that was a stage; its proof is not used up yet.
    pub(super) email: Option<ProvenEmail>,
    /// The session, if one was begun.
    pub(super) session: Option<String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Session {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) user: Option<OwnedUserId>,
    operation: String,
    pub(super) completed: Vec<String>,
    pub(super) expires_at_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) registration_token: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    email: Option<ProvenEmail>,
    /// Who registered in this session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    registered: Option<OwnedUserId>,
    /// Somebody else than its user signed in for it: it is good for nothing any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) spoilt: bool,
}

impl Session {
    /// Passes unless somebody else than the session's user signed in for it.
    ///
    /// # Errors
    /// `M_FORBIDDEN`.
    pub(super) fn check_unspoilt(&self) -> Result<(), Error> {
        if self.spoilt { Err(Error::forbidden("somebody else signed in to confirm this; begin again")) } else { Ok(()) }
    }
}

/// The client's `auth` object.
#[derive(Deserialize)]
struct Auth {
    #[serde(rename = "type")]
    kind: Option<String>,
    session: Option<String>,
    identifier: Option<super::login::Identifier>,
    user: Option<String>,
    password: Option<String>,
    token: Option<String>,
    response: Option<String>,
    #[serde(alias = "threepidCreds")]
    threepid_creds: Option<EmailCredentials>,
}

/// Why a stage was not completed, for the 401 answer.
struct StageFailure {
    errcode: &'static str,
    message: Sentence,
}

impl Core {
    /// The requester has proved again who they are, for this operation and no other.
    ///
    /// Application services need no proof beyond their token. `operation` names the endpoint and what it acts on.
    ///
    /// # Errors
    /// [`Error::Interactive`] until a flow is whole; `M_FORBIDDEN` for an account without password, or for a session of another operation.
    pub async fn authenticate_interactively(
        &self,
        requester: &Requester,
        operation: &str,
        auth: Option<&Value>,
    ) -> Result<(), Error> {
        if requester.appservice.is_some() {
            return Ok(());
        }
        if self.holding_client(requester)?.is_some() {
            let page = self.account_management_url(None);
            return Err(Error::forbidden(format!("this session was opened with OAuth 2.0; go to {page} for this")));
        }
        let has_password = self.account(&requester.user_id)?.is_some_and(|account| account.password_hash.is_some());
        let has_provider = !self.settings.oauth.upstreams.is_empty();
        let flows: &[&[&str]] = match (has_password, has_provider) {
            (true, true) => &[&[PASSWORD], &[SSO]],
            (true, false) => &[&[PASSWORD]],
            (false, true) => &[&[SSO]],
            (false, false) => return Err(Error::forbidden("this account has no password with which to confirm this")),
        };
        let challenge = Challenge { user: Some(&requester.user_id), operation, flows };
        self.challenge(&challenge, auth).await.map(drop)
    }

    /// The OAuth client that holds the requester's session, if any.
    fn holding_client(&self, requester: &Requester) -> Result<Option<String>, Error> {
        let Some(device) = &requester.device_id else { return Ok(None) };
        let device = self.find_device(&requester.user_id, device)?;
        Ok(device.and_then(|device| device.oauth).map(|session| session.client_id))
    }

    /// The requester may replace their identity: proved as by [`Core::authenticate_interactively`], or, for a session of
    /// the OAuth 2.0 API, agreed to on the account's page within the last minutes.
    ///
    /// # Errors
    /// [`Error::Interactive`] until then.
    ///
    /// SPEC: v1.19 Client-Server API, "OAuth authentication". MSC: 4312 is the unstable name.
    pub async fn authenticate_identity_reset(&self, requester: &Requester, auth: Option<&Value>) -> Result<(), Error> {
        if self.holding_client(requester)?.is_none() {
            return self.authenticate_interactively(requester, IDENTITY_RESET, auth).await;
        }
        let now_ms = self.now_ms();
        let until = self.account(&requester.user_id)?.and_then(|account| account.identity_reset_until_ms);
        if until.is_some_and(|until| until > now_ms) {
            return self
                .update_account(&requester.user_id, |account| {
                    account.identity_reset_until_ms = None;
                    Ok(())
                })
                .await;
        }
        let challenge = Challenge {
            user: Some(&requester.user_id),
            operation: IDENTITY_RESET,
            flows: &[&["m.oauth"], &["org.matrix.cross_signing_reset"]],
        };
        let session = match auth.and_then(|auth| auth.get("session")).and_then(Value::as_str) {
            Some(id) => self.load_session(&challenge, id).map(|session| (Some(id.to_owned()), session))?,
            None => (None, self.fresh_session(&challenge)),
        };
        let url = self.account_management_url(Some("org.matrix.cross_signing_reset"));
        let error = self.still_needed(&challenge, session.0, session.1, None).await;
        let Error::Interactive(mut body) = error else { return Err(error) };
        if let Some(body) = body.as_object_mut() {
            let there = json!({ "url": url });
            let params = json!({ "m.oauth": there, "org.matrix.cross_signing_reset": there });
            body.insert("params".to_owned(), params);
        }
        Err(Error::Interactive(body))
    }

    /// The user has agreed on the account's page to replace their identity; good for ten minutes, once.
    ///
    /// # Errors
    /// `M_NOT_FOUND`.
    pub async fn allow_identity_reset(&self, user: &UserId) -> Result<(), Error> {
        let until = self.now_ms().saturating_add(IDENTITY_RESET_MS);
        self.update_account(user, |account| {
            account.identity_reset_until_ms = Some(until);
            Ok(())
        })
        .await
    }

    /// One of the challenge's flows is whole.
    ///
    /// # Errors
    /// [`Error::Interactive`] with the flows, what is completed, and what went wrong; see [`Core::authenticate_interactively`].
    pub(super) async fn challenge(&self, challenge: &Challenge<'_>, auth: Option<&Value>) -> Result<Proof, Error> {
        let auth = match auth {
            None | Some(Value::Null) => None,
            Some(value) => {
                Some(Auth::deserialize(value).map_err(|_| Error::bad_json("`auth` has a value of the wrong form"))?)
            }
        };
        let Some(auth) = auth else {
            let session = self.fresh_session(challenge);
            return Err(self.still_needed(challenge, None, session, None).await);
        };
        let session = match &auth.session {
            Some(id) => self.load_session(challenge, id)?,
            None => self.fresh_session(challenge),
        };
        let mut session = session;
        let mut failure = None;
        if let Some(kind) = &auth.kind {
            match self.complete_stage(challenge, kind, &auth, &mut session).await? {
                Ok(()) if !session.completed.contains(kind) => session.completed.push(kind.clone()),
                Ok(()) => {}
                Err(failed) => failure = Some(failed),
            }
        }
        let whole = challenge
            .flows
            .iter()
            .any(|flow| flow.iter().all(|stage| session.completed.iter().any(|done| done == stage)));
        if whole && failure.is_none() {
            if let Some(id) = &auth.session {
                self.write_session(id, &session).await?;
            }
            let Session { registration_token, email, .. } = session;
            return Ok(Proof { registration_token, email, session: auth.session });
        }
        Err(self.still_needed(challenge, auth.session, session, failure).await)
    }

    fn fresh_session(&self, challenge: &Challenge<'_>) -> Session {
        Session {
            user: challenge.user.map(ToOwned::to_owned),
            operation: challenge.operation.to_owned(),
            expires_at_ms: self.now_ms().saturating_add(SESSION_LIFETIME_MS),
            ..Session::default()
        }
    }

    fn load_session(&self, challenge: &Challenge<'_>, id: &str) -> Result<Session, Error> {
        let session = self.load::<Session>(Table::UiaSession, &Key::new().text(id))?;
        let session = session.filter(|session| session.expires_at_ms > self.now_ms());
        let session = session.ok_or_else(|| Error::Unknown("this session is not known, or has ended".into()))?;
        if session.operation != challenge.operation || session.user.as_deref() != challenge.user {
            return Err(Error::forbidden("the session was begun for another operation"));
        }
        session.check_unspoilt()?;
        Ok(session)
    }

    /// Who registered in this session before: the answer was lost on its way.
    pub(super) fn registered_in(&self, session: &str) -> Result<Option<OwnedUserId>, Error> {
        let session = self.load::<Session>(Table::UiaSession, &Key::new().text(session))?;
        let session = session.filter(|session| session.expires_at_ms > self.now_ms());
        Ok(session.and_then(|session| session.registered))
    }

    /// Remembers who registered in this session.
    pub(super) fn note_registered(&self, batch: &mut Batch, session: &str, user: &UserId) -> Result<(), Error> {
        let key = Key::new().text(session);
        let Some(bytes) = self.store.get(Table::UiaSession, key.as_bytes())? else { return Ok(()) };
        let mut row: Session = from_json(Table::UiaSession, &bytes)?;
        // What was proved once, a captcha for example, is good for one account.
        if row.registered.as_deref().is_some_and(|registered| registered != user) {
            return Err(Error::forbidden("somebody registered in this session already; begin again"));
        }
        row.registered = Some(user.to_owned());
        batch.expect_equals(Table::UiaSession, key.clone(), bytes);
        batch.put(Table::UiaSession, key, to_json(&row)?);
        Ok(())
    }

    /// The session is stored; what others wrote down of it meanwhile stays.
    pub(super) async fn write_session(&self, id: &str, session: &Session) -> Result<(), Error> {
        let key = Key::new().text(id);
        let mut session = session.clone();
        let mut batch = Batch::new();
        match self.store.get(Table::UiaSession, key.as_bytes())? {
            Some(bytes) => {
                let now: Session = from_json(Table::UiaSession, &bytes)?;
                session.registered = now.registered.or(session.registered);
                session.spoilt |= now.spoilt;
                batch.expect_equals(Table::UiaSession, key.clone(), bytes);
            }
            None => drop(batch.expect_absent(Table::UiaSession, key.clone())),
        }
        batch.put(Table::UiaSession, key, to_json(&session)?);
        self.commit_or(batch, Error::LimitExceeded { retry_after_ms: 100 }).await
    }

    /// The 401 answer; the session is stored so that the client can go on with it.
    async fn still_needed(
        &self,
        challenge: &Challenge<'_>,
        id: Option<String>,
        session: Session,
        failure: Option<StageFailure>,
    ) -> Error {
        let id = id.unwrap_or_else(|| fresh_name(24));
        if let Err(error) = self.write_session(&id, &session).await {
            return error;
        }
        let flows: Vec<Value> = challenge.flows.iter().map(|stages| json!({ "stages": stages })).collect();
        let mut body = json!({ "flows": flows, "params": self.stage_params(challenge), "session": id, "completed": session.completed });
        if let (Some(failure), Some(body)) = (failure, body.as_object_mut()) {
            body.insert("errcode".to_owned(), failure.errcode.into());
            body.insert("error".to_owned(), failure.message.as_ref().into());
        }
        Error::Interactive(Box::new(body))
    }

    async fn complete_stage(
        &self,
        challenge: &Challenge<'_>,
        kind: &str,
        auth: &Auth,
        session: &mut Session,
    ) -> Result<Result<(), StageFailure>, Error> {
        let refuse = |errcode, message: &'static str| Ok(Err(StageFailure { errcode, message: message.into() }));
        // A captcha that nobody needs can be tried out.
        let is_tried = kind == RECAPTCHA && challenge.user.is_none() && self.captcha().is_some();
        if !is_tried && !challenge.flows.iter().any(|flow| flow.contains(&kind)) {
            return refuse("M_UNRECOGNIZED", "this stage is part of no flow");
        }
        match kind {
            DUMMY => Ok(Ok(())),
            PASSWORD => {
                let Some(user) = challenge.user else {
                    return refuse("M_UNRECOGNIZED", "this stage is part of no flow");
                };
                let named = match (&auth.identifier, &auth.user) {
                    (Some(identifier), _) => self.identify(identifier)?,
                    (None, Some(name)) => self.user_of_name(name),
                    (None, None) => Some(user.to_owned()),
                };
                if named.as_deref() != Some(user) {
                    return Err(Error::forbidden("this must be confirmed by the user whose session it is"));
                }
                let Some(password) = &auth.password else {
                    return refuse("M_MISSING_PARAM", "the stage lacks the password");
                };
                self.check_may_guess(user)?;
                let hash = self.account(user)?.and_then(|account| account.password_hash.clone());
                let fits = self.verify_password(password, hash.as_deref()).await?;
                if fits {
                    return Ok(Ok(()));
                }
                self.note_wrong_guess(user);
                refuse("M_FORBIDDEN", "the user name or password is wrong")
            }
            RECAPTCHA => match self.check_captcha(auth.response.as_deref()).await {
                Ok(()) => Ok(Ok(())),
                Err(Error::Custom { errcode, message, .. }) => Ok(Err(StageFailure { errcode, message })),
                Err(error) => Err(error),
            },
            REGISTRATION_TOKEN => {
                let Some(token) = &auth.token else { return refuse("M_MISSING_PARAM", "the stage lacks the token") };
                if !self.registration_token_is_valid(token)? {
                    return refuse("M_UNAUTHORIZED", "the registration token is not valid");
                }
                session.registration_token = Some(token.clone());
                Ok(Ok(()))
            }
            EMAIL_IDENTITY => {
                let Some(credentials) = &auth.threepid_creds else {
                    return refuse("M_MISSING_PARAM", "the stage lacks `threepid_creds`");
                };
                let is_reset = challenge.operation == RESET;
                let purpose = if is_reset { Purpose::Password } else { Purpose::Register };
                match self.proven_email(purpose, credentials) {
                    Ok(email) => {
                        session.email = Some(email);
                        Ok(Ok(()))
                    }
                    Err(Error::Custom { errcode, .. }) => refuse(errcode, "the e-mail address is not confirmed"),
                    Err(error) => Err(error),
                }
            }
            _ => refuse("M_UNRECOGNIZED", "this stage is not supported"),
        }
    }

    /// Ended sessions, proofs of addresses, login tokens, OpenID tokens and browsers' sign-ins are gone.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) async fn remove_expired_proofs(&self) -> Result<(), Error> {
        #[derive(Deserialize)]
        struct Ends {
            expires_at_ms: u64,
        }
        let now_ms = self.now_ms();
        for table in
            [Table::UiaSession, Table::ThreepidSession, Table::TokenLogin, Table::TokenOpenid, Table::OauthBrowser]
        {
            let mut range = KeyRange::all();
            loop {
                let rows = self.store.scan(table, &range, Order::Ascending, 1000)?;
                let Some((last, _)) = rows.last() else { break };
                range = range.after(last);
                let mut batch = Batch::new();
                for (key, value) in &rows {
                    if serde_json::from_slice::<Ends>(value).is_ok_and(|row| row.expires_at_ms <= now_ms) {
                        batch.delete(table, key.clone());
                    }
                }
                if !batch.is_empty() {
                    self.commit(batch).await?;
                }
            }
        }
        Ok(())
    }
}
