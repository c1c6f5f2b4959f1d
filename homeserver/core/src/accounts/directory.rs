//! The user directory: whom a user can find.
//!
//! Visible are the members of rooms that anyone may join or read, those who share a room with the searcher, and, if
//! the operator says so, every local user.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use matron_storage::{KeyRange, KeyReader, Order, Table};
use parking_lot::Mutex;
use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId};
use serde::{Deserialize, Serialize};

use crate::{Core, Error};

/// The largest page.
const MAX_PAGE: usize = 100;

/// How many users one search looks at.
const MAX_LOOKED_AT: usize = 100_000;

/// The longest term, bytes.
const MAX_TERM_BYTES: usize = 255;

/// Whom a search found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DirectoryPage {
    /// Best first.
    pub results: Vec<DirectoryEntry>,
    /// Whether there are more.
    pub limited: bool,
}

/// One user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DirectoryEntry {
    /// Who.
    pub user_id: OwnedUserId,
    /// Their name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Their picture.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub avatar_url: Option<String>,
}

/// Which rooms anyone may join or read; found by looking once, then kept by the events that change it.
#[derive(Debug, Default)]
pub(super) struct OpenRooms(Mutex<Option<HashMap<OwnedRoomId, Option<bool>>>>);

#[derive(Deserialize)]
struct JoinRules {
    join_rule: String,
}

#[derive(Deserialize)]
struct HistoryVisibility {
    history_visibility: String,
}

#[derive(Default, Deserialize)]
struct MemberProfile {
    displayname: Option<String>,
    avatar_url: Option<String>,
}

