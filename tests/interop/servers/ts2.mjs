// The tools of the interoperability test on npm @modelcontextprotocol/server: dual-era, legacy
// clients with sessions. Argument: port.

import { randomUUID } from 'node:crypto';
import { createServer } from 'node:http';

import { NodeStreamableHTTPServerTransport, toNodeHandler, toWebRequest } from '@modelcontextprotocol/node';
import { McpServer, acceptedContent, createMcpHandler, inputRequired, inputResponse, isLegacyRequest } from '@modelcontextprotocol/server';
import * as z from 'zod';

const text = (value) => ({ content: [{ type: 'text', text: String(value) }] });
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const Name = z.object({ name: z.string() });

function build() {
  const server = new McpServer({ name: 'interop-ts2', version: '1.0.0' });
  let count = 0;
  const tool = (name, inputSchema, run) => server.registerTool(name, { description: name, inputSchema: z.object(inputSchema) }, run);
  tool('echo', { text: z.string() }, (args) => text(args.text));
  tool('add', { a: z.number(), b: z.number() }, ({ a, b }) => text(a + b));
  tool('counter', {}, () => text((count += 1)));
  tool('sleep', { milliseconds: z.number() }, async ({ milliseconds }) => (await sleep(milliseconds), text('slept')));
  tool('slow', {}, async (_, ctx) => {
    const progressToken = ctx.mcpReq._meta?.progressToken;
    for (const progress of [1, 2, 3]) {
      if (progressToken !== undefined) {
        await ctx.mcpReq.notify({ method: 'notifications/progress', params: { progressToken, progress, total: 3 } });
      }
      await sleep(50);
    }
    return text('done');
  });
  // The SDK turns this into a request where the client's revision wants one.
  tool('ask', {}, (_, ctx) => {
    const name = acceptedContent(ctx.mcpReq.inputResponses, 'name', Name);
    if (name) return text(`accept ${name.name}`);
    return inputRequired({ inputRequests: { name: inputRequired.elicit({ message: 'Who is there?', requestedSchema: Name }) } });
  });
  tool('sample', {}, (_, ctx) => {
    const answer = inputResponse(ctx.mcpReq.inputResponses, 'said');
    if (answer.kind === 'sampling') return text(answer.result.content.text);
    const messages = [{ role: 'user', content: { type: 'text', text: 'Say something' } }];
    return inputRequired({ inputRequests: { said: inputRequired.createMessage({ messages, maxTokens: 10 }) } });
  });
  server.registerResource('text', 'interop://text', {}, (uri) => ({ contents: [{ uri: uri.href, text: 'a resource' }] }));
  server.registerPrompt('hello', { description: 'hello' }, () => ({
    messages: [{ role: 'user', content: { type: 'text', text: 'a prompt' } }],
  }));
  return server;
}

const modern = toNodeHandler(createMcpHandler(build, { legacy: 'reject' }));
const sessions = new Map();

async function legacy(request, response, body) {
  const id = request.headers['mcp-session-id'];
  const known = sessions.get(id);
  if (known) return known.handleRequest(request, response, body);
  if (id) {
    response.writeHead(404, { 'content-type': 'application/json' });
    return response.end(JSON.stringify({ jsonrpc: '2.0', id: null, error: { code: -32001, message: 'Session not found' } }));
  }
  const transport = new NodeStreamableHTTPServerTransport({
    sessionIdGenerator: randomUUID,
    onsessioninitialized: (session) => sessions.set(session, transport),
    onsessionclosed: (session) => sessions.delete(session),
  });
  await build().connect(transport);
  return transport.handleRequest(request, response, body);
}

createServer(async (request, response) => {
  try {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const body = chunks.length > 0 ? JSON.parse(Buffer.concat(chunks)) : undefined;
    const isLegacy = await isLegacyRequest(await toWebRequest(request, body), body);
    await (isLegacy ? legacy : modern)(request, response, body);
  } catch (error) {
    console.error(error);
    if (!response.headersSent) response.writeHead(500);
    response.end();
  }
}).listen(Number(process.argv[2]), '127.0.0.1');
