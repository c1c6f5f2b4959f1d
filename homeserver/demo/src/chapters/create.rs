//! The governance bot creates the room.

use matrix_sdk::ruma::OwnedRoomId;
use matron_appservice::ClinicalRoomSpec;
use serde_json::{Value, json};

use crate::{
    story::{Step, Story, fail},
    world::{FEED, LIFETIME, NORTH, RIVER, World},
};

pub(crate) async fn create_room(story: &Story, world: &World) -> Step<OwnedRoomId> {
    let spec: ClinicalRoomSpec = serde_json::from_value(json!({
        "name": "Renal on call, Northgate and Riverside",
        "organisations": ["NGT", "RVS"],
        "invite": [format!("@amira:{NORTH}"), format!("@ben:{RIVER}"), format!("@chidi:{RIVER}")],
        "lifetime_ms": u64::try_from(LIFETIME.as_millis())?,
        "lab_feed": FEED,
        "clinicians_may_invite": true,
    }))?;
    let created = world.service.create_clinical_room(&spec).await?;
    let created = serde_json::to_value(&created)?;
    let Some(room) = created.get("room_id").and_then(Value::as_str) else { return fail("no room id was answered") };
    story
        .evidence(format!("{room}: organisations NGT and RVS only, encrypted, messages live {} s", LIFETIME.as_secs()));
    if let Some(failed) = created.get("failed_invites").and_then(Value::as_array).filter(|failed| !failed.is_empty()) {
        return fail(format!("some invites failed: {failed:?}"));
    }
    Ok(room.try_into()?)
}
