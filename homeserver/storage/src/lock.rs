//! One process at a time.

use std::{
    fs::{File, TryLockError},
    io,
    thread::sleep,
    time::Duration,
};

/// A child that is being started holds its parent's locks for an instant, and so does a server that is just ending.
const ATTEMPTS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(25);

/// Whether this process holds the file's lock now, after at most half a second.
pub(crate) fn acquire(file: &File) -> io::Result<bool> {
    for attempt in 0..ATTEMPTS {
        match file.try_lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::WouldBlock) if attempt + 1 < ATTEMPTS => sleep(PAUSE),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Ok(false)
}
