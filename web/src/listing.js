// Which topics are listed, and in which order. Pure.

/** States from worst to best, as the server orders them. */
export const STATES = ['failed', 'stalled', 'backoff', 'waiting', 'draining', 'starting', 'running', 'paused', 'unassigned', 'stopped'];

const severity = (state) => {
  const index = STATES.indexOf(state);
  return index < 0 ? -1 : index;
};

const keys = {
  name: null,
  state: (topic) => severity(topic.status.state),
  lag: (topic) => topic.status.lag,
  rate: (topic) => topic.status.records_per_second,
  restarts: (topic) => topic.status.restarts_total,
  dead_letters: (topic) => topic.status.dead_lettered_total,
};

export const COLUMNS = Object.keys(keys);

/** `-lag` → column and direction; what is no order is by name. */
export function parseSort(sort) {
  const isDescending = sort.startsWith('-');
  const column = isDescending ? sort.slice(1) : sort;
  return COLUMNS.includes(column) ? { column, isDescending } : { column: 'name', isDescending: false };
}

/** The order after a click on a column: numbers begin with the largest, words with the first. */
export function nextSort(sort, column) {
  const current = parseSort(sort);
  const first = column === 'name' || column === 'state' ? column : `-${column}`;
  if (current.column !== column) return first;
  return current.isDescending ? column : `-${column}`;
}

export function listed(topics, { filter, show, sort }) {
  const text = filter.trim().toLowerCase();
  const isShown = (topic) => {
    if (text && !topic.name.toLowerCase().includes(text)) return false;
    if (show === 'all') return true;
    if (show === 'unwell') return topic.status.health !== 'ok';
    return topic.status.state === show;
  };
  return topics.filter(isShown).sort(byOrder(sort));
}

function byOrder(sort) {
  const { column, isDescending } = parseSort(sort);
  const direction = isDescending ? -1 : 1;
  // By code point, as the server orders names.
  const byName = (a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0);
  const key = keys[column];
  if (key === null) return (a, b) => direction * byName(a, b);
  return (a, b) => {
    const [left, right] = [key(a), key(b)];
    // Unknown is last in either direction.
    if (left === null || right === null) return left === right ? byName(a, b) : left === null ? 1 : -1;
    return direction * (left - right) || byName(a, b);
  };
}

/** `topics` in the order of `names` as far as they are in it, the others behind them: rows do not move under a pointer. */
export function keptInOrder(topics, names) {
  const places = new Map(names.map((name, index) => [name, index]));
  const place = (topic) => places.get(topic.name) ?? names.length;
  return [...topics].sort((a, b) => place(a) - place(b));
}
