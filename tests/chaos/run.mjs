#!/usr/bin/env node
// Breaks servers and gateways under load of both eras, and says what clients that do not retry saw.
//
//   node run.mjs                             every event, and the negative control without gateways
//   node run.mjs --only kill-server,upgrade  some events
//
// Planned events (rollout, scaling, restart of a gateway, upgrade) may fail no call and break no
// connection. A server that is killed or hangs fails only the calls that ran on it, with a proper
// answer. A gateway that is killed cuts only what was inside it. No session is lost, and none ever
// has two upstream sessions. Writes target/reports/chaos.json; exit 1 = a target is missed.

import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

import { Gateways, frontOf, sampleServer, startServer } from '../testbed/bed.mjs';
import { pythonPackages } from '../testbed/install.mjs';
import { connectionsTo, sleep, stopAll, waitFor } from '../testbed/processes.mjs';
import { atLeast, atMost, equals, finish, printTable } from '../testbed/report.mjs';
import { Splitter } from '../testbed/splitter.mjs';
import { describe, judge, numberIn, openSession, podOf, rpc } from './client.mjs';
import { Load } from './load.mjs';

const interop = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../interop');

const WARM_MS = 3000;
const AFTER_MS = 4000;
/** A call that began within this time of an event may still have run into it. */
const AT_ONCE_MS = 100;
const REQUEST_SECONDS = 5;
/** Health is asked every second and lost after two failures of a second each; one more for the load. */
const NOTICED_MS = 6000;
/** Longest wait for a server that leaves; free of connections for so long without a break, as `await-drain` wants it. */
const DRAIN_MS = 40_000;
const QUIET_MS = 2000;
/** The calls here take one second at most, so a server that leaves must be left alone soon. */
const MAX_DRAIN_SECONDS = 10;

const SETTINGS = {
  healthCheck: { type: 'MCP', intervalSeconds: 1, timeoutSeconds: 1, unhealthyThreshold: 2, healthyThreshold: 1 },
  timeouts: { requestSeconds: REQUEST_SECONDS },
};

const seconds = (ms) => (ms / 1000).toFixed(2);

const { values: flags } = parseArgs({
  options: { only: { type: 'string' }, help: { type: 'boolean', default: false } },
});

// --- events -------------------------------------------------------------------------------------

const EVENTS = {
  'no event': async () => {
    await sleep(2000);
    return {};
  },

  'kill-server': async (bed) => {
    const victim = bed.servers[0];
    const at = performance.now();
    victim.kill('SIGKILL');
    await sleep(AFTER_MS);
    await bed.configure(bed.servers.filter((server) => server !== victim));
    return { may: ({ outcome, from, to, era, pod }) => outcome === 'answered' && from < at + AT_ONCE_MS && to > at
      && (era === 'modern' || pod === victim.name) };
  },

  'hang-server': async (bed) => {
    const victim = bed.servers[0];
    const at = performance.now();
    victim.kill('SIGSTOP');
    await sleep(NOTICED_MS + REQUEST_SECONDS * 1000);
    // What a liveness probe does with it.
    victim.kill('SIGKILL');
    await bed.configure(bed.servers.filter((server) => server !== victim));
    const gone = performance.now();
    return { may: ({ outcome, from, era, pod }) => outcome === 'answered'
      && (era === 'modern' ? from < at + NOTICED_MS : from < gone && pod === victim.name) };
  },

  'kill-gateway': async (bed) => {
    const victim = bed.gateways.all[0];
    victim.program.kill('SIGKILL');
    // On a busy machine it takes a while to die, and goes on taking calls until then.
    await victim.program.ended;
    const at = performance.now();
    await sleep(AFTER_MS);
    await bed.gateways.launch(victim);
    const inside = ({ from, port }) => from < at + AT_ONCE_MS && bed.splitter.backendOf(port)?.port === victim.port;
    return { may: inside, mayBreak: inside };
  },

  'restart-gateways': async (bed) => {
    const facts = [];
    for (const gateway of bed.gateways.all) {
      gateway.program.kill('SIGTERM');
      const since = performance.now();
      facts.push(await waitFor(`${gateway.name} to end`, () => gateway.program.exit?.toString(), DRAIN_MS));
      facts.push(`${((performance.now() - since) / 1000).toFixed(1)} s`);
      await bed.gateways.launch(gateway);
      await sleep(1000);
    }
    return { facts: { exits: facts.join(' ') },
      targets: [equals('restart-gateways: both ended by themselves with exit code 0', '0,0', facts.filter((_, index) => index % 2 === 0).join())] };
  },

  'rolling-restart': async (bed) => {
    for (const old of [...bed.servers]) {
      const fresh = await bed.startServer();
      await bed.configure([...bed.servers, fresh]);
      await bed.drain([old]);
    }
    return {};
  },

  'scale-3-1-5': async (bed) => {
    await bed.drain(bed.servers.slice(1));
    await sleep(1000);
    const fresh = await Promise.all([1, 2, 3, 4].map(() => bed.startServer()));
    await bed.configure([...bed.servers, ...fresh]);
    return {};
  },

  upgrade: async (bed) => {
    const old = [...bed.servers];
    const probe = () => rpc(bed.url, 'tools/call', { name: 'echo', arguments: { text: 'hello' } });
    const before = await probe();
    bed.kind = pythonServer('py2');
    for (const server of old) {
      const fresh = await bed.startServer();
      await bed.configure([...bed.servers, fresh]);
      if (bed.drains.length === 0) {
        // From the first modern server on, no modern call may see a legacy one.
        await waitFor('a modern answer', async () => judge(await probe()) === 'ok', 15_000);
        await sleep(1500);
        for (let index = 0; index < 6; index += 1) bed.load.startModern(index % 2 === 0);
        await sleep(1000);
      }
      await bed.drain([server]);
    }
    const modern = bed.load.calls.filter((call) => call.era === 'modern').length;
    return { facts: { before: describe(before) },
      targets: [atLeast('upgrade: modern calls while both eras served', 20, modern)] };
  },
};

