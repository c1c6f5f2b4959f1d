//! A proof on its way: a session that the client knows by a secret, a letter, a click on its link.

use std::num::NonZeroUsize;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use lru::LruCache;
use matron_storage::{Batch, CommitError, Key, Table};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{
    EMAIL, is_email_address,
    letter::{Link, Words},
};
use crate::{
    Core, Error, Requester,
    accounts::{
        threepid::in_use,
        token::{TokenHash, fresh_token, hash_token},
    },
    house::{from_json, to_json},
    identity::canonical_address,
    settings::RegistrationMode,
};

/// How long a session lives, ms.
const LIFETIME_MS: u64 = 60 * 60 * 1000;

/// How many letters an address gets in short order.
const BURST: u64 = 5;

/// After how long it gets another, ms.
const REFILL_MS: u64 = 12 * 60 * 1000;

/// Of how many addresses it is remembered how many letters they got.
const MAX_REMEMBERED: NonZeroUsize = NonZeroUsize::MIN.saturating_add(16_383);

/// What a proof is for, and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// A new account.
    Register,
    /// An address for an account that exists.
    Add,
    /// A new password instead of a lost one.
    Password,
}

/// The body of the `requestToken` endpoints.
#[derive(Clone, Deserialize)]
pub struct EmailRequest {
    /// What the client knows the session by.
    pub client_secret: String,
    /// The address.
    pub email: String,
    /// Only a higher one than before sends another letter.
    pub send_attempt: u64,
}

/// A session, as the client names it.
#[derive(Clone, Deserialize)]
pub struct EmailCredentials {
    /// The session.
    pub sid: String,
    /// The client's secret of it.
    pub client_secret: String,
}

impl std::fmt::Debug for EmailRequest {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("EmailRequest")
    }
}

impl std::fmt::Debug for EmailCredentials {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("EmailCredentials")
    }
}

/// An address that somebody has proved to have; the proof is used up by [`ProvenEmail::use_up`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::accounts) struct ProvenEmail {
    /// The address, in canonical form.
    pub(in crate::accounts) address: String,
    /// The session.
    sid: String,
    /// When it was proved, ms since the epoch.
    pub(in crate::accounts) validated_at: u64,
}

impl ProvenEmail {
    /// The proof is good for nothing any more.
    pub(in crate::accounts) fn use_up(&self, batch: &mut Batch) {
        batch.delete(Table::ThreepidSession, Key::new().text(&self.sid));
    }
}

#[derive(Serialize, Deserialize)]
struct Row {
    purpose: Purpose,
    address: String,
    send_attempt: u64,
    /// Absent, where the letter had no link: there was nothing to prove.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token_hash: Option<TokenHash>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    validated_at: Option<u64>,
    expires_at_ms: u64,
}

/// By address: until when the letters so far fill its budget, ms since the epoch.
#[derive(Debug)]
pub(in crate::accounts) struct Letters(LruCache<String, u64>);

impl Default for Letters {
    fn default() -> Self {
        Self(LruCache::new(MAX_REMEMBERED))
    }
}

fn unproved() -> Error {
    Error::Custom {
        status: 403,
        errcode: "M_THREEPID_AUTH_FAILED",
        message: "this e-mail address has not been confirmed, or too long ago".into(),
    }
}

impl Core {
    /// A letter is on its way to the address, and a session waits for its link to be opened; gives the session's id.
    ///
    /// # Errors
    /// `M_THREEPID_MEDIUM_NOT_SUPPORTED` where no letters are sent; [`Error::InvalidParam`] for what is no address or secret;
    /// [`Error::Forbidden`] where registration is closed; `M_THREEPID_IN_USE` for [`Purpose::Add`], told to users alone; [`Error::LimitExceeded`]; [`Error::Peer`] if the mail server fails.
    pub async fn request_email_proof(
        &self,
        asker: Option<&Requester>,
        purpose: Purpose,
        request: &EmailRequest,
    ) -> Result<String, Error> {
        self.check_sends_letters()?;
        check_secret(&request.client_secret)?;
        if !is_email_address(&request.email) {
            return Err(Error::invalid("this is no e-mail address that a letter can be sent to"));
        }
        if purpose == Purpose::Register && self.settings.registration.mode == RegistrationMode::Closed {
            return Err(Error::forbidden("registration is closed; ask the operator for an account"));
        }
        let address = canonical_address(EMAIL, &request.email);
        let sid = sid_of(purpose, &address, &request.client_secret);
        if self.find_session(&sid)?.is_some_and(|row| row.send_attempt >= request.send_attempt) {
            return Ok(sid);
        }
        let is_taken = self.user_of_threepid(EMAIL, &address)?.is_some();
        // Who has no account here learns from no answer who has: the letter says it.
        if is_taken && purpose == Purpose::Add && asker.is_some_and(|asker| !asker.is_guest) {
            return Err(in_use());
        }
        self.check_may_write_to(&address)?;
        let token = ((purpose == Purpose::Password) == is_taken).then(|| fresh_token("mev"));
        let row = Row {
            purpose,
            address: address.clone(),
            send_attempt: request.send_attempt,
            token_hash: token.as_deref().map(hash_token),
            validated_at: None,
            expires_at_ms: self.now_ms().saturating_add(LIFETIME_MS),
        };
        let mut batch = Batch::new();
        batch.put(Table::ThreepidSession, Key::new().text(&sid), to_json(&row)?);
        self.commit(batch).await?;
        let words = match &token {
            Some(token) => Words::Link(purpose, Link { sid: &sid, token }),
            None if is_taken => Words::HasAccount,
            None => Words::HasNoAccount,
        };
        if let Err(error) = self.send_letter(&address, &words).await {
            // The same attempt may be made again.
            let mut batch = Batch::new();
            batch.delete(Table::ThreepidSession, Key::new().text(&sid));
            self.commit(batch).await?;
            return Err(error);
        }
        Ok(sid)
    }

