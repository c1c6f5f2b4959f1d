//! Media, as users and other servers see it.

use std::{
    io::Cursor,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use image::{DynamicImage, ImageFormat};
use ruma::{EventId, UserId};
use serde_json::json;

use super::{DownloadOptions, MediaContent, MediaFile, Method, Mxc, NewUpload, ThumbnailRequest};
use crate::{
    Error, Settings,
    ports::{PeerError, PeerResponse},
    rooms::send::NewEvent,
    settings::Policy,
    test_world::{NOW_MS, World},
};

const SECRET: &[u8] = b"the patient in bed seven";
const HOUR_MS: u64 = 60 * 60 * 1000;

fn file(content: &'static [u8]) -> NewUpload {
    NewUpload {
        content_type: Some("text/plain".to_owned()),
        file_name: Some("a.txt".to_owned()),
        content: Bytes::from_static(content),
        lifetime_ms: None,
    }
}

fn expiring(content: &'static [u8], lifetime_ms: u64) -> NewUpload {
    NewUpload { lifetime_ms: Some(lifetime_ms), ..file(content) }
}

async fn read(file: MediaFile) -> Vec<u8> {
    match file.content {
        MediaContent::Memory(content) => content.to_vec(),
        MediaContent::File(mut reader) => {
            let mut content = Vec::new();
            while let Some(part) = reader.next_part().await.unwrap() {
                content.extend_from_slice(&part);
            }
            content
        }
    }
}

async fn content_of(world: &World, mxc: &Mxc) -> Result<Vec<u8>, Error> {
    Ok(read(world.core.download_media(mxc, DownloadOptions::default()).await?).await)
}

/// Every file below a directory.
fn files(directory: &Path) -> Vec<Vec<u8>> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(std::fs::read(path).unwrap());
        }
    }
    found
}

fn on_disk(world: &World) -> Vec<Vec<u8>> {
    files(&world.core.media_dir)
}

fn holds(content: &[u8], wanted: &[u8]) -> bool {
    content.windows(wanted.len()).any(|window| window == wanted)
}

fn picture(width: u32, height: u32) -> Bytes {
    let mut encoded = Cursor::new(Vec::new());
    DynamicImage::new_rgb8(width, height).write_to(&mut encoded, ImageFormat::Png).unwrap();
    encoded.into_inner().into()
}

#[tokio::test]
async fn what_is_uploaded_is_downloaded_and_unreadable_on_disk() {
    let world = World::new();
    let alice = world.user("alice").await;
    let mxc = world.core.upload_media(&alice, file(SECRET)).await.unwrap();
    let found = world.core.download_media(&mxc, DownloadOptions::default()).await.unwrap();
    assert_eq!(found.content_type.as_deref(), Some("text/plain"));
    assert_eq!(found.file_name.as_deref(), Some("a.txt"));
    assert_eq!(found.size_bytes, SECRET.len() as u64);
    assert_eq!(read(found).await, SECRET);
    let files = on_disk(&world);
    assert_eq!(files.len(), 1);
    assert!(!holds(&files[0], SECRET));
}

#[tokio::test]
async fn parts_of_large_files_are_read_alone() {
    let world = World::new();
    let alice = world.user("alice").await;
    let content: Vec<u8> = (0..700_000_u32).map(|n| (n % 251) as u8).collect();
    let upload = NewUpload { content: content.clone().into(), ..NewUpload::default() };
    let mxc = world.core.upload_media(&alice, upload).await.unwrap();
    assert_eq!(content_of(&world, &mxc).await.unwrap(), content);
    for (start, length) in [(0, 10), (65_535, 3), (300_000, 399_999), (699_999, 1), (700_000, 5)] {
        let found = world.core.download_media(&mxc, DownloadOptions::default()).await.unwrap();
        let MediaContent::File(reader) = found.content else { panic!() };
        let part = MediaFile { content: MediaContent::File(reader.range(start, length).await.unwrap()), ..found };
        let start = usize::try_from(start).unwrap();
        let end = (start + usize::try_from(length).unwrap()).min(content.len());
        assert_eq!(read(part).await, content[start..end]);
    }
}

