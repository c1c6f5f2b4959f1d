//! What the servers' processes cost, read from Linux' `/proc`.

mod cpu;
mod memory;
mod stat;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::error::LoadError;
use stat::Stat;

pub(crate) use cpu::CpuWatch;
pub(crate) use stat::machine_busy_s;

/// The processes of one server: those named, and all that descend from them.
#[derive(Debug, Clone)]
pub(crate) struct Processes {
    roots: Vec<u32>,
    descendants: bool,
}

impl Processes {
    /// The processes with these numbers; perhaps none.
    ///
    /// # Errors
    ///
    /// [`LoadError::NoSuchProcess`], since a wrong number would read as a server that costs nothing.
    pub(crate) fn new(roots: &[u32]) -> Result<Self, LoadError> {
        match roots.iter().find(|root| !Path::new(&format!("/proc/{root}")).exists()) {
            Some(missing) => Err(LoadError::NoSuchProcess(*missing)),
            None => Ok(Self { roots: roots.to_vec(), descendants: true }),
        }
    }

    /// This process, which starts no others: it is found without a look at all of them.
    pub(crate) fn own() -> Self {
        Self { roots: vec![std::process::id()], descendants: false }
    }

    /// Were any named?
    pub(crate) fn any(&self) -> bool {
        !self.roots.is_empty()
    }

    /// The numbers of those that run now.
    fn running(&self) -> BTreeSet<u32> {
        if !self.descendants {
            return self.roots.iter().copied().collect();
        }
        let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for id in numbered("/proc") {
            if let Some(stat) = Stat::read(id) {
                children.entry(stat.parent).or_default().push(id);
            }
        }
        descendants(&self.roots, &children)
    }
}

/// `roots` and everything below them.
fn descendants(roots: &[u32], children: &BTreeMap<u32, Vec<u32>>) -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    let mut left = roots.to_vec();
    while let Some(id) = left.pop() {
        if found.insert(id) {
            left.extend(children.get(&id).into_iter().flatten());
        }
    }
    found
}

/// The entries of a directory that are numbers; none where there is no such directory.
fn numbered(directory: &str) -> impl Iterator<Item = u32> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descendants_are_counted_at_any_depth_and_once() {
        let children = BTreeMap::from([(1, vec![2, 3]), (3, vec![4]), (9, vec![10]), (4, vec![1])]);
        assert_eq!(descendants(&[1, 3], &children), BTreeSet::from([1, 2, 3, 4]));
        assert_eq!(descendants(&[7], &children), BTreeSet::from([7]));
    }

    #[test]
    fn a_process_that_is_not_there_is_no_server() {
        // The largest number that Linux gives is 2^22.
        assert!(matches!(Processes::new(&[u32::MAX]), Err(LoadError::NoSuchProcess(u32::MAX))));
        assert!(!Processes::new(&[]).unwrap().any());
        let own = std::process::id();
        assert!(Processes::own().running().contains(&own));
        assert!(Processes::new(&[own]).unwrap().running().contains(&own));
    }
}
