#!/usr/bin/env node
// Runs the official MCP conformance suite and judges it by its checks.json files.
//
//   node run.mjs                        start the sample server and test it directly
//   node run.mjs --url http://…/mcp     test what answers there; nothing is started
//   node run.mjs --replicas 2           start two and spread requests blindly over them: the negative
//                                       control, which must fail where state pins a request to a pod
//
// The suite's own exit code covers only required scenarios and no warnings, so it is not the gate.
// Writes target/reports/NAME.json and exits 1 when a target is missed. Needs any Node.js >= 20 with
// npm; the suite itself runs on the pinned Node.js of package-lock.json, installed once into the
// cache (MCP_FLEET_CACHE, default ~/.cache/mcp-fleet), never into the tree.

import { execFileSync, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import http from 'node:http';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const here = path.dirname(fileURLToPath(import.meta.url));
const repository = path.resolve(here, '../..');
const fixture = path.join(repository, 'tests/fixtures/mcp-server');

// Checks that must pass, as rmcp's own fixture reached them with this version of the suite. Ours
// passes one more at 2025-11-25, as it also closes a stream in the middle of a call.
const GOALS = { '2025-11-25': 83, '2026-07-28': 197 };
const KNOWN_SKIPS = ['tasks-status-notifications'];
const MAX_RUN_MS = 300_000;

const { values: flags } = parseArgs({
  options: {
    url: { type: 'string' },
    server: { type: 'string' },
    revisions: { type: 'string', default: Object.keys(GOALS).join(',') },
    replicas: { type: 'string', default: '1' },
    report: { type: 'string', default: 'conformance-fixture' },
    help: { type: 'boolean', default: false },
  },
});

const children = [];
process.on('exit', () => children.forEach((child) => child.kill('SIGKILL')));
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(130));

try {
  process.exitCode = await main();
} catch (error) {
  console.error(`error: ${error.message}`);
  process.exitCode = 1;
}
process.exit();

async function main() {
  if (flags.help) {
    console.log(fs.readFileSync(fileURLToPath(import.meta.url), 'utf8').match(/^\/\/.*$/gm).slice(0, 13).join('\n'));
    return 0;
  }
  const revisions = flags.revisions.split(',');
  for (const revision of revisions) {
    if (!(revision in GOALS)) throw new Error(`no goal for revision ${revision}; known: ${Object.keys(GOALS)}`);
  }
  const modules = install();
  const url = flags.url ?? (await startServers(Number(flags.replicas)));
  const rows = [];
  for (const revision of revisions) rows.push(await runSuite(modules, url, revision));
  return report(rows);
}

// Installs the pinned packages once per lock file and returns their folder.
function install() {
  const cache = process.env.MCP_FLEET_CACHE || path.join(os.homedir(), '.cache/mcp-fleet');
  const lock = fs.readFileSync(path.join(here, 'package-lock.json'));
  const key = createHash('sha256').update(lock).digest('hex').slice(0, 16);
  const folder = path.join(cache, 'conformance', key);
  const modules = path.join(folder, 'node_modules');
  if (fs.existsSync(path.join(folder, 'complete'))) return modules;
  console.log(`installing the conformance suite into ${folder} (once)`);
  fs.mkdirSync(folder, { recursive: true });
  for (const file of ['package.json', 'package-lock.json', '.npmrc']) {
    fs.copyFileSync(path.join(here, file), path.join(folder, file));
  }
  // No install scripts: what the lock file names is all that is fetched, and nothing of it runs.
  execFileSync('npm', ['ci', '--ignore-scripts', '--no-audit', '--no-fund'], { cwd: folder, stdio: 'inherit' });
  fs.writeFileSync(path.join(folder, 'complete'), '');
  return modules;
}

// Starts sample servers on free ports and returns the URL to test.
async function startServers(replicas) {
  let binary = flags.server;
  if (!binary) {
    execFileSync('cargo', ['build', '--quiet', '--bin', 'mcp-server'], { cwd: fixture, stdio: 'inherit' });
    binary = path.join(process.env.CARGO_TARGET_DIR || path.join(fixture, 'target'), 'debug/mcp-server');
  }
  const ports = await Promise.all(Array.from({ length: replicas }, (_, index) => startServer(binary, index)));
  return `http://localhost:${ports.length === 1 ? ports[0] : await roundRobin(ports)}/mcp`;
}

