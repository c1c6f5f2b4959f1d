//! matrix-rust-sdk against the real binary, synchronised by sliding sync as Element X does it.

use std::{future::Future, pin::pin, time::Instant};

use futures_util::StreamExt as _;
use matrix_sdk::{
    Client, Room, RoomState, SlidingSyncList, SlidingSyncMode,
    attachment::AttachmentConfig,
    deserialized_responses::TimelineEvent,
    encryption::{
        BackupDownloadStrategy, EncryptionSettings,
        verification::{SasState, SasVerification, Verification, VerificationRequest, VerificationRequestState},
    },
    media::{MediaFormat, MediaRequestParameters},
    room::ListThreadsOptions,
    ruma::{
        EventId, OwnedEventId, RoomId,
        api::client::{
            receipt::create_receipt::v3::ReceiptType, room::create_room, search::search_events::v3 as search,
            sync::sync_events::v5,
        },
        events::{
            AnySyncTimelineEvent, GlobalAccountDataEventType, StateEventType,
            receipt::ReceiptThread,
            relation::Thread,
            room::{
                MediaSource,
                message::{MessageType, Relation, RoomMessageEventContent},
            },
        },
        serde::Raw,
    },
    sliding_sync::VersionBuilder,
};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::{
    proxy::Proxy,
    support::{Home, PATIENCE, Server},
};

const PASSWORD: &str = "a long password";

/// A server with a proxy before it that holds every answer against the specification.
struct House {
    proxy: Proxy,
    server: Server,
    _home: Home,
}

impl House {
    fn open() -> Self {
        let home = Home::new();
        let server = home.start();
        let proxy = Proxy::open();
        proxy.lead_to(&server.address);
        Self { proxy, server, _home: home }
    }

    /// A new account and its first device.
    async fn register(&self, name: &str) -> Device {
        self.server.register(name, PASSWORD);
        self.log_in(name).await
    }

    /// One more device of an account.
    async fn log_in(&self, name: &str) -> Device {
        let client = Client::builder()
            .homeserver_url(format!("http://{}", self.proxy.address))
            .sliding_sync_version_builder(VersionBuilder::DiscoverNative)
            .with_encryption_settings(EncryptionSettings {
                auto_enable_cross_signing: true,
                auto_enable_backups: true,
                backup_download_strategy: BackupDownloadStrategy::AfterDecryptionFailure,
            })
            .build()
            .await
            .unwrap();
        client.matrix_auth().login_username(name, PASSWORD).send().await.unwrap();
        client.encryption().wait_for_e2ee_initialization_tasks().await;
        let syncing = slide(&client).await;
        Device { client, syncing }
    }
}

/// A client that syncs until it is dropped.
struct Device {
    client: Client,
    syncing: JoinHandle<()>,
}

impl Drop for Device {
    fn drop(&mut self) {
        self.syncing.abort();
    }
}

/// Every room, page by page, with all extensions.
async fn slide(client: &Client) -> JoinHandle<()> {
    let state = |kind: StateEventType, key: &str| (kind, key.to_owned());
    let rooms = SlidingSyncList::builder("rooms")
        .sync_mode(SlidingSyncMode::new_growing(5))
        .timeline_limit(10)
        .required_state(vec![
            state(StateEventType::RoomCreate, ""),
            state(StateEventType::RoomEncryption, ""),
            state(StateEventType::RoomName, ""),
            state(StateEventType::RoomMember, "$LAZY"),
            state(StateEventType::RoomMember, "$ME"),
        ]);
    let mut e2ee = v5::request::E2EE::default();
    e2ee.enabled = Some(true);
    let mut to_device = v5::request::ToDevice::default();
    to_device.enabled = Some(true);
    let mut threads = v5::request::ThreadSubscriptions::default();
    threads.enabled = Some(true);
    let sync = client
        .sliding_sync("test")
        .unwrap()
        .add_list(rooms)
        .with_all_extensions()
        .with_e2ee_extension(e2ee)
        .with_to_device_extension(to_device)
        .with_thread_subscriptions_extension(threads)
        .build()
        .await
        .unwrap();
    tokio::spawn(async move {
        let mut answers = pin!(sync.sync());
        while let Some(answer) = answers.next().await {
            answer.unwrap();
        }
    })
}