#[tokio::test]
async fn equal_content_is_kept_once_and_lives_as_long_as_one_name_refers_to_it() {
    let world = World::new();
    let alice = world.user("alice").await;
    let one = world.core.upload_media(&alice, file(SECRET)).await.unwrap();
    let two = world.core.upload_media(&alice, file(SECRET)).await.unwrap();
    assert_ne!(one, two);
    assert_eq!(on_disk(&world).len(), 1);
    assert!(world.core.purge_media(&one).await.unwrap());
    assert!(matches!(content_of(&world, &one).await, Err(Error::NotFound(_))));
    assert_eq!(content_of(&world, &two).await.unwrap(), SECRET);
    assert!(world.core.purge_media(&two).await.unwrap());
    assert!(on_disk(&world).is_empty());
    assert!(!world.core.purge_media(&two).await.unwrap());
}

#[tokio::test]
async fn expired_media_is_hidden_at_once_then_gone_and_its_key_destroyed() {
    let world = World::new();
    let alice = world.user("alice").await;
    let mxc = world.core.upload_media(&alice, expiring(SECRET, HOUR_MS)).await.unwrap();
    let stays = world.core.upload_media(&alice, file(b"stays")).await.unwrap();
    world.core.expire_media().await.unwrap();
    assert_eq!(content_of(&world, &mxc).await.unwrap(), SECRET);
    world.advance_ms(HOUR_MS);
    assert!(matches!(content_of(&world, &mxc).await, Err(Error::NotFound(_))), "hidden before it is removed");
    assert_eq!(on_disk(&world).len(), 2);
    world.advance_ms(HOUR_MS);
    assert_eq!(world.core.expire_media().await.unwrap(), 1);
    assert_eq!(on_disk(&world).len(), 1);
    assert_eq!(world.core.keyring.buckets("media").len(), 1, "only the key of what stays is left");
    assert_eq!(content_of(&world, &stays).await.unwrap(), b"stays");
}

#[tokio::test]
async fn the_deployments_floor_bounds_every_upload() {
    let policy = Policy { layer: Some(json!({ "max_lifetime_ms": 1_000 })), ..Policy::default() };
    let world = World::with(Settings { policy, insecure_fast_password_hash: true, ..Settings::default() });
    let alice = world.user("alice").await;
    let mxc = world.core.upload_media(&alice, file(SECRET)).await.unwrap();
    let other = world.core.upload_media(&alice, expiring(SECRET, HOUR_MS)).await.unwrap();
    world.advance_ms(1_000);
    for mxc in [mxc, other] {
        assert!(matches!(content_of(&world, &mxc).await, Err(Error::NotFound(_))));
    }
}

#[tokio::test]
async fn a_file_dies_with_the_event_that_it_belongs_to() {
    let world = World::new();
    let alice = world.user("alice").await;
    let (event, other): (&EventId, &EventId) = ("$event".try_into().unwrap(), "$other".try_into().unwrap());
    let mxc = world.core.upload_media(&alice, file(SECRET)).await.unwrap();
    let shared = world.core.upload_media(&alice, file(b"shared")).await.unwrap();
    let ends = world.core.upload_media(&alice, file(b"ends")).await.unwrap();
    let content =
        json!({ "url": mxc.to_string(), "info": { "thumbnail_url": shared.to_string(), "x": "mxc://no id" } });
    world.core.attach_media_to_event(other, &shared, None).await.unwrap();
    world.core.attach_media_to_event(other, &ends, Some(NOW_MS + HOUR_MS)).await.unwrap();
    for found in super::expiry::media_in_content(&content) {
        world.core.attach_media_to_event(event, &found, Some(NOW_MS + HOUR_MS)).await.unwrap();
    }
    assert_eq!(on_disk(&world).len(), 3, "sealed anew, not kept twice");
    for (mxc, content) in [(&mxc, SECRET), (&shared, b"shared"), (&ends, b"ends")] {
        assert_eq!(content_of(&world, mxc).await.unwrap(), content);
    }
    assert_eq!(world.core.purge_media_of_event(event).await.unwrap(), 1);
    assert!(matches!(content_of(&world, &mxc).await, Err(Error::NotFound(_))));
    world.advance_ms(2 * HOUR_MS);
    assert_eq!(world.core.expire_media().await.unwrap(), 1);
    assert!(matches!(content_of(&world, &ends).await, Err(Error::NotFound(_))));
    assert_eq!(content_of(&world, &shared).await.unwrap(), b"shared");
    assert_eq!(world.core.keyring.buckets("media").len(), 1, "the key of what ended is destroyed");
}

