//! `subscriptions/listen`: one listen of a client is one at each pod, since an event of a pod reaches only the
//! streams that this pod holds (G21; mcp.md section 3). Pods come and go under it; its client sees one stream.

use std::{collections::HashMap, rc::Rc, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode};
use serde_json::{Value, value::RawValue};
use tokio::{
    select,
    sync::mpsc,
    task::{JoinHandle, spawn_local},
    time::{Instant, interval, sleep_until},
};

use super::{
    admit::{Need, Permit, admit, admit_bound},
    body::Answer,
    coming::Coming,
    context::{Context, Dressed, SessionHeader, Tail},
    exchange::{Arrived, Failure, Gather, exchange},
    pipe::{Writer, pipe},
    relay::{COMMENT, KEEP_ALIVE},
    stream::Open,
};
use crate::gateway::{
    fleet::{Clock, Endpoint, Phase},
    mcp::{
        answers,
        envelope::Envelope,
        result::{self, Honoured},
        sse,
    },
    seal::{PodId, Purpose},
    session::is_event_stream,
};

/// How long the acknowledgements of all pods are waited for; who is later is left out of the client's.
const ACKNOWLEDGE: Duration = Duration::from_secs(2);
/// How often the pods are compared with those that are listened to.
const LOOK: Duration = Duration::from_millis(250);
/// A pod whose stream has ended is asked again after this.
const REST: Duration = Duration::from_secs(2);
/// Events that wait for their client, over all pods; a slow client slows its pods down.
const WAITING: usize = 32;
/// Largest event of a listen.
const LARGEST: usize = 1 << 20;

/// What a pod says.
enum Said {
    /// An event, as it came.
    Event(u64, Bytes),
    /// Its stream has ended.
    Ended(u64),
}

/// A task that the client wants to hear of.
struct Task {
    pod: PodId,
    raw: String,
    token: String,
}

/// One pod that is listened to.
struct Heard {
    task: JoinHandle<()>,
    acknowledged: bool,
}

impl Drop for Heard {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// POST of a listen.
pub(crate) async fn post(
    context: Context,
    headers: HeaderMap,
    body: Bytes,
    envelope: &Envelope<'_>,
    version: &str,
) -> Response<Answer> {
    let Some(id) = envelope.id else {
        // A listen that nobody can be answered: the pod judges it.
        return super::modern::unanswerable(context, headers, body, version).await;
    };
    let tasks = tasks(&context, envelope);
    let need = Need::Modern(version);
    let admitted = admit(&context.worker, &context.fleet, need, &[], || context.client_key(&headers)).await;
    let permit = match admitted {
        Ok(permit) => permit,
        Err(shed) => return context.shed(shed, Some(id)),
    };
    let listen = Listen { context, headers, body, id: id.to_owned(), version: version.into(), tasks };
    let endpoint = Arc::clone(&permit.endpoint);
    let arrived = match listen.open(permit).await {
        Ok(arrived) => arrived,
        Err(failure) => return listen.context.modern_failure(&failure, Some(id)),
    };
    let is_stream = arrived.status() == StatusCode::OK && is_event_stream(&arrived.head().headers);
    match arrived {
        Arrived::Stream { head, rest, permit, .. } if is_stream => {
            permit.ignore();
            let (writer, reader) = pipe();
            let silent = listen.context.detached();
            let Listen { context, headers, body, id, version, tasks } = listen;
            let Dressed { context, head } = context.dressed(head, &permit, SessionHeader::Remove);
            drop(permit);
            let listen = Listen { context: silent, headers, body, id, version, tasks };
            spawn_local(listen.run(endpoint, rest, writer));
            context.finish(head, Answer::pipe(reader))
        }
        arrived => {
            let tail = Tail { id: Some(id), ..Tail::default() };
            listen.context.pass(arrived, SessionHeader::Remove, None, tail)
        }
    }
}

fn tasks(context: &Context, envelope: &Envelope<'_>) -> Vec<Task> {
    let keys = context.worker.gateway.keys.load();
    let opened = envelope.task_ids.iter().filter_map(|id| {
        let opened = keys.open(Purpose::Task, &context.fleet.uid, &id.value).ok()?;
        let raw = String::from_utf8(opened.upstream).ok()?;
        Some(Task { pod: opened.pod, raw, token: id.value.clone().into_owned() })
    });
    opened.collect()
}

struct Listen {
    context: Context,
    headers: HeaderMap,
    body: Bytes,
    id: Box<RawValue>,
    version: Box<str>,
    tasks: Vec<Task>,
}

impl Listen {
    /// The listen of one pod: with the tasks that are its own, under the names that it gave them.
    fn body_for(&self, pod: PodId) -> Bytes {
        if self.tasks.is_empty() {
            return self.body.clone();
        }
        let Ok(mut message) = serde_json::from_slice::<Value>(&self.body) else { return self.body.clone() };
        if let Some(ids) = message.pointer_mut("/params/notifications/taskIds") {
            let own = self.tasks.iter().filter(|t| t.pod == pod).map(|t| Value::from(t.raw.clone()));
            *ids = own.collect();
        }
        serde_json::to_vec(&message).map_or_else(|_| self.body.clone(), Bytes::from)
    }

