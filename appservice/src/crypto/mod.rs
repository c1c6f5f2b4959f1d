//! A bridged device's end-to-end encryption: Olm and Megolm on vodozemac, without input or output.
//!
//! [`Machine`] takes what came from the homeserver and gives what must go there; who owns it moves the bytes.
//! Order of a message to an encrypted room:
//!
//! 1. [`Machine::users_to_query`] → `POST /keys/query` → [`Machine::receive_keys_query`]
//! 2. [`Machine::devices_to_claim`] → `POST /keys/claim` → [`Machine::receive_keys_claim`]
//! 3. [`Machine::share_room_key`] → store [`Machine::take_changes`] → `PUT /sendToDevice` → [`Machine::mark_shared`]
//! 4. [`Machine::encrypt`] → `PUT /rooms/{roomId}/send/m.room.encrypted/{txnId}`

mod account;
mod cross_signing;
mod device_keys;
mod device_lists;
mod inbound;
pub mod json;
mod machine;
mod olm;
mod outbound;
mod receive;
mod share;
#[cfg(test)]
mod tests;

pub use account::UploadKind;
pub use cross_signing::CrossSigningUpload;
pub use device_keys::{Device, DeviceKeysError};
pub use machine::{CryptoError, Machine, StoredPart};
pub use outbound::RoomEncryption;
pub use receive::{Decrypted, Received};
pub use share::ToDeviceRequest;

/// Algorithm name of Olm.
pub const OLM: &str = "m.olm.v1.curve25519-aes-sha2";
/// Algorithm name of Megolm.
pub const MEGOLM: &str = "m.megolm.v1.aes-sha2";
