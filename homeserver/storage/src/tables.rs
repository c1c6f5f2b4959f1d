//! The catalogue: every table, who owns it, what its key and value are, and when a row may go.

/// What the catalogue says of one table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableInfo {
    /// The table.
    pub table: Table,
    /// Its name in every engine: `key_value` style, never changed.
    pub name: &'static str,
    /// The part of the house that alone writes it.
    pub owner: &'static str,
    /// The parts of its key, in order.
    pub key: &'static str,
    /// What its value is.
    pub value: &'static str,
    /// Whether it holds patient data: `no`, `sealed` (only under a data key) or `yes` (end-to-end encrypted by clients).
    pub patient_data: &'static str,
    /// What removes a row.
    pub deletion: &'static str,
}

/// A table of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Table {
    /// `server_meta`: name → JSON.
    ServerMeta,
    /// `user_account`: user_id → JSON Account.
    UserAccount,
    /// `user_device`: user_id,device_id → JSON Device.
    UserDevice,
    /// `token_access`: sha256(token) → JSON AccessToken.
    TokenAccess,
    /// `token_refresh`: sha256(token) → JSON RefreshToken.
    TokenRefresh,
    /// `token_login`: sha256(token) → JSON.
    TokenLogin,
    /// `token_openid`: sha256(token) → JSON.
    TokenOpenid,
    /// `registration_token`: token → JSON.
    RegistrationToken,
    /// `uia_session`: session → JSON.
    UiaSession,
    /// `oauth_client`: client_id → JSON.
    OauthClient,
    /// `oauth_browser`: sha256(cookie) → JSON.
    OauthBrowser,
    /// `oauth_link`: provider,subject → user_id.
    OauthLink,
    /// `user_profile`: user_id,field → JSON value.
    UserProfile,
    /// `user_threepid`: user_id,medium,address → JSON.
    UserThreepid,
    /// `user_threepid_binding`: user_id,medium,address,identity server → JSON.
    UserThreepidBinding,
    /// `threepid_session`: session → JSON.
    ThreepidSession,
    /// `user_filter`: user_id,filter_id → JSON.
    UserFilter,
    /// `user_pusher`: user_id,app_id,pushkey → JSON.
    UserPusher,
    /// `user_account_data`: user_id,room_id or empty,type → pos,JSON.
    UserAccountData,
    /// `user_credential`: user_id → JSON signed credential.
    UserCredential,
    /// `device_keys`: user_id,device_id → JSON.
    DeviceKeys,
    /// `device_one_time_key`: user_id,device_id,algorithm,key_id → JSON.
    DeviceOneTimeKey,
    /// `device_fallback_key`: user_id,device_id,algorithm → JSON.
    DeviceFallbackKey,
    /// `cross_signing_key`: user_id,usage → JSON.
    CrossSigningKey,
    /// `key_signature`: target_user,target_key,signer_user,signer_key → text.
    KeySignature,
    /// `device_list_stream`: pos → user_id.
    DeviceListStream,
    /// `device_list_remote`: user_id → JSON cache of a remote user's devices.
    DeviceListRemote,
    /// `backup_version`: user_id,version → JSON.
    BackupVersion,
    /// `backup_session`: user_id,version,room_id,session_id → JSON.
    BackupSession,
    /// `to_device_inbox`: user_id,device_id,pos → arrival, bucket, sealed JSON.
    ToDeviceInbox,
    /// `to_device_txn`: sender,message id → empty.
    ToDeviceTxn,
    /// `room_meta`: room_id → JSON RoomMeta.
    RoomMeta,
    /// `room_alias`: alias → JSON.
    RoomAlias,
    /// `room_alias_by_room`: room_id,alias → empty.
    RoomAliasByRoom,
    /// `room_public`: room_id → JSON.
    RoomPublic,
    /// `room_state_group`: group (16 bytes) → StateGroup.
    RoomStateGroup,
    /// `room_extremity`: room_id → JSON list.
    RoomExtremity,
    /// `room_timeline`: room_id,timeline pos → event_id.
    RoomTimeline,
    /// `room_user`: room_id,user_id → JSON Membership.
    RoomUser,
    /// `user_room`: user_id,room_id → JSON Membership.
    UserRoom,
    /// `room_stripped`: user_id,room_id → JSON stripped state of an invite or knock.
    RoomStripped,
    /// `room_receipt`: room_id,type,user_id,thread → pos,JSON.
    RoomReceipt,
    /// `room_relation`: room_id,target,pos → JSON (rel_type,type,event_id).
    RoomRelation,
    /// `room_notification`: user_id,room_id,pos → JSON.
    RoomNotification,
    /// `event_pdu`: event_id → EventRecord: header and skeleton, or whole if state.
    EventPdu,
    /// `event_content`: event_id → sealed whole PDU.
    EventContent,
    /// `event_txn`: user_id,device_id,scope,txn_id → event_id.
    EventTxn,
    /// `event_expiry`: expires_at_ms,event_id → JSON (room_id,bucket).
    EventExpiry,
    /// `event_redaction_due`: room_id,event_id → expires_at_ms.
    EventRedactionDue,
    /// `event_held`: room_id,event_id → JSON.
    EventHeld,
    /// `outbox_row`: destination,pos → JSON (event_id or EDU), sealed for to-device messages.
    OutboxRow,
    /// `outbox_state`: destination → JSON (backoff, last success).
    OutboxState,
    /// `outbox_receipt`: destination,room_id,user_id,thread → pos.
    OutboxReceipt,
    /// `inbox_txn`: origin,txn_id → JSON answer.
    InboxTxn,
    /// `server_key`: server_name → JSON signed key document.
    ServerKey,
    /// `media_meta`: server_name,media_id → JSON MediaMeta.
    MediaMeta,
    /// `media_expiry`: expires_at_ms,server_name,media_id → empty.
    MediaExpiry,
    /// `media_of_event`: event_id,server_name,media_id → empty.
    MediaOfEvent,
    /// `user_presence`: user_id → JSON.
    UserPresence,
    /// `audit_entry`: seq → JSON AuditEntry.
    AuditEntry,
    /// `audit_decision`: decision_id → seq.
    AuditDecision,
    /// `policy_register`: version → signed register bytes.
    PolicyRegister,
    /// `policy_revocation`: organisation,serial → JSON.
    PolicyRevocation,
    /// `appservice_txn`: appservice_id → JSON cursor.
    AppserviceTxn,
    /// `event_report`: pos → JSON.
    EventReport,
    /// `room_thread`: room_id,root event_id → JSON.
    RoomThread,
    /// `thread_subscription`: user_id,room_id,root event_id → pos,JSON.
    ThreadSubscription,
    /// `misc`: area,key → JSON.
    Misc,
}

