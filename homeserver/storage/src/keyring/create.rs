//! Making data keys: durable before first use, many with one flush.

use std::sync::Arc;

use super::{KeyRing, KeyRingError, NewKey, State, slot::DataKey};

impl KeyRing {
    /// Every one of these rooms and buckets has a durable data key, made with one flush for all that were missing.
    ///
    /// # Errors
    /// [`KeyRingError::Full`] when there is no room, [`KeyRingError::Failed`] after a flush has failed.
    pub fn prepare(&self, wanted: &[(&str, u64)]) -> Result<(), KeyRingError> {
        let mut ticket = 0;
        {
            let mut state = self.state.lock();
            for (room, bucket) in wanted {
                if let Some(own) = self.write_new(&mut state, room, *bucket)? {
                    ticket = ticket.max(own);
                }
            }
        }
        self.sync_to(ticket)
    }

    pub(super) fn find_or_create(&self, room: &str, bucket: u64) -> Result<Arc<DataKey>, KeyRingError> {
        loop {
            let ticket = {
                let mut state = self.state.lock();
                if let Some(key) = state.load(&self.file, room, bucket)? {
                    return Ok(key);
                }
                self.write_new(&mut state, room, bucket)?
            };
            // Whoever destroyed the bucket meanwhile makes this another round.
            self.sync_to(ticket.unwrap_or(0))?;
        }
    }

    /// The bucket's key is written, if it was missing; the ticket to wait for, unless it is durable already.
    fn write_new(&self, state: &mut State, room: &str, bucket: u64) -> Result<Option<u64>, KeyRingError> {
        if state.index.get(room).is_some_and(|buckets| buckets.contains_key(&bucket)) {
            return Ok(None);
        }
        let name: Arc<str> = state.index.get_key_value(room).map_or_else(|| room.into(), |(name, _)| Arc::clone(name));
        if let Some(new) = state.pending.get(&(Arc::clone(&name), bucket)) {
            return Ok(Some(new.ticket));
        }
        if state.failed {
            return Err(KeyRingError::Failed);
        }
        let slot = self.free_slot(state)?;
        let key = Arc::new(DataKey::new()?);
        match self.file.write(slot, room, bucket, &key) {
            Ok(()) => {}
            // Nothing was written.
            Err(error @ (KeyRingError::RoomTooLong | KeyRingError::NoRandomness)) => {
                state.free.push(slot);
                return Err(error);
            }
            Err(error) => {
                // INVARIANT: no bucket ever has two slots. Nobody knows what is in this one now, so no other is taken.
                state.failed = true;
                return Err(error);
            }
        }
        state.written = state.written.saturating_add(1);
        let ticket = state.written;
        state.pending.insert((name, bucket), NewKey { slot, ticket, key });
        Ok(Some(ticket))
    }

    fn free_slot(&self, state: &mut State) -> Result<u32, KeyRingError> {
        if let Some(slot) = state.free.pop() {
            return Ok(slot);
        }
        let grown = self.file.grow(state.slots)?;
        state.free.extend((state.slots..grown).rev());
        state.slots = grown;
        state.flushes = state.flushes.saturating_add(1);
        state.free.pop().ok_or(KeyRingError::Full)
    }

    /// Every key up to `ticket` is durable and in use. Those who wait while one flushes share the next flush.
    pub(super) fn sync_to(&self, ticket: u64) -> Result<(), KeyRingError> {
        let mut synced = self.synced.lock();
        if *synced >= ticket {
            return Ok(());
        }
        let written = {
            let state = self.state.lock();
            if state.failed {
                return Err(KeyRingError::Failed);
            }
            state.written
        };
        let flushed = self.file.sync();
        let mut state = self.state.lock();
        if let Err(error) = flushed {
            // After a failed flush nobody knows what the disk holds; only opening the ring again tells.
            state.failed = true;
            return Err(error);
        }
        state.flushes = state.flushes.saturating_add(1);
        let durable: Vec<_> = state.pending.extract_if(|_, new| new.ticket <= written).collect();
        for ((room, bucket), new) in durable {
            state.cache.put(new.slot, new.key);
            state.insert(room, bucket, new.slot);
        }
        *synced = written;
        Ok(())
    }
}
