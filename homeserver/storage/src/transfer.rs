//! Moving a whole store: from engine to engine, and through a file.

use std::io::{self, Read, Write};

use sha2::{Digest as _, Sha256};

use crate::{Batch, KeyRange, Order, Store, StoreError, StreamPos, tables::CATALOGUE};

/// How many rows one page and one batch hold.
const PAGE: usize = 256;
/// How many bytes one batch of a load holds, about.
const LOAD_BYTES: usize = 4 * 1024 * 1024;

/// Everything in `from`, and its position, is in `to`; the number of rows.
///
/// The caller sees to it that nobody writes to either meanwhile.
///
/// # Errors
/// [`StoreError::Foreign`] when `to` is not empty, else as the two engines fail.
pub fn copy(from: &dyn Store, to: &dyn Store) -> Result<u64, StoreError> {
    check_empty(to)?;
    let mut count = 0_u64;
    for info in CATALOGUE {
        let mut range = KeyRange::all();
        loop {
            let page = from.scan(info.table, &range, Order::Ascending, PAGE)?;
            let Some((last, _)) = page.last() else { break };
            range = range.after(last);
            count = count.saturating_add(u64::try_from(page.len()).unwrap_or(0));
            let mut batch = Batch::new();
            for (key, value) in page {
                batch.put(info.table, key, value);
            }
            commit(to, batch)?;
        }
    }
    advance(to, from.position())?;
    Ok(count)
}

/// Nothing is in the store.
fn check_empty(store: &dyn Store) -> Result<(), StoreError> {
    for info in CATALOGUE {
        if !store.scan(info.table, &KeyRange::all(), Order::Ascending, 1)?.is_empty() {
            return Err(StoreError::Foreign("the target store is not empty".to_owned()));
        }
    }
    Ok(())
}

/// The store stands at `position` or later.
fn advance(store: &dyn Store, position: StreamPos) -> Result<(), StoreError> {
    while store.position() < position {
        let missing = position.0.saturating_sub(store.position().0);
        let positions = u32::try_from(missing).unwrap_or(u32::MAX);
        commit(store, Batch { positions, ..Batch::new() })?;
    }
    Ok(())
}

fn commit(store: &dyn Store, batch: Batch) -> Result<(), StoreError> {
    match store.submit(batch).wait() {
        Ok(_) => Ok(()),
        Err(crate::CommitError::Store(error)) => Err(error),
        Err(crate::CommitError::Conflict(_)) => Err(StoreError::Engine("a copy met an expectation".to_owned())),
    }
}

const DUMP_HEAD: &[u8; 16] = b"MATRON DUMP 1\n\0\0";
const TABLE: u8 = b'T';
const ROW: u8 = b'R';
const END: u8 = b'E';
/// The longest key or value that a dump may hold; more means that it is damaged.
const MAX_PART_BYTES: u32 = 64 * 1024 * 1024;

/// Everything in `store`, and its position, is in `target`, in a form that every engine can load; the number of rows.
///
/// The caller sees to it that nobody writes meanwhile. Content in it is as sealed as in the store.
///
/// # Errors
/// Those of the engine and of writing.
pub fn dump(store: &dyn Store, target: &mut dyn Write) -> Result<u64, StoreError> {
    let mut out = Summed { inner: target, sum: Sha256::new() };
    out.write_all(DUMP_HEAD)?;
    out.write_all(&store.position().0.to_be_bytes())?;
    let mut count = 0_u64;
    for info in CATALOGUE {
        let mut range = KeyRange::all();
        out.write_all(&[TABLE])?;
        write_part(&mut out, info.name.as_bytes())?;
        loop {
            let page = store.scan(info.table, &range, Order::Ascending, PAGE)?;
            let Some((last, _)) = page.last() else { break };
            range = range.after(last);
            for (key, value) in &page {
                out.write_all(&[ROW])?;
                write_part(&mut out, key)?;
                write_part(&mut out, value)?;
                count = count.saturating_add(1);
            }
        }
    }
    out.write_all(&[END])?;
    out.write_all(&count.to_be_bytes())?;
    let Summed { inner, sum } = out;
    inner.write_all(&sum.finalize())?;
    inner.flush()?;
    Ok(count)
}

