// Carries out a plan of tests/interop/run.mjs with npm @modelcontextprotocol/sdk 1.x.

import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { SSEClientTransport } from '@modelcontextprotocol/sdk/client/sse.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { CreateMessageRequestSchema, ElicitRequestSchema } from '@modelcontextprotocol/sdk/types.js';

import { carryOut, fill, said } from './steps.mjs';

await carryOut(async (url) => {
  const client = new Client({ name: 'interop-ts1', version: '1.0.0' }, { capabilities: { elicitation: {}, sampling: {} } });
  client.setRequestHandler(ElicitRequestSchema, ({ params }) => ({ action: 'accept', content: fill(params.requestedSchema) }));
  client.setRequestHandler(CreateMessageRequestSchema, () => said);
  const Transport = url.endsWith('/sse') ? SSEClientTransport : StreamableHTTPClientTransport;
  const transport = new Transport(new URL(url));
  await client.connect(transport);
  return {
    version: transport.protocolVersion,
    era: 'legacy',
    call: (params, options) => client.callTool(params, undefined, options),
    client,
    close: async () => {
      await transport.terminateSession?.();
      await client.close();
    },
  };
});
