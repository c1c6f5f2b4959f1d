//! Filling positions into the keys and values of a batch.

use crate::{Batch, Op, Slot, SlotForm, StoreError, StreamPos};

const MIDDLE: u64 = 1 << 63;

/// Every slot of `batch` holds its position, the batch's own positions beginning at `first`.
///
/// Filling a batch again with another `first` overwrites the same bytes, so a batch can be retried.
///
/// # Errors
/// [`StoreError::Engine`] when a slot names bytes or a position that the batch does not have.
pub(crate) fn fill(batch: &mut Batch, first: StreamPos) -> Result<(), StoreError> {
    let positions = batch.positions;
    for op in &mut batch.ops {
        if let Op::Put { key, value, key_slot, value_slot, .. } = op {
            for (bytes, slot) in [(key, *key_slot), (value, *value_slot)] {
                if let Some(slot) = slot {
                    fill_one(bytes, slot, positions, first)?;
                }
            }
        }
    }
    Ok(())
}

fn fill_one(bytes: &mut [u8], slot: Slot, positions: u32, first: StreamPos) -> Result<(), StoreError> {
    if slot.index >= positions {
        return Err(StoreError::Engine("a slot names a position that its batch did not reserve".to_owned()));
    }
    let position = first.0.saturating_add(u64::from(slot.index));
    let number = match slot.form {
        SlotForm::Plain => position,
        SlotForm::Timeline => MIDDLE.saturating_add(position),
        SlotForm::Backfill => MIDDLE.saturating_sub(position),
    };
    let target = bytes
        .get_mut(slot.offset..)
        .and_then(|rest| rest.first_chunk_mut::<8>())
        .ok_or_else(|| StoreError::Engine("a slot lies outside of its bytes".to_owned()))?;
    *target = number.to_be_bytes();
    Ok(())
}
