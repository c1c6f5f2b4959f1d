//! The room task, creating, sending, membership, reading.

use crate::{Core, Error};

/// What this concern keeps in memory; truth lives in the store.
#[derive(Debug, Default)]
pub struct State {}

impl Core {
    pub(crate) fn start_rooms(&self) -> Result<(), Error> {
        Ok(())
    }
}