    /// What a link that is still good is for.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for one that is not.
    pub fn purpose_of_link(&self, sid: &str, token: &str) -> Result<Purpose, Error> {
        self.row_of_link(sid, token).map(|(row, _)| row.purpose)
    }

    /// The link of a letter was opened: whoever did so reads what is sent to the address.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for a link that is not, or no longer, good.
    pub async fn confirm_email(&self, sid: &str, token: &str) -> Result<Purpose, Error> {
        let (mut row, before) = self.row_of_link(sid, token)?;
        let purpose = row.purpose;
        row.validated_at.get_or_insert(self.now_ms());
        let key = Key::new().text(sid);
        let mut batch = Batch::new();
        batch.expect_equals(Table::ThreepidSession, key.clone(), before);
        batch.put(Table::ThreepidSession, key, to_json(&row)?);
        match self.store.submit(batch).await {
            // Opened twice at a time, or used up meanwhile.
            Ok(_) | Err(CommitError::Conflict(_)) => Ok(purpose),
            Err(CommitError::Store(error)) => Err(error.into()),
        }
    }

    /// The address that was proved in this session, for this purpose.
    ///
    /// # Errors
    /// `M_THREEPID_AUTH_FAILED`.
    pub(in crate::accounts) fn proven_email(
        &self,
        purpose: Purpose,
        credentials: &EmailCredentials,
    ) -> Result<ProvenEmail, Error> {
        self.check_sends_letters()?;
        let EmailCredentials { sid, client_secret } = credentials;
        let row = self.find_session(sid)?.ok_or_else(unproved)?;
        let is_theirs = row.purpose == purpose && sid_of(purpose, &row.address, client_secret) == *sid;
        let validated_at = row.validated_at.filter(|_| is_theirs).ok_or_else(unproved)?;
        Ok(ProvenEmail { address: row.address, sid: sid.clone(), validated_at })
    }

    /// Passes while the proof was not used.
    ///
    /// # Errors
    /// `M_THREEPID_AUTH_FAILED`.
    pub(in crate::accounts) fn check_unused(&self, email: &ProvenEmail) -> Result<(), Error> {
        self.find_session(&email.sid)?.map(drop).ok_or_else(unproved)
    }

    fn find_session(&self, sid: &str) -> Result<Option<Row>, Error> {
        let row = self.load::<Row>(Table::ThreepidSession, &Key::new().text(sid))?;
        Ok(row.filter(|row| row.expires_at_ms > self.now_ms()))
    }

    fn row_of_link(&self, sid: &str, token: &str) -> Result<(Row, Vec<u8>), Error> {
        let bad = || Error::forbidden("this link is not good any more; begin again in your app");
        let bytes = self.store.get(Table::ThreepidSession, Key::new().text(sid).as_bytes())?.ok_or_else(bad)?;
        let row: Row = from_json(Table::ThreepidSession, &bytes)?;
        let is_good = row.token_hash == Some(hash_token(token)) && row.expires_at_ms > self.now_ms();
        if is_good { Ok((row, bytes.to_vec())) } else { Err(bad()) }
    }

    /// Counts a letter to this address. Without rate limits, passes always.
    fn check_may_write_to(&self, address: &str) -> Result<(), Error> {
        if self.settings.rate_limit.is_none() {
            return Ok(());
        }
        let now_ms = self.now_ms();
        let allowed_until = now_ms.saturating_add((BURST - 1).saturating_mul(REFILL_MS));
        let mut letters = self.accounts.letters.lock();
        let spent_until = letters.0.get_or_insert_mut(address.to_owned(), || now_ms);
        if *spent_until > allowed_until {
            return Err(Error::LimitExceeded { retry_after_ms: spent_until.saturating_sub(allowed_until) });
        }
        *spent_until = (*spent_until).max(now_ms).saturating_add(REFILL_MS);
        Ok(())
    }
}

/// The session's id follows from what it is for and from the client's secret, so that the same request finds it again.
fn sid_of(purpose: Purpose, address: &str, client_secret: &str) -> String {
    let key = Key::new().text(format!("{purpose:?}")).text(address).text(client_secret);
    URL_SAFE_NO_PAD.encode(Sha256::digest(key.as_bytes()))
}

/// SPEC: v1.19 Identity Service API: 1 to 255 of `[0-9a-zA-Z.=_-]`.
fn check_secret(text: &str) -> Result<(), Error> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".=_-".contains(&byte);
    if text.is_empty() || text.len() > 255 || !text.bytes().all(allowed) {
        return Err(Error::invalid("`client_secret` is 1 to 255 characters of 0-9 a-z A-Z . = _ -"));
    }
    Ok(())
}
