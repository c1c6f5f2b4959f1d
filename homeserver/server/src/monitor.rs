//! `/health` for supervisors and load balancers, `/metrics` for Prometheus.

use std::{fmt::Write as _, sync::Arc};

use axum::{
    Router,
    extract::State,
    response::{IntoResponse as _, Response},
    routing::get,
};
use http::{StatusCode, header::CONTENT_TYPE};
use matron_core::Core;
use matron_storage::{Key, Table};

/// `GET /health` and `GET /metrics`.
pub(crate) fn routes(core: Arc<Core>) -> Router {
    Router::new().route("/health", get(health)).route("/metrics", get(metrics)).with_state(core)
}

/// 200 while the store answers, else 503.
async fn health(State(core): State<Arc<Core>>) -> Response {
    let probe = Key::new().text("health");
    let (status, body) = match core.store.get(Table::ServerMeta, probe.as_bytes()) {
        Ok(_) => (StatusCode::OK, r#"{"status":"ok"}"#),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, r#"{"status":"the database does not answer"}"#),
    };
    (status, [(CONTENT_TYPE, "application/json")], body).into_response()
}

/// Everything that is counted, in Prometheus' text form.
async fn metrics(State(core): State<Arc<Core>>) -> Response {
    let mut text = String::new();
    write_process(&mut text);
    gauge(&mut text, "matron_store_position", "Position of the last commit in the stream.", core.position().0);
    gauge(&mut text, "matron_rooms_open", "Rooms held in memory.", core.rooms.open_count());
    gauge(
        &mut text,
        "matron_outbox_waiting",
        "Destinations that failed and are tried again later.",
        core.outbox.waiting_count(),
    );
    text.push_str(&matron_api::metrics::render());
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

fn gauge(text: &mut String, name: &str, help: &str, value: impl std::fmt::Display) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}");
}

/// The process as Linux sees it; nothing where `/proc` is not there.
fn write_process(text: &mut String) {
    if let Ok(status) = std::fs::read_to_string("/proc/self/status") {
        let field = |name: &str| -> Option<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim_start_matches(':').split_whitespace().next()?.parse().ok()
        };
        if let Some(kib) = field("VmRSS") {
            gauge(text, "process_resident_memory_bytes", "Resident memory.", kib.saturating_mul(1024));
        }
        if let Some(threads) = field("Threads") {
            gauge(text, "process_threads", "Threads.", threads);
        }
    }
    if let Some(seconds) = cpu_seconds() {
        let name = "process_cpu_seconds_total";
        let _ = writeln!(text, "# HELP {name} Processor time used.\n# TYPE {name} counter\n{name} {seconds:.2}");
    }
    if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
        gauge(text, "process_open_fds", "Open file descriptors.", files.count());
    }
}

/// User and system time. Linux reports it in hundredths of a second to every program, whatever its own tick.
fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let (_, after_name) = stat.rsplit_once(") ")?;
    let mut fields = after_name.split_whitespace().skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    Some((f64::from(user) + f64::from(system)) / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_is_measured_where_proc_is() {
        let mut text = String::new();
        write_process(&mut text);
        assert!(text.contains("process_resident_memory_bytes "), "{text}");
        assert!(text.contains("process_cpu_seconds_total "), "{text}");
    }
}