/// The whole catalogue, in the order of [`Table`].
#[rustfmt::skip] // a table of tables: one line each
pub const CATALOGUE: &[TableInfo] = &[
    TableInfo { table: Table::ServerMeta, name: "server_meta", owner: "server", key: "name", value: "JSON", patient_data: "no", deletion: "never" },
    TableInfo { table: Table::UserAccount, name: "user_account", owner: "accounts", key: "user_id", value: "JSON Account", patient_data: "no", deletion: "tombstone on deactivation" },
    TableInfo { table: Table::UserDevice, name: "user_device", owner: "accounts", key: "user_id,device_id", value: "JSON Device", patient_data: "no", deletion: "logout" },
    TableInfo { table: Table::TokenAccess, name: "token_access", owner: "accounts", key: "sha256(token)", value: "JSON AccessToken", patient_data: "no", deletion: "logout" },
    TableInfo { table: Table::TokenRefresh, name: "token_refresh", owner: "accounts", key: "sha256(token)", value: "JSON RefreshToken", patient_data: "no", deletion: "logout" },
    TableInfo { table: Table::TokenLogin, name: "token_login", owner: "accounts", key: "sha256(token)", value: "JSON", patient_data: "no", deletion: "use or expiry" },
    TableInfo { table: Table::TokenOpenid, name: "token_openid", owner: "accounts", key: "sha256(token)", value: "JSON", patient_data: "no", deletion: "expiry" },
    TableInfo { table: Table::RegistrationToken, name: "registration_token", owner: "accounts", key: "token", value: "JSON", patient_data: "no", deletion: "operator" },
    TableInfo { table: Table::UiaSession, name: "uia_session", owner: "accounts", key: "session", value: "JSON", patient_data: "no", deletion: "expiry" },
    TableInfo { table: Table::OauthClient, name: "oauth_client", owner: "oauth", key: "client_id", value: "JSON", patient_data: "no", deletion: "no session, no room" },
    TableInfo { table: Table::OauthBrowser, name: "oauth_browser", owner: "oauth", key: "sha256(cookie)", value: "JSON", patient_data: "no", deletion: "sign-out, expiry" },
    TableInfo { table: Table::OauthLink, name: "oauth_link", owner: "oauth", key: "provider,subject", value: "user_id", patient_data: "no", deletion: "never: a closed account stays closed" },
    TableInfo { table: Table::UserProfile, name: "user_profile", owner: "accounts", key: "user_id,field", value: "JSON value", patient_data: "no", deletion: "deactivation" },
    TableInfo { table: Table::UserThreepid, name: "user_threepid", owner: "accounts", key: "user_id,medium,address", value: "JSON", patient_data: "no", deletion: "deactivation" },
    TableInfo { table: Table::UserThreepidBinding, name: "user_threepid_binding", owner: "identity", key: "user_id,medium,address,identity server", value: "JSON", patient_data: "no", deletion: "unbinding, deactivation" },
    TableInfo { table: Table::ThreepidSession, name: "threepid_session", owner: "accounts", key: "session", value: "JSON", patient_data: "no", deletion: "use or expiry" },
    TableInfo { table: Table::UserFilter, name: "user_filter", owner: "accounts", key: "user_id,filter_id", value: "JSON", patient_data: "no", deletion: "never" },
    TableInfo { table: Table::UserPusher, name: "user_pusher", owner: "push", key: "user_id,app_id,pushkey", value: "JSON", patient_data: "no", deletion: "logout" },
    TableInfo { table: Table::UserAccountData, name: "user_account_data", owner: "accounts", key: "user_id,room_id or empty,type", value: "pos,JSON", patient_data: "no", deletion: "deactivation" },
    TableInfo { table: Table::UserCredential, name: "user_credential", owner: "verification", key: "user_id", value: "JSON signed credential", patient_data: "no", deletion: "revocation" },
    TableInfo { table: Table::DeviceKeys, name: "device_keys", owner: "keys", key: "user_id,device_id", value: "JSON", patient_data: "no", deletion: "logout" },
    TableInfo { table: Table::DeviceOneTimeKey, name: "device_one_time_key", owner: "keys", key: "user_id,device_id,algorithm,key_id", value: "JSON", patient_data: "no", deletion: "claim" },
    TableInfo { table: Table::DeviceFallbackKey, name: "device_fallback_key", owner: "keys", key: "user_id,device_id,algorithm", value: "JSON", patient_data: "no", deletion: "logout" },
    TableInfo { table: Table::CrossSigningKey, name: "cross_signing_key", owner: "keys", key: "user_id,usage", value: "JSON", patient_data: "no", deletion: "deactivation" },
    TableInfo { table: Table::KeySignature, name: "key_signature", owner: "keys", key: "target_user,target_key,signer_user,signer_key", value: "text", patient_data: "no", deletion: "deactivation" },
    TableInfo { table: Table::DeviceListStream, name: "device_list_stream", owner: "keys", key: "pos", value: "user_id", patient_data: "no", deletion: "age" },
    TableInfo { table: Table::DeviceListRemote, name: "device_list_remote", owner: "keys", key: "user_id", value: "JSON cache of a remote user's devices", patient_data: "no", deletion: "no shared room" },
    TableInfo { table: Table::BackupVersion, name: "backup_version", owner: "keys", key: "user_id,version", value: "JSON", patient_data: "no", deletion: "delete" },
    TableInfo { table: Table::BackupSession, name: "backup_session", owner: "keys", key: "user_id,version,room_id,session_id", value: "JSON", patient_data: "yes", deletion: "expiry, delete" },
    TableInfo { table: Table::ToDeviceInbox, name: "to_device_inbox", owner: "keys", key: "user_id,device_id,pos", value: "arrival, bucket, sealed JSON", patient_data: "sealed", deletion: "delivered, expiry" },
    TableInfo { table: Table::ToDeviceTxn, name: "to_device_txn", owner: "keys", key: "sender,message id", value: "empty", patient_data: "no", deletion: "age" },
    TableInfo { table: Table::RoomMeta, name: "room_meta", owner: "rooms", key: "room_id", value: "JSON RoomMeta", patient_data: "no", deletion: "room purge" },
    TableInfo { table: Table::RoomAlias, name: "room_alias", owner: "directory", key: "alias", value: "JSON", patient_data: "no", deletion: "delete" },
    TableInfo { table: Table::RoomAliasByRoom, name: "room_alias_by_room", owner: "directory", key: "room_id,alias", value: "empty", patient_data: "no", deletion: "delete" },
    TableInfo { table: Table::RoomPublic, name: "room_public", owner: "directory", key: "room_id", value: "JSON", patient_data: "no", deletion: "unpublish" },
    TableInfo { table: Table::RoomStateGroup, name: "room_state_group", owner: "rooms", key: "group (16 bytes)", value: "StateGroup", patient_data: "no", deletion: "room purge" },
    TableInfo { table: Table::RoomExtremity, name: "room_extremity", owner: "rooms", key: "room_id", value: "JSON list", patient_data: "no", deletion: "room purge" },
    TableInfo { table: Table::RoomTimeline, name: "room_timeline", owner: "rooms", key: "room_id,timeline pos", value: "event_id", patient_data: "no", deletion: "room purge" },
    TableInfo { table: Table::RoomUser, name: "room_user", owner: "rooms", key: "room_id,user_id", value: "JSON Membership", patient_data: "no", deletion: "room purge" },
    TableInfo { table: Table::UserRoom, name: "user_room", owner: "rooms", key: "user_id,room_id", value: "JSON Membership", patient_data: "no", deletion: "forget" },
    TableInfo { table: Table::RoomStripped, name: "room_stripped", owner: "rooms", key: "user_id,room_id", value: "JSON stripped state of an invite or knock", patient_data: "no", deletion: "answer" },
    TableInfo { table: Table::RoomReceipt, name: "room_receipt", owner: "rooms", key: "room_id,type,user_id,thread", value: "pos,JSON", patient_data: "no", deletion: "expiry" },
    TableInfo { table: Table::RoomRelation, name: "room_relation", owner: "rooms", key: "room_id,target,pos", value: "JSON (rel_type,type,event_id)", patient_data: "no", deletion: "expiry" },
    TableInfo { table: Table::RoomNotification, name: "room_notification", owner: "push", key: "user_id,room_id,pos", value: "JSON", patient_data: "no", deletion: "read, expiry" },
    TableInfo { table: Table::EventPdu, name: "event_pdu", owner: "rooms", key: "event_id", value: "EventRecord: header and skeleton, or whole if state", patient_data: "no", deletion: "room purge" },
    TableInfo { table: Table::EventContent, name: "event_content", owner: "rooms", key: "event_id", value: "sealed whole PDU", patient_data: "sealed", deletion: "expiry" },
    TableInfo { table: Table::EventTxn, name: "event_txn", owner: "rooms", key: "user_id,device_id,scope,txn_id", value: "event_id", patient_data: "no", deletion: "age" },
    TableInfo { table: Table::EventExpiry, name: "event_expiry", owner: "retention", key: "expires_at_ms,event_id", value: "JSON (room_id,bucket)", patient_data: "no", deletion: "done" },
    TableInfo { table: Table::EventRedactionDue, name: "event_redaction_due", owner: "retention", key: "room_id,event_id", value: "expires_at_ms", patient_data: "no", deletion: "done" },
    TableInfo { table: Table::EventHeld, name: "event_held", owner: "rooms", key: "room_id,event_id", value: "JSON", patient_data: "sealed", deletion: "judged" },
    TableInfo { table: Table::OutboxRow, name: "outbox_row", owner: "outbox", key: "destination,pos", value: "JSON (event_id or EDU), sealed for to-device messages", patient_data: "sealed", deletion: "sent" },
    TableInfo { table: Table::OutboxState, name: "outbox_state", owner: "outbox", key: "destination", value: "JSON (backoff, last success)", patient_data: "no", deletion: "age" },
    TableInfo { table: Table::OutboxReceipt, name: "outbox_receipt", owner: "outbox", key: "destination,room_id,user_id,thread", value: "pos", patient_data: "no", deletion: "sent" },
    TableInfo { table: Table::InboxTxn, name: "inbox_txn", owner: "federation", key: "origin,txn_id", value: "JSON answer", patient_data: "no", deletion: "age" },
    TableInfo { table: Table::ServerKey, name: "server_key", owner: "federation", key: "server_name", value: "JSON signed key document", patient_data: "no", deletion: "age" },
    TableInfo { table: Table::MediaMeta, name: "media_meta", owner: "media", key: "server_name,media_id", value: "JSON MediaMeta", patient_data: "no", deletion: "expiry" },
    TableInfo { table: Table::MediaExpiry, name: "media_expiry", owner: "media", key: "expires_at_ms,server_name,media_id", value: "empty", patient_data: "no", deletion: "done" },
    TableInfo { table: Table::MediaOfEvent, name: "media_of_event", owner: "media", key: "event_id,server_name,media_id", value: "empty", patient_data: "no", deletion: "expiry" },
    TableInfo { table: Table::UserPresence, name: "user_presence", owner: "presence", key: "user_id", value: "JSON", patient_data: "no", deletion: "deactivation" },
    TableInfo { table: Table::AuditEntry, name: "audit_entry", owner: "audit", key: "seq", value: "JSON AuditEntry", patient_data: "no", deletion: "never" },
    TableInfo { table: Table::AuditDecision, name: "audit_decision", owner: "audit", key: "decision_id", value: "seq", patient_data: "no", deletion: "never" },
    TableInfo { table: Table::PolicyRegister, name: "policy_register", owner: "policy", key: "version", value: "signed register bytes", patient_data: "no", deletion: "never" },
    TableInfo { table: Table::PolicyRevocation, name: "policy_revocation", owner: "policy", key: "organisation,serial", value: "JSON", patient_data: "no", deletion: "never" },
    TableInfo { table: Table::AppserviceTxn, name: "appservice_txn", owner: "appservice", key: "appservice_id", value: "JSON cursor", patient_data: "no", deletion: "never" },
    TableInfo { table: Table::EventReport, name: "event_report", owner: "moderation", key: "pos", value: "JSON", patient_data: "no", deletion: "operator" },
    TableInfo { table: Table::RoomThread, name: "room_thread", owner: "rooms", key: "room_id,root event_id", value: "JSON", patient_data: "no", deletion: "expiry" },
    TableInfo { table: Table::ThreadSubscription, name: "thread_subscription", owner: "threads", key: "user_id,room_id,root event_id", value: "pos,JSON", patient_data: "no", deletion: "deactivation" },
    TableInfo { table: Table::Misc, name: "misc", owner: "any", key: "area,key", value: "JSON", patient_data: "no", deletion: "owner's rule" },
];

impl Table {
    /// Its name in every engine.
    #[must_use]
    pub fn name(self) -> &'static str {
        CATALOGUE.get(self.index()).map_or("unknown", |info| info.name)
    }

    /// Its place in the [`CATALOGUE`]. Changes with the catalogue: never on disk.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn catalogue_is_in_the_order_of_the_tables_and_names_are_unique() {
        let mut names = std::collections::BTreeSet::new();
        for (index, info) in CATALOGUE.iter().enumerate() {
            assert_eq!(info.table.index(), index, "{}", info.name);
            assert!(names.insert(info.name), "{} twice", info.name);
        }
    }
}
