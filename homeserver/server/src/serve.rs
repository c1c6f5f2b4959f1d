//! The running server: ready, serving, stopped.

use std::{sync::Arc, time::Duration};

use axum::Router;
use futures_util::future::BoxFuture;
use matron_core::{
    Core,
    ports::{
        Clock, Federation, FederationRequest, IdentityRequest, Letter, OutboundForm, OutboundRequest, PeerError,
        PeerResponse,
    },
};
use matron_net::NetFederation;
use matron_room::SigningKey;
use ruma::{OwnedServerName, ServerName};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tokio_util::task::TaskTracker;

use crate::{
    config::Config,
    data::{self, DataError},
    failure::Failure,
    listener::Prepared,
    logging, monitor, operator, service,
};

/// Serves until SIGINT or SIGTERM, then stops in order: no new connections, requests answered, workers
/// ended, store closed.
///
/// # Errors
/// [`Failure`] when the server cannot come up; once it is up it ends without one.
pub(crate) fn run(config: Config) -> Result<(), Failure> {
    logging::start(&config.server.logging);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("matron")
        .build()
        .map_err(Failure::io("cannot start the runtime"))?;
    runtime.block_on(serve(config))?;
    runtime.shutdown_timeout(Duration::from_secs(2));
    Ok(())
}

async fn serve(config: Config) -> Result<(), Failure> {
    let began = std::time::Instant::now();
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::io("cannot receive signals"))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(Failure::io("cannot receive signals"))?;

    operator::socket::refuse_if_running(&config.server.data_dir)?;
    let core = data::open(&config)?;
    let mut prepared = Vec::new();
    for listen in config.server.all_listeners() {
        prepared.push(Prepared::new(listen, router(&core))?);
    }

    let (stop_listening, listening) = watch::channel(false);
    let (stop_workers, working) = watch::channel(false);
    let workers = tokio::spawn({
        let core = Arc::clone(&core);
        async move { core.run_workers(working).await }
    });
    let connections = TaskTracker::new();
    let operators = operator::socket::Door::open(&config, Arc::clone(&core))?;
    let operators = tokio::spawn(operators.run(listening.clone(), connections.clone()));

    // Binding is the last step: who can connect may rely on an answer.
    let mut listeners = Vec::new();
    for prepared in prepared {
        let bound = prepared.bind().await?;
        tracing::info!(address = %bound.address, "listening");
        listeners.push(tokio::spawn(bound.run(listening.clone(), connections.clone())));
    }
    tracing::info!(
        server.name = %core.server_name,
        engine = core.store.engine(),
        version = env!("CARGO_PKG_VERSION"),
        ready_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        "ready"
    );
    tell_supervisor("READY=1");
    let service = match &config.server.appservice_config {
        Some(path) => Some(tokio::spawn(service::run(service::prepare(path)?, listening.clone()))),
        None => None,
    };

    tokio::select! {
        _ = interrupt.recv() => tracing::info!("stopping at SIGINT"),
        _ = terminate.recv() => tracing::info!("stopping at SIGTERM"),
    }
    tell_supervisor("STOPPING=1");
    let patience = Duration::from_millis(config.server.stop_timeout_ms);
    let orderly = async {
        let _ = stop_listening.send(true);
        for listener in listeners {
            let _ = listener.await;
        }
        let _ = operators.await;
        if let Some(service) = service {
            let _ = service.await;
        }
        connections.close();
        if tokio::time::timeout(patience, connections.wait()).await.is_err() {
            tracing::warn!(open = connections.len(), "some requests were not answered in time");
        }
        let _ = stop_workers.send(true);
        if tokio::time::timeout(patience, workers).await.is_err() {
            tracing::warn!("some workers did not end in time");
        }
    };
    tokio::select! {
        () = orderly => {}
        _ = interrupt.recv() => tracing::warn!("stopping at once at a second signal"),
        _ = terminate.recv() => tracing::warn!("stopping at once at a second signal"),
    }
    // Everything acknowledged is durable already; this only ends the committer in order.
    let store = Arc::clone(&core.store);
    let _ = tokio::task::spawn_blocking(move || store.close()).await;
    tracing::info!("stopped");
    Ok(())
}

/// Everything that this server serves: the Matrix APIs, `/health` and `/metrics`.
fn router(core: &Arc<Core>) -> Router {
    monitor::routes(Arc::clone(core)).fallback_service(matron_api::router(Arc::clone(core)))
}

/// Resolves when `stop` turns true, or when nobody can turn it any more.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Tells systemd, if it started us (`NOTIFY_SOCKET`), what it waits for.
fn tell_supervisor(state: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let sent = std::os::unix::net::UnixDatagram::unbound().and_then(|socket| socket.send_to(state.as_bytes(), path));
    if let Err(error) = sent {
        tracing::warn!(%error, "the supervisor could not be told");
    }
}

/// The way to other servers, or only to configured services when federation is switched off.
///
/// # Errors
/// [`DataError::Net`] naming the setting that is no good.
pub(crate) fn federation(
    config: &Config,
    server_name: &OwnedServerName,
    signing_key: &Arc<SigningKey>,
    clock: &Arc<dyn Clock>,
) -> Result<Arc<dyn Federation>, DataError> {
    let net = NetFederation::new(config.net.clone(), server_name.clone(), Arc::clone(signing_key), Arc::clone(clock))?;
    Ok(if config.settings.federation { Arc::new(net) } else { Arc::new(Alone(net)) })
}

/// A server that reaches configured services, and no other homeserver.
#[derive(Debug)]
struct Alone(NetFederation);

impl Federation for Alone {
    fn request(&self, _request: FederationRequest) -> BoxFuture<'_, Result<PeerResponse, PeerError>> {
        Box::pin(async { Err(PeerError::Resolve("federation is switched off".to_owned())) })
    }

    fn outbound(&self, request: OutboundRequest) -> BoxFuture<'_, Result<PeerResponse, PeerError>> {
        self.0.outbound(request)
    }

    fn outbound_form(&self, form: OutboundForm) -> BoxFuture<'_, Result<PeerResponse, PeerError>> {
        self.0.outbound_form(form)
    }

    fn identity(&self, request: IdentityRequest) -> BoxFuture<'_, Result<PeerResponse, PeerError>> {
        self.0.identity(request)
    }

    fn mail(&self, letter: Letter) -> BoxFuture<'_, Result<(), PeerError>> {
        self.0.mail(letter)
    }

    fn heard_from(&self, _server: &ServerName) {}
}
