//! Destroying data keys: the end of content.

use super::{KeyRing, KeyRingError};

impl KeyRing {
    /// The bucket's data key exists nowhere any more; whether there was one.
    ///
    /// # Errors
    /// [`KeyRingError::Io`] when the disk did not confirm it; the content is hidden already, and the next
    /// destruction, or the same one after a restart, tries again.
    pub fn destroy(&self, room: &str, bucket: u64) -> Result<bool, KeyRingError> {
        Ok(self.destroy_many(&[(room, bucket)])? > 0)
    }

    /// All data keys of a room are destroyed, those of legal holds and state included; how many there were.
    ///
    /// # Errors
    /// As [`KeyRing::destroy`].
    pub fn destroy_room(&self, room: &str) -> Result<usize, KeyRingError> {
        self.settle()?;
        let buckets = self.buckets(room);
        let all: Vec<_> = buckets.into_iter().map(|bucket| (room, bucket)).collect();
        self.destroy_many(&all)
    }

    /// The data keys of these rooms and buckets are destroyed with one flush; how many there were.
    ///
    /// # Errors
    /// As [`KeyRing::destroy`].
    pub fn destroy_many(&self, doomed: &[(&str, u64)]) -> Result<usize, KeyRingError> {
        self.settle()?;
        let (slots, count) = {
            let mut state = self.state.lock();
            // Slots that an earlier call could not confirm come first.
            let mut slots = std::mem::take(&mut state.doomed);
            let earlier = slots.len();
            for (room, bucket) in doomed {
                if let Some(slot) = state.remove(room, *bucket) {
                    state.cache.pop(&slot);
                    slots.push(slot);
                }
            }
            let count = slots.len().saturating_sub(earlier);
            (slots, count)
        };
        if slots.is_empty() {
            return Ok(0);
        }
        let erased = slots.iter().try_for_each(|slot| self.file.erase(*slot)).and_then(|()| self.file.sync());
        let mut state = self.state.lock();
        state.flushes = state.flushes.saturating_add(1);
        match erased {
            Ok(()) => {
                state.free.extend(slots);
                Ok(count)
            }
            Err(error) => {
                state.doomed.extend(slots);
                Err(error)
            }
        }
    }

    /// Keys that are being made are made, so that destruction finds them.
    fn settle(&self) -> Result<(), KeyRingError> {
        let ticket = {
            let state = self.state.lock();
            if state.failed || state.pending.is_empty() {
                return Ok(());
            }
            state.written
        };
        self.sync_to(ticket)
    }
}
