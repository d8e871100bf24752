// Programs that a test starts: each logs into target/test-logs, is ended by its own id, and none
// outlives the test.

import { spawn } from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

export const repository = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');

const LAST_LINES = 15;
const running = new Set();

// SIGCONT first would be wrong: SIGKILL also ends a stopped process.
process.on('exit', () => running.forEach((program) => program.kill('SIGKILL')));
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(130));

/** One program. `ended` is a promise of how it ended. */
export class Program {
  constructor(name, command, args, { log, env = {}, cwd = repository } = {}) {
    this.name = name;
    this.log = path.join(repository, 'target/test-logs', log, `${name}.log`);
    fs.mkdirSync(path.dirname(this.log), { recursive: true });
    const output = fs.openSync(this.log, 'w');
    this.child = spawn(command, args, { cwd, env: { ...process.env, ...env }, stdio: ['ignore', output, output] });
    fs.closeSync(output);
    running.add(this);
    this.ended = new Promise((resolve) => {
      const end = (how) => {
        this.exit = how;
        running.delete(this);
        resolve(how);
      };
      this.child.on('error', (error) => end(`not started: ${error.message}`));
      this.child.on('exit', (code, signal) => end(code ?? signal));
    });
  }

  get alive() {
    return this.exit === undefined;
  }

  kill(signal) {
    if (this.alive && this.child.pid) this.child.kill(signal);
  }

  /** SIGTERM, and SIGKILL when that was not enough; returns how it ended. */
  async stop(graceMs = 10_000) {
    this.kill('SIGTERM');
    const timer = setTimeout(() => this.kill('SIGKILL'), graceMs);
    const how = await this.ended;
    clearTimeout(timer);
    return how;
  }

  /** Waits until `check` returns something; fails when the program ends or time is up. */
  async until(what, check, limitMs = 30_000) {
    return waitFor(`${this.name}: ${what}`, async () => {
      if (!this.alive) throw new Error(`${this.name} ended (${this.exit}); ${this.log} says:\n${this.lastLines()}`);
      return check();
    }, limitMs);
  }

  lastLines() {
    return fs.readFileSync(this.log, 'utf8').trimEnd().split('\n').slice(-LAST_LINES).join('\n');
  }
}

/** Ends every program that still runs. */
export async function stopAll() {
  const programs = [...running];
  programs.forEach((program) => program.kill('SIGKILL'));
  await Promise.all(programs.map((program) => program.ended));
}

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Polls until `check` returns something true, and returns it. */
export async function waitFor(what, check, limitMs = 30_000, periodMs = 100) {
  const end = Date.now() + limitMs;
  for (;;) {
    const got = await check();
    if (got) return got;
    if (Date.now() > end) throw new Error(`not within ${limitMs / 1000} s: ${what}`);
    await sleep(periodMs);
  }
}

/** A port that was free a moment ago; none is handed out twice. */
export async function freePort() {
  for (;;) {
    const server = net.createServer();
    await new Promise((resolve, reject) => server.once('error', reject).listen(0, '127.0.0.1', resolve));
    const { port } = server.address();
    await new Promise((resolve) => server.close(resolve));
    if (handedOut.has(port)) continue;
    handedOut.add(port);
    return port;
  }
}
const handedOut = new Set();

/** Established connections to a local port, as the helper that drains pods counts them. */
export function connectionsTo(port) {
  const suffix = `:${port.toString(16).toUpperCase().padStart(4, '0')}`;
  return ['/proc/net/tcp', '/proc/net/tcp6'].flatMap((file) => fs.readFileSync(file, 'utf8').split('\n').slice(1))
    .filter((line) => {
      const [, local, , state] = line.trim().split(/\s+/);
      return state === '01' && local.endsWith(suffix);
    }).length;
}
