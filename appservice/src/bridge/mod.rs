//! Bridged devices: what speaks another protocol outside and Matrix inside.

mod delivery;
pub mod lab;
mod listener;
mod routes;
mod spool;

pub use lab::{LabFeed, LabFeedError};
pub use routes::Routes;
pub use spool::{Spool, SpoolError};
