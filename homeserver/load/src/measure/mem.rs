//! Memory of an idle server before and after messages, CPU time for a thousand of them, and CPU time of the idle server.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;

use super::Measured;
use super::send::{Room, load};
use crate::error::LoadError;
use crate::figures::rounded;
use crate::process::{CpuWatch, Processes};
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
    let idle_s = idle_cpu_s_per_min(&stage.processes, settle).await;
    let before = stage.processes.memory();
    let meter = stage.meter();
    let sent = load(stage, sizes.senders.get(), messages, &[room], "m").await;
    let during = stage.processes.memory();
    let cpu = meter.stop(messages, stage.options.tail()).await;
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
            "sends_per_s": sent.per_second(),
            "errors": sent.errors,
            "cpu": cpu.json(),
        }),
    })
}

/// What the processes use of a minute when nothing is asked of them.
pub(super) async fn idle_cpu_s_per_min(processes: &Processes, over: Duration) -> f64 {
    let watch = CpuWatch::start(processes);
    let began = Instant::now();
    tokio::time::sleep(over).await;
    watch.used().seconds / began.elapsed().as_secs_f64().max(1e-3) * 60.0
}
