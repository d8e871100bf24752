// A plain MCP client over HTTP/1.1 that never sends anything twice and says exactly how a request
// ended. SDK clients hide connections, retries and resets; here they are what is measured.

import http from 'node:http';

export const LEGACY = '2025-11-25';
export const MODERN = '2026-07-28';

const ACCEPT = 'application/json, text/event-stream';
const CLIENT = { name: 'chaos', version: '1.0.0' };
let lastId = 0;

/** Keeps a connection, or opens one for every request. */
export const connections = (pooled) => new http.Agent({ keepAlive: pooled, maxSockets: Infinity });

/**
 * One HTTP request, read to its end. `failure` is absent when there was a whole response, else reset
 * (the connection broke), cut (it broke within the response) or silent (nothing within `limitMs`).
 */
export function exchange(url, { method = 'POST', headers = {}, body, agent, limitMs = 20_000, onStart } = {}) {
  return new Promise((resolve) => {
    const got = { body: '' };
    const end = (failure, detail) => {
      clearTimeout(timer);
      resolve({ ...got, failure, detail });
    };
    const request = http.request(url, { method, headers, agent });
    onStart?.(request, got);
    const timer = setTimeout(() => (end('silent', `nothing within ${limitMs / 1000} s`), request.destroy()), limitMs);
    request.on('socket', (socket) => {
      got.kept = request.reusedSocket;
      // A kept connection that has just broken no longer knows its port.
      const note = () => (got.port = socket.ownPort ??= socket.localPort);
      if (socket.connecting) socket.once('connect', note);
      else note();
    });
    request.on('error', (error) => end('reset', error.code ?? error.message));
    request.on('response', (response) => {
      got.status = response.statusCode;
      got.headers = response.headers;
      response.setEncoding('utf8');
      response.on('data', (chunk) => (got.body += chunk));
      response.on('end', () => end());
      response.on('error', (error) => end('cut', error.code ?? error.message));
    });
    request.end(body);
  });
}

/** A request of either era; `session` makes it legacy. Adds the JSON-RPC `message` that answers it. */
export async function rpc(url, rpcMethod, params, { session, modern = !session, agent, limitMs, onStart } = {}) {
  const id = (lastId += 1);
  const headers = { 'content-type': 'application/json', accept: ACCEPT };
  if (session) Object.assign(headers, { 'mcp-session-id': session, 'mcp-protocol-version': LEGACY });
  let all = params;
  if (modern) {
    Object.assign(headers, { 'mcp-protocol-version': MODERN, 'mcp-method': rpcMethod });
    if (params.name) headers['mcp-name'] = params.name;
    all = { ...params, _meta: { 'io.modelcontextprotocol/protocolVersion': MODERN,
      'io.modelcontextprotocol/clientInfo': CLIENT, 'io.modelcontextprotocol/clientCapabilities': {} } };
  }
  const body = JSON.stringify({ jsonrpc: '2.0', id, method: rpcMethod, params: all });
  const answer = await exchange(url, { headers, body, agent, limitMs, onStart });
  if (!answer.failure) answer.message = messages(answer).find((message) => message.id === id || (message.error && message.id == null));
  return answer;
}

/** The JSON-RPC messages of a body, be it JSON or an event stream. */
export function messages({ headers, body }) {
  try {
    if (!headers['content-type']?.startsWith('text/event-stream')) return [JSON.parse(body)].flat();
    return body.split(/\r?\n\r?\n/).map((event) => event.split(/\r?\n/).filter((line) => line.startsWith('data:'))
      .map((line) => line.slice(5).trim()).join('\n')).filter(Boolean).map((data) => JSON.parse(data));
  } catch {
    return [];
  }
}

/** Opens a legacy session; throws when that fails. */
export async function openSession(url, agent) {
  const params = { protocolVersion: LEGACY, capabilities: {}, clientInfo: CLIENT };
  const opened = await rpc(url, 'initialize', params, { modern: false, agent });
  const session = opened.headers?.['mcp-session-id'];
  if (!opened.message?.result || !session) throw new Error(`no session: ${describe(opened)}`);
  const headers = { 'content-type': 'application/json', accept: ACCEPT, 'mcp-session-id': session, 'mcp-protocol-version': LEGACY };
  const body = JSON.stringify({ jsonrpc: '2.0', method: 'notifications/initialized' });
  const accepted = await exchange(url, { headers, body, agent });
  if (accepted.status !== 202) throw new Error(`not initialized: ${describe(accepted)}`);
  return session;
}

/**
 * How a call ended: `ok`; `answered` = failed with a proper JSON-RPC error that claims nothing wrong;
 * `lost` = the session is said to be gone; `misled` = a status from which clients conclude too much;
 * `empty` = a whole response without an answer; else reset, cut or silent.
 */
export function judge({ failure, status, message }, isSession) {
  if (failure) return failure;
  if (message?.result) return message.result.isError ? 'answered' : 'ok';
  if (isSession && status === 404) return 'lost';
  if ([400, 404, 405, 406].includes(status)) return 'misled';
  return message?.error ? 'answered' : 'empty';
}

export function describe({ failure, detail, status, body, message }) {
  if (failure) return `${failure} ${detail}`;
  return `HTTP ${status} ${message ? JSON.stringify(message.error ?? message.result) : body}`.slice(0, 240);
}

/** The pod that made a result, where the server says so. */
export const podOf = ({ message }) => message?.result?._meta?.['mcpfleet.io/pod'];

/** The first number in the text of a result. */
export const numberIn = ({ message }) => Number(/\d+/.exec(message?.result?.content?.[0]?.text ?? '')?.[0]);
