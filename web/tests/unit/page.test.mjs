// What can be checked without a browser: pure parts, words, vendored files, budgets, and that the fixture server speaks as the API does.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { brotliCompressSync } from 'node:zlib';
import { byInput, toEntry, toInputs } from '../../src/fields.js';
import { preferred } from '../../src/i18n.js';
import { COLUMNS, keptInOrder, listed, nextSort } from '../../src/listing.js';
import { asText } from '../../src/payload.js';
import { tasksOf, totals, verdict } from '../../src/verdict.js';
import { calm, info, letter, task, topic, troubled } from '../fixture/data.js';

const web = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
const read = (path) => readFileSync(join(web, path), 'utf8');
const below = (folder) =>
  readdirSync(join(web, folder), { withFileTypes: true, recursive: true })
    .filter((entry) => entry.isFile())
    .map((entry) => relative(web, join(entry.parentPath ?? entry.path, entry.name)));
const sources = below('src').map((path) => [path, read(path)]);
const words = { en: JSON.parse(read('i18n/en.json')), 'zh-CN': JSON.parse(read('i18n/zh-CN.json')) };
const names = (topics) => topics.map((each) => each.name);

test('both languages have the same keys and places', () => {
  assert.deepEqual(Object.keys(words.en), Object.keys(words['zh-CN']));
  const places = (text) => [...text.matchAll(/\{(\w+)\}/g)].map((match) => match[1]).sort();
  for (const [key, text] of Object.entries(words.en)) assert.deepEqual(places(text), places(words['zh-CN'][key]), key);
});

