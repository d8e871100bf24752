"""The tools of the interoperability test on PyPI mcp 1.x: legacy only, with sessions. Argument: port."""

import sys
import weakref

import anyio
from mcp.server.fastmcp import Context, FastMCP
from mcp.types import SamplingMessage, TextContent
from pydantic import BaseModel

server = FastMCP("interop-py1", host="127.0.0.1", port=int(sys.argv[1]), log_level="WARNING")
counters: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


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
    counters[ctx.session] = counters.get(ctx.session, 0) + 1
    return str(counters[ctx.session])


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


@server.tool()
async def ask(ctx: Context) -> str:
    answer = await ctx.elicit("Who is there?", Name)
    return f"{answer.action} {answer.data.name if answer.action == 'accept' else ''}"


@server.tool()
async def sample(ctx: Context) -> str:
    question = SamplingMessage(role="user", content=TextContent(type="text", text="Say something"))
    answer = await ctx.session.create_message([question], max_tokens=10, related_request_id=ctx.request_id)
    return answer.content.text


@server.resource("interop://text")
def text() -> str:
    return "a resource"


@server.prompt()
def hello() -> str:
    return "a prompt"


server.run("streamable-http")
