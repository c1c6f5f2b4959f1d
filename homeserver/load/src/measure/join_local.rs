//! Many join one public room of their own server. That the last join is as quick as the first shows in the groups.

use std::num::NonZeroUsize;

use clap::Args;
use serde_json::json;

use super::Measured;
use crate::client::RequestError;
use crate::error::LoadError;
use crate::figures::{per_second, sorted};
use crate::stage::Stage;

#[derive(Debug, Args)]
pub(crate) struct Sizes {
    #[arg(long, default_value = "300")]
    users: NonZeroUsize,
    /// How many join at once
    #[arg(long, default_value = "4")]
    concurrency: NonZeroUsize,
    /// How many are the first and the last, which are compared
    #[arg(long, default_value = "100")]
    group: NonZeroUsize,
}

pub(super) async fn measure(stage: &Stage<'_>, sizes: &Sizes) -> Result<Measured, LoadError> {
    let count = sizes.users.get();
    let users = stage.users(count + 1).await?;
    let [owner, others @ ..] = users.as_slice() else {
        return Err(RequestError::missing("user").into());
    };
    let room = stage.a.create_room(owner, "load: join").await?;
    let meter = stage.meter();
    let joined = stage.join_all(others, &room, sizes.concurrency.get()).await;
    let cpu = meter.stop(joined.succeeded(), stage.options.tail()).await;
    let (first, last) = first_and_last(&joined.ended_s, sizes.group.get())
        .unwrap_or_else(|| (joined.per_second(), joined.per_second()));
    Ok(Measured {
        sizes: json!({
            "users": count, "concurrency": sizes.concurrency, "group": sizes.group,
            "room_version": stage.a.room_version(owner, &room).await,
        }),
        summary: format!(
            "{count} users: {:.1} joins/s, the first group {first:.1}, the last {last:.1}, CPU ms a join {}, errors {}",
            joined.per_second(),
            cpu.each(),
            joined.errors,
        ),
        result: json!({
            "joins_per_s": joined.per_second(),
            "first_group_per_s": first,
            "last_group_per_s": last,
            "latency": joined.latency(),
            "cpu": cpu.json(),
            "errors": joined.errors,
            "first_error": joined.first_error(),
            "joined_members_after": stage.a.count_joined(owner, &room).await?,
        }),
    })
}

/// How many of the first `group` and of the last ended a second; none where there are not more than one group.
fn first_and_last(ended_s: &[f64], group: usize) -> Option<(f64, f64)> {
    let ended_s = sorted(ended_s);
    let last_s = ended_s.last()?;
    let first_group_s = ended_s.get(group.checked_sub(1)?)?;
    let before_last_group_s = ended_s.get(ended_s.len().checked_sub(group + 1)?)?;
    Some((per_second(group, *first_group_s), per_second(group, last_s - before_last_group_s)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_told_apart_by_when_they_ended() {
        // Two a second at first, one a second at last, out of order.
        let ended_s = [5.0, 0.5, 1.0, 4.0, 2.0, 3.0];
        assert_eq!(first_and_last(&ended_s, 2), Some((2.0, 1.0)));
    }

    #[test]
    fn one_group_is_not_compared() {
        assert_eq!(first_and_last(&[1.0, 2.0], 2), None);
        assert_eq!(first_and_last(&[], 1), None);
    }
}
