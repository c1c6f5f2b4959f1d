//! # Matron's application service
//!
//! The governance bot and the bridged devices, as a Matrix application service. It knows no homeserver's inside:
//! it speaks the Application Service API and the Client-Server API over HTTP, so it runs beside Matron, inside
//! its process, or beside any other homeserver.
//!
//! | module | what is true because of it |
//! |---|---|
//! | [`registration`] | homeserver and application service know each other by two tokens |
//! | [`http`] | each transaction is taken once; rooms can be asked for |
//! | [`client`] | requests are bounded, repeated with care, and made as the right user |
//! | [`crypto`] | a device speaks and reads Olm and Megolm; no input or output |
//! | [`device`] | one task owns a device: syncs, publishes keys, encrypts, decrypts |
//! | [`governance`] | clinical rooms are bounded, decisions explained, what expired redacted |
//! | [`hl7`] | reports are read, acknowledged and shown; no input or output |
//! | [`bridge`] | what a laboratory was told is accepted is on disk, then in the room, once |
//! | [`store`] | what lies on disk is sealed and whole |
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use matron_appservice::{AppService, config::Config};
//!
//! let config = Config::load("appservice.toml".as_ref())?;
//! let running = AppService::start(config).await?;
//! running.wait_ready().await?;
//! # Ok(()) }
//! ```

pub mod bridge;
pub mod client;
pub mod clock;
pub mod config;
pub mod crypto;
pub mod device;
pub mod governance;
pub mod hl7;
pub mod http;
pub mod registration;
pub mod secret;
mod service;
pub mod store;
pub mod yaml;

pub use config::Config;
pub use governance::ClinicalRoomSpec;
pub use http::CreatedRoom;
pub use registration::Registration;
pub use service::{AppService, Error, Running, run};
