//! Server access control lists (Client-Server API, "Server Access Control Lists").

use ruma::ServerName;
use serde::Deserialize;

use crate::{Core, Error, rooms::Room};

#[derive(Deserialize)]
struct Acl {
    #[serde(default)]
    allow: Vec<String>,
    #[serde(default)]
    deny: Vec<String>,
    #[serde(default = "yes")]
    allow_ip_literals: bool,
}

fn yes() -> bool {
    true
}

impl Core {
    /// Nothing, if the room's access control list lets the server in.
    ///
    /// # Errors
    /// [`Error::Forbidden`] if not.
    pub fn check_server_acl(&self, room: &Room, server: &ServerName) -> Result<(), Error> {
        let acl: Option<Acl> = room.lock().state_content(self, "m.room.server_acl", "")?;
        let Some(acl) = acl else { return Ok(()) };
        let host = server.host().to_string();
        let literal = host.parse::<std::net::Ipv4Addr>().is_ok() || host.starts_with('[');
        let denied = (literal && !acl.allow_ip_literals)
            || acl.deny.iter().any(|pattern| glob(pattern, &host))
            || !acl.allow.iter().any(|pattern| glob(pattern, &host));
        if denied { Err(Error::forbidden("the room's access control list keeps your server out")) } else { Ok(()) }
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
    use super::glob;

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
