//! Creates bounded rooms, invites the named, and gives a feed its room.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use super::bounds::{Bounds, Organisations};
use super::credential::Credentials;
use super::room::ClinicalRoomSpec;
use crate::bridge::Routes;
use crate::client::Client;
use crate::clock::Clock;
use crate::device::Device;
use crate::http::{CreatedRoom, FailedInvite, RoomCreator, RoomCreatorError};

/// Creates rooms as the bot.
#[derive(Debug)]
pub struct BotCreates {
    /// The way to the homeserver.
    pub client: Client,
    /// The bot.
    pub bot: Device,
    /// Lab feeds by name.
    pub feeds: BTreeMap<String, Device>,
    /// Where feeds speak.
    pub routes: Arc<Routes>,
    /// Whose servers are whose.
    pub organisations: Organisations,
    /// What our users carry in their member events.
    pub credentials: Credentials,
    /// The clock.
    pub clock: Arc<dyn Clock>,
}

impl BotCreates {
    async fn bounds(&self, spec: &ClinicalRoomSpec) -> Result<Bounds, RoomCreatorError> {
        let organisations = self.organisations.clone();
        let (spec, bot) = (spec.clone(), self.bot.user_id().to_owned());
        let now_ms = self.clock.now_ms();
        Ok(tokio::task::spawn_blocking(move || organisations.bounds(&spec, &bot, now_ms))
            .await
            .map_err(|_stopping| RoomCreatorError::NotReady)??)
    }

    async fn create_room(&self, spec: ClinicalRoomSpec) -> Result<CreatedRoom, RoomCreatorError> {
        spec.check()?;
        let feed = match &spec.lab_feed {
            Some(name) => {
                let device = self.feeds.get(name).ok_or(RoomCreatorError::UnknownFeed)?;
                Some((name.clone(), device))
            }
            None => None,
        };
        let bounds = self.bounds(&spec).await?;
        self.bot.wait_ready().await.map_err(|_stopped| RoomCreatorError::NotReady)?;
        if let Some((_, device)) = &feed {
            device.wait_ready().await.map_err(|_stopped| RoomCreatorError::NotReady)?;
        }
        let session = self.client.as_user(self.bot.user_id());
        let version = match &spec.room_version {
            Some(version) => version.clone(),
            None => session.default_room_version().await?.unwrap_or_default(),
        };
        let body = spec.create_body(self.bot.user_id(), &version, &bounds);
        let room_id = session.create_room(&body).await?;
        tracing::info!(room.id = %room_id, "a clinical room was created");
        self.credentials.show(&self.client, self.bot.user_id(), &room_id).await?;
        let mut created = CreatedRoom { room_id, failed_invites: Vec::new() };
        for user_id in &spec.invite {
            if let Err(error) = session.invite(&created.room_id, user_id).await {
                tracing::warn!(room.id = %created.room_id, %error, "somebody was not invited");
                created.failed_invites.push(FailedInvite::new(user_id, &error));
            }
        }
        if let Some((name, device)) = feed {
            session.invite(&created.room_id, device.user_id()).await?;
            self.credentials.join(&self.client, device.user_id(), &created.room_id).await?;
            let (routes, room_id) = (Arc::clone(&self.routes), created.room_id.clone());
            tokio::task::spawn_blocking(move || routes.set(&name, &room_id))
                .await
                .map_err(|_stopping| RoomCreatorError::NotReady)??;
        }
        Ok(created)
    }
}

impl RoomCreator for BotCreates {
    fn create(
        &self,
        spec: ClinicalRoomSpec,
    ) -> Pin<Box<dyn Future<Output = Result<CreatedRoom, RoomCreatorError>> + Send + '_>> {
        Box::pin(self.create_room(spec))
    }
}