const OPTIONS = { upgrade: { kind: () => pythonServer('py1'), modern: 0, streams: false } };

function pythonServer(name) {
  const version = { py1: '1.30.0', py2: '2.3.0' }[name];
  const python = pythonPackages(path.join(interop, `python-${version}.txt`), `python-mcp-${version}`);
  return { name, start: (port) => ({ command: python, args: [path.join(interop, `servers/${name}.py`), String(port)] }) };
}

// --- what they run on ---------------------------------------------------------------------------

class Bed {
  constructor(event, kind) {
    this.log = `chaos/${event.replaceAll(' ', '-')}`;
    this.kind = kind;
    this.started = 0;
    this.drainMs = DRAIN_MS;
    /** Seconds that each drain took. */
    this.drains = [];
  }

  static async start(event, { kind = sampleServer(), gateways = 2, replicas = 3, settings = SETTINGS } = {}) {
    const bed = new Bed(event, kind);
    bed.servers = await Promise.all(Array.from({ length: replicas }, () => bed.startServer()));
    if (gateways > 0) {
      bed.gateways = await Gateways.start(bed.log, { count: gateways, servers: bed.servers, settings });
      Object.assign(bed, await frontOf(bed.gateways));
    } else {
      bed.splitter = await new Splitter(bed.servers).listen();
      bed.url = `http://127.0.0.1:${bed.splitter.port}/mcp`;
    }
    return bed;
  }

  startServer() {
    return startServer(this.kind, `${this.kind.name}-${this.started++}`, this.log);
  }

  async configure(servers) {
    this.servers = servers;
    if (this.gateways) await this.gateways.reconfigure(servers);
    else this.splitter.replace(servers);
  }

  /** Takes servers out of the fleet, waits until nobody holds a connection, and only then ends them. */
  async drain(leaving) {
    const since = performance.now();
    await this.configure(this.servers.filter((server) => !leaving.includes(server)));
    await Promise.all(leaving.map(async (server) => {
      let quietSince = performance.now();
      // As for `await-drain`, running out of time is no failure of its own; what it cuts will show.
      await waitFor(`${server.name} to drain`, () => {
        if (connectionsTo(server.port) > 0) quietSince = performance.now();
        return performance.now() - quietSince > QUIET_MS || performance.now() - since > this.drainMs;
      }, this.drainMs + 5000);
      await server.stop();
    }));
    this.drains.push((performance.now() - since) / 1000);
  }

