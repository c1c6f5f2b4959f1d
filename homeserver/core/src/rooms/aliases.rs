//! Aliases: names of rooms that lead to their ids (Client-Server API, "Room aliases").

use std::sync::Arc;

use matron_storage::{Batch, Key, KeyReader, Table};
use ruma::{OwnedRoomAliasId, OwnedRoomId, OwnedServerName, OwnedUserId, RoomAliasId, RoomId, UserId};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::send::NewEvent;
use crate::{Core, Error, Requester, house::to_json};

/// How many servers are named for one alias.
const MAX_SERVERS: usize = 50;
/// The longest alias, bytes.
const MAX_ALIAS_BYTES: usize = 255;
/// How many alternative aliases one event may name.
const MAX_ALT_ALIASES: usize = 100;

/// Where an alias leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AliasTarget {
    /// The room.
    pub room_id: OwnedRoomId,
    /// Servers that are in it.
    pub servers: Vec<OwnedServerName>,
}

/// A row of `room_alias`.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct AliasRow {
    room_id: OwnedRoomId,
    creator: OwnedUserId,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct CanonicalAlias {
    alias: Option<Value>,
    alt_aliases: Option<Value>,
}

impl CanonicalAlias {
    /// Every alias that the content names.
    fn all(&self) -> Result<Vec<OwnedRoomAliasId>, Error> {
        let malformed = || Error::invalid("this is not a room alias");
        let parse = |value: &Value| {
            value.as_str().and_then(|alias| OwnedRoomAliasId::try_from(alias).ok()).ok_or_else(malformed)
        };
        let mut aliases = Vec::new();
        match &self.alias {
            None | Some(Value::Null) => {}
            Some(Value::String(alias)) if alias.is_empty() => {}
            Some(alias) => aliases.push(parse(alias)?),
        }
        match &self.alt_aliases {
            None | Some(Value::Null) => {}
            Some(Value::Array(list)) if list.len() <= MAX_ALT_ALIASES => {
                for alias in list {
                    aliases.push(parse(alias)?);
                }
            }
            Some(_) => return Err(Error::invalid("`alt_aliases` is a list of at most 100 room aliases")),
        }
        Ok(aliases)
    }
}

fn alias_key(alias: &RoomAliasId) -> Key {
    Key::new().text(alias)
}

/// The alias that a key of `room_alias_by_room` names.
pub(crate) fn alias_of_row(key: &[u8]) -> Option<OwnedRoomAliasId> {
    let mut reader = KeyReader::new(key);
    reader.text()?;
    OwnedRoomAliasId::try_from(reader.text()?).ok()
}

impl Core {
    /// Where the alias leads; another server's is asked there, an application service may make its own now.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Peer`] if the alias's server does not answer.
    pub async fn resolve_alias(self: &Arc<Self>, alias: &RoomAliasId) -> Result<AliasTarget, Error> {
        let unknown = || Error::not_found("this alias is not known");
        if !self.is_local(alias.server_name()) {
            if !self.settings.federation {
                return Err(unknown());
            }
            return self.query_directory(alias.server_name(), alias).await;
        }
        let row = match self.load::<AliasRow>(Table::RoomAlias, &alias_key(alias))? {
            Some(row) => row,
            None if self.ask_for_alias(alias).await => {
                self.load::<AliasRow>(Table::RoomAlias, &alias_key(alias))?.ok_or_else(unknown)?
            }
            None => return Err(unknown()),
        };
        // This server first: it is the one that is known to answer.
        let mut servers = vec![self.server_name.clone()];
        servers.extend(
            self.joined_servers(&row.room_id)?.into_iter().filter(|server| !self.is_local(server)).take(MAX_SERVERS),
        );
        Ok(AliasTarget { room_id: row.room_id, servers })
    }

    /// The aliases that a canonical alias event adds lead to the room.
    ///
    /// # Errors
    /// [`Error::BadAlias`] for one that leads nowhere or elsewhere, [`Error::InvalidParam`] for one that is none.
    pub(crate) async fn check_canonical_alias(
        self: &Arc<Self>,
        room_id: &RoomId,
        content: &Value,
    ) -> Result<(), Error> {
        let wanted: CanonicalAlias = serde_json::from_value(content.clone())
            .map_err(|_| Error::bad_json("the content of a canonical alias event is an object"))?;
        let wanted = wanted.all()?;
        let present = match self.find_room(room_id)? {
            Some(room) => room.lock().state_content::<CanonicalAlias>(self, "m.room.canonical_alias", "")?,
            None => None,
        };
        let present = present.and_then(|content| content.all().ok()).unwrap_or_default();
        for alias in wanted.iter().filter(|alias| !present.contains(alias)) {
            match self.resolve_alias(alias).await {
                Ok(target) if target.room_id == *room_id => {}
                Ok(_) => return Err(Error::BadAlias("an alias leads to another room".into())),
                Err(error @ Error::Store(_)) => return Err(error),
                Err(_) => return Err(Error::BadAlias("an alias leads nowhere".into())),
            }
        }
        Ok(())
    }

