//! The key file: read at the start, and again when it changes. A bad one keeps the keys in use, and says so.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use tokio::time::interval;

use super::{metrics::Done, seal::KeyRing, shared::Gateway};

/// How often the file is looked at. A new key is used for sealing only after its `notBefore`.
const LOOK: Duration = Duration::from_secs(2);

/// Reads a key file; blocks.
pub fn load(path: &Path) -> anyhow::Result<KeyRing> {
    let json = std::fs::read(path).with_context(|| format!("failed to read the keys {}", path.display()))?;
    KeyRing::parse(&json).with_context(|| format!("the keys {} cannot be used", path.display()))
}

/// Looks at the file for ever.
pub async fn watch(gateway: Arc<Gateway>, path: Option<PathBuf>) {
    let Some(path) = path else { return std::future::pending().await };
    let mut judged = tokio::fs::read(&path).await.unwrap_or_default();
    let mut looks = interval(LOOK);
    loop {
        looks.tick().await;
        // A file that is not there is one that is just being replaced.
        let Ok(json) = tokio::fs::read(&path).await else { continue };
        if json == judged {
            continue;
        }
        match KeyRing::parse(&json) {
            Ok(ring) => {
                tracing::info!(keys = ring.len(), "keys reloaded");
                gateway.keys.store(Arc::new(ring));
                gateway.metrics.reloads.inc(Done::Ok);
            }
            Err(error) => {
                tracing::error!(%error, path = %path.display(), "keys not reloaded; the old ones stay in use");
                gateway.metrics.reloads.inc(Done::Failed);
            }
        }
        judged = json;
    }
}
