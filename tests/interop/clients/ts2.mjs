// Carries out a plan of tests/interop/run.mjs with npm @modelcontextprotocol/client 2.x.

import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';

import { carryOut, fill, said } from './steps.mjs';

await carryOut(async (url, era) => {
  const mode = era === 'modern' ? { pin: '2026-07-28' } : era;
  const client = new Client({ name: 'interop-ts2', version: '1.0.0' },
    { capabilities: { elicitation: {}, sampling: {} }, versionNegotiation: { mode } });
  client.setRequestHandler('elicitation/create', ({ params }) => ({ action: 'accept', content: fill(params.requestedSchema) }));
  client.setRequestHandler('sampling/createMessage', () => said);
  const transport = new StreamableHTTPClientTransport(new URL(url));
  await client.connect(transport);
  const version = client.getNegotiatedProtocolVersion?.() ?? transport.protocolVersion;
  return {
    version,
    era: version >= '2026-07-28' ? 'modern' : 'legacy',
    call: (params, options) => client.callTool(params, options),
    client,
    close: async () => {
      if (transport.sessionId) await transport.terminateSession();
      await client.close();
    },
  };
});