  async end() {
    this.splitter.close();
    await stopAll();
  }
}

// --- judgement ----------------------------------------------------------------------------------

async function underLoad(name, event) {
  const { kind, ...load } = OPTIONS[name] ?? {};
  const bed = await Bed.start(name, { kind: kind?.() });
  bed.load = await new Load(bed.url, load).start();
  await sleep(WARM_MS);
  const started = performance.now();
  const result = await event(bed);
  const lasted = performance.now() - started;
  await sleep(AFTER_MS);
  bed.hearing = load.streams === false ? { open: 0, silent: [] } : await bed.load.deaf();
  await bed.load.stop();
  await bed.end();
  return judged(name, bed, result, started, lasted);
}

function judged(name, { load, splitter, drains, hearing }, { may = () => false, mayBreak = () => false, facts = {}, targets = [] }, started, lasted) {
  const count = (list, test) => list.filter(test).length;
  const { failed, streams, sessions } = load;
  const wrong = failed.filter((call) => !may(call));
  const broken = streams.filter((stream) => stream.outcome !== 'ended' && !mayBreak(stream));
  const odd = sessions.flatMap((session) => session.odd);
  const row = {
    event: name,
    calls: load.calls.length,
    failed: failed.length,
    answered: count(failed, (call) => call.outcome === 'answered'),
    broken: count(failed, (call) => ['reset', 'cut', 'silent', 'empty'].includes(call.outcome)),
    'not allowed': wrong.length,
    lost: count(failed, (call) => call.outcome === 'lost'),
    moved: sessions.reduce((sum, session) => sum + session.restarts, 0),
    split: odd.length,
    'streams ended': ['GET', 'listen'].map((kind) => `${count(streams, (stream) => stream.kind === kind)} ${kind}`).join(', '),
    'streams broken': broken.length,
    deaf: `${hearing.silent.length} of ${hearing.open}`,
    seconds: seconds(lasted),
    drains: drains.map((drain) => `${drain.toFixed(1)} s`).join(' '),
    ...facts,
    examples: [...wrong, ...broken].slice(0, 8).map(({ era, kind, tool, outcome, detail, from, to, kept, port }) => (
      `${era ?? kind} ${tool ?? 'stream'} ${outcome}: ${detail} (${seconds(from - started)} to ${seconds(to - started)} s after the beginning, `
      + `${kept ? 'kept' : 'fresh'} connection to ${splitter.backendOf(port)?.name})`)),
    odd: odd.slice(0, 8),
  };
  for (const text of [...row.examples, ...row.odd]) console.log(`  ${name}: ${text}`);
  return { row, targets: [
    atLeast(`${name}: calls that succeeded`, 100, row.calls - row.failed),
    equals(`${name}: calls that failed and must not`, 0, wrong.length),
    equals(`${name}: streams that broke and must not`, 0, broken.length),
    equals(`${name}: open streams that hear nothing any more`, 0, hearing.silent.length),
    equals(`${name}: sessions lost`, 0, row.lost),
    equals(`${name}: sessions with two upstream sessions`, 0, odd.length),
    ...(drains.length > 0 ? [atMost(`${name}: seconds until a server that leaves is left alone`, MAX_DRAIN_SECONDS, Math.max(...drains))] : []),
    ...targets,
  ] };
}

// The same rollout over bare servers: without a gateway it must fail.
async function control() {
  const bed = await Bed.start('control', { gateways: 0 });
  // Nobody closes the clients' idle connections, so waiting for that would be in vain.
  bed.drainMs = 3000;
  bed.load = new Load(bed.url, { streams: false });
  try {
    await bed.load.start();
    await sleep(WARM_MS);
    await EVENTS['rolling-restart'](bed);
  } catch (error) {
    console.log(`  control: ${error.message}`);
  }
  await bed.load.stop();
  await bed.end();
  const { failed } = bed.load;
  const row = { event: 'rolling-restart without gateways', calls: bed.load.calls.length, failed: failed.length,
    lost: failed.filter((call) => call.outcome === 'lost').length };
  return { row, targets: [atLeast('control: failed calls without gateways', 10, failed.length)] };
}

