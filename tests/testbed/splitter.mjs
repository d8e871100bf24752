// Two dumb load balancers that know nothing of MCP. In front of gateways they must do no harm; in
// front of bare servers they are the negative control.

import http from 'node:http';
import net from 'node:net';

const READINESS_PERIOD_MS = 250;

/**
 * Deals connections in turn to the backends {port, readyUrl}. As a Service does, it leaves out a
 * backend that says it is not ready, and goes on to the next where nobody listens.
 */
export class Splitter {
  constructor(backends) {
    this.backends = backends.map((backend) => ({ ...backend, ready: true, connections: 0 }));
    this.turn = 0;
    this.routes = new Map();
    this.sockets = new Set();
    this.server = net.createServer({ noDelay: true, allowHalfOpen: true }, (socket) => this.#connect(socket, []));
  }

  async listen() {
    await new Promise((resolve) => this.server.listen(0, '127.0.0.1', resolve));
    this.port = this.server.address().port;
    this.timer = setInterval(() => this.backends.forEach(askReadiness), READINESS_PERIOD_MS);
    return this;
  }

  /** The backend of the client's connection from this local port. */
  backendOf(clientPort) {
    return this.routes.get(clientPort);
  }

  /** Puts another list of backends in the place of this one; connections that are open stay. */
  replace(backends) {
    this.backends = backends.map((backend) => ({ ...backend, ready: true, connections: 0 }));
  }

  close() {
    clearInterval(this.timer);
    this.server.close();
    this.sockets.forEach((socket) => socket.destroy());
  }

  #connect(client, tried) {
    const left = this.backends.filter((backend) => !tried.includes(backend));
    if (left.length === 0) return client.destroy();
    const ready = left.filter((backend) => backend.ready);
    const choice = ready.length > 0 ? ready : left;
    const backend = choice[this.turn++ % choice.length];
    const upstream = net.connect({ port: backend.port, host: '127.0.0.1', noDelay: true, allowHalfOpen: true });
    upstream.once('error', () => {
      if (!upstream.connected) this.#connect(client, [...tried, backend]);
    });
    upstream.once('connect', () => {
      upstream.connected = true;
      backend.connections += 1;
      this.routes.set(client.remotePort, backend);
      this.#join(client, upstream);
      this.#join(upstream, client);
    });
    client.on('error', () => {});
  }

  // Half-close and reset are passed on as what they are.
  #join(from, to) {
    this.sockets.add(from);
    from.pipe(to);
    from.on('error', (error) => (error.code === 'ECONNRESET' ? to.resetAndDestroy() : to.destroy()));
    from.on('close', () => this.sockets.delete(from));
  }
}

function askReadiness(backend) {
  if (!backend.readyUrl) return;
  const request = http.get(backend.readyUrl, { timeout: 1000, agent: false }, (answer) => {
    backend.ready = answer.statusCode === 200;
    answer.resume();
  });
  request.on('timeout', () => request.destroy());
  request.on('error', () => (backend.ready = false));
}

/** Deals single requests in turn, whatever connection they come on: the hardest case. Returns its server. */
export async function requestSplitter(ports) {
  let turn = 0;
  const agent = new http.Agent({ keepAlive: true });
  const proxy = http.createServer((request, response) => {
    const { method, url, headers } = request;
    const port = ports[turn++ % ports.length];
    const upstream = http.request({ host: '127.0.0.1', port, method, path: url, headers, agent }, (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      response.flushHeaders();
      answer.pipe(response);
    });
    upstream.on('error', () => response.destroy());
    response.on('close', () => upstream.destroy());
    request.pipe(upstream);
  });
  proxy.keepAliveTimeout = 60_000;
  await new Promise((resolve) => proxy.listen(0, '127.0.0.1', resolve));
  return { port: proxy.address().port, close: () => (proxy.closeAllConnections(), proxy.close(), agent.destroy()) };
}