function startServer(binary, index) {
  // The suite checks that a server on loopback refuses foreign host names.
  const server = spawn(binary, ['--listen', '127.0.0.1:0', '--identity', `replica-${index}`,
    '--allowed-hosts', 'localhost,127.0.0.1,::1'], { stdio: ['ignore', 'ignore', 'pipe'] });
  children.push(server);
  return new Promise((resolve, reject) => {
    let log = '';
    const timer = setTimeout(() => reject(new Error(`${binary} did not start within 20 s: ${log}`)), 20_000);
    server.on('error', reject);
    server.on('exit', (code) => reject(new Error(`${binary} ended with ${code}: ${log}`)));
    server.stderr.on('data', (chunk) => {
      if (log.length < 10_000) log += chunk;
      const port = log.match(/address=127\.0\.0\.1:(\d+)/)?.[1];
      if (port) resolve(Number(port));
      if (port) clearTimeout(timer);
    });
  });
}

// A proxy that knows nothing of MCP: each request goes to the next server.
async function roundRobin(ports) {
  let turn = 0;
  const proxy = http.createServer((request, response) => {
    const { method, url, headers } = request;
    const port = ports[turn++ % ports.length];
    const upstream = http.request({ host: '127.0.0.1', port, method, path: url, headers }, (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      answer.pipe(response);
    });
    upstream.on('error', () => response.destroy());
    response.on('close', () => upstream.destroy());
    request.pipe(upstream);
  });
  await new Promise((resolve) => proxy.listen(0, '127.0.0.1', resolve));
  return proxy.address().port;
}

// One revision: runs the suite and counts its checks.
async function runSuite(modules, url, revision) {
  const output = fs.mkdtempSync(path.join(os.tmpdir(), 'mcp-conformance-'));
  const node = path.join(modules, `node-linux-${os.arch()}`, 'bin/node');
  const suite = path.join(modules, '@modelcontextprotocol/conformance/dist/index.js');
  const args = [suite, 'server', '--url', url, '--requirements', revision, '-o', output];
  const exit = await new Promise((resolve, reject) => {
    const run = spawn(node, args, { stdio: ['ignore', 'ignore', 'inherit'], timeout: MAX_RUN_MS });
    children.push(run);
    run.on('error', reject);
    run.on('exit', (code, signal) => resolve(code ?? signal));
  });
  const row = { revision, url, scenarios: 0, passed: 0, failed: 0, warnings: 0, skipped: 0, exit, unexpected: [] };
  const counters = { SUCCESS: 'passed', FAILURE: 'failed', WARNING: 'warnings', SKIPPED: 'skipped' };
  for (const file of fs.readdirSync(output, { recursive: true }).filter((file) => file.endsWith('checks.json'))) {
    row.scenarios += 1;
    for (const check of JSON.parse(fs.readFileSync(path.join(output, file), 'utf8'))) {
      const counter = counters[check.status];
      if (counter) row[counter] += 1;
      const known = check.status === 'SKIPPED' && KNOWN_SKIPS.includes(check.id);
      if (counter && counter !== 'passed' && !known) {
        const scenario = path.dirname(file).replace(/^server-|-\d{4}-\d\d-\d\dT.*$/g, '');
        row.unexpected.push(`${scenario}: ${check.id} ${check.status}: ${String(check.errorMessage).slice(0, 300)}`);
      }
    }
  }
  fs.rmSync(output, { recursive: true });
  return row;
}

// Prints the table, writes the report, and returns the exit code.
function report(rows) {
  const columns = ['revision', 'scenarios', 'passed', 'failed', 'warnings', 'skipped', 'exit'];
  const line = (cells) => console.log(cells.map((cell) => String(cell).padEnd(12)).join(''));
  line(columns);
  for (const row of rows) line(columns.map((column) => row[column]));
  for (const row of rows) row.unexpected.forEach((text) => console.log(`  ${row.revision} ${text}`));

  const targets = rows.flatMap((row) => [
    { what: `${row.revision}: checks passed`, goal: `>= ${GOALS[row.revision]}`, got: row.passed,
      holds: row.passed >= GOALS[row.revision] },
    { what: `${row.revision}: checks failed, warned or skipped for an unknown reason`, goal: '0',
      got: row.unexpected.length, holds: row.unexpected.length === 0 },
    { what: `${row.revision}: exit code of the suite`, goal: '0', got: row.exit, holds: row.exit === 0 },
  ]);
  const folder = path.join(repository, 'target/reports');
  fs.mkdirSync(folder, { recursive: true });
  const file = path.join(folder, `${flags.report}.json`);
  fs.writeFileSync(file, `${JSON.stringify({ name: flags.report, rows, targets }, null, 2)}\n`);
  const missed = targets.filter((target) => !target.holds);
  for (const { what, goal, got } of missed) console.log(`MISSED ${what}: ${got}, goal ${goal}`);
  console.log(`${targets.length - missed.length} of ${targets.length} targets hold (${path.relative(process.cwd(), file)})`);
  return missed.length === 0 ? 0 : 1;
}
