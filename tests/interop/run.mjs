#!/usr/bin/env node
// Real servers and real clients, each with each, through two gateways before two replicas.
//
//   node run.mjs                                    every cell, direct and through the gateways
//   node run.mjs --servers py1 --clients ts2,rmcp   some cells
//   node run.mjs --direct                           without gateways: what the packages do by themselves
//
// One cell is one session: open, list, 50 calls (each answer checked; with a session also its
// counter), progress, elicitation and sampling where both sides can, a resource, a prompt, close.
// Each cell also runs against one replica without any gateway, so that a failure has an owner.
// Connections are dealt to the gateways in turn, and in a further pass single requests are, so that
// no session stays with one gateway; the bare replicas, dealt so, are the negative control. Writes target/reports/interop.json; exit 1 = a target is missed.

import { execFile } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

import { Gateways, fixtureBinary, fleetPath, frontOf, sampleServer, startServer } from '../testbed/bed.mjs';
import { npmPackages, pinnedNode, pythonPackages } from '../testbed/install.mjs';
import { repository, stopAll } from '../testbed/processes.mjs';
import { equals, finish, printTable } from '../testbed/report.mjs';
import { requestSplitter } from '../testbed/splitter.mjs';

const here = path.dirname(fileURLToPath(import.meta.url));
const CALLS = 50;
const CELL_MS = 120_000;
/** The client that also meets the bare replicas, dealt its requests in turn: it must fail. */
const CONTROL = 'ts1';