#[tokio::test]
async fn quoting_somebody_elses_file_does_not_end_it() {
    let world = World::new();
    let (alice, eve) = (world.user("alice").await, world.user("eve").await);
    let room = world.room(&[&eve]).await;
    let retention = json!({ "max_lifetime": HOUR_MS });
    world.core.set_state(&eve, &room, "m.room.retention", "", retention, None).await.unwrap();
    let alices = world.core.upload_media(&alice, file(SECRET)).await.unwrap();
    let eves = world.core.upload_media(&eve, file(b"eve")).await.unwrap();
    for mxc in [&alices, &eves] {
        let content = json!({ "msgtype": "m.image", "body": "", "url": mxc.to_string() });
        let message = NewEvent::message(room.clone(), eve.clone(), "m.room.message".to_owned(), content);
        world.core.send_event(message).await.unwrap();
    }
    assert_eq!(world.core.find_media(&alices).unwrap().unwrap().expires_ms, None);
    assert_eq!(world.core.find_media(&eves).unwrap().unwrap().expires_ms, Some(NOW_MS + HOUR_MS));
}

/// A room whose messages are encrypted and live that long.
async fn encrypted_room(world: &World, user: &UserId, lifetime_ms: Option<u64>) {
    let room = world.room(&[user]).await;
    let encryption = json!({ "algorithm": "m.megolm.v1.aes-sha2" });
    world.core.set_state(user, &room, "m.room.encryption", "", encryption, None).await.unwrap();
    if let Some(lifetime_ms) = lifetime_ms {
        let retention = json!({ "max_lifetime": lifetime_ms });
        world.core.set_state(user, &room, "m.room.retention", "", retention, None).await.unwrap();
    }
}

#[tokio::test]
async fn an_encrypted_file_lives_no_longer_than_messages_in_its_uploaders_encrypted_rooms() {
    let world = World::new();
    let alice = world.user("alice").await;
    let encrypted = || NewUpload { content_type: Some("application/octet-stream".to_owned()), ..file(SECRET) };
    let end_of = async |upload| {
        let mxc = world.core.upload_media(&alice, upload).await.unwrap();
        world.core.find_media(&mxc).unwrap().unwrap().expires_ms
    };
    assert_eq!(end_of(encrypted()).await, None, "in no encrypted room");
    encrypted_room(&world, &alice, Some(HOUR_MS)).await;
    encrypted_room(&world, &alice, Some(2 * HOUR_MS)).await;
    assert_eq!(end_of(encrypted()).await, Some(NOW_MS + 2 * HOUR_MS));
    assert_eq!(end_of(file(b"an avatar, say")).await, None);
    let remote = Mxc::new("far.example".try_into().unwrap(), "x").unwrap();
    world.answer(|_| {
        Ok(PeerResponse {
            status: 200,
            content_type: Some("multipart/mixed; boundary=b".to_owned()),
            content_disposition: None,
            location: None,
            body: Bytes::from_static(b"--b\r\n\r\n{}\r\n--b\r\n\r\nfar\r\n--b--"),
        })
    });
    let options = DownloadOptions { asker: Some(&alice), ..DownloadOptions::default() };
    assert_eq!(read(world.core.download_media(&remote, options).await.unwrap()).await, b"far");
    assert_eq!(world.core.find_media(&remote).unwrap().unwrap().expires_ms, Some(NOW_MS + 2 * HOUR_MS));
    encrypted_room(&world, &alice, None).await;
    assert_eq!(end_of(encrypted()).await, None);
}

