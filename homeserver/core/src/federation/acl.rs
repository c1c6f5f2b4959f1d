//! Server access control lists (Client-Server API, "Server Access Control Lists").

use ruma::ServerName;
use serde_json::Value;

use crate::{Core, Error, rooms::Room};

/// The state that holds a room's list.
const KIND: &str = "m.room.server_acl";

/// What a room's list says.
#[derive(Debug)]
struct Acl {
    allow: Vec<String>,
    deny: Vec<String>,
    allow_ip_literals: bool,
}

impl Acl {
    /// The list as its content says it. A field of another form counts as missing, and so does an entry that is no text: one
    /// slip never opens a room, nor lets in whom the rest of the list keeps out.
    ///
    /// SPEC: v1.19 `m.room.server_acl`: IP literals are allowed unless that is `false`; nobody is, without `allow`.
    fn from_content(content: &Value) -> Self {
        let patterns = |field: &str| -> Vec<String> {
            let list = content.get(field).and_then(Value::as_array);
            list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        Self {
            allow: patterns("allow"),
            deny: patterns("deny"),
            allow_ip_literals: content.get("allow_ip_literals").and_then(Value::as_bool).unwrap_or(true),
        }
    }

    /// Whether the server may take part, whatever its port.
    fn admits(&self, server: &ServerName) -> bool {
        let host = server.host();
        if server.is_ip_literal() && !self.allow_ip_literals {
            return false;
        }
        let among = |patterns: &[String]| patterns.iter().any(|pattern| glob(pattern, host));
        !among(&self.deny) && among(&self.allow)
    }
}

impl Core {
    /// Nothing, if the room's access control list lets the server in.
    ///
    /// # Errors
    /// [`Error::Forbidden`] if not.
    pub fn check_server_acl(&self, room: &Room, server: &ServerName) -> Result<(), Error> {
        let acl = room.lock().state_pdu(self, KIND, "")?;
        if acl.is_none_or(|acl| Acl::from_content(&acl.content_value()).admits(server)) {
            return Ok(());
        }
        Err(Error::forbidden("the room's access control list keeps your server out"))
    }
}

/// Whether the text matches a pattern of `*` (anything) and `?` (one character), case aside.
#[must_use]
pub fn glob(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.to_lowercase().chars().collect();
    let text: Vec<char> = text.to_lowercase().chars().collect();
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == '?' || Some(c) == text.get(t) => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    p = at + 1;
                    t = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern.get(p..).is_some_and(|rest| rest.iter().all(|c| *c == '*'))
}

#[cfg(test)]
mod tests {
    use ruma::ServerName;
    use serde_json::{Value, json};

    use super::{Acl, glob};

    fn admits(content: &Value, server: &str) -> bool {
        Acl::from_content(content).admits(<&ServerName>::try_from(server).unwrap())
    }

    #[test]
    fn a_server_is_denied_before_it_is_allowed_and_without_its_port() {
        let list = json!({"allow": ["*.nhs.example", "10.*", "[*]"], "deny": ["Evil.*"]});
        for (server, expected) in [
            ("ward.nhs.example", true),
            ("WARD.nhs.example:8448", true),
            ("evil.nhs.example", false),
            ("evil.nhs.example:1234", false),
            ("nhs.example", false),
            ("10.0.0.1", true),
            ("10.0.0.1:8448", true),
            ("11.0.0.1", false),
            ("[::1]:8448", true),
        ] {
            assert_eq!(admits(&list, server), expected, "{server}");
        }
    }

    #[test]
    fn ip_literals_are_kept_out_by_false_alone() {
        for (said, expected) in [(json!(false), false), (json!(true), true), (json!("false"), true), (json!(0), true)] {
            let list = json!({"allow": ["*"], "allow_ip_literals": said});
            for server in ["127.0.0.1", "127.0.0.1:8448", "[::1]", "[2001:db8::1]:8448"] {
                assert_eq!(admits(&list, server), expected, "{server} {said}");
            }
            assert!(admits(&list, "1.2.3.4.example"));
        }
    }

    #[test]
    fn a_list_of_another_form_opens_nothing() {
        for list in [
            json!({}),
            json!({"allow": "*"}),
            json!({"allow": [1, null]}),
            json!({"allow": {"0": "*"}}),
            json!({"allow": ["*"], "deny": ["good.example", 7]}),
            json!({"allow": ["*", false], "deny": ["*"], "allow_ip_literals": "no"}),
        ] {
            assert!(!admits(&list, "good.example"), "{list}");
        }
        assert!(admits(&json!({"allow": ["*", 7], "deny": "good.example"}), "good.example"));
    }

    #[test]
    fn stars_and_question_marks_match() {
        for (pattern, text, expected) in [
            ("*", "trust.example", true),
            ("*.example", "trust.example", true),
            ("*.EXAMPLE", "trust.example", true),
            ("t?ust.example", "trust.example", true),
            ("t?ust.example", "thrust.example", false),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyy", false),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(glob(pattern, text), expected, "{pattern} {text}");
        }
    }
}
