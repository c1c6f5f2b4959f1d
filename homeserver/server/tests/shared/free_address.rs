//! Addresses that are known before anybody listens at them.

use std::{
    collections::BTreeSet,
    net::{SocketAddr, TcpListener},
    sync::Mutex,
};

/// An address that nobody listens at. The port is below those that the machine gives to whoever asks for any: nobody takes it
/// while its server is dead.
pub(crate) fn free_address() -> SocketAddr {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let port = rand::random_range(15_000..32_000_u16);
        if !GIVEN.lock().unwrap().insert(port) {
            continue;
        }
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            return listener.local_addr().unwrap();
        }
    }
}