    /// The alias of this server with this local part, if it may be taken by the user.
    ///
    /// # Errors
    /// [`Error::RoomInUse`], [`Error::InvalidParam`], [`Error::Exclusive`].
    pub fn new_local_alias(&self, user: &UserId, local: &str) -> Result<String, Error> {
        let malformed = || Error::invalid("this cannot be the name of an alias");
        if local.is_empty() || local.contains([':', '\0', '#']) || local.chars().any(char::is_whitespace) {
            return Err(malformed());
        }
        let alias = OwnedRoomAliasId::try_from(format!("#{local}:{}", self.server_name)).map_err(|_| malformed())?;
        self.check_alias_may_be_taken(user, &alias)?;
        if self.store.get(Table::RoomAlias, alias_key(&alias).as_bytes())?.is_some() {
            return Err(Error::RoomInUse);
        }
        Ok(alias.to_string())
    }

    fn check_alias_may_be_taken(&self, user: &UserId, alias: &RoomAliasId) -> Result<(), Error> {
        if alias.as_str().len() > MAX_ALIAS_BYTES {
            return Err(Error::invalid("an alias has at most 255 bytes"));
        }
        if !self.is_local(alias.server_name()) {
            return Err(Error::invalid("an alias of another server is made there"));
        }
        let service = self
            .appservices
            .services
            .iter()
            .find(|service| service.owns_user(user))
            .map(|service| service.registration.id.as_str());
        self.check_alias_not_reserved(alias, service)
    }

    /// The alias leads to the room.
    ///
    /// # Errors
    /// [`Error::RoomInUse`], [`Error::InvalidParam`], [`Error::Exclusive`].
    pub async fn set_alias(self: &Arc<Self>, user: &UserId, alias: &str, room: &RoomId) -> Result<(), Error> {
        let alias = <&RoomAliasId>::try_from(alias).map_err(|_| Error::invalid("this is not a room alias"))?;
        self.check_alias_may_be_taken(user, alias)?;
        let mut batch = Batch::new();
        batch.expect_absent(Table::RoomAlias, alias_key(alias));
        let row = AliasRow { room_id: room.to_owned(), creator: user.to_owned() };
        batch.put(Table::RoomAlias, alias_key(alias), to_json(&row)?);
        batch.put(Table::RoomAliasByRoom, Key::new().text(room).text(alias), Vec::new());
        self.commit_or(batch, Error::RoomInUse).await
    }

    /// As [`Core::set_alias`], asked for by a user: the room must be known here.
    ///
    /// # Errors
    /// As [`Core::set_alias`]; [`Error::NotFound`] for an unknown room, [`Error::Forbidden`] for a user outside.
    pub async fn add_alias(
        self: &Arc<Self>,
        requester: &Requester,
        alias: &RoomAliasId,
        room_id: &RoomId,
    ) -> Result<(), Error> {
        let room = self.open_room(room_id)?;
        // An application service fills its own namespace; for all other aliases one must be in the room.
        let service = requester.appservice.as_deref().and_then(|id| self.appservice(id));
        if !service.is_some_and(|service| service.is_interested_in_alias(alias)) {
            self.require_joined(&room, &requester.user_id)?;
        }
        self.set_alias(&requester.user_id, alias.as_str(), room_id).await
    }

