"""Carries out a plan of tests/interop/run.mjs with PyPI mcp 2.x. Arguments: URL, era, plan."""

import asyncio
import json
import sys
from contextlib import asynccontextmanager

from mcp import Client, types
from steps import carry_out, fill

MODES = {"auto": "auto", "legacy": "legacy", "modern": "2026-07-28"}


async def answer(_context, params):
    return types.ElicitResult(action="accept", content=fill(params.requested_schema))


async def say(_context, _params):
    content = types.TextContent(type="text", text="Hello from Ada")
    return types.CreateMessageResult(role="assistant", content=content, model="none")


class Session:
    """The calls of `steps` on this SDK."""

    def __init__(self, client):
        self.client, self.version = client, client.protocol_version
        self.era = "modern" if self.version >= "2026-07-28" else "legacy"

    async def tools(self):
        return [tool.name for tool in (await self.client.list_tools()).tools]

    async def call(self, tool, arguments, on_progress=None):
        result = await self.client.call_tool(tool, arguments, progress_callback=on_progress)
        text = " ".join(part.text for part in result.content if part.type == "text")
        return text, bool(result.is_error)

    async def read(self, uri):
        return (await self.client.read_resource(uri)).contents[0].text

    async def prompt(self, name):
        return (await self.client.get_prompt(name)).messages[0].content.text


@asynccontextmanager
async def connect(url, era):
    async with Client(url, mode=MODES[era], elicitation_callback=answer, sampling_callback=say) as client:
        yield Session(client)


asyncio.run(carry_out(connect, sys.argv[1], sys.argv[2], json.loads(sys.argv[3])))
