//! `/_matrix/key/v2/query`: other servers' key documents, with our signature beside theirs.
//!
//! Spec: <https://spec.matrix.org/v1.19/server-server-api/#querying-keys-through-another-server>.

use futures_util::{StreamExt as _, stream};
use ruma::{CanonicalJsonObject, OwnedServerName};

use crate::{Core, Error};

/// How many servers one query may name.
const MAX_SERVERS: usize = 100;
/// How many of them are asked at once.
const AT_ONCE: usize = 8;

impl Core {
    /// The key documents of these servers, valid until the given times (ms; now, if `None`) where they can be had,
    /// each signed by its server and by us. Servers that cannot be reached and were never heard of are left out.
    ///
    /// # Errors
    /// [`Error::TooLarge`] (`M_TOO_LARGE`) for more than 100 servers, [`Error::Store`].
    pub async fn notarised_keys(
        &self,
        wanted: Vec<(OwnedServerName, Option<u64>)>,
    ) -> Result<Vec<CanonicalJsonObject>, Error> {
        if wanted.len() > MAX_SERVERS {
            return Err(Error::TooLarge("at most 100 servers can be asked for at once".into()));
        }
        let now_ms = self.now_ms();
        let found: Vec<Result<Option<CanonicalJsonObject>, Error>> = stream::iter(wanted)
            .map(|(server, until_ms)| async move {
                if self.is_local(&server) {
                    return self.own_key_document().await.map(Some);
                }
                // Beyond seven days no key is valid, whatever is asked.
                let latest_ms = now_ms.saturating_add(super::record::LONGEST_VALIDITY_MS / 2);
                let until_ms = until_ms.unwrap_or(now_ms).min(latest_ms);
                let known = self.keys_satisfying(&server, |known| known.valid_until_ts >= until_ms).await?;
                let Some(mut document) = known.and_then(|known| known.document_object()) else { return Ok(None) };
                self.sign_as_server(&mut document)?;
                Ok(Some(document))
            })
            .buffered(AT_ONCE)
            .collect()
            .await;
        found.into_iter().filter_map(Result::transpose).collect()
    }
}
