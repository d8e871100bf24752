//! Publishes notes as events (`events.k8s.io/v1`).
//!
//! Not kube's Recorder: it joins repeats of one reason into the first event and keeps its text, so that
//! "3 → 4 replicas" would be counted under "2 → 3 replicas". Here each new text is an event, and the same
//! text of the same fleet is told once in a while.

use std::{collections::HashMap, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{Api, Client, api::PostParams};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{events::Note, status::truncate};
use crate::{api::names, runtime::chain::Chain};

/// Longest note that the API server takes, in bytes.
const MAX_NOTE: usize = 1024;
/// Longest name of our instance that the API server takes, in bytes.
const MAX_INSTANCE: usize = 128;
/// The same text of the same fleet is not told again within this time.
const QUIET: Duration = Duration::from_secs(300);
/// Texts that are remembered; past it, the memory starts anew, and some are told twice.
const MAX_REMEMBERED: usize = 4096;

/// Publishes events of this process.
pub struct Recorder {
    client: Client,
    instance: String,
    told: Mutex<HashMap<Told, Instant>>,
}

/// UID of the object, reason and text.
type Told = (String, &'static str, String);

impl Recorder {
    /// `instance` is this replica's name.
    pub fn new(client: Client, instance: &str) -> Self {
        Self { client, instance: truncate(instance, MAX_INSTANCE), told: Mutex::default() }
    }

    /// Publishes notes about an object. A failure is logged: an event is never worth a reconcile.
    pub async fn publish(&self, about: &ObjectReference, notes: Vec<Note>) {
        for note in notes {
            let told = (about.uid.clone().unwrap_or_default(), note.reason, note.text.clone());
            if !is_news(&mut self.told.lock(), told, Instant::now()) {
                continue;
            }
            let event = event(about, &note, &self.instance, Timestamp::now());
            let api: Api<Event> =
                Api::namespaced(self.client.clone(), about.namespace.as_deref().unwrap_or_default());
            if let Err(error) = api.create(&PostParams::default(), &event).await {
                tracing::warn!(error = %Chain(&error), reason = note.reason, "failed to publish an event");
            }
        }
    }
}

fn is_news(told: &mut HashMap<Told, Instant>, what: Told, now: Instant) -> bool {
    if told.len() >= MAX_REMEMBERED {
        told.retain(|_, at| now.saturating_duration_since(*at) < QUIET);
        if told.len() >= MAX_REMEMBERED {
            told.clear();
        }
    }
    match told.insert(what, now) {
        Some(before) => now.saturating_duration_since(before) >= QUIET,
        None => true,
    }
}

fn event(about: &ObjectReference, note: &Note, instance: &str, now: Timestamp) -> Event {
    Event {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", about.name.as_deref().unwrap_or(names::MANAGER))),
            namespace: about.namespace.clone(),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(now)),
        regarding: Some(about.clone()),
        type_: Some(if note.warning { "Warning" } else { "Normal" }.into()),
        reason: Some(note.reason.into()),
        note: Some(truncate(&note.text, MAX_NOTE)),
        action: Some("Reconcile".into()),
        reporting_controller: Some(names::MANAGER.into()),
        reporting_instance: Some(instance.into()),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> Told {
        ("uid".into(), "Scaled", text.into())
    }

    #[test]
    fn each_text_is_told_and_none_twice_at_once() {
        let (mut memory, now) = (HashMap::new(), Instant::now());
        assert!(is_news(&mut memory, told("2 → 3"), now));
        assert!(is_news(&mut memory, told("3 → 4"), now));
        assert!(!is_news(&mut memory, told("2 → 3"), now + QUIET / 2));
        assert!(is_news(&mut memory, told("3 → 4"), now + QUIET));
    }

    #[test]
    fn the_api_server_takes_the_name() {
        let about = ObjectReference { name: Some("weather".into()), ..ObjectReference::default() };
        let note = Note { warning: true, reason: "Unschedulable", text: "no node takes it".into() };
        let event = event(&about, &note, "pod-1", Timestamp::UNIX_EPOCH);
        // It checks the prefix like a name, but lets it end in "-"; with "." every event was refused.
        assert_eq!(event.metadata.generate_name.as_deref(), Some("weather-"));
        assert_eq!(event.type_.as_deref(), Some("Warning"));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut memory, now) = (HashMap::new(), Instant::now());
        for i in 0..3 * MAX_REMEMBERED {
            is_news(&mut memory, told(&i.to_string()), now);
        }
        assert!(memory.len() <= MAX_REMEMBERED);
    }
}
