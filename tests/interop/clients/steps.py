"""The steps of a plan, for both Python SDKs; prints one JSON line with the outcome of each."""

import asyncio
import json
import re
import traceback

STEP_SECONDS = 30


def fill(schema):
    """Accepts whatever is asked: every required field is Ada."""
    return {field: "Ada" for field in schema.get("required", [])}


async def carry_out(connect, url, era, plan):
    report = {"steps": {}, "calls": 0}

    async def step(name, run):
        try:
            await asyncio.wait_for(run, STEP_SECONDS)
            report["steps"][name] = "ok"
        except Exception as error:
            report["steps"][name] = f"{type(error).__name__}: {error}"[:300]

    try:
        async with connect(url, era) as session:
            report.update(version=session.version, era=session.era)
            await all_steps(session, plan, step, report)
        report["steps"]["close"] = "ok"
    except BaseException as error:
        report["steps"]["session"] = "".join(traceback.format_exception_only(error)).strip()[:300]
        for inner in getattr(error, "exceptions", ()):
            report["steps"]["session"] += f" | {inner!r}"[:300]
    print(json.dumps(report), flush=True)


async def all_steps(session, plan, step, report):
    async def call(spec, arguments=None, on_progress=None):
        text, failed = await session.call(spec["tool"], arguments or spec.get("arguments", {}), on_progress)
        assert not failed and spec.get("expect", "") in text, f"{spec['tool']} said {text!r}"
        report["calls"] += 1
        return text

    async def tools():
        names = await session.tools()
        assert plan["echo"]["tool"] in names, f"no {plan['echo']['tool']} in {names}"

    async def many():
        # Each answer must be that of its own request, and the session must stay one and the same.
        for number in range(1, plan["calls"] + 1):
            echo = {"tool": plan["echo"]["tool"], "expect": f"number {number}."}
            await call(echo, {plan["echo"]["argument"]: f"number {number}."})
            if plan.get("counter") and session.era == "legacy":
                text = await call({"tool": plan["counter"]})
                assert re.search(r"\d+", text)[0] == str(number), f"counter said {text!r} at call {number}"

    async def progress():
        seen = []

        async def on_progress(done, *_):
            seen.append(done)

        await call(plan["progress"], on_progress=on_progress)
        assert len(seen) >= plan["progress"]["atLeast"], f"progress {seen}"

    await step("list", tools())
    await step("call", many())
    await step("progress", progress())
    for name in ("ask", "sample"):
        spec = plan[name].get(session.era)
        if spec:
            await step(name, call(spec))
    await step("read", read(session, plan))
    await step("prompt", prompt(session, plan))


async def read(session, plan):
    text = await session.read(plan["resource"])
    assert text, "an empty resource"


async def prompt(session, plan):
    text = await session.prompt(plan["prompt"])
    assert text, "an empty prompt"
