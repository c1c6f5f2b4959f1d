//! Which room a laboratory report goes to.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::config::LabFeedConfig;
use crate::hl7::LabReport;
use crate::store::{Store, StoreError};

const FILE: &str = "bridge/routes";

/// Rooms that were given to feeds while running; they outlive a restart.
#[derive(Debug)]
pub struct Routes {
    store: Store,
    by_feed: Mutex<BTreeMap<String, String>>,
}

impl Routes {
    /// The routes as they are stored.
    ///
    /// # Errors
    /// [`StoreError`]; corrupt routes are refused and stay as they are.
    pub fn load(store: Store) -> Result<Self, StoreError> {
        let by_feed = match store.load(FILE)? {
            Some(content) => {
                serde_json::from_slice(&content).map_err(|_corrupt| StoreError::Sealed(FILE.to_owned()))?
            }
            None => BTreeMap::new(),
        };
        Ok(Self { store, by_feed: Mutex::new(by_feed) })
    }

    /// Reports of this feed go to this room from now on. Writes to disk.
    ///
    /// # Errors
    /// [`StoreError`]; the route is as before then.
    pub fn set(&self, feed: &str, room_id: &str) -> Result<(), StoreError> {
        let mut by_feed = self.by_feed.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = by_feed.clone();
        changed.insert(feed.to_owned(), room_id.to_owned());
        let content = serde_json::to_vec(&changed).map_err(|_never| StoreError::Sealed(FILE.to_owned()))?;
        self.store.write(FILE, &content)?;
        *by_feed = changed;
        Ok(())
    }

    /// The room of a report: that of its facility, else that given while running, else the configured one.
    #[must_use]
    pub fn room_for(&self, feed: &LabFeedConfig, report: &LabReport) -> Option<String> {
        let of_facility = feed
            .routes
            .iter()
            .find(|route| route.facility == report.facility || route.facility == report.receiving_facility);
        if let Some(route) = of_facility {
            return Some(route.room.clone());
        }
        let by_feed = self.by_feed.lock().unwrap_or_else(PoisonError::into_inner);
        by_feed.get(&feed.name).cloned().or_else(|| feed.room.clone())
    }
}
