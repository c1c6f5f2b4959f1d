//! Memory of an idle server before and after messages, CPU time for a thousand of them, and CPU time of the idle server.

use std::num::NonZeroUsize;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::Measured;
use super::send::{Room, load};
use crate::error::LoadError;
use crate::figures::rounded;
use crate::stage::Stage;

/// What the preparation set off is over.
const LEAD: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
pub(crate) struct Sizes {
    #[arg(long, default_value = "1000")]
    messages: NonZeroUsize,
    #[arg(long, default_value = "50")]
    users: NonZeroUsize,
    /// How many send at once
    #[arg(long, default_value = "10")]
    senders: NonZeroUsize,
    /// Seconds of idleness before each reading
    #[arg(long, default_value_t = 10)]
    settle_s: u64,
}

pub(super) async fn measure(stage: &Stage<'_>, sizes: &Sizes) -> Result<Measured, LoadError> {
    if !stage.processes.any() {
        return Err(LoadError::Process);
    }
    let (messages, settle) = (sizes.messages.get(), Duration::from_secs(sizes.settle_s));
    let members = stage.users(sizes.users.get()).await?;
    let room = Room { id: stage.room_of(&members, "load: memory").await?, members };
    tokio::time::sleep(LEAD).await;
    let idle = watch_idle(stage, settle).await;
    let idle_s = idle.cpu_s_per_min;
    let before = stage.processes.memory();
    let meter = stage.meter();
    let sent = load(stage, sizes.senders.get(), messages, &[room], "m").await;
    let during = stage.processes.memory();
    let cpu = meter.stop(sent.succeeded(), stage.options.tail()).await;
    tokio::time::sleep(settle).await;
    let after = stage.processes.memory();
    let per_1000_s = cpu.get("server_cpu_ms_per_op").map(rounded);
    Ok(Measured {
        sizes: json!({
            "messages": messages, "users": sizes.users, "senders": sizes.senders, "settle_s": sizes.settle_s,
        }),
        summary: format!(
            "resident {} MiB, then {} (share {}, then {}), CPU ms a send {}, idle {idle_s:.2} CPU s a minute",
            before["rss_mib"],
            after["rss_mib"],
            before["pss_mib"],
            after["pss_mib"],
            cpu.each(),
        ),
        result: json!({
            "before": before,
            "end_of_load": during,
            "after_idle": after,
            // Milliseconds for one are seconds for a thousand.
            "cpu_s_per_1000_sends": per_1000_s,
            "idle_cpu_s_per_min": rounded(idle_s),
            "idle": {"foreign_cores": idle.foreign_cores},
            "sends_per_s": sent.per_second(),
            "errors": sent.errors,
            "cpu": cpu.json(),
        }),
    })
}

/// What a server used while nothing was asked of it.
pub(super) struct Idle {
    /// Of a minute.
    pub(super) cpu_s_per_min: f64,
    /// What others took meanwhile.
    pub(super) foreign_cores: Option<f64>,
}

/// Watches the server do nothing for so long.
pub(super) async fn watch_idle(stage: &Stage<'_>, over: Duration) -> Idle {
    let meter = stage.meter();
    tokio::time::sleep(over).await;
    let cost = meter.stop(0, Duration::ZERO).await;
    let of = |figure| cost.get(figure).unwrap_or_default();
    let cpu_s_per_min = of("server_cpu_s") / of("phase_wall_s").max(1e-3) * 60.0;
    Idle { cpu_s_per_min, foreign_cores: cost.foreign_cores() }
}
