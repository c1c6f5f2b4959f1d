//! A revoked clinician is out, on both servers.

use std::time::{Duration, Instant};

use matrix_sdk::ruma::RoomId;
use serde_json::Value;

use crate::{
    clinician::Clinician,
    story::{Step, Story, fail},
    world::{RIVER, World, encode},
};

pub(crate) async fn revoke(
    story: &Story,
    world: &World,
    room: &RoomId,
    serial: &str,
    amira: &Clinician,
    chidi: &Clinician,
) -> Step {
    let key = world.river.plan.directory.join("credential.key").display().to_string();
    let began = Instant::now();
    world.river.operate(&["credential", "revoke", serial, "--organisation", "RVS", "--key", &key], None)?;
    story.evidence(format!("Riverside revoked credential {serial}"));
    let path = format!("/_matrix/client/v3/rooms/{}/state/m.room.member/%40ben%3A{RIVER}", encode(room.as_str()));
    for (trust, person) in [(&world.river, chidi), (&world.north, amira)] {
        loop {
            let (status, member) = world.get(trust, &path, &person.token()).await?;
            let membership = member.get("membership").and_then(Value::as_str).unwrap_or_default();
            if status == 200 && membership != "join" {
                story.evidence(format!(
                    "{} holds @ben:{RIVER} as \"{membership}\" after {} ms",
                    trust.plan.name,
                    began.elapsed().as_millis()
                ));
                break;
            }
            if began.elapsed() > Duration::from_secs(20) {
                return fail(format!("@ben:{RIVER} is still \"{membership}\" at {}", trust.plan.name));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    Ok(())
}
