// Puts pinned packages of npm and PyPI into the cache, once per lock file, never into the tree.

import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';

const CACHE = process.env.MCP_FLEET_CACHE || path.join(os.homedir(), '.cache/mcp-fleet');

/** Packages of the lock file in `source`; `name` is the folder in the cache. Returns its node_modules. */
export function npmPackages(source, name) {
  const folder = once(name, fs.readFileSync(path.join(source, 'package-lock.json')), (target) => {
    for (const file of ['package.json', 'package-lock.json', '.npmrc']) {
      fs.copyFileSync(path.join(source, file), path.join(target, file));
    }
    // No install scripts: what the lock file names is all that is fetched, and nothing of it runs.
    execFileSync('npm', ['ci', '--ignore-scripts', '--no-audit', '--no-fund'], { cwd: target, stdio: 'inherit' });
  });
  return path.join(folder, 'node_modules');
}

/** The Node.js that the lock file pins, as the system's may be too old for the packages. */
export function pinnedNode(modules) {
  return path.join(modules, `node-linux-${os.arch()}`, 'bin/node');
}

/** A virtual environment with exactly the packages of `requirements`. Returns its python. */
export function pythonPackages(requirements, name) {
  const folder = once(name, fs.readFileSync(requirements), (target) => {
    execFileSync('python3', ['-m', 'venv', target], { stdio: 'inherit' });
    const python = path.join(target, 'bin/python');
    execFileSync(python, ['-m', 'pip', 'install', '--disable-pip-version-check', '--no-deps', '--only-binary', ':all:',
      '--quiet', '--progress-bar', 'on', '-r', requirements], { stdio: 'inherit' });
  });
  return path.join(folder, 'bin/python');
}

/** Fills CACHE/NAME/KEY unless a run before has finished it; the key is that of the lock file. */
function once(name, lock, fill) {
  const key = createHash('sha256').update(lock).digest('hex').slice(0, 16);
  const folder = path.join(CACHE, name, key);
  const done = path.join(folder, 'complete');
  if (fs.existsSync(done)) return folder;
  console.log(`installing ${name} into ${folder} (once)`);
  fs.mkdirSync(folder, { recursive: true });
  fill(folder);
  fs.writeFileSync(done, '');
  return folder;
}
