//! What a failure of the network means, in words that tell an operator what to look at.

use std::io;

use matron_core::ports::PeerError;

/// A part of what the TLS library says, and what it means.
const OF_TLS: &[(&str, &str)] = &[
    ("NotValidYet", "its TLS certificate is not valid yet: it is too new, or a clock is wrong"),
    ("not valid yet", "its TLS certificate is not valid yet: it is too new, or a clock is wrong"),
    ("NotValidForName", "its TLS certificate is for another name"),
    ("not valid for name", "its TLS certificate is for another name"),
    ("Expired", "its TLS certificate has expired"),
    ("expired", "its TLS certificate has expired"),
    (
        "UnknownIssuer",
        "its TLS certificate is from an authority that this machine does not know: name it in `federation.ca_files`",
    ),
    (
        "BadSignature",
        "its TLS certificate is not from the authority that it names: perhaps that has a new key, which belongs in \
         `federation.ca_files`",
    ),
    (
        "CaUsedAsEndEntity",
        "its TLS certificate is an authority's, and not a server's: one that signs itself must be made with `CA:FALSE`",
    ),
    ("invalid peer certificate", "its TLS certificate is not acceptable"),
    ("corrupt message", "what answers there does not speak TLS"),
    ("UnrecognisedName", "what answers there knows no such name"),
    ("UnrecognizedName", "what answers there knows no such name"),
    ("ProtocolVersion", "it speaks only versions of TLS that are not safe any more"),
    ("PeerIncompatible", "it speaks only versions or ciphers of TLS that are not safe any more"),
    ("handshake eof", "it closes the connection before TLS stands"),
    ("reset", "it closes the connection before TLS stands"),
];

/// TLS was not agreed upon.
pub(crate) fn tls(error: &io::Error) -> PeerError {
    let said = error.to_string();
    let meaning = OF_TLS.iter().find(|(part, _)| said.contains(part)).map(|(_, meaning)| *meaning);
    PeerError::Connect(match meaning {
        Some(meaning) => format!("TLS: {meaning} ({said})"),
        None => format!("TLS: {said}"),
    })
}

/// Somebody accepted the connection and did not go on with TLS.
pub(crate) fn mute() -> PeerError {
    PeerError::Connect("TLS: it accepts the connection and says nothing in time".to_owned())
}

/// No address accepted a connection.
pub(crate) fn tcp(error: &io::Error) -> PeerError {
    let meaning = match error.kind() {
        io::ErrorKind::ConnectionRefused => "nobody listens there, or a firewall refuses",
        io::ErrorKind::TimedOut => return nobody(),
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => "no way leads there from this machine",
        kind => return PeerError::Connect(kind.to_string()),
    };
    PeerError::Connect(format!("{meaning} ({})", error.kind()))
}

/// No address answered.
pub(crate) fn nobody() -> PeerError {
    PeerError::Connect("nobody answers there in time, or a firewall drops what is sent".to_owned())
}

/// DNS gave no answer.
pub(crate) fn dns(name: &str, error: Option<&io::Error>) -> PeerError {
    PeerError::Resolve(match error {
        Some(error) => format!("DNS: {name} cannot be looked up: {error}"),
        None => format!("DNS: no answer about {name} in time"),
    })
}

/// DNS knows no address.
pub(crate) fn no_address(name: &str) -> PeerError {
    PeerError::Resolve(format!("DNS: {name} has no address"))
}
