// A client of the generated types against a running drover: `npm run generate && npm run compile && npm run client -- http://127.0.0.1:8080`. That it compiles is half of the test.

import assert from 'node:assert/strict';
import createClient from 'openapi-fetch';
import type { components, paths } from './generated/api.js';

type Problem = components['schemas']['Problem'];

const address = process.argv[2];
assert.ok(address, 'usage: client ADDRESS');
// Lists are also there as text, for people.
const client = createClient<paths, 'application/json' | 'application/problem+json'>({ baseUrl: address });

const created = 'contract_client';
const deadlineMs = 30_000;
const lookAgainMs = 200;

/** The body of a success; anything else ends the program with the problem's own words. */
function success<T>(answer: { data?: T; error?: Problem; response: Response }): NonNullable<T> {
  if (answer.data === undefined || answer.data === null) {
    throw new Error(`${answer.response.url}: ${answer.response.status} ${answer.error?.code}: ${answer.error?.detail}`);
  }
  return answer.data;
}

/** The problem of an answer that must be one. */
function problem(answer: { error?: Problem; response: Response }, status: number, code: Problem['code']): Problem {
  assert.ok(answer.error, `${answer.response.url}: ${answer.response.status} is no problem`);
  assert.equal(answer.response.status, status);
  assert.equal(answer.response.headers.get('content-type'), 'application/problem+json');
  assert.equal(answer.error.status, status);
  assert.equal(answer.error.code, code);
  return answer.error;
}

async function listTopics(): Promise<string[]> {
  const names: string[] = [];
  let cursor: string | null = null;
  do {
    const query: { limit: number; sort: string; cursor?: string } = { limit: 1, sort: 'name' };
    if (cursor !== null) query.cursor = cursor;
    const page: components['schemas']['TopicList'] = success(await client.GET('/api/v1/topics', { params: { query } }));
    assert.equal(page.scope, 'instance');
    for (const topic of page.items) {
      assert.equal(typeof topic.status.records_per_second, 'number');
      names.push(topic.name);
    }
    cursor = page.next;
  } while (cursor !== null);
  return names;
}

async function writeWithPreconditions(): Promise<void> {
  const path = { topic: created };
  const first = await client.PUT('/api/v1/topics/{topic}', { params: { path, header: { 'if-none-match': '*' } }, body: { format: 'json', labels: { team: 'contract' } } });
  success(first);
  assert.equal(first.response.status, 201);
  const tag = first.response.headers.get('etag');
  assert.ok(tag, 'a written topic has a tag');

  const again = await client.PUT('/api/v1/topics/{topic}', { params: { path, header: { 'if-none-match': '*' } }, body: {} });
  assert.equal(problem(again, 412, 'precondition-failed').errors[0]?.pointer, '/header/if-none-match');

  const changed = success(await client.PATCH('/api/v1/topics/{topic}', { params: { path, header: { 'if-match': tag } }, body: { format: 'text' } }));
  assert.ok('overrides' in changed, 'no dry run was asked for');
  assert.equal(changed.overrides.format, 'text');
  assert.equal(changed.overrides.labels?.['team'], 'contract');

  const dry = success(await client.DELETE('/api/v1/topics/{topic}', { params: { path, query: { dry_run: true } } }));
  assert.ok('valid' in dry, 'a dry run was asked for');
  assert.equal(dry.action, 'delete');

  const removed = await client.DELETE('/api/v1/topics/{topic}', { params: { path } });
  assert.equal(removed.response.status, 204);
  problem(await client.GET('/api/v1/topics/{topic}', { params: { path } }), 404, 'not-found');
}

async function problemsAreTyped(): Promise<void> {
  // A value that only a program without these types can send.
  const body = { format: 'xml' } as unknown as components['schemas']['SpecFields'];
  const answer = await client.PUT('/api/v1/topics/{topic}', { params: { path: { topic: created } }, body });
  const refused = problem(answer, 422, 'validation-failed');
  assert.deepEqual(refused.errors.map((error) => error.pointer), ['/format']);
  assert.ok(refused.request_id.length > 0);
}

async function pageOfDeadLetters(): Promise<number> {
  const until = Date.now() + deadlineMs;
  for (;;) {
    const page = success(await client.GET('/api/v1/dead-letters', { params: { query: { limit: 2 } } }));
    const [letter] = page.items;
    if (letter) {
      const whole = success(await client.GET('/api/v1/dead-letters/{id}', { params: { path: { id: letter.id } } }));
      assert.equal(whole.offset, letter.offset);
      return page.items.length;
    }
    assert.ok(Date.now() < until, `no dead letter within ${deadlineMs / 1000} s`);
    await new Promise((resolve) => setTimeout(resolve, lookAgainMs));
  }
}

const topics = await listTopics();
assert.ok(topics.length >= 2, 'the demo has two topics');
await writeWithPreconditions();
await problemsAreTyped();
const letters = await pageOfDeadLetters();
console.log(`client: ${topics.length} topics, a write with preconditions, two typed problems, ${letters} dead letters`);