/// Everything that was dumped, and its position, is in `store`; the number of rows.
///
/// # Errors
/// [`StoreError::Foreign`] when `store` is not empty or `source` is no dump, [`StoreError::Corrupt`] when the
/// dump is damaged; `store` then holds a part of it and must be discarded.
pub fn load(source: &mut dyn Read, store: &dyn Store) -> Result<u64, StoreError> {
    check_empty(store)?;
    let mut input = Summed { inner: source, sum: Sha256::new() };
    let mut head = [0; DUMP_HEAD.len()];
    input.fill(&mut head)?;
    if head != *DUMP_HEAD {
        return Err(StoreError::Foreign("this is not a dump of Matron, or one of another version".to_owned()));
    }
    let position = StreamPos(input.number()?);
    let (mut count, mut table, mut batch, mut bytes) = (0_u64, None, Batch::new(), 0_usize);
    loop {
        match input.byte()? {
            TABLE => {
                let name = input.part()?;
                let known = CATALOGUE.iter().find(|info| info.name.as_bytes() == name);
                table =
                    Some(known.ok_or_else(|| StoreError::Foreign("the dump has an unknown table".to_owned()))?.table);
            }
            ROW => {
                let table = table.ok_or_else(damaged)?;
                let (key, value) = (input.part()?, input.part()?);
                bytes = bytes.saturating_add(key.len()).saturating_add(value.len());
                batch.put(table, key, value);
                count = count.saturating_add(1);
                if batch.ops.len() >= PAGE || bytes >= LOAD_BYTES {
                    commit(store, std::mem::take(&mut batch))?;
                    bytes = 0;
                }
            }
            END => break,
            _ => return Err(damaged()),
        }
    }
    if input.number()? != count {
        return Err(damaged());
    }
    let Summed { inner, sum } = input;
    let mut expected = [0; 32];
    inner.read_exact(&mut expected).map_err(cut_off)?;
    if sum.finalize().as_slice() != expected.as_slice() {
        return Err(damaged());
    }
    commit(store, batch)?;
    advance(store, position)?;
    Ok(count)
}

/// Sums what passes.
struct Summed<T> {
    inner: T,
    sum: Sha256,
}

impl Summed<&mut dyn Write> {
    fn write_all(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.sum.update(bytes);
        Ok(self.inner.write_all(bytes)?)
    }
}

impl Summed<&mut dyn Read> {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), StoreError> {
        self.inner.read_exact(bytes).map_err(cut_off)?;
        self.sum.update(bytes);
        Ok(())
    }

    fn byte(&mut self) -> Result<u8, StoreError> {
        let mut byte = [0];
        self.fill(&mut byte)?;
        Ok(u8::from_be_bytes(byte))
    }

    fn number(&mut self) -> Result<u64, StoreError> {
        let mut bytes = [0; 8];
        self.fill(&mut bytes)?;
        Ok(u64::from_be_bytes(bytes))
    }

    fn part(&mut self) -> Result<Vec<u8>, StoreError> {
        let mut length = [0; 4];
        self.fill(&mut length)?;
        let length = u32::from_be_bytes(length);
        if length > MAX_PART_BYTES {
            return Err(damaged());
        }
        // What is really there decides how much memory is taken.
        let mut bytes = Vec::new();
        let read = (&mut *self.inner).take(u64::from(length)).read_to_end(&mut bytes)?;
        if u32::try_from(read) != Ok(length) {
            return Err(damaged());
        }
        self.sum.update(&bytes);
        Ok(bytes)
    }
}

fn write_part(out: &mut Summed<&mut dyn Write>, bytes: &[u8]) -> Result<(), StoreError> {
    let length = u32::try_from(bytes.len()).ok().filter(|length| *length <= MAX_PART_BYTES);
    let length = length.ok_or_else(|| StoreError::Engine("a value is too large for a dump".to_owned()))?;
    out.write_all(&length.to_be_bytes())?;
    out.write_all(bytes)
}

fn damaged() -> StoreError {
    StoreError::Corrupt("the dump is damaged".to_owned())
}

fn cut_off(error: io::Error) -> StoreError {
    if error.kind() == io::ErrorKind::UnexpectedEof { damaged() } else { error.into() }
}