impl Core {
    /// The users that `searcher` may find under `term`, best first.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn search_users(
        self: &Arc<Self>,
        searcher: &UserId,
        term: &str,
        limit: usize,
    ) -> Result<DirectoryPage, Error> {
        let core = Arc::clone(self);
        let searcher = searcher.to_owned();
        let term = term.to_lowercase();
        let limit = limit.clamp(1, MAX_PAGE);
        tokio::task::spawn_blocking(move || core.search_visible(&searcher, &term, limit))
            .await
            .map_err(|_| Error::internal("searching the user directory failed"))?
    }

    fn search_visible(&self, searcher: &UserId, term: &str, limit: usize) -> Result<DirectoryPage, Error> {
        let words: Vec<&str> = term.split_whitespace().collect();
        if words.is_empty() || term.len() > MAX_TERM_BYTES {
            return Ok(DirectoryPage { results: Vec::new(), limited: false });
        }
        let mut seen = BTreeSet::new();
        let mut found: Vec<(u8, DirectoryEntry)> = Vec::new();
        let mut rooms = self.open_rooms()?;
        rooms.extend(self.joined_rooms(searcher)?.into_iter().map(|room| (room, false)));
        'rooms: for (room, is_open) in rooms {
            let Some(room) = self.find_room(&room)? else { continue };
            let joined = room.joined();
            // A room that no local user is in any more says nothing about anybody.
            if is_open && !joined.iter().any(|user| self.is_local_user(user)) {
                continue;
            }
            for user in joined.iter() {
                if (!is_open && *user == *searcher) || !seen.insert(user.clone()) {
                    continue;
                }
                if seen.len() > MAX_LOOKED_AT {
                    break 'rooms;
                }
                let entry = self.directory_entry(user, Some(&room))?;
                found.extend(rank(&entry, &words).map(|rank| (rank, entry)));
            }
        }
        if self.settings.user_directory_all_users {
            for (user, account) in self.list_accounts(None, matron_storage::MAX_PAGE)? {
                if account.deactivated || account.guest || *user == *searcher || !seen.insert(user.clone()) {
                    continue;
                }
                let entry = self.directory_entry(&user, None)?;
                found.extend(rank(&entry, &words).map(|rank| (rank, entry)));
            }
        }
        found.sort_by(|(one, a), (other, b)| one.cmp(other).then_with(|| a.user_id.cmp(&b.user_id)));
        let limited = found.len() > limit;
        found.truncate(limit);
        Ok(DirectoryPage { results: found.into_iter().map(|(_, entry)| entry).collect(), limited })
    }

    fn directory_entry(&self, user: &UserId, room: Option<&crate::rooms::room::Room>) -> Result<DirectoryEntry, Error> {
        if self.is_local_user(user) {
            let (display_name, avatar_url) = (self.display_name(user)?, self.avatar_url(user)?);
            return Ok(DirectoryEntry { user_id: user.to_owned(), display_name, avatar_url });
        }
        let profile = match room {
            Some(room) => room.lock().state_content::<MemberProfile>(self, "m.room.member", user.as_str())?,
            None => None,
        };
        let profile = profile.unwrap_or_default();
        Ok(DirectoryEntry {
            user_id: user.to_owned(),
            display_name: profile.displayname,
            avatar_url: profile.avatar_url,
        })
    }

    /// The rooms that anyone may join or read.
    fn open_rooms(&self) -> Result<Vec<(OwnedRoomId, bool)>, Error> {
        let known = self.accounts.open_rooms.0.lock().is_some();
        if !known {
            let mut rooms = HashMap::new();
            let mut range = KeyRange::all();
            loop {
                let rows = self.store.scan(Table::RoomMeta, &range, Order::Ascending, 1000)?;
                let Some((last, _)) = rows.last() else { break };
                range = range.after(last);
                let ids = rows.iter().filter_map(|(key, _)| OwnedRoomId::try_from(KeyReader::new(key).text()?).ok());
                rooms.extend(ids.map(|id| (id, None)));
            }
            self.accounts.open_rooms.0.lock().get_or_insert(rooms);
        }
        let unsure: Vec<OwnedRoomId> = {
            let rooms = self.accounts.open_rooms.0.lock();
            rooms.iter().flatten().filter(|(_, open)| open.is_none()).map(|(id, _)| id.clone()).collect()
        };
        for id in unsure {
            let open = self.is_open_room(&id)?;
            if let Some(rooms) = self.accounts.open_rooms.0.lock().as_mut() {
                rooms.insert(id, Some(open));
            }
        }
        let rooms = self.accounts.open_rooms.0.lock();
        Ok(rooms.iter().flatten().filter(|(_, open)| **open == Some(true)).map(|(id, _)| (id.clone(), true)).collect())
    }

    fn is_open_room(&self, id: &RoomId) -> Result<bool, Error> {
        let Some(room) = self.find_room(id)? else { return Ok(false) };
        let mut inner = room.lock();
        let rules = inner.state_content::<JoinRules>(self, "m.room.join_rules", "")?;
        let visibility = inner.state_content::<HistoryVisibility>(self, "m.room.history_visibility", "")?;
        Ok(rules.is_some_and(|rules| rules.join_rule == "public")
            || visibility.is_some_and(|visibility| visibility.history_visibility == "world_readable"))
    }

    /// An event may have opened or closed its room.
    pub(crate) fn note_openness(&self, room: &RoomId, kind: &str) {
        if !matches!(kind, "m.room.join_rules" | "m.room.history_visibility" | "m.room.create") {
            return;
        }
        if let Some(rooms) = self.accounts.open_rooms.0.lock().as_mut() {
            rooms.insert(room.to_owned(), None);
        }
    }
}

/// How well an entry fits: smaller is better; `None`: not at all.
fn rank(entry: &DirectoryEntry, words: &[&str]) -> Option<u8> {
    let name = entry.display_name.as_deref().unwrap_or_default().to_lowercase();
    let id = entry.user_id.as_str().to_lowercase();
    if !words.iter().all(|word| name.contains(word) || id.contains(word)) {
        return None;
    }
    let first = words.first().copied().unwrap_or_default();
    let localpart = entry.user_id.localpart();
    Some(if localpart.eq_ignore_ascii_case(first) || name == words.join(" ") {
        0
    } else if localpart.starts_with(first) || name.split_whitespace().any(|part| part.starts_with(first)) {
        1
    } else {
        2
    })
}