    async fn open(&self, permit: Permit) -> Result<Arrived, Failure> {
        let body = self.body_for(permit.endpoint.id);
        let request = self.context.upstream_request(Method::POST, self.headers.clone(), body);
        let (worker, connect) = (Rc::clone(&self.context.worker), self.context.connect());
        // No limit on the head: a listen waits (dataplane.md section 9).
        exchange(worker, permit, request, connect, None, Gather::Small).await
    }

    /// The pods that should be listened to.
    fn wanted(&self) -> Vec<Arc<Endpoint>> {
        let view = self.context.fleet.view();
        let ready = |e: &&Arc<Endpoint>| {
            e.phase() == Phase::Ready && e.serves_bound() && e.capability.load().speaks(&self.version)
        };
        view.endpoints.iter().filter(ready).cloned().collect()
    }

    async fn run(self, first: Arc<Endpoint>, source: Box<Coming>, writer: Writer) {
        let this = Rc::new(self);
        this.context.fleet.metrics.listens.inc();
        let (said, hear) = mpsc::channel(WAITING);
        let mut heard = HashMap::new();
        let task =
            spawn_local(read(Arc::clone(&first), this.context.worker.gateway.clock, source, said.clone()));
        heard.insert(first.serial, Heard { task, acknowledged: false });
        this.listen(heard, (said, hear), &writer).await;
        this.context.fleet.metrics.listens.dec();
        writer.finish();
    }

