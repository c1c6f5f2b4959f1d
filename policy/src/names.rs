//! Names that Matrix and the register use: user ids, server names, short codes.

/// The longest user id, room id or event type that the specification allows, in bytes.
pub const MAX_ID_BYTES: usize = 255;
/// The longest code, serial, profession or role, in bytes.
pub const MAX_CODE_BYTES: usize = 64;

/// The server part of a user id: all after the first colon. `None` if it is no user id.
#[must_use]
pub fn server_of(user_id: &str) -> Option<&str> {
    if user_id.len() > MAX_ID_BYTES {
        return None;
    }
    let (_, server) = user_id.strip_prefix('@')?.split_once(':')?;
    is_server_name(server).then_some(server)
}

/// Whether this can be a server name: host or IP literal, with or without a port, in lower case.
#[must_use]
pub fn is_server_name(name: &str) -> bool {
    let host = host_of(name);
    let port_is_sound = match name.get(host.len()..) {
        None | Some("") => true,
        Some(rest) => rest
            .strip_prefix(':')
            .is_some_and(|port| (1..=5).contains(&port.len()) && port.bytes().all(|b| b.is_ascii_digit())),
    };
    let host_is_sound = match host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')) {
        Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.')),
    };
    name.len() <= 230 && host_is_sound && port_is_sound
}

/// The server name without its port, the form in which `m.room.server_acl` names servers.
#[must_use]
pub fn host_of(server_name: &str) -> &str {
    let end = if server_name.starts_with('[') {
        server_name.find(']').map_or(server_name.len(), |at| at + 1)
    } else {
        server_name.find(':').unwrap_or(server_name.len())
    };
    server_name.get(..end).unwrap_or(server_name)
}

/// Whether the host is an IP address rather than a name.
#[must_use]
pub fn is_ip_literal(host: &str) -> bool {
    host.starts_with('[') || host.parse::<std::net::Ipv4Addr>().is_ok()
}

/// Whether this can be a code, serial, key id, profession or role: 1 to 64 visible ASCII letters, digits or `._:/+-`.
#[must_use]
pub fn is_code(code: &str) -> bool {
    (1..=MAX_CODE_BYTES).contains(&code.len())
        && code.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'/' | b'+' | b'-'))
}

/// Whether `user_id` is the one that `pattern` names. A `*` may end the local part: `@lab-*:trust.example`.
#[must_use]
pub fn user_matches(pattern: &str, user_id: &str) -> bool {
    let Some((pattern_local, pattern_server)) = pattern.split_once(':') else {
        return false;
    };
    let Some((local, server)) = user_id.split_once(':') else {
        return false;
    };
    if pattern_server != server {
        return false;
    }
    match pattern_local.strip_suffix('*') {
        Some(prefix) => local.starts_with(prefix),
        None => local == pattern_local,
    }
}