#[tokio::test]
async fn a_name_without_a_file_lets_readers_wait_for_it() {
    let world = World::new();
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let (mxc, _) = world.core.create_media(&alice).await.unwrap();
    let soon = DownloadOptions { timeout_ms: Some(0), ..DownloadOptions::default() };
    assert!(matches!(world.core.download_media(&mxc, soon).await, Err(Error::NotYetUploaded)));
    let stolen = world.core.upload_pending_media(&bob, &mxc, file(b"x")).await;
    assert!(matches!(stolen, Err(Error::Forbidden(_))));
    let upload = async {
        tokio::task::yield_now().await;
        world.core.upload_pending_media(&alice, &mxc, file(SECRET)).await.unwrap();
    };
    let (found, ()) = tokio::join!(content_of(&world, &mxc), upload);
    assert_eq!(found.unwrap(), SECRET);
    let again = world.core.upload_pending_media(&alice, &mxc, file(b"x")).await;
    assert!(matches!(again, Err(Error::CannotOverwriteMedia)));
}

#[tokio::test]
async fn names_that_nobody_uses_are_bounded_and_run_out() {
    let world = World::new();
    let alice = world.user("alice").await;
    let mut last = None;
    let refused = loop {
        match world.core.create_media(&alice).await {
            Ok((mxc, ends_ms)) => last = Some((mxc, ends_ms)),
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, Error::LimitExceeded { .. }));
    let (mxc, ends_ms) = last.unwrap();
    world.advance_ms(ends_ms - NOW_MS);
    let late = world.core.upload_pending_media(&alice, &mxc, file(b"x")).await;
    assert!(matches!(late, Err(Error::NotFound(_))));
    world.core.expire_media().await.unwrap();
    assert!(world.core.find_media(&mxc).unwrap().is_none());
    world.core.create_media(&alice).await.unwrap();
}

#[tokio::test]
async fn files_beyond_the_bound_are_refused() {
    let settings = Settings { max_upload_bytes: 10, insecure_fast_password_hash: true, ..Settings::default() };
    let world = World::with(settings);
    let alice = world.user("alice").await;
    assert!(matches!(world.core.upload_budget(11).await, Err(Error::TooLarge(_))));
    assert!(matches!(world.core.upload_media(&alice, file(b"eleven byte")).await, Err(Error::TooLarge(_))));
    assert!(world.core.upload_media(&alice, file(b"ten bytes.")).await.is_ok());
    assert!(world.core.upload_media(&alice, file(b"")).await.is_ok());
}

#[tokio::test]
async fn quarantined_media_is_shown_to_nobody() {
    let world = World::new();
    let alice = world.user("alice").await;
    let mxc = world.core.upload_media(&alice, file(SECRET)).await.unwrap();
    world.core.quarantine_media(&mxc, true).await.unwrap();
    assert!(matches!(content_of(&world, &mxc).await, Err(Error::NotFound(_))));
    assert!(matches!(world.core.federation_download(mxc.id(), Some(0)).await, Err(Error::NotFound(_))));
    world.core.quarantine_media(&mxc, false).await.unwrap();
    assert_eq!(content_of(&world, &mxc).await.unwrap(), SECRET);
}

#[tokio::test]
async fn a_thumbnail_is_made_once_and_dies_with_its_picture() {
    let world = World::new();
    let alice = world.user("alice").await;
    let upload = NewUpload { content: picture(1000, 500), ..NewUpload::default() };
    let mxc = world.core.upload_media(&alice, upload).await.unwrap();
    let request = ThumbnailRequest { width: 300, height: 200, method: Method::Scale, animated: false };
    for _ in 0..2 {
        let thumbnail = world.core.thumbnail(&mxc, request, DownloadOptions::default()).await.unwrap();
        assert_eq!(thumbnail.content_type.as_deref(), Some("image/png"));
        let small = image::load_from_memory(&read(thumbnail).await).unwrap();
        assert_eq!((small.width(), small.height()), (320, 160));
        assert_eq!(on_disk(&world).len(), 2);
    }
    let huge = ThumbnailRequest { width: 4000, height: 4000, method: Method::Crop, animated: false };
    let whole = world.core.thumbnail(&mxc, huge, DownloadOptions::default()).await.unwrap();
    assert_eq!(read(whole).await, picture(1000, 500));
    world.core.purge_media(&mxc).await.unwrap();
    assert!(on_disk(&world).is_empty());
}

