// Requests to drover's API. Lists are asked for with the tag of the last answer, so that an unchanged list costs nothing; every failure is one Failure.

import { jsonLines } from './lines.js';
import { authorization } from './token.js';

const TIMEOUT_MS = 15_000;

/** Why a request did not succeed. `code` is the problem's code, or `unreachable` or `malformed`. */
export class Failure extends Error {
  constructor(code, detail, status = 0, errors = []) {
    super(detail);
    this.code = code;
    this.status = status;
    this.errors = errors;
  }
}

/** @type {Map<string, {tag: string, body: object}>} the last answer of each list */
const answers = new Map();

async function send(method, path, { body, headers = {}, isReport = false } = {}) {
  const request = { method, headers: { accept: 'application/json', ...authorization(), ...headers }, cache: 'no-store', signal: AbortSignal.timeout(TIMEOUT_MS) };
  if (body !== undefined) {
    request.body = JSON.stringify(body);
    request.headers['content-type'] = 'application/json';
  }
  let answer;
  let text;
  try {
    answer = await fetch(path, request);
    text = await answer.text();
  } catch (error) {
    throw new Failure('unreachable', error.name === 'TimeoutError' ? `no answer within ${TIMEOUT_MS / 1000} s` : '');
  }
  if (answer.status === 304) return { answer, value: undefined };
  // A health report of a drover that is down comes with 503 and is an answer all the same.
  const isGood = answer.ok || (isReport && answer.status === 503);
  const value = parse(text);
  if (isGood && (value !== undefined || text === '')) return { answer, value };
  if (isGood) throw new Failure('malformed', 'the answer is no JSON', answer.status);
  if (value?.code) throw new Failure(value.code, value.detail ?? value.title ?? '', answer.status, value.errors ?? []);
  throw new Failure('malformed', `HTTP ${answer.status}`, answer.status);
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Lines of the stream of changes, without the numbers of topics, until the server or the signal ends it. */
export async function* streamLines(signal) {
  try {
    const answer = await fetch('/api/v1/stream?kinds=task,event', { headers: { accept: 'application/x-ndjson', ...authorization() }, cache: 'no-store', signal });
    if (!answer.ok) throw new Failure('malformed', `HTTP ${answer.status}`, answer.status);
    yield* jsonLines(pieces(answer.body.pipeThrough(new TextDecoderStream())));
  } catch (error) {
    if (error instanceof Failure) throw error;
    throw new Failure('unreachable', '');
  }
}

// Not every browser iterates over a stream itself.
async function* pieces(stream) {
  const reader = stream.getReader();
  try {
    for (let next = await reader.read(); !next.done; next = await reader.read()) yield next.value;
  } finally {
    reader.releaseLock();
  }
}

/** All pages of a list. */
export async function list(path) {
  const items = [];
  let next = null;
  do {
    const page = await listPage(next === null ? path : `${path}&cursor=${encodeURIComponent(next)}`);
    items.push(...page.items);
    next = page.next;
  } while (next);
  return items;
}

async function listPage(path) {
  const known = answers.get(path);
  const { answer, value } = await send('GET', path, { headers: known ? { 'if-none-match': known.tag } : {} });
  if (answer.status === 304 && known) return known.body;
  if (!Array.isArray(value?.items)) throw new Failure('malformed', 'the answer is no list', answer.status);
  const tag = answer.headers.get('etag');
  if (tag) answers.set(path, { tag, body: value });
  return value;
}

/** Forgets the answers of lists that are not shown any more. */
export function keepOnly(paths) {
  for (const path of answers.keys()) {
    if (!paths.some((kept) => path.startsWith(kept))) answers.delete(path);
  }
}

export const topicsPath = '/api/v1/topics?limit=1000&sort=name';
export const tasksPath = (topic) => `/api/v1/tasks?limit=1000&topic=${encodeURIComponent(topic)}`;

export const health = async () => (await send('GET', '/healthz', { isReport: true })).value;
export const info = async () => (await send('GET', '/api/v1/info')).value;

/** The topics that Kafka has, for the name's suggestions. */
export const kafkaTopics = async () => (await send('GET', '/api/v1/kafka/topics?limit=1000')).value.items;

function topicPath(name, rest = '') {
  // A browser takes these for folders and would ask for another path.
  if (name === '.' || name === '..') throw new Failure('validation-failed', '', 422, [{ pointer: '/path/topic', code: 'invalid', detail: `a topic cannot be called ${name}` }]);
  return `/api/v1/topics/${encodeURIComponent(name)}${rest}`;
}

/** Which dead letters are meant: of a topic, and of one type of error where that is given. */
const lettersQuery = (topic, errorType) => `topic=${encodeURIComponent(topic)}${errorType === '' ? '' : `&error_type=${encodeURIComponent(errorType)}`}`;

/** The first dead letters of a topic, and `next` where there are more. */
export async function letters(topic, errorType, limit) {
  const { answer, value } = await send('GET', `/api/v1/dead-letters?${lettersQuery(topic, errorType)}&limit=${limit}`);
  if (!Array.isArray(value?.items)) throw new Failure('malformed', 'the answer is no list', answer.status);
  return value;
}

/** How many dead letters a redrive would take: `{accepted}`. */
export const tryRedrive = async (topic, errorType) => (await send('POST', `/api/v1/dead-letters/redrive?${lettersQuery(topic, errorType)}&dry_run=true`)).value;
export const redrive = async (topic, errorType) => (await send('POST', `/api/v1/dead-letters/redrive?${lettersQuery(topic, errorType)}`)).value;
export const redriveOne = async (id) => (await send('POST', `/api/v1/dead-letters/${encodeURIComponent(id)}/redrive`)).value;

export const deleteLetter = async (id) => send('DELETE', `/api/v1/dead-letters/${encodeURIComponent(id)}`);

/** A topic and the tag of its entry in the store. */
export async function topic(name) {
  const { answer, value } = await send('GET', topicPath(name));
  return { topic: value, tag: answer.headers.get('etag') };
}

/** What must hold for a write: with a tag, nobody changed the entry since; without, there is no entry yet. */
const precondition = (tag) => (tag === null ? { 'if-none-match': '*' } : { 'if-match': tag });

export const tryPut = async (name, fields, tag) => (await send('PUT', topicPath(name, '?dry_run=true'), { body: fields, headers: precondition(tag) })).value;
export const put = async (name, fields, tag) => (await send('PUT', topicPath(name), { body: fields, headers: precondition(tag) })).value;

export const tryRemove = async (name, tag) => (await send('DELETE', topicPath(name, '?dry_run=true'), { headers: precondition(tag) })).value;
/** The topic that other sources still name, or nothing. */
export const remove = async (name, tag) => (await send('DELETE', topicPath(name), { headers: precondition(tag) })).value;

export const tryPause = async (name, body) => (await send('PUT', topicPath(name, '/pause?dry_run=true'), { body })).value;
export const pause = async (name, body) => (await send('PUT', topicPath(name, '/pause'), { body })).value;
export const resume = async (name) => (await send('DELETE', topicPath(name, '/pause'))).value;