    /// The alias leads nowhere any more, and the room's canonical alias event no longer names it, where the user may say so.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Forbidden`] for anyone but its creator, those who may set the room's canonical
    /// alias, and operators; [`Error::Exclusive`].
    pub async fn delete_alias(self: &Arc<Self>, requester: &Requester, alias: &RoomAliasId) -> Result<(), Error> {
        let user = &requester.user_id;
        let unknown = || Error::not_found("this alias is not known");
        if !self.is_local(alias.server_name()) {
            return Err(unknown());
        }
        let row = self.load::<AliasRow>(Table::RoomAlias, &alias_key(alias))?.ok_or_else(unknown)?;
        self.check_alias_not_reserved(alias, requester.appservice.as_deref())?;
        if row.creator != *user && !requester.is_admin && !self.may_name_room(user, &row.room_id)? {
            return Err(Error::forbidden("you may not delete this alias"));
        }
        let mut batch = Batch::new();
        batch.delete(Table::RoomAlias, alias_key(alias));
        batch.delete(Table::RoomAliasByRoom, Key::new().text(&row.room_id).text(alias));
        self.commit(batch).await?;
        if let Err(error) = self.drop_from_canonical_alias(user, &row.room_id, alias).await {
            tracing::debug!(room.id = %row.room_id, %error, "a canonical alias event still names a deleted alias");
        }
        Ok(())
    }

    async fn drop_from_canonical_alias(
        self: &Arc<Self>,
        user: &UserId,
        room_id: &RoomId,
        alias: &RoomAliasId,
    ) -> Result<(), Error> {
        if !self.may_name_room(user, room_id)? {
            return Ok(());
        }
        let Some(room) = self.find_room(room_id)? else { return Ok(()) };
        let content = room.lock().state_pdu(self, "m.room.canonical_alias", "")?.map(|pdu| pdu.content_value());
        let Some(Value::Object(mut content)) = content else { return Ok(()) };
        let mut changed = false;
        if content.get("alias").and_then(Value::as_str) == Some(alias.as_str()) {
            content.remove("alias");
            changed = true;
        }
        if let Some(Value::Array(others)) = content.get_mut("alt_aliases") {
            let before = others.len();
            others.retain(|other| other.as_str() != Some(alias.as_str()));
            changed |= others.len() != before;
        }
        if content.get("alt_aliases").is_some_and(|others| *others == json!([])) {
            content.remove("alt_aliases");
        }
        if changed {
            let content = Value::Object(content);
            let new = NewEvent::state(room_id.to_owned(), user.to_owned(), "m.room.canonical_alias", "", content);
            self.send_event(new).await?;
        }
        Ok(())
    }

    /// Whether the user is in the room and may set its canonical alias.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) fn may_name_room(&self, user: &UserId, room_id: &RoomId) -> Result<bool, Error> {
        let Some(room) = self.find_room(room_id)? else { return Ok(false) };
        let mut inner = room.lock();
        if !inner.joined.contains(user) {
            return Ok(false);
        }
        Ok(inner.power_levels(self)?.can_send(user, "m.room.canonical_alias", true))
    }

    /// The aliases of this server that lead to the room.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn aliases_of(&self, room: &RoomId) -> Result<Vec<OwnedRoomAliasId>, Error> {
        let rows = self.scan_all(Table::RoomAliasByRoom, &Key::new().text(room))?;
        Ok(rows.iter().filter_map(|(key, _)| alias_of_row(key)).collect())
    }

    /// As [`Core::aliases_of`], for a member, or for anyone if the room is world readable.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for anyone else.
    pub fn room_aliases(&self, user: &UserId, room_id: &RoomId) -> Result<Vec<OwnedRoomAliasId>, Error> {
        self.require_reader(user, room_id)?;
        self.aliases_of(room_id)
    }

    /// Nothing, if the user is joined or the room is world readable.
    ///
    /// # Errors
    /// [`Error::Forbidden`] otherwise, also for unknown rooms.
    pub(crate) fn require_reader(&self, user: &UserId, room_id: &RoomId) -> Result<(), Error> {
        let refused = || Error::forbidden("you are not in this room");
        let room = self.find_room(room_id)?.ok_or_else(refused)?;
        let readable = room.lock().joined.contains(user) || self.is_open_to_the_world(&room)?;
        if readable { Ok(()) } else { Err(refused()) }
    }

    /// The aliases of one room lead to another.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) async fn move_aliases(&self, from: &RoomId, to: &RoomId) -> Result<(), Error> {
        let mut batch = Batch::new();
        for alias in self.aliases_of(from)? {
            let Some(row) = self.load::<AliasRow>(Table::RoomAlias, &alias_key(&alias))? else { continue };
            batch.delete(Table::RoomAliasByRoom, Key::new().text(from).text(&alias));
            batch.put(Table::RoomAlias, alias_key(&alias), to_json(&AliasRow { room_id: to.to_owned(), ..row })?);
            batch.put(Table::RoomAliasByRoom, Key::new().text(to).text(&alias), Vec::new());
        }
        if batch.is_empty() {
            return Ok(());
        }
        self.commit(batch).await.map(drop)
    }
}
