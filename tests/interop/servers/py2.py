"""The tools of the interoperability test on PyPI mcp 2.x: dual-era. Argument: port."""

import sys
from collections import Counter
from typing import Annotated

import anyio
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.resolve import Elicit, Resolve, Sample
from mcp.types import CreateMessageResult, SamplingMessage, TextContent
from pydantic import BaseModel

server = MCPServer("interop-py2", log_level="WARNING")
counters: Counter = Counter()


class Name(BaseModel):
    name: str


@server.tool()
def echo(text: str) -> str:
    return text


@server.tool()
def add(a: int, b: int) -> str:
    return str(a + b)


@server.tool()
def counter(ctx: Context) -> str:
    """Calls of this tool in this session."""
    session = (ctx.headers or {}).get("mcp-session-id")
    counters[session] += 1
    return str(counters[session])


@server.tool()
async def sleep(milliseconds: int) -> str:
    await anyio.sleep(milliseconds / 1000)
    return "slept"


@server.tool()
async def slow(ctx: Context) -> str:
    """Reports progress three times."""
    for done in (1, 2, 3):
        await ctx.report_progress(done, 3)
        await anyio.sleep(0.05)
    return "done"


# The SDK asks as the client's revision wants it: by a request, or by an `input_required` result.
def who() -> Elicit[Name]:
    return Elicit("Who is there?", Name)


def something() -> Sample:
    question = SamplingMessage(role="user", content=TextContent(type="text", text="Say something"))
    return Sample([question], max_tokens=10)


@server.tool()
async def ask(name: Annotated[Name, Resolve(who)]) -> str:
    return f"accept {name.name}"


@server.tool()
async def sample(answer: Annotated[CreateMessageResult, Resolve(something)]) -> str:
    return answer.content.text


@server.resource("interop://text")
def text() -> str:
    return "a resource"


@server.prompt()
def hello() -> str:
    return "a prompt"


server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