#[tokio::test]
async fn text_has_no_thumbnail() {
    let world = World::new();
    let alice = world.user("alice").await;
    let mxc = world.core.upload_media(&alice, file(SECRET)).await.unwrap();
    let request = ThumbnailRequest { width: 32, height: 32, method: Method::Crop, animated: false };
    let refused = world.core.thumbnail(&mxc, request, DownloadOptions::default()).await;
    assert!(matches!(refused, Err(Error::Unknown(_))));
}

/// What a peer that runs Matron answers.
async fn answer_of(world: &World, mxc: &Mxc) -> PeerResponse {
    let media = world.core.federation_download(mxc.id(), Some(0)).await.unwrap();
    let content = read(media.file).await;
    PeerResponse {
        status: 200,
        content_type: Some(media.envelope.content_type),
        content_disposition: None,
        location: None,
        body: [&media.envelope.head[..], &content, &media.envelope.tail[..]].concat().into(),
    }
}

#[tokio::test]
async fn another_servers_file_is_fetched_once_and_cached_for_a_while() {
    let (ours, theirs) = (World::new(), World::new());
    let there = theirs.core.upload_media(&theirs.user("alice").await, file(SECRET)).await.unwrap();
    let answer = answer_of(&theirs, &there).await;
    ours.answer(move |request| {
        assert!(request.path_and_query.starts_with("/_matrix/federation/v1/media/download/"));
        Ok(answer.clone())
    });
    let mxc = Mxc::new("far.example".try_into().unwrap(), there.id()).unwrap();
    let unwanted = DownloadOptions { allow_remote: false, ..DownloadOptions::default() };
    assert!(matches!(ours.core.download_media(&mxc, unwanted).await, Err(Error::NotFound(_))));
    let all = futures_util::future::join_all((0..5).map(|_| content_of(&ours, &mxc))).await;
    assert!(all.into_iter().all(|content| content.unwrap() == SECRET));
    let found = ours.core.download_media(&mxc, unwanted).await.unwrap();
    assert_eq!((found.content_type.as_deref(), found.file_name.as_deref()), (Some("text/plain"), Some("a.txt")));
    assert_eq!(ours.peers.asked.lock().len(), 1);
    ours.advance_ms(8 * 24 * HOUR_MS);
    ours.core.expire_media().await.unwrap();
    assert!(on_disk(&ours).is_empty());
    assert_eq!(content_of(&ours, &mxc).await.unwrap(), SECRET);
    assert_eq!(ours.peers.asked.lock().len(), 2);
}

#[tokio::test]
async fn old_servers_are_asked_at_the_old_path() {
    let world = World::new();
    world.answer(|request| {
        if request.path_and_query.starts_with("/_matrix/federation/") {
            return Err(PeerError::Status { status: 404, body: json!({ "errcode": "M_UNRECOGNIZED" }) });
        }
        assert!(request.path_and_query.contains("allow_remote=false"));
        Ok(PeerResponse {
            status: 200,
            content_type: Some("text/plain".to_owned()),
            content_disposition: Some("inline; filename=\"b.txt\"".to_owned()),
            location: None,
            body: Bytes::from_static(SECRET),
        })
    });
    let mxc = Mxc::new("far.example".try_into().unwrap(), "old").unwrap();
    assert_eq!(content_of(&world, &mxc).await.unwrap(), SECRET);
}

