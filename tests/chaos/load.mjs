// Load of both eras by clients that do not retry, over kept and over fresh connections, with short
// and long calls, sessions that count, and streams that stay open. Records how everything ended.

import { connections, describe, exchange, judge, LEGACY, numberIn, openSession, podOf, rpc } from './client.mjs';

const PAUSE_MS = 80;
const LONG_CALL_MS = 900;
// Each so-many-th call is a long one, so that events find calls that run.
const LONG_CALL_EVERY = 4;

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

export class Load {
  /** `modern` and `legacy` clients; every second of each keeps its connections. */
  constructor(url, { modern = 6, legacy = 8, streams = true } = {}) {
    this.url = url;
    this.wanted = { modern, legacy, streams };
    this.calls = [];
    this.streams = [];
    this.sessions = [];
    this.workers = [];
    this.open = new Set();
    this.running = true;
  }

  async start() {
    for (let index = 0; index < this.wanted.modern; index += 1) this.startModern(index % 2 === 0);
    for (let index = 0; index < this.wanted.legacy; index += 1) {
      const client = { agent: connections(index % 2 === 0), index, last: 0, restarts: 0, odd: [], uncertain: false };
      try {
        client.id = await openSession(this.url, client.agent);
      } catch ({ message }) {
        this.calls.push({ era: 'legacy', tool: 'initialize', from: performance.now(), outcome: 'lost', detail: message });
        continue;
      }
      this.sessions.push(client);
      this.workers.push(this.#legacy(client));
      if (this.wanted.streams && index % 4 < 2) this.workers.push(this.#stream('GET', () => this.#get(client)));
    }
    if (this.wanted.streams) for (let index = 0; index < 2; index += 1) this.workers.push(this.#stream('listen', () => this.#listen()));
    return this;
  }

  /** One more modern client. */
  startModern(pooled) {
    this.workers.push(this.#modern(connections(pooled)));
  }

  /** No new calls; those that run are waited for. */
  async stop() {
    this.running = false;
    this.open.forEach((stream) => stream.end());
    await Promise.all(this.workers);
  }

  /**
   * Do the open streams still hear what happens? Each session with a stream announces a change on its
   * own server, which its own stream and every listen must hear. Returns the streams that did not.
   */
  async deaf(limitMs = 5000) {
    const open = [...this.open].map((stream) => ({ stream, before: stream.heard() }));
    for (const client of this.sessions) {
      const agent = connections(false);
      await rpc(this.url, 'tools/call', { name: 'test_trigger_tool_change', arguments: {} }, { session: client.id, agent });
    }
    const end = performance.now() + limitMs;
    const silent = () => open.filter(({ stream, before }) => stream.heard() <= before).map(({ stream }) => stream.kind);
    while (silent().length > 0 && performance.now() < end) await sleep(50);
    return { open: open.length, silent: silent() };
  }

  /** Calls that failed, from the first to the last. */
  get failed() {
    return this.calls.filter((call) => call.outcome !== 'ok');
  }

  async #modern(agent) {
    for (let turn = 0; this.running; turn += 1) {
      const long = turn % LONG_CALL_EVERY === 1;
      await this.#call('modern', long, (name, args) => rpc(this.url, 'tools/call', { name, arguments: args }, { agent }),
        ['echo', { text: 'hello' }]);
    }
  }

  async #legacy(client) {
    for (let turn = client.index; this.running; turn += 1) {
      const long = turn % LONG_CALL_EVERY === 1;
      const before = client.pod;
      const { answer, call } = await this.#call('legacy', long, (name, args) => rpc(this.url, 'tools/call',
        { name, arguments: args }, { session: client.id, agent: client.agent }), ['counter', {}]);
      Object.assign(call, { session: client.index, pod: before });
      client.pod = podOf(answer) ?? client.pod;
      if (!long) follow(client, call, numberIn(answer));
    }
  }

  async #call(era, long, send, short) {
    const [name, args] = long ? ['sleep', { milliseconds: LONG_CALL_MS }] : short;
    const call = { era, tool: name, from: performance.now() };
    const answer = await send(name, args);
    call.to = performance.now();
    call.outcome = judge(answer, era === 'legacy');
    call.port = answer.port;
    call.kept = answer.kept;
    if (call.outcome !== 'ok') call.detail = describe(answer);
    this.calls.push(call);
    await sleep(PAUSE_MS);
    return { answer, call };
  }

  // Streams end when their server must; only a break is wrong. They are opened again, as clients do.
  async #stream(kind, open) {
    while (this.running) {
      const stream = { kind, from: performance.now(), ...(await open()), to: performance.now() };
      if (this.running) this.streams.push(stream);
      await sleep(200);
    }
  }

  async #get(client) {
    const headers = { accept: 'text/event-stream', 'mcp-session-id': client.id, 'mcp-protocol-version': LEGACY };
    const answer = await this.#open('GET', (options) => exchange(this.url, { method: 'GET', headers, ...options }));
    const outcome = answer.failure ?? (answer.status === 200 ? 'ended' : `HTTP ${answer.status}`);
    return { outcome, detail: answer.detail ?? '', port: answer.port };
  }

  async #listen() {
    const params = { notifications: { toolsListChanged: true } };
    const answer = await this.#open('listen', (options) => rpc(this.url, 'subscriptions/listen', params, options));
    // The end of a listen is a result; without one the client must take it for a break.
    const outcome = answer.failure ?? (answer.message?.result ? 'ended' : `without a result: ${describe(answer)}`);
    return { outcome, detail: answer.detail ?? '', port: answer.port };
  }

  // Until its server ends the stream, or `stop` does.
  async #open(kind, send) {
    const stream = { kind, heard: () => stream.got?.body.split('list_changed').length ?? 0 };
    const stopped = new Promise((resolve) => (stream.end = () => resolve({ failure: 'stopped' })));
    this.open.add(stream);
    const onStart = (request, got) => Object.assign(stream, { request, got });
    const answer = await Promise.race([send({ limitMs: 600_000, agent: connections(false), onStart }), stopped]);
    if (answer.failure === 'stopped') stream.request.destroy();
    this.open.delete(stream);
    return answer;
  }
}

/**
 * The count of a session goes up by one, or begins anew once its server is gone. Two upstream sessions
 * behind one id show as 1, 1, 2, 2. A call that failed may have counted or not.
 */
function follow(client, call, count) {
  if (call.outcome !== 'ok') {
    client.uncertain = true;
    return;
  }
  const next = client.last + 1;
  const begun = count === 1 || (client.uncertain && count === 2);
  const goesOn = count === next || (client.uncertain && count === next + 1);
  if (!goesOn && begun) client.restarts += 1;
  if (!goesOn && !begun) client.odd.push(`session ${client.index} counted ${client.last}, then ${count}`);
  client.last = count;
  client.uncertain = false;
}
