import assert from 'node:assert/strict';
import { test } from 'node:test';
import { jsonLines } from '../../src/lines.js';

async function read(pieces) {
  const lines = [];
  for await (const line of jsonLines(pieces)) lines.push(line);
  return lines;
}

test('a line that comes in two pieces is one line', async () => {
  assert.deepEqual(await read(['{"a":', '1}\n{"b":2}\n{"c', '":3}\n']), [{ a: 1 }, { b: 2 }, { c: 3 }]);
});

test('an empty line keeps the connection alive and means nothing', async () => {
  assert.deepEqual(await read(['\n', '\n{"a":1}\n\n']), [{ a: 1 }]);
});

test('a line that was cut off at the end is not read', async () => {
  assert.deepEqual(await read(['{"a":1}\n{"b":']), [{ a: 1 }]);
});

test('what is no JSON is an error and not a line', async () => {
  await assert.rejects(read(['<html>\n']), SyntaxError);
});
