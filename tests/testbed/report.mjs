// What a proof hands over: a table for people, target/reports/NAME.json for programs, an exit code.

import fs from 'node:fs';
import path from 'node:path';

import { repository } from './processes.mjs';

/** Prints rows of equal objects as a table. */
export function printTable(rows, columns = Object.keys(rows[0] ?? {})) {
  const cells = [columns, ...rows.map((row) => columns.map((column) => String(row[column] ?? '')))];
  const widths = columns.map((_, index) => Math.max(...cells.map((line) => line[index].length)));
  for (const line of cells) console.log(line.map((cell, index) => cell.padEnd(widths[index])).join('  ').trimEnd());
}

/** A target that an exact value must meet. */
export const equals = (what, goal, got) => ({ what, goal: String(goal), got, holds: got === goal });
export const atLeast = (what, goal, got) => ({ what, goal: `>= ${goal}`, got, holds: got >= goal });
export const atMost = (what, goal, got) => ({ what, goal: `<= ${goal}`, got, holds: got <= goal });

/** Writes the report, names the targets that were missed, and returns the exit code. */
export function finish(name, rows, targets) {
  const file = path.join(repository, 'target/reports', `${name}.json`);
  fs.mkdirSync(path.dirname(file), { recursive: true });
  fs.writeFileSync(file, `${JSON.stringify({ name, rows, targets }, null, 2)}\n`);
  const missed = targets.filter((target) => !target.holds);
  for (const { what, goal, got } of missed) console.log(`MISSED ${what}: ${got}, goal ${goal}`);
  console.log(`${targets.length - missed.length} of ${targets.length} targets hold (${path.relative(process.cwd(), file)})`);
  // Nothing judged is nothing shown.
  return missed.length === 0 && targets.length > 0 ? 0 : 1;
}
