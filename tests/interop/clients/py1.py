"""Carries out a plan of tests/interop/run.mjs with PyPI mcp 1.x. Arguments: URL, era, plan."""

import asyncio
import json
import sys
from contextlib import asynccontextmanager

from mcp import ClientSession, types
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from steps import carry_out, fill


async def answer(_context, params):
    return types.ElicitResult(action="accept", content=fill(params.requestedSchema))


async def say(_context, _params):
    content = types.TextContent(type="text", text="Hello from Ada")
    return types.CreateMessageResult(role="assistant", content=content, model="none")


class Session:
    """The calls of `steps` on this SDK."""

    def __init__(self, session, version):
        self.session, self.version, self.era = session, version, "legacy"

    async def tools(self):
        return [tool.name for tool in (await self.session.list_tools()).tools]

    async def call(self, tool, arguments, on_progress=None):
        result = await self.session.call_tool(tool, arguments, progress_callback=on_progress)
        text = " ".join(part.text for part in result.content if part.type == "text")
        return text, bool(result.isError)

    async def read(self, uri):
        return (await self.session.read_resource(uri)).contents[0].text

    async def prompt(self, name):
        return (await self.session.get_prompt(name)).messages[0].content.text


@asynccontextmanager
async def connect(url, _era):
    transport = sse_client if url.endswith("/sse") else streamable_http_client
    async with transport(url) as (read, write, *_):
        async with ClientSession(read, write, elicitation_callback=answer, sampling_callback=say) as session:
            opened = await session.initialize()
            yield Session(session, str(opened.protocolVersion))


asyncio.run(carry_out(connect, sys.argv[1], sys.argv[2], json.loads(sys.argv[3])))
