//! Messages die on time, on both servers, on disk too.

use std::time::{Duration, Instant};

use matrix_sdk::ruma::{OwnedEventId, RoomId};
use serde_json::Value;

use crate::{
    clinician::Clinician,
    search::search,
    story::{Step, Story, fail},
    world::{LIFETIME, SECRET, World, encode},
};

pub(crate) async fn die(
    story: &Story,
    world: &World,
    room: &RoomId,
    said: &OwnedEventId,
    amira: &Clinician,
    chidi: &Clinician,
) -> Step {
    let began = Instant::now();
    let path = format!("/_matrix/client/v3/rooms/{}/event/{}", encode(room.as_str()), encode(said.as_str()));
    let mut ciphertext = String::new();
    for (trust, person) in [(&world.north, amira), (&world.river, chidi)] {
        loop {
            let (status, event) = world.get(trust, &path, &person.token()).await?;
            let text = event.pointer("/content/ciphertext").and_then(Value::as_str);
            if let Some(text) = text.filter(|_| ciphertext.is_empty()) {
                text.clone_into(&mut ciphertext);
            }
            if status == 404 || (status == 200 && text.is_none()) {
                let how = if status == 404 { "no longer shows it" } else { "shows it redacted" };
                story.evidence(format!("{} {how}", trust.plan.name));
                break;
            }
            if began.elapsed() > LIFETIME + Duration::from_secs(30) {
                return fail(format!("{} still shows the message", trust.plan.name));
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    for trust in [&world.north, &world.river] {
        let needles: Vec<&[u8]> = [SECRET, &ciphertext, "marker-9f1c64d2"]
            .into_iter()
            .filter(|text| !text.is_empty())
            .map(str::as_bytes)
            .collect();
        loop {
            let found = search(&trust.plan.data_dir(), &needles)?;
            if found.hits.is_empty() {
                story.evidence(format!(
                    "{}: neither the sentence nor its ciphertext in {} files, {} KB",
                    trust.plan.name,
                    found.files,
                    found.bytes / 1024
                ));
                break;
            }
            if began.elapsed() > LIFETIME + Duration::from_secs(60) {
                return fail(format!("{}: still in {:?}", trust.plan.name, found.hits));
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        // The search can find what is there: the event's skeleton stays for the graph.
        let control = search(&trust.plan.data_dir(), &[said.as_str().as_bytes()])?;
        if control.hits.is_empty() {
            return fail(format!("{}: the search does not even find the event's id", trust.plan.name));
        }
    }
    story.evidence("the event's id is found on both (its skeleton stays), so the search works");
    Ok(())
}
