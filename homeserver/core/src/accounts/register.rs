//! Registering: closed, by token, open, as a guest, by an application service.

use std::num::NonZeroUsize;

use lru::LruCache;
use matron_storage::Batch;
use ruma::{OwnedDeviceId, OwnedUserId, UserId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Account, Masquerade, SessionKind,
    email::EMAIL,
    threepid::Assurance,
    token::{Issued, fresh_name},
    uia::{Challenge, DUMMY, EMAIL_IDENTITY, RECAPTCHA, REGISTRATION_TOKEN},
};
use crate::{Core, Error, appservices::Appservice, settings::RegistrationMode};

/// The body of `POST /register`.
#[derive(Clone, Default, Deserialize)]
pub struct Register {
    /// `m.login.application_service`, for those.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// The wished localpart; absent: a random one.
    pub username: Option<String>,
    /// As old application services say `username`.
    pub user: Option<String>,
    /// The password.
    pub password: Option<String>,
    /// The first device; absent: a new one.
    pub device_id: Option<OwnedDeviceId>,
    /// Its name.
    pub initial_device_display_name: Option<String>,
    /// No session is wanted.
    #[serde(default)]
    pub inhibit_login: bool,
    /// Whether the client can refresh tokens.
    #[serde(default)]
    pub refresh_token: bool,
    /// A guest's token: the guest becomes this user.
    pub guest_access_token: Option<String>,
    /// Interactive authentication.
    pub auth: Option<Value>,
}

/// Requests that wait for their authentication, by session: later requests of a session may leave out what the first
/// said. Only a convenience, and holds passwords: never written anywhere.
pub(super) type Begun = LruCache<String, Register>;

/// How many of them are remembered.
pub(super) const MAX_BEGUN: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1_023);

impl Register {
    /// What this request leaves out is as in the first of its session.
    fn complete_from(&mut self, first: Option<&Self>) {
        let Some(first) = first else { return };
        let keep = |own: &mut Option<String>, first: &Option<String>| {
            if own.is_none() {
                own.clone_from(first);
            }
        };
        keep(&mut self.username, &first.username);
        keep(&mut self.password, &first.password);
        keep(&mut self.initial_device_display_name, &first.initial_device_display_name);
        keep(&mut self.guest_access_token, &first.guest_access_token);
        self.device_id = self.device_id.take().or_else(|| first.device_id.clone());
        self.inhibit_login |= first.inhibit_login;
        self.refresh_token |= first.refresh_token;
    }
}

