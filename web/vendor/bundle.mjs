// Renews vendor/preact.js from the locked packages: one minified module without bare imports, so that the page needs neither a build step nor an import map.
//
//   npm ci && npm run vendor          writes preact.js, the licences and manifest.json
//   npm ci && npm run vendor:check    fails when what is checked in is not what the locked packages make
import { createHash } from 'node:crypto';
import { copyFileSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const folder = dirname(fileURLToPath(import.meta.url));
const modules = join(folder, '..', 'node_modules');

const entry = `
import { h, render } from 'preact';
import { useEffect, useId, useLayoutEffect, useRef, useState } from 'preact/hooks';
import htm from 'htm';
const html = htm.bind(h);
export { html, render, useEffect, useId, useLayoutEffect, useRef, useState };
`;

const versionOf = (name) => JSON.parse(readFileSync(join(modules, name, 'package.json'), 'utf8')).version;

const result = await build({
  stdin: { contents: entry, resolveDir: join(folder, '..'), loader: 'js' },
  bundle: true,
  minify: true,
  format: 'esm',
  target: 'es2022',
  legalComments: 'none',
  write: false,
  banner: { js: `// preact ${versionOf('preact')} (LICENSE-preact), htm ${versionOf('htm')} (LICENSE-htm); made by bundle.mjs` },
});
const bundle = result.outputFiles[0].contents;
const manifest = `${JSON.stringify(
  {
    file: 'preact.js',
    sha256: createHash('sha256').update(bundle).digest('hex'),
    packages: ['preact', 'htm'].map((name) => ({ name, version: versionOf(name), licence: `LICENSE-${name}` })),
  },
  null,
  2,
)}\n`;

if (process.argv.includes('--check')) {
  const isSame = readFileSync(join(folder, 'preact.js')).equals(bundle) && readFileSync(join(folder, 'manifest.json'), 'utf8') === manifest;
  if (!isSame) {
    console.error('vendor/preact.js is not what the locked packages make; run: npm run vendor');
    process.exit(1);
  }
} else {
  writeFileSync(join(folder, 'preact.js'), bundle);
  writeFileSync(join(folder, 'manifest.json'), manifest);
  for (const name of ['preact', 'htm']) copyFileSync(join(modules, name, 'LICENSE'), join(folder, `LICENSE-${name}`));
}
