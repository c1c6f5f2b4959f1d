//! What stands between this server and another, for operators: policy, the way there, keys, signatures, queues, room ACLs.

use std::{sync::Arc, time::Duration};

use matron_storage::{KeyRange, KeyReader, Order, Table};
use ruma::{RoomId, ServerName};
use serde_json::Value;

use super::{
    fetch::encode,
    keys::{fetch::FetchError, record::DocumentError},
};
use crate::{
    Core, Error,
    ports::{FederationRequest, Finding, Grade, PeerError, http_method::Method, span},
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
        let keys = match self.fetch_key_document(server).await {
            Ok(keys) => keys,
            Err(error) => return Finding::new(Grade::Bad, "keys", plain_key_error(server, &error)),
        };
        let now_ms = self.now_ms();
        let ids: Vec<&str> = keys.keys.keys().map(String::as_str).take(8).collect();
        match keys.documents.first().map(|document| document.valid_until_ts) {
            Some(until_ms) if until_ms > now_ms => {
                Finding::new(Grade::Good, "keys", format!("it publishes signing keys: {}", ids.join(", ")))
            }
            until_ms => Finding::new(
                Grade::Bad,
                "keys",
                format!(
                    "the signing keys that it publishes ran out {} ago (`valid_until_ts`): its clock is wrong, or it stopped \
                     renewing them",
                    span(now_ms.saturating_sub(until_ms.unwrap_or_default()))
                ),
            ),
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
        match self.federation.request(request).await {
            Ok(_) | Err(PeerError::Status { status: 400 | 404, .. }) => {
                Finding::new(Grade::Good, "signature", "it believes our signature")
            }
            Err(PeerError::Status { status, body }) => {
                Finding::new(Grade::Bad, "signature", plain_status(status, &body))
            }
            Err(error) => Finding::new(Grade::Bad, "signature", format!("a signed question got no answer: {error}")),
        }
    }

    fn queue_finding(&self, server: &ServerName) -> Result<Finding, Error> {
        let report = self.peer_report(server)?;
        if let Some(refused) = report.refused.filter(|_| report.failures == 0) {
            let ago = span(self.now_ms().saturating_sub(refused.at_ms));
            let sentence = format!("{} waiting; it refused an event {ago} ago: {}", report.queue, refused.reason);
            return Ok(Finding::new(Grade::Note, "queue", sentence));
        }
        if report.failures == 0 {
            let sentence = match report.queue {
                0 => "nothing waits for it".to_owned(),
                waiting => format!("{waiting} waiting, being sent"),
            };
            return Ok(Finding::new(Grade::Good, "queue", sentence));
        }
        let times =
            if report.failures == 1 { "once".to_owned() } else { format!("{} times in a row", report.failures) };
        let sentence =
            format!("{} waiting; sending failed {times}, the last time because: {}", report.queue, report.reason);
        Ok(Finding::new(Grade::Bad, "queue", sentence))
    }

    /// Rooms that the server is in and whose access control list keeps it out.
    fn acl_findings(self: &Arc<Self>, server: &ServerName) -> Result<Vec<Finding>, Error> {
        let (mut them, mut us) = (Vec::new(), Vec::new());
        let mut shared = 0_usize;
        for (key, _) in self.store.scan(Table::RoomExtremity, &KeyRange::all(), Order::Ascending, MAX_ROOMS)? {
            let Some(room) = KeyReader::new(&key).text() else { continue };
            let Ok(room_id) = <&RoomId>::try_from(room.as_str()) else { continue };
            let Some(room) = self.find_room(room_id)? else { continue };
            if room.has_server(server) {
                shared = shared.saturating_add(1);
                if self.check_server_acl(&room, server).is_err() {
                    them.push(room_id.to_string());
                }
                if self.check_server_acl(&room, &self.server_name).is_err() {
                    us.push(room_id.to_string());
                }
            }
        }
        let mut found = vec![Finding::new(Grade::Good, "rooms", format!("{shared} rooms are shared with it"))];
        for (mut rooms, who) in [(them, "it"), (us, "this server")] {
            let more = rooms.len().saturating_sub(10);
            rooms.truncate(10);
            let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
            if !rooms.is_empty() {
                let sentence = format!("the access control list keeps {who} out of {}{rest}", rooms.join(", "));
                found.push(Finding::new(Grade::Bad, "ACL", sentence));
            }
        }
        Ok(found)
    }
}

/// Why a key document could not be used, for an operator.
fn plain_key_error(server: &ServerName, error: &FetchError) -> String {
    match error {
        FetchError::Peer(PeerError::Status { status, .. }) => {
            format!("it answers {status} to the question for its signing keys (`/_matrix/key/v2/server`)")
        }
        FetchError::Peer(error) => format!("its signing keys cannot be had: {error}"),
        FetchError::NotText | FetchError::Json(_) => {
            "what it publishes is no JSON: perhaps a proxy answers in its place".to_owned()
        }
        FetchError::Document(DocumentError::OtherServer) => {
            format!(
                "its key document names another server than {server}: `server_name` is wrong there, or a proxy leads elsewhere"
            )
        }
        FetchError::Document(error) => format!("its signing keys cannot be used: {error}"),
    }
}

/// What an answer with this status means, and what it says itself, for an operator.
pub(crate) fn plain_status(status: u16, body: &Value) -> String {
    let meaning = match status {
        401 => {
            "it does not believe our signature: it cannot fetch our keys (can it reach this server?), or a clock is wrong"
        }
        403 => "it refuses to speak with this server",
        404 | 405 => "what answers there is no homeserver, or none that federates",
        429 => "it asks to be sent less",
        502..=504 => "a proxy answers that the server behind it is down",
        500..=599 => "something is broken there",
        _ => "it refuses what it was sent",
    };
    let field = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default();
    let said: String =
        [field("errcode"), field("error")].join(" ").chars().filter(|c| !c.is_control()).take(200).collect();
    match said.trim() {
        "" => format!("{meaning} (HTTP status {status})"),
        said => format!("{meaning} (HTTP status {status}). It says: {said}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::plain_status;

    #[test]
    fn a_status_is_explained_and_quoted_without_what_moves_a_terminal() {
        let body = json!({"errcode": "M_FORBIDDEN", "error": "go \u{1b}[2J away"});
        let said = plain_status(403, &body);
        assert_eq!(said, "it refuses to speak with this server (HTTP status 403). It says: M_FORBIDDEN go [2J away");
        assert_eq!(
            plain_status(502, &json!(null)),
            "a proxy answers that the server behind it is down (HTTP status 502)"
        );
    }
}