    async fn listen(
        self: &Rc<Self>,
        mut heard: HashMap<u64, Heard>,
        (said, mut hear): (mpsc::Sender<Said>, mpsc::Receiver<Said>),
        writer: &Writer,
    ) {
        let closing = self.context.worker.gateway.closing.clone();
        let mut look = interval(LOOK);
        let acknowledge_by = Instant::now() + ACKNOWLEDGE;
        let mut honoured: Option<Honoured> = None;
        let mut early = Some(Vec::new());
        let mut resting = HashMap::new();
        let end = self.context.stream_end();
        let mut silent_at = Instant::now() + KEEP_ALIVE;
        loop {
            let waits = early.is_some();
            select! {
                biased;
                () = writer.left() => return,
                () = async { select! { () = closing.cancelled() => {}, () = sleep_until(end) => {} } } => {
                    let _ = writer.send(answers::event(&answers::listen_end(&self.id))).await;
                    return;
                }
                message = hear.recv() => match message {
                    None => return,
                    Some(Said::Ended(serial)) => {
                        heard.remove(&serial);
                        resting.retain(|_, until| *until > Instant::now());
                        resting.insert(serial, Instant::now() + REST);
                    }
                    Some(Said::Event(serial, event)) => {
                        let said = self.take(&event, serial, &mut heard, &mut honoured);
                        match (said, &mut early) {
                            (Some(event), Some(early)) if early.len() < WAITING => early.push(event),
                            (Some(event), None) => {
                                silent_at = Instant::now() + KEEP_ALIVE;
                                if writer.send(event).await.is_err() {
                                    return;
                                }
                            }
                            _ => {}
                        }
                    }
                },
                _ = look.tick() => self.adjust(&mut heard, &resting, &said),
                () = sleep_until(acknowledge_by), if waits && honoured.is_some() => {}
                () = sleep_until(silent_at) => {
                    silent_at = Instant::now() + KEEP_ALIVE;
                    if !waits && writer.send(COMMENT).await.is_err() {
                        return;
                    }
                }
            }
            let all = heard.values().all(|h| h.acknowledged) && heard.len() >= self.reach();
            if waits && honoured.is_some() && (all || Instant::now() >= acknowledge_by) {
                let acknowledged = answers::acknowledged(&self.id, &honoured.take().unwrap_or_default());
                let mut events = vec![answers::event(&acknowledged)];
                events.append(&mut early.take().unwrap_or_default());
                for event in events {
                    if writer.send(event).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// How many pods there are to listen to.
    fn reach(&self) -> usize {
        if self.context.view.spec.settings.listen_fan_out { self.wanted().len() } else { 1 }
    }

    /// What the client gets of an event: acknowledgements are merged, and the end of one pod's stream is none of
    /// the client's.
    fn take(
        &self,
        event: &Bytes,
        serial: u64,
        heard: &mut HashMap<u64, Heard>,
        honoured: &mut Option<Honoured>,
    ) -> Option<Bytes> {
        let parsed = sse::Event::parse(event);
        let data = parsed.data.as_bytes();
        if let Some(mut ack) = result::acknowledged(data) {
            let one = heard.get_mut(&serial)?;
            one.acknowledged = true;
            for id in &mut ack.task_ids {
                if let Some(task) = self.tasks.iter().find(|t| t.raw == *id) {
                    id.clone_from(&task.token);
                }
            }
            *honoured = Some(match honoured.take() {
                Some(others) => others.merge(ack),
                None => ack,
            });
            return None;
        }
        if result::answered(data).is_some() {
            return None;
        }
        if self.tasks.is_empty() || data.is_empty() {
            return Some(event.clone()).filter(|_| !data.is_empty());
        }
        let facts = result::inspect(data);
        let Some(task) = &facts.notified else { return Some(event.clone()) };
        let Some(known) = self.tasks.iter().find(|t| t.raw == *task.id.value) else {
            return Some(event.clone());
        };
        let changed =
            crate::gateway::mcp::splice::replace(data, &[(task.id.range.clone(), known.token.as_str())]);
        Some(sse::rewrite_data(event, std::str::from_utf8(&changed).unwrap_or_default()))
    }

    /// Opens what is missing and drops what has gone.
    fn adjust(
        self: &Rc<Self>,
        heard: &mut HashMap<u64, Heard>,
        resting: &HashMap<u64, Instant>,
        said: &mpsc::Sender<Said>,
    ) {
        let wanted = self.wanted();
        if wanted.is_empty() {
            return;
        }
        let fan_out = self.context.view.spec.settings.listen_fan_out;
        // Who leaves is let go only when somebody else is there: a pod that drains still has events.
        heard.retain(|serial, _| wanted.iter().any(|e| e.serial == *serial));
        for endpoint in wanted {
            let rests = resting.get(&endpoint.serial).is_some_and(|until| *until > Instant::now());
            if rests || heard.contains_key(&endpoint.serial) || (!fan_out && !heard.is_empty()) {
                continue;
            }
            let (this, said, serial) = (Rc::clone(self), said.clone(), endpoint.serial);
            let task = spawn_local(async move {
                let ended = said.clone();
                this.join(endpoint, said).await;
                let _ = ended.send(Said::Ended(serial)).await;
            });
            heard.insert(serial, Heard { task, acknowledged: false });
        }
    }

    async fn join(&self, endpoint: Arc<Endpoint>, said: mpsc::Sender<Said>) {
        let admitted = admit_bound(&self.context.worker, &self.context.fleet, &endpoint, || 0).await;
        let Ok(permit) = admitted else { return };
        let Ok(Arrived::Stream { head, rest, permit, .. }) = self.open(permit).await else { return };
        permit.ignore();
        drop(permit);
        let is_stream = head.status == StatusCode::OK && is_event_stream(&head.headers);
        // Headers are parts of what was read with them.
        drop(head);
        if is_stream {
            read(endpoint, self.context.worker.gateway.clock, rest, said).await;
        }
    }
}

/// Reads one pod's stream to its end.
async fn read(endpoint: Arc<Endpoint>, clock: Clock, mut source: Box<Coming>, said: mpsc::Sender<Said>) {
    let _open = Open::at(&endpoint, clock);
    let mut splitter = sse::Splitter::new(LARGEST);
    while let Some(Ok(chunk)) = source.data().await {
        splitter.push(chunk);
        while let Some(event) = splitter.next_event() {
            if !event.oversize && said.send(Said::Event(endpoint.serial, event.bytes)).await.is_err() {
                return;
            }
        }
    }
    let _ = said.send(Said::Ended(endpoint.serial)).await;
}
