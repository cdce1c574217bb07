// Lints openapi.json by redocly.yaml: what `redocly lint` does, by the library that it is made of. The command itself brings 250 packages for its other commands.

import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { formatProblems, getTotals, lint, loadConfig } from '@redocly/openapi-core';

const folder = join(dirname(fileURLToPath(import.meta.url)), '..');
const config = await loadConfig({ configPath: join(folder, 'redocly.yaml') });
const problems = await lint({ ref: join(folder, 'openapi.json'), config });
const totals = getTotals(problems);
formatProblems(problems, { format: 'stylish', totals, version: '', maxProblems: 1000 });
console.log(`openapi.json: ${totals.errors} errors, ${totals.warnings} warnings, ${totals.ignored} left as they are`);
if (totals.errors + totals.warnings > 0) process.exit(1);
