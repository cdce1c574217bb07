// Is anything wrong? The server's verdict with its causes, put together so that each cause is named once. Pure.

/**
 * @returns {{health: string, causes: {name: string, kind: string, subject: string, health: string, detail: string | null, remedy: string | null, since_at: string | null, code: string | null, topics: string[]}[]}}
 */
export function verdict({ health, topics }) {
  if (health === null || topics === null) return { health: 'unknown', causes: [] };
  const bad = health.checks.filter((check) => check.status !== 'ok').map((check) => causeOf(check, topics));
  const causes = withTopicsFolded(bad);
  const worstFirst = [...causes.filter((cause) => cause.health === 'down'), ...causes.filter((cause) => cause.health !== 'down')];
  return { health: health.status, causes: withoutRepeatedRemedies(worstFirst) };
}

/**
 * A topic's own check says nothing new when its tasks' reason is listed with the topic's name, and topics without tasks that suffer from one thing are one cause: an outage of Kafka must
 * not fill the page with one line per topic.
 */
function withTopicsFolded(causes) {
  const explained = new Set(causes.filter((cause) => cause.kind === 'tasks').flatMap((cause) => cause.topics));
  const folded = [];
  for (const cause of causes) {
    if (cause.kind !== 'topic') {
      folded.push(cause);
      continue;
    }
    if (explained.has(cause.subject)) continue;
    const same = folded.find((other) => other.detail === cause.detail && other.remedy === cause.remedy);
    if (same) same.topics.push(cause.subject);
    else folded.push(cause);
  }
  return folded;
}

/** One outage makes several causes; what helps is said once. */
function withoutRepeatedRemedies(causes) {
  const said = new Set();
  return causes.map((cause) => {
    const isSaid = said.has(cause.remedy);
    said.add(cause.remedy);
    return isSaid ? { ...cause, remedy: null } : cause;
  });
}

/** How many tasks suffer, in which states: of the server's "of 8 tasks 2 waiting, 1 backoff", so that it can be said in the reader's language. Null where the text is another one. */
export function tasksOf(detail) {
  const match = detail?.match(/^of (\d+) tasks ((?:\d+ [a-z]+(?:, |$))+)$/);
  if (!match) return null;
  const states = match[2].split(', ').map((part) => part.split(' '));
  return { all: Number(match[1]), states: states.map(([some, state]) => ({ some: Number(some), state })) };
}

function causeOf(check, topics) {
  const slash = check.name.indexOf('/');
  const kind = slash < 0 ? check.name : check.name.slice(0, slash);
  const subject = slash < 0 ? '' : check.name.slice(slash + 1);
  const cause = { name: check.name, kind, subject, health: check.status, detail: check.detail, remedy: check.remedy, since_at: check.since_at, code: kind === 'tasks' ? subject : null, topics: [] };
  if (kind === 'tasks') cause.topics = topics.filter((topic) => topic.status.reason && topic.status.reason.code === subject).map((topic) => topic.name);
  const own = kind === 'topic' || kind === 'dead_letters' ? topics.find((topic) => topic.name === subject) : undefined;
  if (own) {
    cause.topics = [own.name];
    cause.code = own.status.reason?.code ?? null;
  }
  return cause;
}

/** Sums over all topics; a sum with something unknown in it is unknown. */
export function totals(topics) {
  const sum = (of) => topics.reduce((total, topic) => (total === null || of(topic.status) === null ? null : total + of(topic.status)), 0);
  return {
    topics: topics.length,
    running: sum((status) => status.tasks.running ?? 0),
    partitions: sum((status) => status.partitions),
    lag: sum((status) => status.lag),
    rate: sum((status) => status.records_per_second),
    restarts: sum((status) => status.restarts_total),
    dead_lettered: sum((status) => status.dead_lettered_total),
    lost: sum((status) => status.lost_total),
  };
}
