//! How Matron reaches other servers: finding them, TLS, signing, bounds on what comes back.
//!
//! [`NetFederation`] implements [`matron_core::ports::Federation`]. Every connection, whoever asked for it, goes
//! through [`dial`]: names are resolved there, the address that is really connected to is checked by
//! [`AddressGuard`], TLS is verified, and only then does a byte of the request leave.
//!
//! - [`config`]: what an operator may choose.
//! - [`cidr`], [`guard`]: which addresses may be reached.
//! - [`network`]: DNS and TCP, as a port.
//! - [`discovery`], [`well_known`]: from a server name to a place, as the specification says.
//! - [`tls`], [`dial`], [`pool`], [`exchange`]: one request and its bounded answer over a pooled connection.
//! - [`mail`]: letters to people.
//! - [`backoff`]: who failed lately.
//! - [`probe`]: the way to one server, for operators; [`plain`]: what a failure means.
//! - [`federation`]: all of it together.

pub mod cidr;
pub mod config;
pub mod guard;
pub mod network;

mod backoff;
mod dial;
mod discovery;
mod exchange;
mod federation;
mod mail;
mod plain;
mod pool;
mod probe;
mod tls;
mod url_target;
mod well_known;

pub use cidr::Cidr;
pub use config::{NetConfig, NetError};
pub use federation::NetFederation;
pub use guard::AddressGuard;
pub use network::{Network, Service, SystemNetwork};
