//! Matron's application service: the governance bot and the bridged devices.

pub mod client;
pub mod clock;
pub mod crypto;
pub mod governance;
pub mod http;
pub mod registration;
pub mod secret;
pub mod yaml;
