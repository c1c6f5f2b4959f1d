//! Channels over which one device signs another in by QR code.
//!
//! A channel is a small piece of data that two devices replace by turns; what it says is encrypted between them. It lives
//! in memory and for a short time; whoever knows its name may read and replace it.
// MSC: 4108 and 4388.

use std::collections::HashMap;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rand::Rng as _;

use crate::{Core, Error, settings::QrLogin};

/// How long a channel lives, ms.
const LIFETIME_MS: u64 = 5 * 60 * 1000;
/// The most data that a channel holds, bytes.
pub const MAX_CHANNEL_BYTES: usize = 4096;
/// How many channels there are at once.
const MAX_CHANNELS: usize = 1_000;

/// What a channel holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channel {
    /// Its name.
    pub id: String,
    /// Names this version of the data.
    pub version: String,
    /// The data.
    pub data: String,
    /// When it was replaced last, ms since the epoch.
    pub changed_ms: u64,
    /// When it ends, ms since the epoch.
    pub expires_ms: u64,
}

/// The open channels. Bounded.
pub(super) type Channels = HashMap<String, Channel>;

fn random_name() -> String {
    let mut bytes = [0; 18];
    rand::rng().fill_bytes(&mut bytes);
    URL_SAFE_NO_PAD.encode(bytes)
}

fn no_channel() -> Error {
    Error::not_found("there is no such channel, or no longer")
}

fn check_size(data: &str) -> Result<(), Error> {
    if data.len() <= MAX_CHANNEL_BYTES {
        return Ok(());
    }
    Err(Error::TooLarge(format!("a channel holds at most {MAX_CHANNEL_BYTES} bytes").into()))
}

impl Core {
    /// Whether whoever asks may open a channel.
    ///
    /// # Errors
    /// `M_UNRECOGNIZED` where the operator wants none.
    pub fn may_open_channel(&self, signed_in: bool) -> Result<bool, Error> {
        self.check_oauth_enabled()?;
        match self.settings.oauth.qr_login {
            QrLogin::Off => Err(Error::Unrecognized),
            QrLogin::Authenticated => Ok(signed_in),
            QrLogin::Open => Ok(true),
        }
    }

    /// Passes where anyone may open a channel.
    ///
    /// # Errors
    /// `M_UNRECOGNIZED`.
    pub fn check_channels_open(&self) -> Result<(), Error> {
        if self.may_open_channel(false)? { Ok(()) } else { Err(Error::Unrecognized) }
    }

    /// There is a channel with this data.
    ///
    /// # Errors
    /// `M_FORBIDDEN`; `M_TOO_LARGE`; `M_LIMIT_EXCEEDED` when there are too many.
    pub fn open_channel(&self, data: String, signed_in: bool) -> Result<Channel, Error> {
        if !self.may_open_channel(signed_in)? {
            return Err(Error::forbidden("only devices that are signed in may open a channel"));
        }
        check_size(&data)?;
        let now_ms = self.now_ms();
        let channel = Channel {
            id: random_name(),
            version: random_name(),
            data,
            changed_ms: now_ms,
            expires_ms: now_ms.saturating_add(LIFETIME_MS),
        };
        let mut channels = self.oauth.channels.lock();
        channels.retain(|_, channel| channel.expires_ms > now_ms);
        if channels.len() >= MAX_CHANNELS {
            return Err(Error::LimitExceeded { retry_after_ms: LIFETIME_MS });
        }
        channels.insert(channel.id.clone(), channel.clone());
        Ok(channel)
    }

    /// The channel as it is.
    ///
    /// # Errors
    /// `M_NOT_FOUND`.
    pub fn channel(&self, id: &str) -> Result<Channel, Error> {
        self.may_open_channel(true)?;
        let channels = self.oauth.channels.lock();
        let channel = channels.get(id).filter(|channel| channel.expires_ms > self.now_ms());
        channel.cloned().ok_or_else(no_channel)
    }

    /// The channel has this data, if it has the version that the other device saw; else `None`, and it stays as it is.
    ///
    /// # Errors
    /// `M_NOT_FOUND`; `M_TOO_LARGE`.
    pub fn replace_channel(&self, id: &str, version: &str, data: String) -> Result<Option<Channel>, Error> {
        self.may_open_channel(true)?;
        check_size(&data)?;
        let now_ms = self.now_ms();
        let mut channels = self.oauth.channels.lock();
        let channel = channels.get_mut(id).filter(|channel| channel.expires_ms > now_ms).ok_or_else(no_channel)?;
        if channel.version != version {
            return Ok(None);
        }
        channel.version = random_name();
        channel.data = data;
        channel.changed_ms = now_ms;
        Ok(Some(channel.clone()))
    }

    /// The channel is gone.
    ///
    /// # Errors
    /// `M_NOT_FOUND`.
    pub fn close_channel(&self, id: &str) -> Result<(), Error> {
        self.may_open_channel(true)?;
        self.oauth.channels.lock().remove(id).map(drop).ok_or_else(no_channel)
    }
}