// One session, its server dead, called through both gateways in turn: it must count on as one.
async function oneSession(name, { atOnce = false, recovery = 'Enabled', kill = 'SIGTERM' } = {}) {
  const bed = await Bed.start(name, { settings: { ...SETTINGS, sessionRecovery: recovery } });
  const ways = bed.gateways.all.map((gateway) => bed.url.replace(String(bed.splitter.port), String(gateway.port)));
  const session = await openSession(ways[0]);
  const count = (way) => rpc(ways[way], 'tools/call', { name: 'counter', arguments: {} }, { session });
  const text = (answer) => (judge(answer, true) === 'ok' ? numberIn(answer) : describe(answer));
  const first = await count(0);
  const before = [text(first), text(await count(1))].join();
  const victim = bed.servers.find((server) => server.name === podOf(first));
  victim?.kill('SIGKILL');
  await victim?.ended;
  const after = [];
  if (atOnce) after.push(...(await Promise.all([count(0), count(1)])));
  while (after.length < 4) after.push(await count(after.length % 2));
  const counts = after.map(text);
  if (atOnce) counts.splice(0, 2, ...counts.slice(0, 2).sort());
  // And on, when the gateway that may hold the agreement is restarted, and the other after it.
  for (const gateway of recovery === 'Enabled' ? bed.gateways.all : []) {
    gateway.program.kill(kill);
    await gateway.program.ended;
    counts.push(text(await count(1 - bed.gateways.all.indexOf(gateway))));
    await bed.gateways.launch(gateway);
    counts.push(text(await count(bed.gateways.all.indexOf(gateway))));
  }
  await bed.end();
  const targets = [equals(`${name}: counts before the death of the server`, '1,2', before)];
  if (recovery === 'Enabled') {
    targets.push(equals(`${name}: counts through both gateways after it, and after each ended (${kill})`, '1,2,3,4,5,6,7,8', counts.join()));
  } else {
    const gone = after.filter(({ status, message }) => status === 404 && message?.error && message.id == null).length;
    targets.push(equals(`${name}: 404 with a JSON-RPC error without id`, 4, gone));
  }
  return { row: { event: name, counts: recovery === 'Enabled' ? `${before} | ${counts}` : `${before} | 404`, before, after: counts.join() }, targets };
}

const SINGLE = {
  'one-session': () => oneSession('one-session'),
  'one-session-at-once': () => oneSession('one-session-at-once', { atOnce: true, kill: 'SIGKILL' }),
  'no-recovery': () => oneSession('no-recovery', { recovery: 'Disabled' }),
  control,
};

// --- the run ------------------------------------------------------------------------------------

async function main() {
  if (flags.help) {
    console.log(fs.readFileSync(fileURLToPath(import.meta.url), 'utf8').match(/^\/\/.*$/gm).slice(0, 9).join('\n'));
    return 0;
  }
  const known = [...Object.keys(EVENTS), ...Object.keys(SINGLE)];
  const wanted = flags.only?.split(',') ?? known;
  const unknown = wanted.filter((name) => !known.includes(name));
  if (unknown.length > 0) throw new Error(`no event ${unknown}; there are ${known}`);
  const rows = [];
  const targets = [];
  for (const name of wanted) {
    console.log(`${name} …`);
    try {
      const result = await (SINGLE[name]?.() ?? underLoad(name, EVENTS[name]));
      rows.push(result.row);
      targets.push(...result.targets);
    } catch (error) {
      // One event that could not be carried out must not hide the others.
      console.log(`  ${name}: ${error.message}`);
      rows.push({ event: name, error: error.message });
      targets.push(equals(`${name}: carried out`, true, false));
      await stopAll();
    }
  }
  console.log('');
  printTable(rows, ['event', 'calls', 'failed', 'answered', 'broken', 'not allowed', 'lost', 'moved', 'split', 'streams ended',
    'streams broken', 'deaf', 'seconds', 'drains', 'exits', 'counts']);
  return finish('chaos', rows, targets);
}

try {
  process.exitCode = await main();
} catch (error) {
  console.error(`error: ${error.message}`);
  process.exitCode = 1;
}
await stopAll();
process.exit();
