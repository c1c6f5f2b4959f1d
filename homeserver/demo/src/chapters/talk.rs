//! Words, a picture and a laboratory result cross the trusts, encrypted end to end.

use matrix_sdk::ruma::{OwnedEventId, RoomId};

use crate::{
    clinician::Clinician,
    laboratory,
    story::{Step, Story, fail},
    world::{FEED, LAB_VALUE, SECRET, World},
};

pub(crate) async fn talk(story: &Story, room: &RoomId, amira: &Clinician, ben: &Clinician) -> Step<OwnedEventId> {
    let said = amira.say(room, SECRET).await?;
    let heard = ben.wait_for("the message from Northgate", |seen| seen.body == SECRET).await?;
    if !heard.encrypted {
        return fail("the message came in the clear");
    }
    story.evidence(format!("{} reads what {} wrote", ben.user_id, heard.sender));
    let reply = "On my way. Hold the supplements, repeat in 2 h.";
    ben.say(room, reply).await?;
    let heard = amira.wait_for("the answer from Riverside", |seen| seen.body == reply).await?;
    story.evidence(format!("{} reads the answer of {}", amira.user_id, heard.sender));
    Ok(said)
}

pub(crate) async fn picture(story: &Story, room: &RoomId, amira: &Clinician, ben: &Clinician) -> Step {
    let png = ecg()?;
    ben.show_picture(room, "ecg.png", png.clone()).await?;
    let shown = amira.wait_for("the picture", |seen| seen.media.is_some()).await?;
    let Some(source) = shown.media else { return fail("the picture has no source") };
    let opened = amira.open(source).await?;
    if opened != png {
        return fail("the picture came out different");
    }
    story.evidence(format!("{} opens the same {} bytes that {} sent", amira.user_id, png.len(), shown.sender));
    Ok(())
}

pub(crate) async fn lab_result(story: &Story, world: &World, amira: &Clinician, ben: &Clinician) -> Step {
    let Some(address) = world.service.lab_addr(FEED) else { return fail("the feed does not listen") };
    let acknowledged = laboratory::send(address, &laboratory::report("DEMO-1", LAB_VALUE)).await?;
    if acknowledged != "AA" {
        return fail(format!("the laboratory was answered {acknowledged}"));
    }
    story.evidence(format!("MLLP {address} acknowledged ORU^R01 DEMO-1 with AA"));
    for person in [amira, ben] {
        let seen = person
            .wait_for("the result", |seen| seen.sender.starts_with("@lab-") && seen.body.contains(LAB_VALUE))
            .await?;
        if !seen.encrypted {
            return fail("the result came in the clear");
        }
        story.evidence(format!("{} decrypts the result from {}", person.user_id, seen.sender));
    }
    Ok(())
}

/// A drawing that looks like a heartbeat.
fn ecg() -> Step<Vec<u8>> {
    let mut drawing = image::RgbImage::from_pixel(320, 120, image::Rgb([255, 244, 244]));
    for x in 0..320_u32 {
        let beat = match x % 80 {
            30..34 => 20,
            34..38 => 95,
            38..42 => 40,
            55..65 => 52,
            _ => 60,
        };
        for thick in 0..3 {
            drawing.put_pixel(x, beat + thick, image::Rgb([150, 0, 30]));
        }
    }
    let mut png = std::io::Cursor::new(Vec::new());
    drawing.write_to(&mut png, image::ImageFormat::Png)?;
    Ok(png.into_inner())
}