#[tokio::test]
async fn a_file_that_lies_elsewhere_is_fetched_from_there_each_time_it_is_needed() {
    let world = World::new();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    world.answer(move |_| {
        let turn = count.fetch_add(1, Ordering::SeqCst);
        let scheme = if turn == 0 { "http" } else { "https" };
        let body = format!("--b\r\nContent-Type: application/json\r\n\r\n{{}}\r\n--b\r\nlocation: {scheme}://cdn.example/{turn}\r\n\r\n\r\n--b--\r\n");
        Ok(PeerResponse {
            status: 200,
            content_type: Some("multipart/mixed; boundary=b".to_owned()),
            content_disposition: None,
            location: None,
            body: body.into(),
        })
    });
    world.answer_outside(|request| {
        assert_eq!((request.bearer.as_deref(), request.trusted), (None, false));
        match request.url.as_str() {
            // The address was good for a while only.
            "https://cdn.example/1" => Err(PeerError::Status { status: 404, body: json!(null) }),
            "https://cdn.example/2" => Ok(PeerResponse {
                status: 200,
                content_type: Some("text/plain".to_owned()),
                content_disposition: None,
                location: None,
                body: Bytes::from_static(SECRET),
            }),
            other => panic!("{other}"),
        }
    });
    let mxc = Mxc::new("far.example".try_into().unwrap(), "moved").unwrap();
    assert!(matches!(content_of(&world, &mxc).await, Err(Error::Peer(_))), "nothing is read in the clear");
    assert!(matches!(content_of(&world, &mxc).await, Err(Error::NotFound(_))));
    assert_eq!(content_of(&world, &mxc).await.unwrap(), SECRET);
    assert_eq!(asked.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn peers_that_fail_make_no_file() {
    let world = World::new();
    for (answer, expected) in [
        (PeerError::TooLarge, "M_TOO_LARGE"),
        (PeerError::Timeout, "peer"),
        (PeerError::Status { status: 404, body: json!({ "errcode": "M_NOT_FOUND" }) }, "not found"),
        (PeerError::Status { status: 504, body: json!({ "errcode": "M_NOT_YET_UPLOADED" }) }, "not yet"),
    ] {
        let mut answer = Some(answer);
        world.answer(move |_| Err(answer.take().unwrap_or(PeerError::Timeout)));
        let mxc = Mxc::new("far.example".try_into().unwrap(), "x").unwrap();
        let error = content_of(&world, &mxc).await.unwrap_err();
        let got = match error {
            Error::Custom { errcode, status: 502, .. } => errcode,
            Error::Peer(_) => "peer",
            Error::NotFound(_) => "not found",
            Error::NotYetUploaded => "not yet",
            other => panic!("{other}"),
        };
        assert_eq!(got, expected);
    }
    assert!(on_disk(&world).is_empty());
}

#[test]
fn names_cannot_lead_elsewhere() {
    for uri in [
        "mxc://a.example/../x",
        "mxc://a.example/",
        "mxc://a.example/a/b",
        "mxc:///a",
        "mxc://a b/a",
        "http://a/b",
        "mxc://a.example/%2e",
    ] {
        assert_eq!(Mxc::parse(uri), None, "{uri}");
    }
    assert_eq!(Mxc::parse("mxc://a.example:8448/A_b-9").unwrap().to_string(), "mxc://a.example:8448/A_b-9");
}

#[tokio::test]
async fn previews_are_off_unless_the_operator_allows_them() {
    let world = World::new();
    assert!(world.core.preview_url("https://a.example/").await.unwrap().is_empty());
    for url in ["", "ftp://a.example/", "javascript:alert(1)", "https://"] {
        assert!(matches!(world.core.preview_url(url).await, Err(Error::InvalidParam(_))), "{url}");
    }
}

#[tokio::test]
async fn a_preview_brings_the_pages_words_and_its_picture() {
    let world = World::with(Settings { url_previews: true, ..Settings::default() });
    world.answer_outside(|request| {
        assert!(!request.trusted, "a URL that a user chose never leads inside");
        let (kind, body) = match request.url.as_str() {
            "https://a.example/page" => (
                "text/html",
                Bytes::from_static(
                    b"<meta property='og:title' content='T'><meta property='og:image' content='/p.png'>",
                ),
            ),
            "https://a.example/p.png" => ("image/png", picture(30, 20)),
            other => panic!("{other}"),
        };
        Ok(PeerResponse {
            status: 200,
            content_type: Some(kind.to_owned()),
            content_disposition: None,
            location: None,
            body,
        })
    });
    let preview = world.core.preview_url("https://a.example/page").await.unwrap();
    assert_eq!(preview["og:title"], "T");
    assert_eq!((&preview["og:image:width"], &preview["og:image:height"]), (&json!(30), &json!(20)));
    let mxc = Mxc::parse(preview["og:image"].as_str().unwrap()).unwrap();
    assert_eq!(content_of(&world, &mxc).await.unwrap(), picture(30, 20));
    world.answer_outside(|_| Err(PeerError::Timeout));
    assert_eq!(world.core.preview_url("https://a.example/page").await.unwrap(), preview, "remembered");
}

#[tokio::test]
async fn thumbnails_are_made_when_the_picture_comes() {
    let world = World::new();
    let alice = world.user("alice").await;
    let upload = |kind: &str| NewUpload {
        content_type: Some(kind.to_owned()),
        content: picture(700, 500),
        ..NewUpload::default()
    };
    let mxc = world.core.upload_media(&alice, upload("image/png")).await.unwrap();
    world.core.prepare_waiting().await;
    let meta = world.core.find_media(&mxc).unwrap().unwrap();
    let place = super::download::place_of(&meta).unwrap();
    for (variant, size) in [("32x32-crop", (32, 32)), ("96x96-crop", (96, 96)), ("320x240-scale", (320, 229))] {
        let made = world.core.disk().read(&place, variant, 1 << 20).unwrap().unwrap();
        let made = image::load_from_memory(&made).unwrap();
        assert_eq!((made.width(), made.height()), size, "{variant}");
    }
    assert!(world.core.disk().read(&place, "800x600-scale", 1 << 20).unwrap().is_none(), "it is no larger than that");
    let count = on_disk(&world).len();
    world.core.upload_media(&alice, upload("application/octet-stream")).await.unwrap();
    world
        .core
        .upload_media(&alice, NewUpload { content_type: Some("image/png".to_owned()), ..file(SECRET) })
        .await
        .unwrap();
    world.core.prepare_waiting().await;
    assert_eq!(on_disk(&world).len(), count + 1, "the same picture is one file, and no picture has no thumbnails");
}

#[tokio::test]
async fn a_picture_that_moves_is_given_moving_only_to_whoever_asks() {
    let world = World::new();
    let alice = world.user("alice").await;
    let mut moving = Vec::new();
    let mut encoder = image::codecs::gif::GifEncoder::new_with_speed(&mut moving, 30);
    for shade in [0, 90, 180] {
        let frame = image::RgbaImage::from_pixel(200, 100, image::Rgba([shade, 0, 0, 255]));
        encoder.encode_frame(image::Frame::new(frame)).unwrap();
    }
    drop(encoder);
    let upload =
        NewUpload { content_type: Some("image/gif".to_owned()), content: moving.into(), ..NewUpload::default() };
    let mxc = world.core.upload_media(&alice, upload).await.unwrap();
    for (width, size) in [(90, (96, 96)), (300, (200, 100)), (4000, (200, 100))] {
        let request = |animated: bool| ThumbnailRequest {
            width,
            height: width,
            method: if width < 100 { Method::Crop } else { Method::Scale },
            animated,
        };
        for _ in 0..2 {
            let still = world.core.thumbnail(&mxc, request(false), DownloadOptions::default()).await.unwrap();
            assert_eq!(still.content_type.as_deref(), Some("image/png"), "{width}");
            let still = image::load_from_memory(&read(still).await).unwrap();
            assert_eq!((still.width(), still.height()), size);
            let moving = world.core.thumbnail(&mxc, request(true), DownloadOptions::default()).await.unwrap();
            assert_eq!(moving.content_type.as_deref(), Some("image/gif"));
            let moving = read(moving).await;
            assert_eq!(super::metadata::gif_frames(&moving), 3);
            let moving = image::load_from_memory(&moving).unwrap();
            assert_eq!((moving.width(), moving.height()), size);
        }
    }
}
