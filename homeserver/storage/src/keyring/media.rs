//! Sealing of files: a key of its own for each file, wrapped by the data key, and chunks of 64 KiB.
//!
//! A chunk's nonce is its number and whether it is the last, so chunks can be neither exchanged nor cut off.

use std::io::{self, ErrorKind, Read, Write};

use zeroize::Zeroizing;

use super::{
    KeyRing, KeyRingError,
    aead::{Cipher, KEY_BYTES, NONCE_BYTES, TAG_BYTES},
    random,
    slot::KEY_ID_BYTES,
};

const MAGIC: &[u8; 4] = b"MSF1";
/// How much plaintext one chunk holds.
const CHUNK_BYTES: usize = 64 * 1024;
const HEAD_BYTES: usize = MAGIC.len() + KEY_ID_BYTES + NONCE_BYTES + KEY_BYTES + TAG_BYTES;

impl KeyRing {
    /// What `plaintext` gives is sealed in `sealed`; how many bytes of plaintext there were.
    ///
    /// # Errors
    /// As [`KeyRing::seal`], and those of the two ends.
    pub fn seal_file(
        &self,
        room: &str,
        bucket: u64,
        aad: &[u8],
        plaintext: &mut dyn Read,
        sealed: &mut dyn Write,
    ) -> Result<u64, KeyRingError> {
        let mut sealer = self.file_sealer(room, bucket, aad, sealed)?;
        let count = io::copy(plaintext, &mut sealer)?;
        sealer.finish()?;
        Ok(count)
    }

    /// What was sealed is in `plaintext`; how many bytes. On an error, what was written so far is authentic but incomplete.
    ///
    /// # Errors
    /// As [`KeyRing::open_sealed`], and those of the two ends.
    pub fn open_file(
        &self,
        room: &str,
        bucket: u64,
        aad: &[u8],
        sealed: &mut dyn Read,
        plaintext: &mut dyn Write,
    ) -> Result<u64, KeyRingError> {
        let mut opener = self.file_opener(room, bucket, aad, sealed)?;
        io::copy(&mut opener, plaintext)
            .map_err(|error| if error.kind() == ErrorKind::InvalidData { KeyRingError::Tampered } else { error.into() })
    }

    /// A writer that seals into `sealed`; the file is whole only after [`FileSealer::finish`].
    ///
    /// # Errors
    /// As [`KeyRing::seal`], and those of writing.
    pub fn file_sealer<W: Write>(
        &self,
        room: &str,
        bucket: u64,
        aad: &[u8],
        mut sealed: W,
    ) -> Result<FileSealer<W>, KeyRingError> {
        let data_key = self.find_or_create(room, bucket)?;
        let mut file_key = Zeroizing::new([0; KEY_BYTES]);
        random(file_key.as_mut_slice())?;
        let cipher = Cipher::new(&file_key);
        let mut nonce = [0; NONCE_BYTES];
        random(&mut nonce)?;
        let tag = Cipher::new(&data_key.bytes).seal(&nonce, &file_aad(aad), file_key.as_mut_slice())?;
        sealed.write_all(&[MAGIC.as_slice(), &data_key.id, &nonce, file_key.as_slice(), &tag].concat())?;
        Ok(FileSealer { sealed, cipher, chunk: Zeroizing::new(Vec::with_capacity(CHUNK_BYTES)), number: 0 })
    }

    /// A reader of what was sealed; it fails with [`ErrorKind::InvalidData`] when anything was changed or cut off.
    ///
    /// # Errors
    /// As [`KeyRing::open_sealed`], and those of reading.
    pub fn file_opener<R: Read>(
        &self,
        room: &str,
        bucket: u64,
        aad: &[u8],
        mut sealed: R,
    ) -> Result<FileOpener<R>, KeyRingError> {
        let mut head = [0; HEAD_BYTES];
        sealed.read_exact(&mut head).map_err(|error| {
            if error.kind() == ErrorKind::UnexpectedEof { KeyRingError::Tampered } else { error.into() }
        })?;
        let rest = head.strip_prefix(MAGIC).ok_or(KeyRingError::Tampered)?;
        let (id, rest) = rest.split_first_chunk::<KEY_ID_BYTES>().ok_or(KeyRingError::Tampered)?;
        let (nonce, rest) = rest.split_first_chunk::<NONCE_BYTES>().ok_or(KeyRingError::Tampered)?;
        let (wrapped, rest) = rest.split_first_chunk::<KEY_BYTES>().ok_or(KeyRingError::Tampered)?;
        let tag = rest.first_chunk::<TAG_BYTES>().ok_or(KeyRingError::Tampered)?;
        let data_key = self.find(room, bucket, id)?;
        let mut file_key = Zeroizing::new(*wrapped);
        Cipher::new(&data_key.bytes).open(nonce, &file_aad(aad), file_key.as_mut_slice(), tag)?;
        let next = read_chunk(&mut sealed)?;
        let plain = Zeroizing::new(Vec::new());
        Ok(FileOpener { sealed, cipher: Cipher::new(&file_key), next, plain, at: 0, number: 0, done: false })
    }
}

