//! Files die with the event that shows them.

use crate::{
    Core, Error,
    media::expiry::media_in_content,
    rooms::{EventRef, Status},
};

impl Core {
    /// Files of its sender that an event with a lifetime shows die when it does, or before.
    ///
    /// Of an encrypted event nothing is seen: its files are opened by keys in its content, which dies.
    pub(crate) async fn bind_files(&self, event: &EventRef) {
        let shows = event.record.expires_ms != 0
            && event.record.status == Status::Accepted
            && event.pdu.content_str().contains("mxc:");
        if shows && let Err(error) = self.bind_each(event).await {
            tracing::warn!(event.id = %event.id(), %error, "files could not be bound to their event");
        }
    }

    async fn bind_each(&self, event: &EventRef) -> Result<(), Error> {
        for mxc in media_in_content(&event.pdu.content_value()) {
            // Nobody lets another one's file die by showing it.
            let own = match self.find_media(&mxc)? {
                Some(meta) => meta.uploader.is_none() || meta.uploader.as_deref() == Some(event.pdu.sender()),
                None => true,
            };
            if own {
                self.attach_media_to_event(event.id(), &mxc, Some(event.record.expires_ms)).await?;
            }
        }
        Ok(())
    }
}