impl std::fmt::Debug for Register {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Register").field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// A new account.
#[derive(Clone, Debug, Serialize)]
pub struct Registered {
    /// Who.
    pub user_id: OwnedUserId,
    /// Deprecated: the server's name.
    pub home_server: String,
    /// The first device, unless no session was wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_id: Option<OwnedDeviceId>,
    /// Its tokens.
    #[serde(flatten)]
    pub issued: Option<Issued>,
}

impl Core {
    /// An account exists, and unless refused a session on its first device.
    ///
    /// # Errors
    /// `M_FORBIDDEN` where registration is closed; `M_USER_IN_USE`; `M_INVALID_USERNAME`; `M_EXCLUSIVE`; `M_WEAK_PASSWORD`;
    /// `M_THREEPID_IN_USE`; [`Error::Interactive`] until a flow is whole.
    pub async fn register(&self, mut request: Register, appservice: Option<&Appservice>) -> Result<Registered, Error> {
        if let Some(appservice) = appservice {
            return self.register_for_appservice(request, appservice).await;
        }
        if request.kind.as_deref() == Some("m.login.application_service") {
            return Err(Error::MissingToken);
        }
        let captcha = self.required_captcha().is_some();
        // An address may be proved, and need not. SPEC: "Dummy Auth": no flow is a part of another, or the shorter is whole
        // before the client comes to the rest.
        let flows: &[&[&str]] = match (self.settings.registration.mode, captcha, self.sends_letters()) {
            (RegistrationMode::Closed, ..) => {
                return Err(Error::forbidden("registration is closed; ask the operator for an account"));
            }
            (RegistrationMode::Token, true, false) => &[&[RECAPTCHA, REGISTRATION_TOKEN]],
            (RegistrationMode::Token, true, true) => {
                &[&[RECAPTCHA, REGISTRATION_TOKEN, DUMMY], &[RECAPTCHA, REGISTRATION_TOKEN, EMAIL_IDENTITY]]
            }
            (RegistrationMode::Token, false, false) => &[&[REGISTRATION_TOKEN]],
            (RegistrationMode::Token, false, true) => {
                &[&[REGISTRATION_TOKEN, DUMMY], &[REGISTRATION_TOKEN, EMAIL_IDENTITY]]
            }
            (RegistrationMode::Open, true, false) => &[&[RECAPTCHA]],
            (RegistrationMode::Open, true, true) => &[&[RECAPTCHA, DUMMY], &[RECAPTCHA, EMAIL_IDENTITY]],
            (RegistrationMode::Open, false, false) => &[&[DUMMY]],
            (RegistrationMode::Open, false, true) => &[&[DUMMY], &[EMAIL_IDENTITY]],
        };
        let session = request.auth.as_ref().and_then(|auth| auth.get("session")).and_then(Value::as_str);
        let session = session.map(str::to_owned);
        if let Some(session) = &session {
            request.complete_from(self.accounts.begun.lock().get(session));
            if let Some(user) = self.registered_in(session)? {
                return self.first_session(user, request).await;
            }
        }
        let guest = self.upgrading_guest(&request).await?;
        let user = match (&guest, &request.username) {
            (Some(guest), _) => guest.clone(),
            (None, Some(name)) => self.name_for_anyone(name)?,
            (None, None) => self.local_user(&fresh_name(12))?,
        };
        let challenge = Challenge { user: None, operation: "POST /register", flows };
        let proof = match self.challenge(&challenge, request.auth.as_ref()).await {
            Ok(proof) => proof,
            Err(Error::Interactive(body)) => {
                if let Some(session) = body.get("session").and_then(Value::as_str) {
                    request.auth = None;
                    self.accounts.begun.lock().put(session.to_owned(), request);
                }
                return Err(Error::Interactive(body));
            }
            Err(error) => return Err(error),
        };
        let password_hash = match &request.password {
            Some(password) => Some(self.hash_password(password).await?),
            None => None,
        };
        // Others may use the same token at the same moment.
        let use_up = |batch: &mut Batch| {
            if let Some(token) = &proof.registration_token {
                self.use_registration_token(batch, token)?;
            }
            if let Some(email) = &proof.email {
                self.check_unused(email)?;
                self.put_threepid(batch, &user, EMAIL, &email.address, email.validated_at, Assurance::Full)?;
                email.use_up(batch);
            }
            proof.session.as_ref().map_or(Ok(()), |session| self.note_registered(batch, session, &user))
        };
        if guest.is_some() {
            self.commit_anew(use_up).await?;
            self.update_account(&user, |account| {
                account.guest = false;
                account.password_hash.clone_from(&password_hash);
                Ok(())
            })
            .await?;
        } else {
            let account = Account { created_ms: self.now_ms(), password_hash, ..Account::default() };
            self.insert_account(&user, &account, use_up).await?;
        }
        // Not before: whoever was refused may try again in this session.
        if let Some(session) = &proof.session {
            self.accounts.begun.lock().pop(session);
        }
        self.first_session(user, request).await
    }

    /// The account exists, as a person asked for it on this server's own page.
    ///
    /// # Errors
    /// As [`Core::register`]; `M_FORBIDDEN` for a registration token that is not valid; `M_CAPTCHA_NEEDED`,
    /// `M_CAPTCHA_INVALID`.
    pub async fn register_at_browser(
        &self,
        name: &str,
        password: &str,
        token: Option<&str>,
        captcha: Option<&str>,
    ) -> Result<OwnedUserId, Error> {
        let mode = self.settings.registration.mode;
        if mode == RegistrationMode::Closed {
            return Err(Error::forbidden("registration is closed; ask the operator for an account"));
        }
        let user = self.name_for_anyone(name)?;
        if self.required_captcha().is_some() {
            self.check_captcha(captcha).await?;
        }
        let token = match mode {
            RegistrationMode::Token => {
                let token = token.map(str::trim).filter(|token| !token.is_empty());
                let token = token.ok_or_else(|| Error::forbidden("the registration token is missing"))?;
                if !self.registration_token_is_valid(token)? {
                    return Err(Error::forbidden("the registration token is not valid"));
                }
                Some(token)
            }
            _ => None,
        };
        let password_hash = Some(self.hash_password(password).await?);
        let account = Account { created_ms: self.now_ms(), password_hash, ..Account::default() };
        let use_up = |batch: &mut Batch| token.map_or(Ok(()), |token| self.use_registration_token(batch, token));
        self.insert_account(&user, &account, use_up).await?;
        Ok(user)
    }

