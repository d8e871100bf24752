// Servers, gateways in front of them, and a splitter before those: what conformance, interop and
// chaos run on.

import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';

import { Program, freePort, repository, waitFor } from './processes.mjs';
import { Splitter } from './splitter.mjs';

const FIXTURE = path.join(repository, 'tests/fixtures/mcp-server');
const NAMESPACE = 'tools';
const FLEET = 'proof';

/** Path of the only fleet behind the gateways, whose servers have this MCP path. */
export const fleetPath = (serverPath = '/mcp') => `/${NAMESPACE}/${FLEET}${serverPath}`;

/** A binary of the sample crate, built if need be. */
export function fixtureBinary(name) {
  return build(name, FIXTURE);
}

/** The product, or what MCP_FLEET_BINARY names. */
export function gatewayBinary() {
  return process.env.MCP_FLEET_BINARY || build('mcp-fleet', repository);
}

function build(name, cwd) {
  execFileSync('cargo', ['build', '--quiet', '--bin', name], { cwd, stdio: 'inherit' });
  return path.join(process.env.CARGO_TARGET_DIR || path.join(cwd, 'target'), 'debug', name);
}

/**
 * Starts one server. `kind.start(port, identity)` gives {command, args, env}; it is ready when its
 * port answers HTTP, whatever the status.
 */
export async function startServer(kind, name, log) {
  const port = await freePort();
  const { command, args, env } = kind.start(port, name);
  const server = new Program(name, command, args, { log, env });
  server.port = port;
  server.address = `127.0.0.1:${port}`;
  await server.until('an answer', () => answers(`http://${server.address}/mcp`));
  return server;
}

/** The sample server of this repository. */
export function sampleServer(flags = []) {
  const binary = fixtureBinary('mcp-server');
  return {
    name: 'rmcp',
    start: (port, identity) => ({
      command: binary,
      args: ['--listen', `127.0.0.1:${port}`, '--identity', identity, '--allowed-hosts', 'localhost,127.0.0.1,::1', ...flags],
    }),
  };
}

/** Gateways of one set: the same fleet, the same keys, each other as peers. */
export class Gateways {
  constructor(log, settings, kind) {
    this.log = log;
    this.settings = settings;
    this.kind = kind;
    this.folder = path.join(repository, 'target/test-logs', log);
    this.all = [];
  }

  /** `kind` says how its servers speak, if not as usual: {transport, path}. */
  static async start(log, { count = 2, servers, settings = {}, kind = {} }) {
    const set = new Gateways(log, settings, kind);
    fs.mkdirSync(set.folder, { recursive: true });
    const key = { id: 'k1', key: randomBytes(32).toString('base64'), notBefore: '2026-01-01T00:00:00Z' };
    fs.writeFileSync(path.join(set.folder, 'keys.json'), JSON.stringify([key]), { mode: 0o600 });
    for (let index = 0; index < count; index += 1) {
      const ports = {};
      for (const use of ['listen', 'admin', 'debug', 'peer']) ports[use] = await freePort();
      set.all.push({ name: `gateway-${index}`, ports, port: ports.listen, readyUrl: `http://127.0.0.1:${ports.admin}/readyz` });
    }
    set.#write(servers);
    await Promise.all(set.all.map((gateway) => set.launch(gateway)));
    return set;
  }

  /** Starts one of them (again) and waits until it is ready and knows its servers. */
  async launch(gateway) {
    const config = this.#file(gateway);
    gateway.program = new Program(gateway.name, gatewayBinary(), ['gateway', '--config', config,
      '--expose-served-by', '--threads', '2', '--shutdown-delay-seconds', '2', '--log-format', 'text'], { log: this.log });
    await gateway.program.until('ready', () => answers(gateway.readyUrl, 200));
    await this.#knows(gateway);
  }

  /** Another list of servers, by hot reload; returns when every living gateway has it. */
  async reconfigure(servers) {
    this.#write(servers);
    await Promise.all(this.all.filter((gateway) => gateway.program.alive).map((gateway) => this.#knows(gateway)));
  }

  async #knows(gateway) {
    await gateway.program.until('its servers', async () => {
      const fleets = await fetch(`http://127.0.0.1:${gateway.ports.debug}/admin/fleets`).then((answer) => answer.text(), () => '');
      return this.addresses.every((address) => fleets.includes(address));
    });
  }

  #write(servers) {
    this.addresses = servers.map((server) => server.address);
    for (const gateway of this.all) {
      const local = (use) => `127.0.0.1:${gateway.ports[use]}`;
      const config = {
        listen: local('listen'),
        adminListen: local('admin'),
        debugListen: local('debug'),
        peerListen: local('peer'),
        peers: this.all.filter((other) => other !== gateway).map((other) => `127.0.0.1:${other.ports.peer}`),
        keys: { file: path.join(this.folder, 'keys.json') },
        fleets: [{
          namespace: NAMESPACE, name: FLEET, path: this.kind.path ?? '/mcp', transport: this.kind.transport ?? 'StreamableHTTP',
          endpoints: this.addresses.map((address) => ({ address })),
          gateway: this.settings,
        }],
      };
      // JSON is YAML. A reader never sees half of it.
      fs.writeFileSync(`${this.#file(gateway)}.part`, JSON.stringify(config, null, 2));
      fs.renameSync(`${this.#file(gateway)}.part`, this.#file(gateway));
    }
  }

  #file(gateway) {
    return path.join(this.folder, `${gateway.name}.yaml`);
  }
}

/** A splitter before the gateways and the URL of the fleet behind it. */
export async function frontOf(gateways) {
  const splitter = await new Splitter(gateways.all).listen();
  return { splitter, url: `http://127.0.0.1:${splitter.port}${fleetPath(gateways.kind.path)}` };
}

/** Does the URL answer, with this status if one is given? */
export async function answers(url, status) {
  try {
    const answer = await fetch(url, { method: status ? 'GET' : 'OPTIONS', signal: AbortSignal.timeout(2000) });
    await answer.body?.cancel();
    return status === undefined || answer.status === status;
  } catch {
    return false;
  }
}

export { waitFor };