/// Seals what is written to it.
pub struct FileSealer<W> {
    sealed: W,
    cipher: Cipher,
    chunk: Zeroizing<Vec<u8>>,
    number: u64,
}

impl<W> std::fmt::Debug for FileSealer<W> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("FileSealer").field("number", &self.number).finish_non_exhaustive()
    }
}

impl<W: Write> FileSealer<W> {
    /// The last chunk is written; the writer below, not flushed.
    ///
    /// # Errors
    /// Those of writing.
    pub fn finish(mut self) -> Result<W, KeyRingError> {
        self.write_chunk(true)?;
        Ok(self.sealed)
    }

    fn write_chunk(&mut self, last: bool) -> io::Result<()> {
        let nonce = chunk_nonce(self.number, last);
        let tag = self.cipher.seal(&nonce, &[], &mut self.chunk).map_err(|_| invalid())?;
        self.sealed.write_all(&self.chunk)?;
        self.sealed.write_all(&tag)?;
        self.chunk.clear();
        self.number = self.number.saturating_add(1);
        Ok(())
    }
}

impl<W: Write> Write for FileSealer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A full chunk waits for the next byte: only then is it known not to be the last.
        if self.chunk.len() == CHUNK_BYTES && !bytes.is_empty() {
            self.write_chunk(false)?;
        }
        let taken = bytes.len().min(CHUNK_BYTES.saturating_sub(self.chunk.len()));
        self.chunk.extend_from_slice(bytes.get(..taken).unwrap_or_default());
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sealed.flush()
    }
}

/// Reads what was sealed.
pub struct FileOpener<R> {
    sealed: R,
    cipher: Cipher,
    /// The sealed chunk after the one that is being read out; empty at the end.
    next: Vec<u8>,
    plain: Zeroizing<Vec<u8>>,
    at: usize,
    number: u64,
    done: bool,
}

impl<R> std::fmt::Debug for FileOpener<R> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("FileOpener").field("number", &self.number).finish_non_exhaustive()
    }
}

impl<R: Read> FileOpener<R> {
    fn open_next(&mut self) -> io::Result<()> {
        let following = read_chunk(&mut self.sealed)?;
        let last = following.is_empty();
        let mut chunk = std::mem::replace(&mut self.next, following);
        let tag = *chunk.last_chunk::<TAG_BYTES>().ok_or_else(invalid)?;
        chunk.truncate(chunk.len().saturating_sub(TAG_BYTES));
        self.cipher.open(&chunk_nonce(self.number, last), &[], &mut chunk, &tag).map_err(|_| invalid())?;
        self.plain = Zeroizing::new(chunk);
        self.at = 0;
        self.number = self.number.saturating_add(1);
        self.done = last;
        Ok(())
    }
}

impl<R: Read> Read for FileOpener<R> {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        while self.at >= self.plain.len() && !self.done {
            self.open_next()?;
        }
        let rest = self.plain.get(self.at..).unwrap_or_default();
        let count = rest.len().min(target.len());
        for (to, from) in target.iter_mut().zip(rest) {
            *to = *from;
        }
        self.at = self.at.saturating_add(count);
        Ok(count)
    }
}

/// A whole sealed chunk, or what is left; empty at the end.
fn read_chunk(sealed: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut chunk = Vec::with_capacity(CHUNK_BYTES + TAG_BYTES);
    let limit = u64::try_from(CHUNK_BYTES + TAG_BYTES).unwrap_or(0);
    sealed.by_ref().take(limit).read_to_end(&mut chunk)?;
    Ok(chunk)
}

fn chunk_nonce(number: u64, last: bool) -> [u8; NONCE_BYTES] {
    let [a, b, c, d, e, f, g, h] = number.to_be_bytes();
    [a, b, c, d, e, f, g, h, u8::from(last), 0, 0, 0]
}

fn file_aad(aad: &[u8]) -> Vec<u8> {
    [b"matron file\0".as_slice(), aad].concat()
}

fn invalid() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "a sealed file was changed or cut off")
}
