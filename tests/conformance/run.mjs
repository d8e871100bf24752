#!/usr/bin/env node
// Runs the official MCP conformance suite and judges it by its checks.json files.
//
//   node run.mjs                           start the sample server and test it directly
//   node run.mjs --url http://…/mcp        test what answers there; nothing is started
//   node run.mjs --gateways 2 --replicas 3 test gateways before replicas, behind a splitter that deals
//                                          connections, then one that deals single requests; and, as
//                                          negative control that must fail, the replicas without gateways
//
// The suite's own exit code covers only required scenarios and no warnings, so it is not the gate.
// Writes target/reports/NAME.json and exits 1 when a target is missed. Needs any Node.js >= 20 with
// npm; the suite itself runs on the pinned Node.js of package-lock.json, installed once into the
// cache (MCP_FLEET_CACHE, default ~/.cache/mcp-fleet), never into the tree.

import { spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

import { Gateways, fleetPath, frontOf, sampleServer, startServer } from '../testbed/bed.mjs';
import { npmPackages, pinnedNode } from '../testbed/install.mjs';
import { stopAll } from '../testbed/processes.mjs';
import { atLeast, equals, finish, printTable } from '../testbed/report.mjs';
import { requestSplitter } from '../testbed/splitter.mjs';

const here = path.dirname(fileURLToPath(import.meta.url));

// Checks that must pass, as rmcp's own fixture reached them with this version of the suite. Ours
// passes one more at 2025-11-25, as it also closes a stream in the middle of a call.
const GOALS = { '2025-11-25': 83, '2026-07-28': 197 };
// What two replicas behind plain round robin lose at least, so that a passing gateway proves something.
const CONTROL_FAILURES = { '2025-11-25': 20, '2026-07-28': 7 };
const KNOWN_SKIPS = ['tasks-status-notifications'];
const MAX_RUN_MS = 300_000;

const { values: flags } = parseArgs({
  options: {
    url: { type: 'string' },
    revisions: { type: 'string', default: Object.keys(GOALS).join(',') },
    gateways: { type: 'string', default: '0' },
    replicas: { type: 'string', default: '1' },
    report: { type: 'string', default: 'conformance-fixture' },
    help: { type: 'boolean', default: false },
  },
});

try {
  process.exitCode = await main();
} catch (error) {
  console.error(`error: ${error.message}`);
  process.exitCode = 1;
}
await stopAll();
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
  const modules = npmPackages(here, 'conformance');
  const rows = [];
  for (const { through, url } of await setups()) {
    for (const revision of revisions) rows.push({ through, ...(await runSuite(modules, url, revision)) });
  }
  return report(rows);
}

// What is tested: a name and a URL each.
async function setups() {
  if (flags.url) return [{ through: 'given', url: flags.url }];
  const [gateways, replicas] = [Number(flags.gateways), Number(flags.replicas)];
  const kind = sampleServer();
  const names = Array.from({ length: replicas }, (_, index) => `replica-${index}`);
  const servers = await Promise.all(names.map((name) => startServer(kind, name, flags.report)));
  const control = async () => {
    const { port } = await requestSplitter(servers.map((server) => server.port));
    return { through: 'round robin', url: `http://localhost:${port}/mcp` };
  };
  if (gateways === 0) return replicas === 1 ? [{ through: 'direct', url: `http://localhost:${servers[0].port}/mcp` }] : [await control()];
  const set = await Gateways.start(flags.report, { count: gateways, servers });
  const { splitter } = await frontOf(set);
  const { port } = await requestSplitter(set.all.map((gateway) => gateway.port));
  return [
    { through: 'gateways', url: `http://localhost:${splitter.port}${fleetPath()}` },
    { through: 'gateways, each request', url: `http://localhost:${port}${fleetPath()}` },
    await control(),
  ];
}

// One revision: runs the suite and counts its checks.
async function runSuite(modules, url, revision) {
  const output = fs.mkdtempSync(path.join(os.tmpdir(), 'mcp-conformance-'));
  const node = pinnedNode(modules);
  const suite = path.join(modules, '@modelcontextprotocol/conformance/dist/index.js');
  const args = [suite, 'server', '--url', url, '--requirements', revision, '-o', output];
  const exit = await new Promise((resolve, reject) => {
    const run = spawn(node, args, { stdio: ['ignore', 'ignore', 'inherit'], timeout: MAX_RUN_MS });
    process.on('exit', () => run.kill('SIGKILL'));
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
  printTable(rows, ['through', 'revision', 'scenarios', 'passed', 'failed', 'warnings', 'skipped', 'exit']);
  const isControl = (row) => row.through === 'round robin';
  for (const row of rows.filter((row) => !isControl(row))) {
    row.unexpected.forEach((text) => console.log(`  ${row.through}, ${row.revision}: ${text}`));
  }
  const targets = rows.flatMap((row) => {
    const what = (text) => `${row.revision} through ${row.through}: ${text}`;
    if (isControl(row)) {
      return [atLeast(what('checks that the negative control fails'), CONTROL_FAILURES[row.revision], row.failed)];
    }
    return [
      atLeast(what('checks passed'), GOALS[row.revision], row.passed),
      equals(what('checks failed, warned or skipped for an unknown reason'), 0, row.unexpected.length),
      equals(what('exit code of the suite'), 0, row.exit),
    ];
  });
  return finish(flags.report, rows, targets);
}