const { values: flags } = parseArgs({
  options: {
    servers: { type: 'string' },
    clients: { type: 'string' },
    direct: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
});

async function main() {
  if (flags.help) {
    console.log(fs.readFileSync(fileURLToPath(import.meta.url), 'utf8').match(/^\/\/.*$/gm).slice(0, 11).join('\n'));
    return 0;
  }
  const packages = install();
  const servers = pick(serverKinds(packages), flags.servers);
  const clients = pick(clientKinds(packages), flags.clients);
  const rows = [];
  for (const server of servers) {
    const urls = await setUp(server);
    for (const client of clients.filter(({ name }) => server.clients?.includes(name) ?? true)) rows.push(await cell(server, client, urls));
    await stopAll();
    urls.close();
  }
  return report(rows);
}

function pick(all, names) {
  if (!names) return all;
  return names.split(',').map((name) => all.find((one) => one.name === name)
    ?? (() => { throw new Error(`no ${name}; there are ${all.map((one) => one.name)}`); })());
}

// Scripts must lie beside the packages that they import, and the packages stay out of the tree.
function install() {
  const modules = npmPackages(here, 'interop');
  const scripts = path.join(repository, 'target/interop');
  fs.rmSync(scripts, { recursive: true, force: true });
  fs.cpSync(here, scripts, { recursive: true, filter: (file) => !file.endsWith('.json') });
  fs.symlinkSync(modules, path.join(scripts, 'node_modules'));
  return {
    modules,
    node: pinnedNode(modules),
    script: (file) => path.join(scripts, file),
    py1: pythonPackages(path.join(here, 'python-1.30.0.txt'), 'python-mcp-1.30.0'),
    py2: pythonPackages(path.join(here, 'python-2.3.0.txt'), 'python-mcp-2.3.0'),
  };
}

// What each server can be asked. `ask` (elicitation) and `sample` are per era of the session.
const ASK = { tool: 'ask', expect: 'Ada' };
const SAMPLE = { tool: 'sample', expect: 'Ada' };
const OWN_SCRIPT = {
  echo: { tool: 'echo', argument: 'text' },
  counter: 'counter',
  progress: { tool: 'slow', atLeast: 3 },
  ask: { legacy: ASK, modern: ASK },
  sample: { legacy: SAMPLE, modern: SAMPLE },
  resource: 'interop://text',
  prompt: 'hello',
};
const FIXTURE = {
  ...OWN_SCRIPT,
  progress: { tool: 'test_tool_with_progress', atLeast: 3 },
  ask: {
    legacy: { tool: 'test_elicitation', arguments: { message: 'Who is there?' }, expect: 'Ada' },
    modern: { tool: 'test_input_required_result_elicitation', expect: 'Ada' },
  },
  sample: {
    legacy: { tool: 'test_sampling', arguments: { prompt: 'Say something' }, expect: 'Ada' },
    modern: { tool: 'test_input_required_result_sampling', expect: 'Ada' },
  },
  resource: 'test://static-text',
  prompt: 'test_simple_prompt',
};
const EVERYTHING = {
  echo: { tool: 'echo', argument: 'message' },
  progress: { tool: 'trigger-long-running-operation', arguments: { duration: 1, steps: 4 }, atLeast: 3 },
  ask: { legacy: { tool: 'trigger-elicitation-request', expect: 'Ada' } },
  sample: { legacy: { tool: 'trigger-sampling-request', arguments: { prompt: 'Say something' }, expect: 'Ada' } },
  resource: 'demo://resource/dynamic/text/1',
  prompt: 'simple-prompt',
};

function serverKinds({ modules, node, script, py1, py2 }) {
  const python = (name, interpreter) => ({
    name, plan: OWN_SCRIPT, start: (port) => ({ command: interpreter, args: [script(`servers/${name}.py`), String(port)] }),
  });
  const everything = path.join(modules, '@modelcontextprotocol/server-everything/dist/index.js');
  return [
    { ...sampleServer(), plan: FIXTURE },
    { name: 'everything', plan: EVERYTHING,
      start: (port) => ({ command: node, args: [everything, 'streamableHttp'], env: { PORT: String(port) } }) },
    // The deprecated transport, which only the older packages speak.
    { name: 'everything-sse', plan: EVERYTHING, path: '/sse', transport: 'SSE', clients: ['py1', 'ts1'],
      start: (port) => ({ command: node, args: [everything, 'sse'], env: { PORT: String(port) } }) },
    python('py1', py1),
    python('py2', py2),
    { name: 'ts2', plan: OWN_SCRIPT, start: (port) => ({ command: node, args: [script('servers/ts2.mjs'), String(port)] }) },
  ];
}

// A client takes the URL, the era and the plan, and prints a line of JSON.
function clientKinds({ modules, node, script, py1, py2 }) {
  const rust = fixtureBinary('mcp-interop');
  const client = (name, era, command, ...before) => ({
    name, run: (url, plan) => execute(command, [...before, url, era, JSON.stringify(plan)]).then(lastJson),
  });
  const inspector = path.join(modules, '@modelcontextprotocol/inspector/clients/launcher/build/index.js');
  return [
    client('rmcp', 'auto', rust),
    client('rmcp-legacy', 'legacy', rust),
    client('py1', 'legacy', py1, script('clients/py1.py')),
    client('py2', 'auto', py2, script('clients/py2.py')),
    client('py2-legacy', 'legacy', py2, script('clients/py2.py')),
    client('ts1', 'legacy', node, script('clients/ts1.mjs')),
    client('ts2', 'auto', node, script('clients/ts2.mjs')),
    client('ts2-legacy', 'legacy', node, script('clients/ts2.mjs')),
    { name: 'inspector', run: (url, plan) => inspect(node, inspector, url, plan, 'auto') },
  ];
}

// The inspector's command line runs one method per session; its load test makes 50 calls on one.
async function inspect(node, program, url, plan, era) {
  const steps = {};
  const step = async (name, expect, ...args) => {
    const { output, exit } = await execute(node, [program, '--cli', url, '--transport', 'http', '--protocol-era', era, ...args]);
    steps[name] = exit === 0 && expect.test(output) ? 'ok' : `exit ${exit}: ${output.slice(-300)}`;
  };
  await step('list', new RegExp(`"${plan.echo.tool}"`), '--method', 'tools/list');
  const echo = ['--method', 'tools/call', '--tool-name', plan.echo.tool, '--tool-arg', `${plan.echo.argument}=once`];
  await step('echo', /once/, ...echo);
  await step('call', new RegExp(`"ok":${plan.calls},.*"errors":0,`), ...echo,
    '--load', '--load-requests', String(plan.calls), '--load-concurrency', '2', '--format', 'json');
  await step('read', /"text"/, '--method', 'resources/read', '--uri', plan.resource);
  await step('prompt', /"text"/, '--method', 'prompts/get', '--prompt-name', plan.prompt);
  return { version: '', era, calls: steps.call === 'ok' ? plan.calls : 0, steps };
}

function execute(command, args) {
  const options = { timeout: CELL_MS, killSignal: 'SIGKILL', maxBuffer: 16 << 20, env: { ...process.env, NO_COLOR: '1' } };
  return new Promise((resolve) => {
    execFile(command, args, options, (error, stdout, stderr) => {
      resolve({ stdout, output: `${stdout}\n${stderr}`, exit: error ? error.code ?? error.signal : 0 });
    });
  });
}

function lastJson({ stdout, output, exit }) {
  try {
    return JSON.parse(stdout.trim().split('\n').at(-1));
  } catch {
    return { version: '', calls: 0, steps: { client: `exit ${exit}: ${output.trim().slice(-300)}` } };
  }
}

// Two replicas and the ways to them.
async function setUp(kind) {
  const log = 'interop';
  const start = (index) => startServer(kind, `${kind.name}-${index}`, log);
  const servers = [await start(0)];
  const direct = `http://${servers[0].address}${kind.path ?? '/mcp'}`;
  if (flags.direct) return { direct, close: () => {} };
  servers.push(await start(1));
  const set = await Gateways.start(`${log}/${kind.name}`, { servers, kind });
  const { url: gateways, splitter } = await frontOf(set);
  const requests = await requestSplitter(set.all.map((gateway) => gateway.port));
  const bare = await requestSplitter(servers.map((server) => server.port));
  const close = () => [splitter, requests, bare].forEach((way) => way.close());
  const url = (port, where) => `http://127.0.0.1:${port}${where}`;
  return { direct, gateways, requests: url(requests.port, fleetPath(kind.path)), control: url(bare.port, kind.path ?? '/mcp'), close };
}

// One server with one client, each way.
async function cell(server, client, urls) {
  const plan = { calls: CALLS, ...server.plan };
  const row = { server: server.name, client: client.name };
  const ways = ['direct', 'gateways', 'requests', ...(client.name === CONTROL ? ['control'] : [])];
  for (const way of ways.filter((way) => urls[way])) {
    const started = Date.now();
    const { version, era, calls, steps } = await client.run(urls[way], plan);
    const bad = Object.entries(steps).filter(([, outcome]) => outcome !== 'ok').map(([name, outcome]) => `${name}: ${outcome}`);
    Object.assign(row, way === 'direct' ? { version: version || era } : {});
    row[way] = { version, calls, steps: Object.keys(steps).length, bad, seconds: (Date.now() - started) / 1000 };
    console.log(`${server.name} ${client.name} ${way}: ${bad.length === 0 ? 'ok' : bad.join('; ')} (${row[way].seconds.toFixed(1)} s)`);
  }
  return row;
}

// A cell is right when it does what the packages do without a gateway, and all of it.
function report(rows) {
  const word = (result) => (result ? (result.bad.length === 0 ? `ok ${result.calls}` : `FAILS ${result.bad.map((text) => text.split(':')[0])}`) : '-');
  console.log('');
  printTable(rows.map((row) => ({ ...row, direct: word(row.direct), gateways: word(row.gateways), 'each request': word(row.requests),
    'no gateway': row.control ? word(row.control) : '' })), ['server', 'client', 'version', 'direct', 'gateways', 'each request', 'no gateway']);
  const name = (row) => `${row.server} with ${row.client}`;
  const ways = flags.direct ? ['direct'] : ['gateways', 'requests'];
  const failing = (way) => rows.filter((row) => row[way].bad.length > 0);
  const differing = (way) => rows.filter((row) => way !== 'direct' && row[way].bad.length === 0 && row[way].calls !== row.direct.calls);
  const targets = ways.flatMap((way) => [
    { ...equals(`${rows.length} cells, ${way}: sessions with a failed step`, 0, failing(way).length), which: failing(way).map(name) },
    { ...equals(`${rows.length} cells, ${way}: sessions with other calls than direct`, 0, differing(way).length), which: differing(way).map(name) },
  ]);
  const controls = rows.filter((row) => row.control);
  if (controls.length > 0) {
    const failed = controls.filter((row) => row.control.bad.length > 0).length;
    targets.push(equals(`${controls.length} servers without gateways: sessions that fail`, controls.length, failed));
  }
  for (const { which = [] } of targets) if (which.length > 0) console.log(`  ${which.join(', ')}`);
  const versions = { rmcp: '3.9.0', 'server-everything': '2026.8.31', 'mcp (PyPI)': '1.30.0, 2.3.0', 'sdk (npm)': '1.32.2',
    'server, client (npm)': '2.4.0', inspector: '2.12.0' };
  return finish('interop', [{ versions, host: os.arch() }, ...rows], targets);
}

try {
  process.exitCode = await main();
} catch (error) {
  console.error(`error: ${error.message}`);
  process.exitCode = 1;
}
await stopAll();
process.exit();
