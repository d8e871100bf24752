// The steps of a plan, for both TypeScript SDKs; prints one JSON line with the outcome of each.

const STEP_MS = 30_000;

/** Accepts whatever is asked: every required field is Ada. */
export const fill = (schema) => Object.fromEntries((schema.required ?? []).map((field) => [field, 'Ada']));

export const said = { role: 'assistant', content: { type: 'text', text: 'Hello from Ada' }, model: 'none' };

/** `connect(url, era)` gives {version, era, client, call, close}; the rest of `client` is alike in both SDKs. */
export async function carryOut(connect) {
  const [url, era, planText] = process.argv.slice(2);
  const report = { steps: {}, calls: 0 };
  const step = async (name, run) => {
    let timer;
    const limit = new Promise((_, reject) => (timer = setTimeout(() => reject(new Error('no answer')), STEP_MS)));
    try {
      await Promise.race([run(), limit]);
      report.steps[name] = 'ok';
    } catch (error) {
      report.steps[name] = `${error.name}: ${error.message}`.slice(0, 300);
    }
    clearTimeout(timer);
  };
  await step('session', async () => {
    const session = await connect(url, era);
    Object.assign(report, { version: session.version, era: session.era });
    await allSteps(session, JSON.parse(planText), step, report);
    await session.close();
  });
  if (report.steps.session === 'ok') {
    delete report.steps.session;
    report.steps.close = 'ok';
  }
  console.log(JSON.stringify(report));
  process.exit();
}

function ensure(condition, message) {
  if (!condition) throw new Error(message);
}

async function allSteps({ client, era, call: callTool }, plan, step, report) {
  const call = async (spec, given, options) => {
    const result = await callTool({ name: spec.tool, arguments: given ?? spec.arguments ?? {} }, options);
    const text = result.content.filter((part) => part.type === 'text').map((part) => part.text).join(' ');
    ensure(!result.isError && text.includes(spec.expect ?? ''), `${spec.tool} said ${JSON.stringify(text)}`);
    report.calls += 1;
    return text;
  };
  await step('list', async () => {
    const names = (await client.listTools()).tools.map((tool) => tool.name);
    ensure(names.includes(plan.echo.tool), `no ${plan.echo.tool} in ${names}`);
  });
  await step('call', async () => {
    // Each answer must be that of its own request, and the session must stay one and the same.
    for (let number = 1; number <= plan.calls; number += 1) {
      const text = `number ${number}.`;
      await call({ tool: plan.echo.tool, expect: text }, { [plan.echo.argument]: text });
      if (plan.counter && era === 'legacy') {
        const count = await call({ tool: plan.counter });
        ensure(count.match(/\d+/)?.[0] === String(number), `counter said ${count} at call ${number}`);
      }
    }
  });
  await step('progress', async () => {
    let seen = 0;
    await call(plan.progress, undefined, { onprogress: () => (seen += 1) });
    ensure(seen >= plan.progress.atLeast, `progress ${seen} times`);
  });
  for (const name of ['ask', 'sample']) {
    if (plan[name][era]) await step(name, () => call(plan[name][era]));
  }
  await step('read', async () => ensure((await client.readResource({ uri: plan.resource })).contents[0].text, 'an empty resource'));
  await step('prompt', async () => {
    ensure((await client.getPrompt({ name: plan.prompt })).messages[0].content.text, 'an empty prompt');
  });
}
