//! Hot reload: the file and what it names are read twice a second and compared by content, which sees through
//! the symbolic links by which a ConfigMap or a Secret is swapped.
//!
//! A change counts once two looks in a row agree, so that a file that is just being written is not taken for a
//! shorter one. What cannot be used changes nothing: the configuration before stays in force, and the log and
//! the hook say so.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ring::digest::{Context, SHA256};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::{ConfigError, GatewayConfig, MAX_BYTES, load};

/// From one look to the next; a change is in force after at most two.
pub const INTERVAL: Duration = Duration::from_millis(500);
/// Looks after which a refused configuration is tried again though it is the same: a file that it names may have
/// come since.
const RETRY: u32 = 10;

type Digest = [u8; 32];

/// What a look brought about.
#[derive(Debug)]
pub enum Event {
    /// Another configuration is in force.
    Reloaded {
        /// It; addresses that need a restart are still the old ones.
        config: Arc<GatewayConfig>,
        /// Fields whose new value needs a restart.
        restart: Vec<&'static str>,
    },
    /// The file cannot be used; what was in force stays.
    Refused(ConfigError),
}

/// Compares the file with what is in force.
#[derive(Debug)]
pub struct Watcher {
    path: PathBuf,
    current: Arc<GatewayConfig>,
    /// What was judged last.
    judged: Digest,
    /// What the last look saw.
    seen: Digest,
    /// Looks since the last refusal, if what was judged last was refused.
    refused: Option<(u32, String)>,
}

impl Watcher {
    /// `current` is what [`load`] made of `path`.
    pub fn new(path: PathBuf, current: Arc<GatewayConfig>) -> Self {
        let judged = digest(&path, &current);
        Self { path, current, judged, seen: judged, refused: None }
    }

    /// Looks once. Reads files.
    pub fn look(&mut self) -> Option<Event> {
        let now = digest(&self.path, &self.current);
        let settled = now == self.seen;
        self.seen = now;
        if !settled {
            return None;
        }
        if now != self.judged {
            self.judged = now;
            return self.judge();
        }
        let (looks, _) = self.refused.as_mut()?;
        *looks += 1;
        if *looks % RETRY == 0 { self.judge() } else { None }
    }

    fn judge(&mut self) -> Option<Event> {
        match load(&self.path) {
            Ok(config) => {
                let (config, restart) = carry_over(config, &self.current);
                self.current = Arc::new(config);
                self.refused = None;
                // The files that are named may be others now.
                self.judged = digest(&self.path, &self.current);
                self.seen = self.judged;
                Some(Event::Reloaded { config: Arc::clone(&self.current), restart })
            }
            Err(error) => {
                let (looks, text) = (self.refused.as_ref().map_or(0, |(looks, _)| *looks), error.to_string());
                let known = self.refused.as_ref().is_some_and(|(_, before)| *before == text);
                self.refused = Some((looks, text));
                if known { None } else { Some(Event::Refused(error)) }
            }
        }
    }
}

/// Looks until `cancel`; `hook` gets each event after it was logged.
pub async fn watch(mut watcher: Watcher, cancel: CancellationToken, mut hook: impl FnMut(Event)) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            _ = ticks.tick() => {}
        }
        // A file may lie on a disk that hangs; the thread that looks is not the one that serves.
        let looked = tokio::task::spawn_blocking(move || {
            let event = watcher.look();
            (watcher, event)
        });
        let event;
        match looked.await {
            Ok((back, found)) => (watcher, event) = (back, found),
            Err(error) => {
                tracing::error!(%error, "the configuration is not watched any more");
                return;
            }
        }
        if let Some(event) = event {
            log(&event);
            hook(event);
        }
    }
}

fn log(event: &Event) {
    match event {
        Event::Reloaded { config, restart } if restart.is_empty() => {
            tracing::info!(fleets = config.fleets.len(), "the configuration was reloaded");
        }
        Event::Reloaded { config, restart } => tracing::warn!(
            fleets = config.fleets.len(),
            "the configuration was reloaded, but for {}: restart the gateway for them",
            restart.join(", ")
        ),
        Event::Refused(error) => {
            tracing::error!(%error, "the configuration was not reloaded; the one before stays in force");
        }
    }
}

/// What a running process cannot change stays as it was, and is named.
fn carry_over(mut new: GatewayConfig, old: &GatewayConfig) -> (GatewayConfig, Vec<&'static str>) {
    let mut restart = Vec::new();
    let mut keep = |field: &'static str, differs: bool| {
        if differs {
            restart.push(field);
        }
    };
    keep("listen", new.listen != old.listen);
    keep("adminListen", new.admin_listen != old.admin_listen);
    keep("debugListen", new.debug_listen != old.debug_listen);
    keep("peerListen", new.peer_listen != old.peer_listen);
    // From cleartext to TLS is another listener; other certificates are not.
    keep("tls", new.tls.is_empty() != old.tls.is_empty());
    if new.tls.is_empty() != old.tls.is_empty() {
        new.tls.clone_from(&old.tls);
    }
    new.listen = old.listen;
    new.admin_listen = old.admin_listen;
    new.debug_listen = old.debug_listen;
    new.peer_listen = old.peer_listen;
    (new, restart)
}

/// Over the content of the file and of the files that it names; one that cannot be read counts as itself.
fn digest(path: &Path, config: &GatewayConfig) -> Digest {
    let mut context = Context::new(&SHA256);
    let files = config.tls.iter().flat_map(|t| [&t.cert, &t.key]).chain(&config.keys_file);
    for path in std::iter::once(path).chain(files.map(PathBuf::as_path)) {
        match content(path) {
            Ok(bytes) => {
                context.update(&(bytes.len() as u64).to_be_bytes());
                context.update(&bytes);
            }
            Err(error) => context.update(error.kind().to_string().as_bytes()),
        }
    }
    let mut digest = Digest::default();
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

fn content(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}
