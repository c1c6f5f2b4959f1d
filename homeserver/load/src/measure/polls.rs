//! Memory and CPU time of a server at which many wait in `/sync` while nothing happens.
//!
//! A poll is a connection on which a request was written and nothing has come back: there is no client around it that
//! would cost the generator more than the server.

use std::num::NonZeroUsize;
use std::time::Duration;

use clap::Args;
use futures_util::future::try_join_all;
use hyper::Uri;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::Measured;
use super::mem::watch_idle;
use crate::client::SyncRequest;
use crate::error::LoadError;
use crate::figures::rounded;
use crate::stage::Stage;

/// How many connections are opened at once, and the pause after them: a server's queue of new ones is short.
const BATCH: usize = 100;
const PAUSE: Duration = Duration::from_millis(10);
/// The last polls reached the server, and nothing of their start is left to do.
const SETTLE: Duration = Duration::from_secs(5);
/// What else this process has open.
const OTHER_FILES: u64 = 1_000;

#[derive(Debug, Args)]
pub(crate) struct Sizes {
    #[arg(long, default_value = "10000")]
    polls: NonZeroUsize,
    /// How many users they are of
    #[arg(long, default_value = "100")]
    users: NonZeroUsize,
    /// How long the server is watched while they wait, in seconds
    #[arg(long, default_value = "10")]
    idle_s: NonZeroUsize,
}

pub(super) async fn measure(stage: &Stage<'_>, sizes: &Sizes) -> Result<Measured, LoadError> {
    if !stage.processes.any() {
        return Err(LoadError::Process);
    }
    let polls = sizes.polls.get();
    let target = Target::of(stage.a.base())?;
    // Those of other measures are in rooms, whose memory is no poll's.
    let users = stage.new_users(&stage.a, "poll", sizes.users.get()).await?;
    let first = SyncRequest { presence: stage.options.presence, filter: None, timeout_ms: 0 };
    let idle = Duration::from_secs(u64::try_from(sizes.idle_s.get()).unwrap_or(u64::MAX));
    // Far longer than it is watched.
    let long = SyncRequest { timeout_ms: 120_000, ..first.clone() };
    let mut requests = Vec::new();
    for user in &users {
        let since = stage.a.catch_up(user, &first).await?;
        requests.push(target.request(&long.path(Some(&since)), &user.access_token));
    }
    allow_connections(u64::try_from(polls).unwrap_or(u64::MAX));
    let before = stage.processes.memory();
    let waiting = open(&target.address, &requests, polls).await?;
    tokio::time::sleep(SETTLE).await;
    let idle = watch_idle(stage, idle).await;
    let idle_s = idle.cpu_s_per_min;
    let answered = waiting.iter().filter(|connection| answered(connection)).count();
    let during = stage.processes.memory();
    Ok(Measured {
        sizes: json!({"polls": polls, "users": users.len()}),
        summary: format!(
            "resident {} MiB, with {polls} polls {}, idle {idle_s:.2} CPU s a minute, answered {answered}",
            before["rss_mib"], during["rss_mib"],
        ),
        result: json!({
            "before": before,
            "during": during,
            "idle_cpu_s_per_min": rounded(idle_s),
            "foreign_cores": idle.foreign_cores,
            "answered": answered,
        }),
    })
}

/// Where an http URL leads.
#[derive(Debug, PartialEq)]
struct Target {
    /// HOST:PORT.
    address: String,
    /// What every path begins with, without a slash at the end.
    prefix: String,
}

impl Target {
    fn of(base: &str) -> Result<Self, LoadError> {
        let wrong = || LoadError::Url(base.to_owned());
        let uri: Uri = base.parse().map_err(|_| wrong())?;
        let host = uri.host().filter(|_| uri.scheme_str() == Some("http")).ok_or_else(wrong)?;
        let address = format!("{host}:{}", uri.port_u16().unwrap_or(80));
        Ok(Self { address, prefix: uri.path().trim_end_matches('/').to_owned() })
    }

    /// The text of a request for `path`.
    fn request(&self, path: &str, token: &str) -> String {
        let Self { address, prefix } = self;
        format!("GET {prefix}{path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n\r\n")
    }
}

/// This process may hold that many connections, if the system lets it.
fn allow_connections(connections: u64) {
    let limit = getrlimit(Resource::Nofile);
    let wanted = connections.saturating_add(OTHER_FILES);
    let allowed = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
    if limit.current.is_some_and(|current| current < allowed) {
        // Where it may not, opening the connections says so.
        let _refused = setrlimit(Resource::Nofile, Rlimit { current: Some(allowed), maximum: limit.maximum });
    }
}

/// Connections on which the requests were written, by turns.
async fn open(address: &str, requests: &[String], polls: usize) -> Result<Vec<TcpStream>, LoadError> {
    let poll = async |request: &String| {
        let mut connection = TcpStream::connect(address).await?;
        connection.write_all(request.as_bytes()).await?;
        Ok(connection)
    };
    let mut requests = requests.iter().cycle().take(polls);
    let mut waiting = Vec::with_capacity(polls);
    while waiting.len() < polls {
        let batch = try_join_all(requests.by_ref().take(BATCH).map(poll)).await.map_err(LoadError::Connection)?;
        waiting.extend(batch);
        tokio::time::sleep(PAUSE).await;
    }
    Ok(waiting)
}

/// Did anything come back, if only the end of the connection?
fn answered(connection: &TcpStream) -> bool {
    connection.try_read(&mut [0]).map_or_else(|error| error.kind() != std::io::ErrorKind::WouldBlock, |_| true)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn an_address_has_a_port() {
        assert_eq!(Target::of("http://127.0.0.1:8008").unwrap().address, "127.0.0.1:8008");
        assert_eq!(Target::of("http://hs.example").unwrap().address, "hs.example:80");
        for wrong in ["https://hs.example", "hs.example", "http://"] {
            assert!(matches!(Target::of(wrong), Err(LoadError::Url(_))), "{wrong}");
        }
    }

    #[test]
    fn the_path_of_the_url_comes_before_every_other() {
        let request = |base| Target::of(base).unwrap().request("/sync?timeout=1", "t");
        let rest = "/sync?timeout=1 HTTP/1.1\r\nhost: h:80\r\nauthorization: Bearer t\r\n\r\n";
        assert_eq!(request("http://h"), format!("GET {rest}"));
        assert_eq!(request("http://h/behind/proxy/"), format!("GET /behind/proxy{rest}"));
    }

    #[tokio::test]
    async fn polls_wait_until_something_comes_back() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let requests = ["a".to_owned(), "b".to_owned()];
        let waiting = open(&address, &requests, 3).await.unwrap();
        assert!(waiting.iter().all(|connection| !answered(connection)));
        let mut texts = Vec::new();
        for _ in 0..3 {
            let (mut connection, _) = listener.accept().await.unwrap();
            texts.push(connection.read_u8().await.unwrap());
            connection.write_all(b"HTTP").await.unwrap();
        }
        texts.sort_unstable();
        assert_eq!(texts, *b"aab");
        for connection in &waiting {
            connection.readable().await.unwrap();
            assert!(answered(connection));
        }
    }
}
