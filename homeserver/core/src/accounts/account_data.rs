//! Account data: what clients keep with their user, or with their user in a room; tags are part of it.
//!
//! Stored as the position of its last change, eight bytes, and the content's JSON. Deleted content is `{}`.

use std::collections::BTreeSet;

use matron_storage::{Batch, Key, KeyReader, Slot, SlotForm, StreamPos, Table};
use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId};
use serde_json::{Map, Value, value::RawValue};

use super::Changing;
use crate::{Core, Error, Requester, house::to_json};

/// The largest content, bytes.
const MAX_CONTENT_BYTES: usize = 256 * 1024;

/// The longest type, bytes.
const MAX_TYPE_BYTES: usize = 255;

/// How many tags a room may have.
const MAX_TAGS: usize = 100;

/// The push rules of a user.
pub const PUSH_RULES: &str = "m.push_rules";
const TAG: &str = "m.tag";

/// One entry, as sync tells it.
#[derive(Clone, Debug)]
pub struct AccountData {
    /// The room, or the user alone.
    pub room_id: Option<OwnedRoomId>,
    /// The event type.
    pub kind: String,
    /// The content.
    pub content: Box<RawValue>,
    /// Where in the stream it changed last.
    pub position: StreamPos,
}

impl AccountData {
    /// The entry as clients are told of it. Its content is printed as it was stored, however deep.
    pub(crate) fn told(&self) -> AccountDataEvent<'_> {
        AccountDataEvent { kind: &self.kind, content: &self.content }
    }
}

/// An event of account data.
#[derive(Debug, serde::Serialize)]
pub(crate) struct AccountDataEvent<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    content: &'a RawValue,
}

/// A change of account data under way.
#[derive(Debug)]
#[must_use = "the change is under way until it is ended"]
pub(crate) struct ChangingAccountData<'a> {
    user: OwnedUserId,
    changes_rules: bool,
    latest: Changing<'a, StreamPos>,
    ignored: Changing<'a, std::sync::Arc<BTreeSet<OwnedUserId>>>,
}

impl ChangingAccountData<'_> {
    /// The change is committed: what was derived is forgotten, and the user's devices wake.
    pub(crate) fn end(self, core: &Core) {
        let Self { user, changes_rules, latest, ignored } = self;
        drop((latest, ignored));
        if changes_rules {
            core.push.forget_rules(&user);
        }
        core.notifier.wake_user(&user);
    }
}

fn key(user: &UserId, room: Option<&RoomId>, kind: &str) -> Key {
    Key::new().text(user).text(room.map_or("", RoomId::as_str)).text(kind)
}

fn decode(bytes: &[u8]) -> Result<(StreamPos, &str), Error> {
    let corrupt = || Error::internal("user_account_data holds a malformed value");
    let (position, json) = bytes.split_first_chunk::<8>().ok_or_else(corrupt)?;
    Ok((StreamPos(u64::from_be_bytes(*position)), std::str::from_utf8(json).map_err(|_| corrupt())?))
}

