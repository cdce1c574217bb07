// The topics: what each does, and what can be done with it.

import { html, useRef } from '../../vendor/preact.js';
import * as api from '../api.js';
import { count, duration, fraction, t, term } from '../i18n.js';
import { keptInOrder, listed, nextSort, parseSort, STATES } from '../listing.js';
import { mayChange, refresh, select, state, toggleTopic, update } from '../store.js';
import { Ago, Count, Icon, Reason, State, Unknown } from './parts.js';
import { TopicDetail } from './topic_detail.js';

export function Topics() {
  const { topics } = state;
  const rows = useOrder(listed(topics, state));
  return html`
    <section aria-labelledby="topics">
      <div class="section-head">
        <h2 id="topics">${t('topics')}</h2>
        ${mayChange()
          ? html`<button type="button" id="add" class="primary" onClick=${() => update({ dialog: { kind: 'edit', name: null } })}>${t('add')}</button>`
          : html`<p class="aside read-only"><${Icon} name="unknown" />${t('read_only', { name: state.info.caller.name })}</p>`}
      </div>
      ${topics.length === 0 ? html`<${NoTopics} />` : html`<${Toolbar} shown=${rows.length} />`}
      ${topics.length > 0 && rows.length === 0 && html`<${NoMatch} />`}
      ${rows.length > 0 && html`<${Table} rows=${rows} />`}
    </section>
  `;
}

/** The rows; in the order of before while the reader points at them or is in them and asks for the same. */
function useOrder(rows) {
  const last = useRef({ asked: null, names: [] });
  const asked = JSON.stringify([state.sort, state.filter, state.show]);
  const table = document.getElementById('topics-table');
  const isInUse = table !== null && (table.matches(':hover') || table.contains(document.activeElement));
  const ordered = isInUse && last.current.asked === asked ? keptInOrder(rows, last.current.names) : rows;
  last.current = { asked, names: ordered.map((topic) => topic.name) };
  return ordered;
}

function NoTopics() {
  return html`
    <div class="empty">
      <p><strong>${t('empty.none')}</strong></p>
      ${mayChange() && html`<p>${t('empty.none.hint')}</p>
      <pre><code>${`curl -X PUT ${location.origin}/api/v1/topics/NAME -H 'content-type: application/json' -d '{}'`}</code></pre>`}
    </div>
  `;
}

function NoMatch() {
  return html`
    <div class="empty">
      <p><strong>${t('empty.no_match')}</strong></p>
      <button type="button" onClick=${() => select({ filter: '', show: 'all' })}>${t('empty.no_match.clear')}</button>
    </div>
  `;
}

function Toolbar({ shown }) {
  const { topics, filter, show } = state;
  const counts = new Map();
  for (const topic of topics) counts.set(topic.status.state, (counts.get(topic.status.state) ?? 0) + 1);
  const unwell = topics.filter((topic) => topic.status.health !== 'ok').length;
  const states = STATES.filter((name) => counts.has(name) || name === show);
  const options = [
    ['all', t('show.all', { count: count(topics.length) })],
    ['unwell', t('show.unwell', { count: count(unwell) })],
    ...states.map((name) => [name, `${term('state', name)} (${count(counts.get(name) ?? 0)})`]),
  ];
  return html`
    <div class="toolbar" role="search" aria-label=${t('filter.region')}>
      <label class="field-inline"><span>${t('filter')}</span>
        <input id="filter" type="search" value=${filter} autocomplete="off" spellcheck=${false} aria-keyshortcuts=${state.hasShortcuts ? '/' : undefined}
          onInput=${(event) => select({ filter: event.currentTarget.value })} />
      </label>
      <label class="field-inline"><span>${t('show')}</span>
        <select onChange=${(event) => select({ show: event.currentTarget.value })}>
          ${options.map(([key, text]) => html`<option key=${key} value=${key} selected=${key === show}>${text}</option>`)}
        </select>
      </label>
      <span class="aside">${t('shown', { some: count(shown), all: count(topics.length) })}</span>
    </div>
  `;
}

/** A table that becomes a list of cards where it is narrow, by the sheet alone; the roles are what it would lose by that. */
function Table({ rows }) {
  return html`
    <div class="scroll" role="region" aria-label=${t('topics.table')} tabindex="0">
      <table id="topics-table" class="folds" role="table">
        <caption class="only-read">${t('topics.caption')}</caption>
        <thead role="rowgroup">
          <tr role="row">
            <${Column} id="state" /><${Column} id="name" /><th scope="col" role="columnheader" class="number">${t('column.tasks')}</th>
            <${Column} id="lag" isNumber /><th scope="col" role="columnheader" class="number">${t('column.behind')}</th><${Column} id="rate" isNumber />
            <${Column} id="restarts" isNumber /><${Column} id="dead_letters" isNumber /><th scope="col" role="columnheader" class="index">${t('column.index')}</th>${mayChange() && html`<th scope="col" role="columnheader">${t('column.actions')}</th>`}
          </tr>
        </thead>
        ${rows.map((topic) => html`<${TopicRows} key=${topic.name} topic=${topic} />`)}
      </table>
    </div>
  `;
}

