// Starts `drover demo` in a folder and on a port of its own, waits until it is ready, and stops it after the tests as an operator would: by SIGTERM, expecting exit code 0.
// The binary is DROVER_BINARY. With DROVER_URL a demo runs already, and who started it also stops it.

import { spawn } from 'node:child_process';
import { createWriteStream, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { finished } from 'node:stream/promises';
import { setTimeout as wait } from 'node:timers/promises';

const READY_WITHIN_MS = 30_000;
/** Longer than supervision.shutdown_timeout (25 s), after which drover ends by itself. */
const STOPPED_WITHIN_MS = 30_000;

export default async function setUp() {
  if (process.env.DROVER_URL) return undefined;
  if (!process.env.DROVER_BINARY) throw new Error('DROVER_BINARY must be the path of a drover, or DROVER_URL the address of a demo that runs');
  const demo = await start(process.env.DROVER_BINARY);
  process.env.DROVER_URL = demo.url;
  try {
    await untilReady(demo);
  } catch (error) {
    demo.child.kill('SIGKILL');
    throw error;
  }
  return () => stop(demo);
}

async function start(binary) {
  const folder = mkdtempSync(join(tmpdir(), 'drover-page-test-'));
  const address = `127.0.0.1:${await freePort()}`;
  const log = join(folder, 'log');
  const child = spawn(binary, ['demo', '--dir', join(folder, 'demo'), '--listen', address], { stdio: ['ignore', 'pipe', 'pipe'] });
  const file = createWriteStream(log);
  child.stdout.pipe(file, { end: false });
  child.stderr.pipe(file, { end: false });
  const ended = new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', async (code, signal) => {
      file.end();
      await finished(file);
      resolve(signal ?? code);
    });
  });
  ended.catch(() => {});
  return { url: `http://${address}`, folder, log, child, ended };
}

async function untilReady(demo) {
  const until = Date.now() + READY_WITHIN_MS;
  while (Date.now() < until) {
    const end = await Promise.race([demo.ended.then((code) => ({ code })), wait(100)]);
    if (end) throw new Error(`drover demo ended with ${end.code}:\n${tail(demo.log)}`);
    const answer = await fetch(`${demo.url}/readyz`).catch(() => null);
    if (answer?.ok) return;
  }
  throw new Error(`drover demo is not ready after ${READY_WITHIN_MS / 1000} s:\n${tail(demo.log)}`);
}

async function stop({ child, ended, log, folder }) {
  child.kill('SIGTERM');
  const end = await Promise.race([ended.then((code) => ({ code })), wait(STOPPED_WITHIN_MS)]);
  if (!end) child.kill('SIGKILL');
  if (end?.code !== 0) {
    throw new Error(`drover demo ${end ? `ended with ${end.code}` : `did not end within ${STOPPED_WITHIN_MS / 1000} s`} after SIGTERM; ${log} ends with:\n${tail(log)}`);
  }
  rmSync(folder, { recursive: true });
}

const tail = (log) => readFileSync(log, 'utf8').split('\n').slice(-30).join('\n');

function freePort() {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}
