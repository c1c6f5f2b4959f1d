//! An outsider and a colleague without a credential are refused.

use matrix_sdk::ruma::RoomId;
use serde_json::json;

use crate::{
    story::{Step, Story, fail},
    world::{ELSEWHERE, NORTH, World, decision_of, encode, sentence},
};

pub(crate) async fn outsider(story: &Story, world: &World, room: &RoomId) -> Step {
    let oscar = world.log_in(&world.elsewhere, "oscar", 4).await?;
    let path = format!("/_matrix/client/v3/join/{}?via={NORTH}", encode(room.as_str()));
    let (status, answer) = world.post(&world.elsewhere, &path, &oscar, json!({})).await?;
    if status < 400 {
        return fail("the outsider got in");
    }
    story.evidence(format!("@oscar:{ELSEWHERE} asked to join: {status} {}", sentence(&answer)));
    let amira = world.log_in(&world.north, "amira", 0).await?;
    let path = format!("/_matrix/client/v3/rooms/{}/invite", encode(room.as_str()));
    let (status, answer) =
        world.post(&world.north, &path, &amira, json!({"user_id": format!("@oscar:{ELSEWHERE}")})).await?;
    if status != 403 {
        return fail(format!("inviting the outsider was answered {status} {}", sentence(&answer)));
    }
    story.evidence(format!("@amira:{NORTH} tried to invite him: {status} {}", sentence(&answer)));
    if let Some(decision) = decision_of(&answer) {
        let explained = world.north.operate(&["policy", "explain", &decision], None)?;
        story.tell(format!("`matron policy explain {decision}`:"));
        for part in explained.lines().take(6) {
            story.tell(format!("  {part}"));
        }
    }
    Ok(())
}

pub(crate) async fn unverified(story: &Story, world: &World, room: &RoomId) -> Step {
    let amira = world.log_in(&world.north, "amira", 0).await?;
    let path = format!("/_matrix/client/v3/rooms/{}/invite", encode(room.as_str()));
    let (invited, answer) =
        world.post(&world.north, &path, &amira, json!({"user_id": format!("@uma:{NORTH}")})).await?;
    story.tell(format!("@amira:{NORTH} invites @uma:{NORTH}: {invited} {}", sentence(&answer)));
    let uma = world.log_in(&world.north, "uma", 3).await?;
    let path = format!("/_matrix/client/v3/join/{}", encode(room.as_str()));
    let (status, answer) = world.post(&world.north, &path, &uma, json!({})).await?;
    if status < 400 {
        return fail("the unverified colleague got in");
    }
    story.evidence(format!("@uma:{NORTH} asked to join: {status} {}", sentence(&answer)));
    Ok(())
}
