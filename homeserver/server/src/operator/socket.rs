//! The operators' socket: a Unix socket in the data directory that only the server's own user can use.

use std::{
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use matron_core::Core;
use tokio::{
    net::{UnixListener, UnixStream},
    sync::watch,
};
use tokio_util::task::TaskTracker;

use crate::{
    config::Config,
    data::{DataError, Layout},
    failure::Failure,
    serve::stopped,
};

/// The longest path that a Unix socket's address can hold on Linux, without its end mark.
const MAX_SOCKET_PATH: usize = 107;

/// The socket, bound, and what it leads to.
pub(crate) struct Door {
    socket: UnixListener,
    path: PathBuf,
    router: axum::Router,
}

/// Refuses when another server serves this data directory.
///
/// # Errors
/// [`Failure::CheckFailed`] when one answers.
pub(crate) fn refuse_if_running(data_dir: &Path) -> Result<(), Failure> {
    let reached = reachable(data_dir).and_then(|address| std::os::unix::net::UnixStream::connect(address.path()));
    match reached {
        Ok(_) => Err(Failure::CheckFailed(format!("a server is running on {} already", data_dir.display()))),
        Err(_) => Ok(()),
    }
}

/// A connection to the server that runs on this data directory, or `None` when none does.
///
/// # Errors
/// The operating system's refusal, such as missing permission.
pub(crate) async fn connect(data_dir: &Path) -> io::Result<Option<UnixStream>> {
    let address = match reachable(data_dir) {
        Ok(address) => address,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match UnixStream::connect(address.path()).await {
        Ok(stream) => Ok(Some(stream)),
        // Left behind by a server that was killed.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => Ok(None),
        Err(error) => Err(error),
    }
}

impl Door {
    /// The socket exists with mode 0600; what a killed server left behind is replaced.
    ///
    /// # Errors
    /// [`DataError::Io`]; the caller has made sure that no other server runs here.
    pub(crate) fn open(config: &Config, core: Arc<Core>) -> Result<Self, DataError> {
        let path = Layout(&config.server.data_dir).socket();
        let bind = || -> io::Result<UnixListener> {
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let socket = UnixListener::bind(reachable(&config.server.data_dir)?.path())?;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
            Ok(socket)
        };
        let socket = bind().map_err(|source| DataError::Io { path: path.clone(), source })?;
        Ok(Self { socket, path, router: super::router(core, Arc::new(config.clone())) })
    }

    /// Answers operators until `stop` turns true.
    pub(crate) async fn run(self, mut stop: watch::Receiver<bool>, connections: TaskTracker) {
        loop {
            let stream = tokio::select! {
                () = stopped(&mut stop) => break,
                accepted = self.socket.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        tracing::warn!(%error, "an operator's connection could not be accepted");
                        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                        continue;
                    }
                },
            };
            if !is_ours(&stream) {
                continue;
            }
            let service = TowerToHyperService::new(self.router.clone());
            connections.spawn(async move {
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .keep_alive(false)
                    .serve_connection(TokioIo::new(stream), service);
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "an operator's connection ended early");
                }
            });
        }
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The socket's mode is set after it is bound; its callers are checked as well.
fn is_ours(stream: &UnixStream) -> bool {
    let own = rustix::process::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == own || peer.uid() == 0)
}

/// A socket's address may hold about a hundred bytes; through an open folder any path is short enough.
struct Address {
    path: PathBuf,
    _folder: Option<std::fs::File>,
}

impl Address {
    fn path(&self) -> &Path {
        &self.path
    }
}

fn reachable(data_dir: &Path) -> io::Result<Address> {
    use std::os::fd::AsRawFd as _;

    let path = Layout(data_dir).socket();
    if path.as_os_str().len() <= MAX_SOCKET_PATH {
        return Ok(Address { path, _folder: None });
    }
    let folder = std::fs::File::open(data_dir)?;
    let short = PathBuf::from(format!("/proc/self/fd/{}/operator.sock", folder.as_raw_fd()));
    Ok(Address { path: short, _folder: Some(folder) })
}
