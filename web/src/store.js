// What the page knows, and the loop that keeps it fresh. Views read `state` and are drawn again after every `update`.

import * as api from './api.js';
import { read, write } from './settings.js';
import { follow } from './stream.js';

const LONGEST_WAIT_MS = 15_000;
/** What changes together is read together. */
const GATHERING_MS = 250;

export const state = {
  /** @type {object[] | null} topics as the API lists them; null before the first answer */
  topics: null,
  /** @type {Map<string, object[]>} tasks of the opened topics */
  tasks: new Map(),
  /** @type {Set<string>} */
  opened: new Set(),
  health: null,
  info: null,
  /** When everything was last read without failure, in ms; 0 = never. */
  freshAt: 0,
  /** @type {api.Failure | null} why the newest attempt failed */
  failure: null,
  failures: 0,
  /** When the next attempt begins, in ms; null while one runs or none is planned. */
  nextAt: null,
  now: Date.now(),
  interval: Number(read('interval', '2000')),
  filter: new URLSearchParams(location.search).get('q') ?? '',
  show: new URLSearchParams(location.search).get('state') ?? 'all',
  sort: new URLSearchParams(location.search).get('sort') ?? 'name',
  theme: read('theme', 'auto'),
  hasShortcuts: read('shortcuts', 'on') === 'on',
  /** @type {{kind: string} | null} the open dialog */
  dialog: null,
  /** What was last done, for the reader and for screen readers. */
  message: '',
};

/** Whether the reader may change something here; the server decides, and this only saves asking for what it refuses. */
export const mayChange = () => state.info?.caller?.role !== 'read';

let draw = () => {};

export function onChange(listener) {
  draw = listener;
}

export function update(changes) {
  Object.assign(state, changes);
  draw();
}

/** Changes what is listed, and the address with it, so that a view can be shared. */
export function select(changes) {
  Object.assign(state, changes);
  const query = new URLSearchParams(location.search);
  for (const [name, value, usual] of [
    ['q', state.filter, ''],
    ['state', state.show, 'all'],
    ['sort', state.sort, 'name'],
  ]) {
    if (value === usual) query.delete(name);
    else query.set(name, value);
  }
  draw();
  const text = query.toString();
  history.replaceState(null, '', text ? `?${text}` : location.pathname);
}

export function toggleTopic(name) {
  if (state.opened.has(name)) {
    state.opened.delete(name);
    state.tasks.delete(name);
    update({});
    return;
  }
  state.opened.add(name);
  update({});
  refresh();
}

export function chooseInterval(milliseconds) {
  write('interval', String(milliseconds));
  update({ interval: milliseconds });
  refresh();
}

// The loop: an attempt, then a pause that begins after its answers or ends early when the stream tells of a change; nothing is asked for while the page is hidden or its reader wants to look at it in peace.

let timer = null;
let running = null;
let isWanted = false;

/** Reads everything again now; if an attempt runs already, once more after it. Ends when that is done. */
export function refresh() {
  isWanted = true;
  running ??= run();
  return running;
}

async function run() {
  clearTimeout(timer);
  state.nextAt = null;
  try {
    while (isWanted) {
      isWanted = false;
      await attempt();
    }
  } finally {
    running = null;
    plan();
  }
}

let following = null;
let changed = null;

/** Follows the stream while somebody looks. */
function listen() {
  const isWatched = !document.hidden && state.interval !== 0;
  // Whoever refuses the lists refuses the stream.
  if (isWatched && following === null && state.failure === null) {
    following = new AbortController();
    follow(() => { changed ??= setTimeout(readChange, GATHERING_MS); }, following.signal);
  }
  if (!isWatched && following !== null) {
    following.abort();
    following = null;
  }
}

function readChange() {
  changed = null;
  if (following !== null) refresh();
}

function plan() {
  clearTimeout(timer);
  listen();
  if (document.hidden || state.interval === 0) {
    update({ nextAt: null });
    return;
  }
  const wait = state.failures === 0 ? state.interval : Math.min(state.interval * 2 ** state.failures, LONGEST_WAIT_MS);
  timer = setTimeout(refresh, wait);
  update({ nextAt: Date.now() + wait });
}

async function attempt() {
  const opened = [...state.opened];
  api.keepOnly([api.topicsPath, ...opened.map(api.tasksPath)]);
  try {
    const [topics, health, info, ...tasks] = await Promise.all([
      api.list(api.topicsPath),
      api.health(),
      api.info(),
      ...opened.map((name) => api.list(api.tasksPath(name))),
    ]);
    const shown = new Map(opened.map((name, index) => [name, tasks[index]]).filter(([name]) => state.opened.has(name)));
    const now = Date.now();
    update({ topics, health, info, tasks: shown, freshAt: now, now, failure: null, failures: 0 });
  } catch (error) {
    if (!(error instanceof api.Failure)) throw error;
    update({ failure: error, failures: state.failures + 1, now: Date.now() });
  }
}

export function start() {
  document.addEventListener('visibilitychange', () => {
    if (document.hidden) plan();
    else refresh();
  });
  // Ages and countdowns go on between the answers.
  setInterval(() => {
    if (!document.hidden) update({ now: Date.now() });
  }, 1000);
  return refresh();
}
