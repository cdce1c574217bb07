// The answer to "is anything wrong?": a word, its causes with what helps, and the sums.

import { html } from '../../vendor/preact.js';
import { count, fraction, t, term } from '../i18n.js';
import { select, state } from '../store.js';
import { tasksOf, totals } from '../verdict.js';
import { Ago, Count, Icon } from './parts.js';

export function Verdict({ found }) {
  const sums = totals(state.topics);
  return html`
    <section class=${`verdict is-${found.health}`} aria-labelledby="verdict">
      <h2 id="verdict"><${Icon} name=${found.health} />${term('health', found.health)} <span class="gist">${t(`verdict.${found.health}`)}</span></h2>
      ${state.info?.draining && html`<p>${t('draining')}</p>`}
      ${found.causes.length > 0 && html`<ul class="causes">${found.causes.map((cause) => html`<${Cause} key=${cause.name} cause=${cause} />`)}</ul>`}
      <${Notes} />
      <dl class="sums">
        <div><dt>${t('sum.topics')}</dt><dd>${count(sums.topics)}</dd></div>
        <div><dt>${t('sum.running')}</dt><dd>${t('of', { some: count(sums.running), all: count(sums.partitions) })}</dd></div>
        <div><dt>${t('column.lag')}</dt><dd><${Count} value=${sums.lag} /></dd></div>
        <div><dt>${t('column.rate')}</dt><dd>${fraction(sums.rate)}</dd></div>
        <div><dt>${t('column.restarts')}</dt><dd>${count(sums.restarts)}</dd></div>
        <div><dt>${t('column.dead_letters')}</dt><dd>${count(sums.dead_lettered)}</dd></div>
        ${sums.lost > 0 && html`<div class="is-down"><dt>${t('sum.lost')}</dt><dd>${count(sums.lost)}</dd></div>`}
      </dl>
    </section>
  `;
}

/** Topics that one cause lists by name. */
const MOST_NAMES = 5;

function Cause({ cause }) {
  const isOfOneTopic = cause.topics.length === 1 && cause.topics[0] === cause.subject;
  const isOfTopics = (cause.kind === 'tasks' || cause.kind === 'topic') && !isOfOneTopic && cause.code;
  const title = isOfTopics ? term('reason', cause.code) : html`${term('cause', cause.kind)}${cause.subject && html` <bdi>${cause.subject}</bdi>`}`;
  // A cause of one topic has its name in the title.
  const named = isOfOneTopic ? [] : cause.topics;
  return html`
    <li class=${`is-${cause.health}`}>
      <${Icon} name=${cause.health} />
      <div>
        <strong>${title}</strong>${cause.since_at && html` · <${Ago} at=${cause.since_at} now=${state.now} />`}
        ${cause.detail && html`<br /><bdi>${inWords(cause)}</bdi>`}
        ${named.length > 0 && html`<br />${t('cause.topics')} ${named.slice(0, MOST_NAMES).map((name, index) => html`${index > 0 && ', '}<${TopicLink} name=${name} />`)}${named.length > MOST_NAMES && ` ${t('cause.more', { count: count(named.length - MOST_NAMES) })}`}`}
        ${cause.remedy && html`<br /><span class="remedy">${t('remedy')} <bdi>${cause.remedy}</bdi></span>`}
      </div>
    </li>
  `;
}

function inWords({ kind, detail }) {
  const tasks = kind === 'tasks' ? tasksOf(detail) : null;
  if (!tasks) return detail;
  const states = tasks.states.map(({ some, state: name }) => t('cause.tasks.state', { count: count(some), state: term('state', name).toLowerCase() }));
  return t('cause.tasks.all', { states: states.join(t('cause.tasks.and')), all: count(tasks.all) });
}

function TopicLink({ name }) {
  const show = (event) => {
    event.preventDefault();
    select({ filter: name, show: 'all' });
    document.getElementById('filter')?.focus();
  };
  return html`<a href=${`?q=${encodeURIComponent(name)}`} onClick=${show}><bdi>${name}</bdi></a>`;
}

/** What an operator should know although nothing is wrong yet. */
function Notes() {
  const { info } = state;
  if (!info) return null;
  const notes = [...info.warnings];
  if (info.needs_restart.length > 0) notes.push(t('needs_restart', { fields: info.needs_restart.join(', ') }));
  if (notes.length === 0) return null;
  return html`<ul class="notes">${notes.map((note) => html`<li key=${note}><bdi>${note}</bdi></li>`)}</ul>`;
}