test('every text that the page asks for is there, and none is left over', () => {
  const asked = new Set();
  const prefixes = new Set(['verdict', 'help', 'no_script', 'topics']);
  for (const [, text] of sources) {
    for (const match of text.matchAll(/['"`]([a-z_]+(?:\.[a-z_0-9-]+)*)['"`]/g)) asked.add(match[1]);
    for (const match of text.matchAll(/(?:\bt|\bterm)\([`']([a-z_]+)(?:[.'][^)]*)?/g)) asked.add(match[1]);
    for (const match of text.matchAll(/term\([`']([a-z_]+)/g)) prefixes.add(match[1]);
    for (const match of text.matchAll(/t\(`([a-z_]+)\.\$\{/g)) prefixes.add(match[1]);
    for (const match of text.matchAll(/\bt\('([a-z_.0-9-]+)'/g)) assert.ok(match[1] in words.en, `${match[1]} has no text`);
  }
  for (const key of Object.keys(words.en)) assert.ok(asked.has(key) || prefixes.has(key.split('.')[0]), `${key} is never shown`);
});

test('texts become text nodes and nothing is evaluated', () => {
  for (const [path, text] of sources) {
    assert.doesNotMatch(text, /innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|\.cssText|https?:\/\//, path);
  }
  assert.doesNotMatch(read('vendor/preact.js'), /\beval\(|\bFunction\(/);
});

test('the vendored module is the one of the manifest', () => {
  const manifest = JSON.parse(read('vendor/manifest.json'));
  const digest = createHash('sha256').update(readFileSync(join(web, 'vendor', manifest.file))).digest('hex');
  assert.equal(digest, manifest.sha256, 'vendor/preact.js was changed by hand; run npm run vendor');
  const wanted = JSON.parse(read('package.json')).devDependencies;
  for (const { name, version, licence } of manifest.packages) {
    assert.equal(version, wanted[name], name);
    assert.ok(read(`vendor/${licence}`).length > 500, licence);
  }
});

test('the page stays small', () => {
  const compressed = (paths) => paths.reduce((sum, path) => sum + brotliCompressSync(readFileSync(join(web, path))).length, 0);
  assert.ok(compressed(['vendor/preact.js']) <= 32_000);
  assert.ok(compressed(below('src')) <= 40_000);
  assert.ok(compressed(['styles/page.css']) <= 10_000);
  assert.ok(compressed(['i18n/en.json']) <= 6_000 && compressed(['i18n/zh-CN.json']) <= 8_000);
  assert.ok(compressed(below('icons')) <= 3_000);
});

test('the fixture server speaks as the API document says', () => {
  const { schemas } = JSON.parse(read('../openapi/openapi.json')).components;
  const check = (schema, value) => assert.deepEqual(Object.keys(value).sort(), Object.keys(schemas[schema].properties).sort(), schema);
  const scene = troubled();
  check('Task', scene.tasks[0]);
  check('Topic', scene.topics[0]);
  check('TopicStatus', scene.topics[0].status);
  check('TopicSpec', scene.topics[0].spec);
  check('Pause', scene.topics[0].paused);
  check('SourceRef', scene.topics[0].sources[0]);
  check('Reason', scene.topics[1].status.reason);
  check('Check', scene.checks[0]);
  check('Info', info('ok'));
  check('CallerInfo', info('ok').caller);
  check('DeadLetter', letter('orders', 0, 1));
  check('LetterError', letter('orders', 0, 1).error);
  check('Exit', scene.tasks.find((each) => each.last_exit !== null).last_exit);
});

test('a record is shown as text where it is one, also where a list cut it within a character', () => {
  const base64 = (bytes) => Buffer.from(bytes).toString('base64');
  const bytes = new TextEncoder().encode('订单🦀');
  assert.deepEqual(asText(base64(bytes)), { text: '订单🦀', isText: true });
  for (const cut of [1, 2, 3]) assert.deepEqual(asText(base64(bytes.subarray(0, bytes.length - cut))), { text: '订单', isText: true });
  assert.deepEqual(asText(base64([0xff, 0xfe, 0xff, 0xfe, 0xff])), { text: base64([0xff, 0xfe, 0xff, 0xfe, 0xff]), isText: false });
  assert.deepEqual(asText(''), { text: '', isText: true });
});

test('the order of states is that of the server', async () => {
  const { STATES } = await import('../../src/listing.js');
  const { schemas } = JSON.parse(read('../openapi/openapi.json')).components;
  const known = schemas.TaskState.enum ?? schemas.TaskState.oneOf.map((one) => one.enum[0]);
  assert.deepEqual(STATES, known);
});

test('the language: asked for, else chosen before, else the browser\'s', () => {
  assert.equal(preferred('?lang=zh', 'en', ['en']), 'zh-CN');
  assert.equal(preferred('?lang=tlh', 'zh-CN', ['en']), 'zh-CN');
  assert.equal(preferred('', null, ['de', 'zh-Hant-TW', 'en']), 'zh-CN');
  assert.equal(preferred('', null, ['enx', 'de']), 'en');
});

test('unknown lag is last in either direction, and equal rows go by name', () => {
  const rows = ['c', 'b', 'a'].map((name) => topic(name, [task(name, 0, { lag: name === 'c' ? null : 5 })]));
  for (const sort of ['lag', '-lag']) assert.deepEqual(names(listed(rows, { filter: '', show: 'all', sort })), ['a', 'b', 'c']);
});

test('every order is one, whatever the address says', () => {
  const rows = calm().topics;
  for (const sort of [...COLUMNS, ...COLUMNS.map((column) => `-${column}`), 'nonsense', '-', '__proto__', 'constructor']) {
    assert.equal(listed(rows, { filter: '', show: 'all', sort }).length, rows.length, sort);
  }
  assert.equal(nextSort('name', 'lag'), '-lag');
  assert.equal(nextSort('-lag', 'lag'), 'lag');
  assert.equal(nextSort('name', 'name'), '-name');
});

test('rows keep their places and new ones come behind', () => {
  const rows = ['a', 'b', 'c', 'd'].map((name) => ({ name }));
  assert.deepEqual(names(keptInOrder(rows, ['d', 'b', 'gone', 'a'])), ['d', 'b', 'a', 'c']);
});

test('a sum with something unknown in it is unknown, not smaller', () => {
  assert.equal(totals(calm().topics).lag, null);
  assert.equal(totals([]).lag, 0);
});

test('without an answer the verdict is unknown, not well', () => {
  assert.equal(verdict({ health: null, topics: [] }).health, 'unknown');
  const scene = troubled();
  const found = verdict({ health: { status: 'down', checks: scene.checks }, topics: scene.topics });
  assert.equal(found.causes[0].health, 'down');
  assert.deepEqual(found.causes.find((cause) => cause.subject === 'sink_unreachable').topics, ['orders']);
  assert.ok(!found.causes.some((cause) => cause.name === 'topic/orders'));
  assert.ok(found.causes.some((cause) => cause.name === 'topic/typo'));
});

test('an outage that every topic suffers from is one cause', () => {
  const down = { status: 'degraded', detail: 'no broker answers', remedy: 'start them', since_at: null };
  const rows = ['a', 'b', 'c'].map((name) => topic(name, []));
  const checks = [{ name: 'component/kafka', ...down }, ...rows.map((row) => ({ name: `topic/${row.name}`, ...down }))];
  const { causes } = verdict({ health: { status: 'degraded', checks }, topics: rows });
  assert.deepEqual(causes.map((cause) => [cause.name, cause.topics]), [['component/kafka', ['a', 'b', 'c']]]);
});

test('an entry goes through the form unchanged', () => {
  const entry = { index: 'a-{date}', format: 'json', labels: { team: 'x=y', empty: '' }, pipeline: 'p', on_reject: 'stop' };
  assert.deepEqual(toEntry(toInputs(entry)), entry);
  assert.deepEqual(toEntry(toInputs({})), {});
});

test('errors find their fields, and what belongs to none is not lost', () => {
  const found = byInput([
    { pointer: '/labels/team', code: 'invalid', detail: '1' },
    { pointer: '/path/topic', code: 'invalid', detail: '2' },
    { pointer: '/header/if-match', code: 'precondition-failed', detail: '3' },
    { pointer: '', code: 'x', detail: '4' },
    { pointer: '/__proto__', code: 'x', detail: '5' },
  ]);
  assert.deepEqual(Object.keys(found).sort(), ['form', 'labels', 'name']);
  assert.equal(found.form.length, 3);
});

test('the server says how many tasks suffer in the form that the page takes apart, and any other text is shown as it is', () => {
  assert.ok(read('../src/api/health.rs').includes('format!("of {all} tasks {}", counts.join(", "))'));
  assert.deepEqual(tasksOf('of 8 tasks 2 waiting, 1 backoff'), { all: 8, states: [{ some: 2, state: 'waiting' }, { some: 1, state: 'backoff' }] });
  for (const other of [null, '', 'of 8 tasks', 'of 8 tasks many waiting', 'of 8 tasks 1 waiting, and more']) assert.equal(tasksOf(other), null, other);
});
