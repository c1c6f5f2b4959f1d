//! What stands between this server and another, for operators: policy, the way there, keys, signatures, queues, room ACLs.

use std::{sync::Arc, time::Duration};

use matron_storage::{KeyRange, KeyReader, Order, Table};
use ruma::{RoomId, ServerName};
use serde_json::Value;

use super::fetch::encode;
use crate::{
    Core, Error,
    ports::{FederationRequest, Finding, Grade, PeerError, http_method::Method},
};

/// How many rooms are looked at.
const MAX_ROOMS: usize = 5_000;

impl Core {
    /// All that was found out about the way to the server, asked now.
    ///
    /// # Errors
    /// [`Error::Store`]; what is wrong with the server is no error but a finding.
    pub async fn probe_peer(self: &Arc<Self>, server: &ServerName) -> Result<Vec<Finding>, Error> {
        if self.is_local(server) {
            return Ok(vec![Finding::new(Grade::Note, "name", "that is this server itself")]);
        }
        let mut found = vec![self.membership_of(server)];
        if self.peer_allowed(server) {
            let way = self.federation.probe(server).await;
            let open = !way.iter().any(|finding| finding.grade == Grade::Bad && finding.what != "clock");
            found.extend(way);
            if open {
                found.push(self.probe_keys(server).await);
                found.push(self.probe_signature(server).await);
            }
        }
        found.push(self.queue_finding(server)?);
        found.extend(self.acl_findings(server)?);
        Ok(found)
    }

    /// Whether policy lets the two speak, and what the register says of the other.
    fn membership_of(&self, server: &ServerName) -> Finding {
        if !self.settings.federation {
            return Finding::new(Grade::Bad, "policy", "federation is switched off here (`federation.enabled`)");
        }
        let rules = self.rules();
        let organisation = rules
            .register
            .as_ref()
            .and_then(|register| register.organisation_of_server(server.as_str()))
            .map(|organisation| format!("{} ({})", organisation.name, organisation.code));
        let allowed = self.peer_allowed(server);
        match (allowed, organisation, rules.register.is_some()) {
            (true, Some(organisation), _) => {
                Finding::new(Grade::Good, "register", format!("it belongs to {organisation}"))
            }
            (true, None, true) => {
                Finding::new(Grade::Note, "register", "it is not in the register: bounded rooms keep it out")
            }
            (true, None, false) => Finding::new(Grade::Note, "register", "there is no register here"),
            (false, Some(organisation), _) => Finding::new(
                Grade::Bad,
                "policy",
                format!("it belongs to {organisation}, and the deployment's policy keeps that organisation out"),
            ),
            (false, None, _) => Finding::new(
                Grade::Bad,
                "register",
                "it is not in the register, and the deployment's policy speaks only with who is",
            ),
        }
    }

    async fn probe_keys(&self, server: &ServerName) -> Finding {
        match self.fetch_key_document(server).await {
            Ok(keys) => {
                let now_ms = self.now_ms();
                let valid = keys.keys.values().filter(|key| key.valid_until_ts > now_ms).count();
                if valid == 0 {
                    Finding::new(
                        Grade::Bad,
                        "keys",
                        "all keys that it publishes have run out: its clock is wrong, or it stopped renewing them",
                    )
                } else {
                    let ids: Vec<&str> = keys.keys.keys().map(String::as_str).take(8).collect();
                    Finding::new(Grade::Good, "keys", format!("it publishes signing keys: {}", ids.join(", ")))
                }
            }
            Err(error) => Finding::new(Grade::Bad, "keys", format!("its signing keys cannot be used: {error}")),
        }
    }

    /// Whether the server believes our signature: it must reach us, or know our keys, for that.
    async fn probe_signature(&self, server: &ServerName) -> Finding {
        let nobody = format!("@matron-probe:{server}");
        let request = FederationRequest {
            destination: server.to_owned(),
            method: Method::Get,
            path_and_query: format!("/_matrix/federation/v1/query/profile?user_id={}", encode(&nobody)),
            body: None,
            signed: true,
            timeout: Duration::from_secs(30),
            max_bytes: 64 * 1024,
        };
        let said = |body: &Value| -> String {
            let field = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
            format!("{} {}", field("errcode"), field("error")).chars().filter(|c| !c.is_control()).take(200).collect()
        };
        match self.federation.request(request).await {
            Ok(_) | Err(PeerError::Status { status: 400 | 404, .. }) => {
                Finding::new(Grade::Good, "signature", "it believes our signature")
            }
            Err(PeerError::Status { status: 401, body }) => Finding::new(
                Grade::Bad,
                "signature",
                format!(
                    "it does not believe our signature: it cannot fetch our keys (can it reach this server?), or a clock \
                     is wrong. It says: {}",
                    said(&body)
                ),
            ),
            Err(PeerError::Status { status: 403, body }) => Finding::new(
                Grade::Bad,
                "signature",
                format!("it refuses to speak with this server. It says: {}", said(&body)),
            ),
            Err(error) => Finding::new(Grade::Bad, "signature", format!("a signed question got no answer: {error}")),
        }
    }

    fn queue_finding(&self, server: &ServerName) -> Result<Finding, Error> {
        let report = self.peer_report(server)?;
        if report.failures == 0 {
            let sentence = match report.queue {
                0 => "nothing waits for it".to_owned(),
                waiting => format!("{waiting} waiting, being sent"),
            };
            return Ok(Finding::new(Grade::Good, "queue", sentence));
        }
        let sentence = format!(
            "{} waiting; sending failed {} times in a row, the last time because: {}",
            report.queue, report.failures, report.reason
        );
        Ok(Finding::new(Grade::Bad, "queue", sentence))
    }

    /// Rooms that the server is in and whose access control list keeps it out.
    fn acl_findings(self: &Arc<Self>, server: &ServerName) -> Result<Vec<Finding>, Error> {
        let mut shut = Vec::new();
        let mut shared = 0_usize;
        for (key, _) in self.store.scan(Table::RoomExtremity, &KeyRange::all(), Order::Ascending, MAX_ROOMS)? {
            let Some(room) = KeyReader::new(&key).text() else { continue };
            let Ok(room_id) = <&RoomId>::try_from(room.as_str()) else { continue };
            let Some(room) = self.find_room(room_id)? else { continue };
            if room.has_server(server) {
                shared = shared.saturating_add(1);
                if self.check_server_acl(&room, server).is_err() {
                    shut.push(room_id.to_string());
                }
            }
        }
        let mut found = vec![Finding::new(Grade::Good, "rooms", format!("{shared} rooms are shared with it"))];
        if !shut.is_empty() {
            let more = shut.len().saturating_sub(10);
            shut.truncate(10);
            let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
            let sentence = format!("the access control list keeps it out of {}{rest}", shut.join(", "));
            found.push(Finding::new(Grade::Bad, "ACL", sentence));
        }
        Ok(found)
    }
}