impl Core {
    /// The content of one entry.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn find_account_data(
        &self,
        user: &UserId,
        room: Option<&RoomId>,
        kind: &str,
    ) -> Result<Option<Box<RawValue>>, Error> {
        let Some(bytes) = self.store.get(Table::UserAccountData, key(user, room, kind).as_bytes())? else {
            return Ok(None);
        };
        let (_, json) = decode(&bytes)?;
        RawValue::from_string(json.to_owned())
            .map(Some)
            .map_err(|_| Error::internal("user_account_data holds something that is not JSON"))
    }

    /// The content of one entry, as its owner reads it.
    ///
    /// # Errors
    /// `M_NOT_FOUND`.
    pub fn account_data(&self, user: &UserId, room: Option<&RoomId>, kind: &str) -> Result<Box<RawValue>, Error> {
        if room.is_none() && kind == PUSH_RULES {
            return RawValue::from_string(self.push_rules_json(user)?)
                .map_err(|_| Error::internal("the push rules are not JSON"));
        }
        self.find_account_data(user, room, kind)?
            .ok_or_else(|| Error::not_found("there is no account data of this type"))
    }

    /// The entry has this content; the user's devices hear of it.
    ///
    /// # Errors
    /// `M_TOO_LARGE`; 405 `M_BAD_JSON` for types that have endpoints of their own; `M_BAD_JSON` for content that is no object.
    pub async fn set_account_data(
        &self,
        requester: &Requester,
        room: Option<&RoomId>,
        kind: &str,
        content: &RawValue,
    ) -> Result<(), Error> {
        self.check_not_guest(requester)?;
        if matches!(kind, "m.fully_read" | PUSH_RULES) {
            return Err(Error::Custom {
                status: 405,
                errcode: "M_BAD_JSON",
                message: "this type of account data has an endpoint of its own".into(),
            });
        }
        // Raw JSON is only skimmed when it arrives: numbers beyond all bounds and halves of characters would be kept, and
        // then be read by nobody any more.
        if serde_json::from_str::<Map<String, Value>>(content.get()).is_err() {
            return Err(Error::bad_json("account data is an object, of values that every client can read"));
        }
        self.write_account_data(&requester.user_id, room, kind, content.get()).await.map(drop)
    }

    /// The entry has this content, whatever its type.
    ///
    /// # Errors
    /// `M_TOO_LARGE`; [`Error::Store`].
    pub async fn write_account_data(
        &self,
        user: &UserId,
        room: Option<&RoomId>,
        kind: &str,
        json: &str,
    ) -> Result<StreamPos, Error> {
        let mut batch = Batch::new();
        let index = self.batch_account_data(&mut batch, user, room, kind, json)?;
        let changing = self.begin_account_data(user, kind);
        let committed = self.commit(batch).await?;
        changing.end(self);
        Ok(committed.position(index))
    }

    /// Adds an entry to a batch; returns the index of its position. Before it is submitted, call
    /// [`Core::begin_account_data`]; after the commit, end that.
    pub(crate) fn batch_account_data(
        &self,
        batch: &mut Batch,
        user: &UserId,
        room: Option<&RoomId>,
        kind: &str,
        json: &str,
    ) -> Result<u32, Error> {
        if json.len() > MAX_CONTENT_BYTES {
            return Err(Error::TooLarge("account data has at most 256 KiB".into()));
        }
        if kind.is_empty() || kind.len() > MAX_TYPE_BYTES {
            return Err(Error::invalid("the type of account data has 1 to 255 bytes"));
        }
        let index = batch.reserve_position();
        let mut value = vec![0; 8];
        value.extend_from_slice(json.as_bytes());
        let slot = Slot { offset: 0, index, form: SlotForm::Plain };
        batch.put_at(Table::UserAccountData, key(user, room, kind), None, value, Some(slot));
        Ok(index)
    }

    /// Announces that the user's account data of this type is about to change.
    pub(crate) fn begin_account_data(&self, user: &UserId, kind: &str) -> ChangingAccountData<'_> {
        ChangingAccountData {
            user: user.to_owned(),
            changes_rules: kind == PUSH_RULES,
            latest: self.accounts.account_data.begin(user),
            ignored: self.accounts.ignored.begin(user),
        }
    }

    /// The entries that changed after `since`; without one, all. A user's unchanged data costs no disk access.
    ///
    /// Without `since`, the default push rules are part of it even if they were never changed.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn account_data_since(&self, user: &UserId, since: Option<StreamPos>) -> Result<Vec<AccountData>, Error> {
        let generation = match self.accounts.account_data.find(user) {
            Ok(latest) if since.is_some_and(|since| latest <= since) => return Ok(Vec::new()),
            Ok(_) => None,
            Err(generation) => Some(generation),
        };
        let rows = self.scan_all(Table::UserAccountData, &Key::new().text(user))?;
        let mut latest = StreamPos(0);
        let mut entries = Vec::new();
        let mut has_rules = false;
        for (key, value) in rows {
            let (position, json) = decode(&value)?;
            latest = latest.max(position);
            let mut reader = KeyReader::new(&key);
            let (Some(_), Some(room), Some(kind)) = (reader.text(), reader.text(), reader.text()) else { continue };
            has_rules |= room.is_empty() && kind == PUSH_RULES;
            if since.is_some_and(|since| position <= since) {
                continue;
            }
            let content = RawValue::from_string(json.to_owned())
                .map_err(|_| Error::internal("user_account_data holds something that is not JSON"))?;
            entries.push(AccountData { room_id: OwnedRoomId::try_from(room).ok(), kind, content, position });
        }
        if since.is_none() && !has_rules {
            let content = self.account_data(user, None, PUSH_RULES)?;
            entries.push(AccountData { room_id: None, kind: PUSH_RULES.to_owned(), content, position: latest });
        }
        if let Some(generation) = generation {
            self.accounts.account_data.remember(generation, user, latest);
        }
        Ok(entries)
    }

    /// Whom the user ignores. Warm users read no disk.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn ignored_users(&self, user: &UserId) -> Result<std::sync::Arc<BTreeSet<OwnedUserId>>, Error> {
        let generation = match self.accounts.ignored.find(user) {
            Ok(ignored) => return Ok(ignored),
            Err(generation) => generation,
        };
        let content = self.find_account_data(user, None, "m.ignored_user_list")?;
        let content = content.and_then(|content| serde_json::from_str::<Map<String, Value>>(content.get()).ok());
        let users = content.as_ref().and_then(|content| content.get("ignored_users")?.as_object());
        let ignored: BTreeSet<_> =
            users.into_iter().flatten().filter_map(|(user, _)| OwnedUserId::try_from(user.as_str()).ok()).collect();
        let ignored = std::sync::Arc::new(ignored);
        self.accounts.ignored.remember(generation, user, std::sync::Arc::clone(&ignored));
        Ok(ignored)
    }

    /// The user's tags of a room.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn tags(&self, user: &UserId, room: &RoomId) -> Result<Map<String, Value>, Error> {
        let content = self.find_account_data(user, Some(room), TAG)?;
        let content = content.and_then(|content| serde_json::from_str::<Map<String, Value>>(content.get()).ok());
        Ok(content
            .and_then(|mut content| match content.remove("tags") {
                Some(Value::Object(tags)) => Some(tags),
                _ => None,
            })
            .unwrap_or_default())
    }

    /// The room has this tag, or no longer has it.
    ///
    /// # Errors
    /// `M_BAD_JSON` for an order that is no number; `M_INVALID_PARAM` for a tag that is too long, or one too many.
    pub async fn set_tag(&self, user: &UserId, room: &RoomId, tag: &str, value: Option<Value>) -> Result<(), Error> {
        if tag.is_empty() || tag.len() > MAX_TYPE_BYTES {
            return Err(Error::invalid("a tag has 1 to 255 bytes"));
        }
        if let Some(order) = value.as_ref().and_then(|value| value.get("order"))
            && !order.is_number()
            && order.as_str().is_none_or(|text| text.parse::<f64>().is_err())
        {
            return Err(Error::bad_json("`order` is a number"));
        }
        let mut tags = self.tags(user, room)?;
        match value {
            Some(value) => tags.insert(tag.to_owned(), value),
            None => tags.remove(tag),
        };
        if tags.len() > MAX_TAGS {
            return Err(Error::invalid(format!("a room has at most {MAX_TAGS} tags")));
        }
        let content = to_json(&Map::from_iter([("tags".to_owned(), Value::Object(tags))]))?;
        let content = String::from_utf8(content).map_err(|_| Error::internal("tags are not UTF-8"))?;
        self.write_account_data(user, Some(room), TAG, &content).await.map(drop)
    }
}