/// What the probe gives, once it gives something.
async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut probe: impl FnMut() -> F) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(Instant::now() < end, "it never happened: {what}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

impl Device {
    /// Waits until another device of the same user has dealt with all that this one has sent so far.
    async fn mark_reaches(&self, other: &Self) {
        let kind = || GlobalAccountDataEventType::from("org.matron.mark");
        let content = Raw::new(&json!({})).unwrap().cast_unchecked();
        self.client.account().set_account_data_raw(kind(), content).await.unwrap();
        eventually("the mark arrives", || async { other.client.account().account_data_raw(kind()).await.unwrap() })
            .await;
    }

    async fn room(&self, id: &RoomId, state: RoomState) -> Room {
        eventually("the room is in the list", || async {
            self.client.get_room(id).filter(|room| room.state() == state)
        })
        .await
    }

    /// A new encrypted room.
    async fn encrypted_room(&self, other: Option<&Self>) -> Room {
        let mut request = create_room::v3::Request::new();
        request.name = Some("Ward 3".to_owned());
        request.invite = other.and_then(|other| other.client.user_id()).map(ToOwned::to_owned).into_iter().collect();
        let room = self.client.create_room(request).await.unwrap();
        room.enable_encryption().await.unwrap();
        if let Some(other) = other {
            let theirs = other.room(room.room_id(), RoomState::Invited).await;
            // The client lists the room before it has read the invitation.
            eventually("the invitation tells the name", || async { theirs.name().filter(|name| name == "Ward 3") })
                .await;
            theirs.join().await.unwrap();
            eventually("encryption is seen", || async {
                theirs.latest_encryption_state().await.unwrap().is_encrypted().then_some(())
            })
            .await;
            eventually("both are in the room", || async { (room.joined_members_count() == 2).then_some(()) }).await;
        }
        room
    }

    /// The message, once it can be read.
    async fn read(&self, room: &RoomId, id: &EventId) -> (TimelineEvent, MessageType) {
        eventually("the message is read", || async {
            let event = self.client.get_room(room)?.event(id, None).await.ok()?;
            let message = message_of(&event)?;
            Some((event, message))
        })
        .await
    }
}

fn message_of(event: &TimelineEvent) -> Option<MessageType> {
    let AnySyncTimelineEvent::MessageLike(event) = event.raw().deserialize().ok()? else { return None };
    match event {
        matrix_sdk::ruma::events::AnySyncMessageLikeEvent::RoomMessage(event) => {
            Some(event.as_original()?.content.msgtype.clone())
        }
        _ => None,
    }
}

async fn say(room: &Room, text: &str) -> OwnedEventId {
    room.send(RoomMessageEventContent::text_plain(text)).await.unwrap().response.event_id
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_encrypted_room_with_threads_files_and_receipts_works_over_sliding_sync() {
    let house = House::open();
    let (amira, basma) = (house.register("amira").await, house.register("basma").await);
    let mine = amira.encrypted_room(Some(&basma)).await;
    let theirs = basma.client.get_room(mine.room_id()).unwrap();

    let root = say(&mine, "Handover, ward 3").await;
    let (event, message) = basma.read(mine.room_id(), &root).await;
    assert_eq!(message.body(), "Handover, ward 3");
    assert!(event.encryption_info().is_some(), "it came in the clear");

    let mut answer = RoomMessageEventContent::text_plain("Bed 4 has a fever");
    answer.relates_to = Some(Relation::Thread(Thread::plain(root.clone(), root.clone())));
    let answer = theirs.send(answer).await.unwrap().response.event_id;
    assert_eq!(amira.read(mine.room_id(), &answer).await.1.body(), "Bed 4 has a fever");
    let threads = mine.list_threads(ListThreadsOptions::default()).await.unwrap();
    assert_eq!(threads.chunk.iter().filter_map(TimelineEvent::event_id).collect::<Vec<_>>(), [root]);

    let picture = include_bytes!("pixel.png").to_vec();
    let sent = mine
        .send_attachment("bed.png", &"image/png".parse().unwrap(), picture.clone(), AttachmentConfig::new())
        .await
        .unwrap();
    let (_, message) = basma.read(mine.room_id(), &sent.event_id).await;
    let MessageType::Image(image) = message else { panic!("it is no image") };
    assert!(matches!(image.source, MediaSource::Encrypted(_)));
    let wanted = MediaRequestParameters { source: image.source, format: MediaFormat::File };
    assert_eq!(basma.client.media().get_media_content(&wanted, false).await.unwrap(), picture);

    let unread = || async { (theirs.unread_notification_counts().notification_count > 0).then_some(()) };
    eventually("something is unread", unread).await;
    theirs.send_single_receipt(ReceiptType::Read, ReceiptThread::Unthreaded, sent.event_id).await.unwrap();
    eventually("all is read", || async { (theirs.unread_notification_counts().notification_count == 0).then_some(()) })
        .await;

    drop((amira, basma));
    house.proxy.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_device_recovers_its_keys_with_the_recovery_key() {
    let house = House::open();
    let first = house.register("carim").await;
    let room = first.encrypted_room(None).await;
    let said = say(&room, "Paracetamol given").await;
    let key = first.client.encryption().recovery().enable().wait_for_backups_to_upload().await.unwrap();
    first.client.matrix_auth().logout().await.unwrap();
    drop(first);

    let fresh = house.log_in("carim").await;
    fresh.room(room.room_id(), RoomState::Joined).await;
    let closed = fresh.client.get_room(room.room_id()).unwrap().event(&said, None).await.unwrap();
    assert!(message_of(&closed).is_none(), "it was read without its key");
    fresh.client.encryption().recovery().recover(&key).await.unwrap();
    assert_eq!(fresh.read(room.room_id(), &said).await.1.body(), "Paracetamol given");
    eventually("the new device is cross-signed", || async {
        let own = fresh.client.encryption().get_own_device().await.unwrap()?;
        own.is_verified_with_cross_signing().then_some(())
    })
    .await;
    drop(fresh);
    house.proxy.finish();
}

/// The verification that the request turned into, once it shows emoji.
async fn emoji_of(request: &VerificationRequest) -> SasVerification {
    let sas = eventually("it is by emoji", || async {
        match request.state() {
            VerificationRequestState::Transitioned { verification: Verification::SasV1(sas), .. } => Some(sas),
            _ => None,
        }
    })
    .await;
    if !sas.we_started() {
        sas.accept().await.unwrap();
    }
    eventually("emoji are shown", || async { sas.can_be_presented().then_some(()) }).await;
    sas
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_device_is_verified_by_emoji() {
    let house = House::open();
    let first = house.register("dunya").await;
    let second = house.log_in("dunya").await;
    let user = first.client.user_id().unwrap();
    // A request from a device that is not known yet is not shown.
    let known = |by: &Device, other: &Device| {
        let (by, device) = (by.client.clone(), other.client.device_id().unwrap().to_owned());
        async move { by.encryption().get_device(by.user_id().unwrap(), &device).await.unwrap() }
    };
    eventually("the second device is known", || known(&first, &second)).await;
    let device = eventually("the first device is known", || known(&second, &first)).await;
    let asking = device.request_verification().await.unwrap();
    let asked = eventually("the request arrives", || async {
        first.client.encryption().get_verification_request(user, asking.flow_id()).await
    })
    .await;
    asked.accept().await.unwrap();
    eventually("it is accepted", || async { asking.is_ready().then_some(()) }).await;
    asking.start_sas().await.unwrap().unwrap();
    let (one, other) = tokio::join!(emoji_of(&asking), emoji_of(&asked));
    let symbols = |sas: &SasVerification| sas.emoji().unwrap().map(|emoji| emoji.symbol);
    assert_eq!(symbols(&one), symbols(&other));
    // One after the other, as people do: matrix-sdk-crypto forgets an answer that comes while its own is under way.
    one.confirm().await.unwrap();
    second.mark_reaches(&first).await;
    other.confirm().await.unwrap();
    for sas in [&one, &other] {
        eventually("it is done", || async { matches!(sas.state(), SasState::Done { .. }).then_some(()) }).await;
    }
    eventually("the second device is cross-signed", || async {
        let own = second.client.encryption().get_own_device().await.unwrap()?;
        own.is_verified_with_cross_signing().then_some(())
    })
    .await;
    drop((first, second));
    house.proxy.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn words_are_found_and_every_device_knows_which_threads_are_followed() {
    let house = House::open();
    let first = house.register("elif").await;
    let second = house.log_in("elif").await;
    let room = first.client.create_room(create_room::v3::Request::new()).await.unwrap();
    let root = say(&room, "Bed 7 has a fever").await;
    say(&room, "Tea at four").await;
    let mut wanted = search::Categories::new();
    wanted.room_events = Some(search::Criteria::new("fever".to_owned()));
    let found = first.client.send(search::Request::new(wanted)).await.unwrap().search_categories.room_events;
    let found: Vec<OwnedEventId> = found
        .results
        .iter()
        .map(|result| result.result.as_ref().unwrap().get_field("event_id").unwrap().unwrap())
        .collect();
    assert_eq!(found, std::slice::from_ref(&root));

    let theirs = second.room(room.room_id(), RoomState::Joined).await;
    let followed = || async { theirs.load_or_fetch_thread_subscription(&root).await.unwrap() };
    assert!(followed().await.is_none());
    let mut answer = RoomMessageEventContent::text_plain("38.5");
    answer.relates_to = Some(Relation::Thread(Thread::plain(root.clone(), root.clone())));
    let answer = room.send(answer).await.unwrap().response.event_id;
    room.subscribe_thread(root.clone(), Some(answer.clone())).await.unwrap();
    let automatic = eventually("the other device knows", followed).await.automatic;
    assert!(automatic);
    room.unsubscribe_thread(root.clone()).await.unwrap();
    eventually("the other device knows of the end", || async { followed().await.is_none().then_some(()) }).await;
    // What was known by then does not begin it again.
    room.subscribe_thread(root.clone(), Some(answer)).await.unwrap();
    assert!(theirs.fetch_thread_subscription(root).await.unwrap().is_none());
    drop((first, second));
    house.proxy.finish();
}
