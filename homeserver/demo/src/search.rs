//! Looking for bytes in the raw files of a server.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
};

use crate::story::Step;

/// What a search met.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Files that were read.
    pub files: usize,
    /// Bytes that were read.
    pub bytes: u64,
    /// Where the needle was.
    pub hits: Vec<PathBuf>,
}

/// Every file under `directory` that holds one of the needles, in any place.
pub(crate) fn search(directory: &Path, needles: &[&[u8]]) -> Step<Found> {
    let mut found = Found::default();
    let mut folders = vec![directory.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            let kind = fs::symlink_metadata(&path)?.file_type();
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() {
                let mut bytes = Vec::new();
                fs::File::open(&path)?.read_to_end(&mut bytes)?;
                found.files += 1;
                found.bytes += bytes.len() as u64;
                if needles.iter().any(|needle| holds(&bytes, needle)) {
                    found.hits.push(path);
                }
            }
        }
    }
    Ok(found)
}

fn holds(bytes: &[u8], needle: &[u8]) -> bool {
    let Some(first) = needle.first() else { return false };
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| byte == first) {
        let Some(from) = rest.get(at..) else { return false };
        if from.starts_with(needle) {
            return true;
        }
        rest = from.get(1..).unwrap_or_default();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::holds;

    #[test]
    fn a_needle_is_found_wherever_it_lies() {
        assert!(holds(b"xxneedle", b"needle"));
        assert!(holds(b"neneedlexx", b"needle"));
        assert!(!holds(b"needl", b"needle"));
        assert!(!holds(b"", b"needle"));
    }
}
