//! What people are written. Nothing of it comes from whoever made the server write.

use std::time::Duration;

use super::Purpose;
use crate::{Core, Error, accounts::token::fresh_name, federation::fetch::encode, ports::Letter};

/// How long the mail server may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The way to a session's confirmation.
#[derive(Clone, Copy)]
pub(super) struct Link<'a> {
    pub(super) sid: &'a str,
    pub(super) token: &'a str,
}

/// What is to be said.
#[derive(Clone, Copy)]
pub(super) enum Words<'a> {
    /// Open this.
    Link(Purpose, Link<'a>),
    /// To who would register: the address has an account already.
    HasAccount,
    /// To who has lost a password: the address has no account.
    HasNoAccount,
}

impl Core {
    /// The letter is with the mail server.
    ///
    /// # Errors
    /// [`Error::LimitExceeded`] while too many are on their way; [`Error::Peer`].
    pub(super) async fn send_letter(&self, address: &str, words: &Words<'_>) -> Result<(), Error> {
        let busy = |_| Error::LimitExceeded { retry_after_ms: 5_000 };
        let _on_its_way = self.accounts.posting.try_acquire().map_err(busy)?;
        let (subject, text) = self.words_of(words);
        let letter = Letter {
            relay: self.settings.email.clone(),
            id: fresh_name(24),
            to: address.to_owned(),
            subject: subject.to_owned(),
            text,
            timeout: TIMEOUT,
        };
        self.federation.mail(letter).await.map_err(|error| {
            tracing::warn!(%error, "the mail server did not take a letter");
            Error::Peer("the letter could not be sent; try again later".into())
        })
    }

    fn words_of(&self, words: &Words<'_>) -> (&'static str, String) {
        let (subject, wish) = match words {
            Words::Link(Purpose::Register, _) => ("Confirm your e-mail address", "make an account"),
            Words::Link(Purpose::Add, _) => ("Confirm your e-mail address", "add this address to an account"),
            Words::Link(Purpose::Password, _) => ("Set a new password", "set a new password for your account"),
            Words::HasAccount => ("You have an account already", "make an account"),
            Words::HasNoAccount => ("There is no account with this address", "set a new password"),
        };
        let body = match words {
            Words::Link(_, link) => {
                format!("To go on, open this link within an hour:\n\n{}\n", self.link_to_confirm(link))
            }
            Words::HasAccount => "But an account there has this address already: sign in to it, or let it have a\n\
                                  new password.\n"
                .to_owned(),
            Words::HasNoAccount => "But no account there has this address.\n".to_owned(),
        };
        let text = format!(
            "Somebody, probably you, wants to {wish}\non the Matrix server {us}.\n\n{body}\n\
             If it was not you, you need not do anything.\n",
            us = self.server_name
        );
        (subject, text)
    }

    fn link_to_confirm(&self, link: &Link<'_>) -> String {
        let base = self.settings.public_base_url.as_deref().unwrap_or_default().trim_end_matches('/');
        format!("{base}/account/email?sid={}&token={}", encode(link.sid), encode(link.token))
    }
}