    /// The guest who becomes a user, if the request shows a guest's token and name.
    async fn upgrading_guest(&self, request: &Register) -> Result<Option<OwnedUserId>, Error> {
        let (Some(token), Some(name)) = (&request.guest_access_token, &request.username) else { return Ok(None) };
        let guest = self.authenticate(token, &Masquerade::default(), None).await?;
        if !guest.is_guest || guest.user_id.localpart() != name {
            return Err(Error::forbidden("the guest's token does not belong to this name"));
        }
        Ok(Some(guest.user_id))
    }

    /// SPEC: v1.19 Application Service API, "Server admin style permissions".
    async fn register_for_appservice(&self, request: Register, appservice: &Appservice) -> Result<Registered, Error> {
        let name = request.username.as_deref().or(request.user.as_deref());
        let name = name.ok_or_else(|| Error::MissingParam("`username` is missing".into()))?;
        let id = appservice.registration.id.as_str();
        let user = self.free_user_id(name, Some(id))?;
        if !appservice.is_interested_in_user(&user) {
            return Err(Error::Exclusive("this user name is outside the application service's namespaces".into()));
        }
        let account = Account { created_ms: self.now_ms(), appservice: Some(id.to_owned()), ..Account::default() };
        self.insert_account(&user, &account, |_| Ok(())).await?;
        self.first_session(user, request).await
    }

    /// A guest's account exists, with a session.
    ///
    /// # Errors
    /// `M_GUEST_ACCESS_FORBIDDEN` where guests are not wanted.
    pub async fn register_guest(&self, device_name: Option<String>) -> Result<Registered, Error> {
        if !self.settings.registration.guests {
            return Err(Error::GuestForbidden);
        }
        let user = self.local_user(&format!("guest-{}", fresh_name(12)))?;
        let account = Account { created_ms: self.now_ms(), guest: true, ..Account::default() };
        self.insert_account(&user, &account, |_| Ok(())).await?;
        // A guest chooses no device of its own, so that none is taken over.
        let request = Register { initial_device_display_name: device_name, ..Register::default() };
        self.first_session(user, request).await
    }

    pub(super) async fn first_session(&self, user_id: OwnedUserId, request: Register) -> Result<Registered, Error> {
        let home_server = self.server_name.to_string();
        if request.inhibit_login {
            return Ok(Registered { user_id, home_server, device_id: None, issued: None });
        }
        let (device_id, issued) = self
            .start_session(
                &user_id,
                request.device_id,
                request.initial_device_display_name,
                SessionKind::legacy(request.refresh_token),
            )
            .await?;
        Ok(Registered { user_id, home_server, device_id: Some(device_id), issued: Some(issued) })
    }

    /// Passes when somebody could register this name now.
    ///
    /// # Errors
    /// `M_USER_IN_USE`; `M_INVALID_USERNAME`; `M_EXCLUSIVE`.
    pub fn check_username_available(&self, name: &str) -> Result<(), Error> {
        self.name_for_anyone(name).map(drop)
    }

    /// As [`Core::free_user_id`], for somebody who chooses the name: one that the register or the configuration gives
    /// a part in governing rooms, or that stands for a machine, is the operator's to give.
    pub(crate) fn name_for_anyone(&self, name: &str) -> Result<OwnedUserId, Error> {
        let user = self.free_user_id(name, None)?;
        if self.is_named_by_policy(&user) {
            return Err(Error::Exclusive("this name has a part in the federation; the operator gives it".into()));
        }
        Ok(user)
    }

    /// The user id of a name that is well-formed, free, and reserved by nobody else.
    pub(crate) fn free_user_id(&self, name: &str, appservice: Option<&str>) -> Result<OwnedUserId, Error> {
        let name = name.to_ascii_lowercase();
        // Application services often give whole user ids.
        let name = match (appservice, name.strip_prefix('@').and_then(|rest| rest.split_once(':'))) {
            (Some(_), Some((localpart, server))) if server == self.server_name.as_str() => localpart.to_owned(),
            _ => name,
        };
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._=-/+".contains(c);
        if name.is_empty() || !name.chars().all(allowed) {
            return Err(Error::InvalidUsername("a user name consists of a-z 0-9 . _ = - / +".into()));
        }
        let user = self.local_user(&name)?;
        self.check_user_not_reserved(&user, appservice)?;
        if self.account(&user)?.is_some() {
            return Err(Error::UserInUse);
        }
        Ok(user)
    }

    /// The user id of a localpart here.
    pub(crate) fn local_user(&self, localpart: &str) -> Result<OwnedUserId, Error> {
        let user = UserId::parse_with_server_name(localpart, &self.server_name);
        user.ok()
            .filter(|user| user.as_str().len() <= 255)
            .ok_or_else(|| Error::InvalidUsername("the user id would be longer than 255 bytes".into()))
    }
}