function Column({ id, isNumber = false }) {
  const { column, isDescending } = parseSort(state.sort);
  const order = column !== id ? undefined : isDescending ? 'descending' : 'ascending';
  return html`
    <th scope="col" role="columnheader" class=${isNumber ? 'number' : ''} aria-sort=${order}>
      <button type="button" class="sort" onClick=${() => select({ sort: nextSort(state.sort, id) })}><span>${t(`column.${id}`)}</span><span class="order" aria-hidden="true">${order === undefined ? '' : isDescending ? '▼' : '▲'}</span></button>
    </th>
  `;
}

function TopicRows({ topic }) {
  const { name, status, spec } = topic;
  const isOpen = state.opened.has(name);
  const detail = `detail-${name}`;
  return html`
    <tbody role="rowgroup" class=${isOpen ? 'is-open' : ''}>
      <tr role="row" class="sums-of-topic">
        <td role="cell" class="of-state"><${State} state=${status.state} health=${status.health} /></td>
        <th scope="row" role="rowheader" class="name">
          <button type="button" class="expander" aria-expanded=${isOpen} aria-controls=${isOpen ? detail : undefined} onClick=${() => toggleTopic(name)}><span class="chevron" aria-hidden="true"></span><bdi>${name}</bdi></button>
          <span class="sources">${sourceKinds(topic).map((kind) => html`<span key=${kind} class="badge" title=${t(`source.${kind}.title`)}>${term('source', kind)}</span>`)}</span>
        </th>
        <td role="cell" class="number" data-label=${t('column.tasks')}>${status.partitions === 0 ? html`<${Unknown} />` : t('of', { some: count(status.tasks.running ?? 0), all: count(status.partitions) })}</td>
        <td role="cell" class="number" data-label=${t('column.lag')}><${Count} value=${status.lag} /></td>
        <td role="cell" class="number" data-label=${t('column.behind')}>${status.lag_seconds === null ? html`<${Unknown} />` : duration(status.lag_seconds)}</td>
        <td role="cell" class="number" data-label=${t('column.rate')}>${fraction(status.records_per_second)}</td>
        <td role="cell" class="number" data-label=${t('column.restarts')}>${count(status.restarts_total)}</td>
        <td role="cell" class="number" data-label=${t('column.dead_letters')}>${count(status.dead_lettered_total)}${status.lost_total > 0 && html`<br /><span class="is-down">${t('lost', { count: count(status.lost_total) })}</span>`}</td>
        <td role="cell" class="index"><bdi>${spec.index}</bdi></td>
        ${mayChange() && html`<td role="cell" class="actions"><${Actions} topic=${topic} /></td>`}
      </tr>
      ${(status.reason || topic.paused) && html`
        <tr role="row" class="why"><td role="cell" colspan="10">
          ${status.reason && html`<${Reason} reason=${status.reason} now=${state.now} />`}
          ${topic.paused && html`<${Pause} pause=${topic.paused} />`}
        </td></tr>`}
      ${isOpen && html`<tr role="row" id=${detail} class="detail"><td role="cell" colspan="10"><${TopicDetail} topic=${topic} /></td></tr>`}
    </tbody>
  `;
}

const sourceKinds = (topic) => [...new Set(topic.sources.map((source) => source.kind))];

function Pause({ pause }) {
  return html`
    <p class="reason">${t('paused.by')} <bdi>${pause.actor}</bdi> · <${Ago} at=${pause.since_at} now=${state.now} />
      ${pause.until_at && html` · ${t('paused.until')} <${Ago} at=${pause.until_at} now=${state.now} />`}
      ${pause.reason && html`<br /><bdi>${pause.reason}</bdi>`}</p>
  `;
}

function Actions({ topic }) {
  const { name } = topic;
  // Each button's name says which topic it is for; a reader of the list of buttons sees no rows.
  const label = (key) => t('action.of', { action: t(key), name });
  const open = (kind) => () => update({ dialog: { kind, name } });
  return html`
    <button type="button" aria-label=${label('edit')} onClick=${open('edit')}>${t('edit')}</button>
    ${topic.paused
      ? html`<button type="button" aria-label=${label('resume')} onClick=${() => resume(name)}>${t('resume')}</button>`
      : html`<button type="button" aria-label=${label('pause')} onClick=${open('pause')}>${t('pause')}</button>`}
    <button type="button" class="danger" aria-label=${label('remove')} onClick=${open('remove')}>${t('remove')}</button>
  `;
}

async function resume(name) {
  try {
    await api.resume(name);
    update({ message: t('done.resumed', { name }) });
  } catch (error) {
    update({ message: `${t('resume.failed', { name })} ${term('problem', error.code)}: ${error.message}` });
  }
  refresh();
}
