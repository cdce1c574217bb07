// An opened topic: its tasks, one by one, and where each field of its spec comes from.

import { html } from '../../vendor/preact.js';
import { count, duration, fraction, t, term } from '../i18n.js';
import { state, update } from '../store.js';
import { Ago, Count, Reason, State, Unknown } from './parts.js';

export function TopicDetail({ topic }) {
  const tasks = state.tasks.get(topic.name);
  return html`
    <div class="detail-body">
      <h3>${t('tasks')}</h3>
      ${tasks === undefined && html`<p class="aside">${t('loading')}</p>`}
      ${tasks?.length === 0 && html`<p class="aside">${t('tasks.none')}</p>`}
      ${tasks?.length > 0 && html`<${Tasks} name=${topic.name} tasks=${tasks} />`}
      <h3>${t('letters')}</h3>
      <p><button type="button" aria-label=${t('action.of', { action: t('letters.open'), name: topic.name })} onClick=${() => update({ dialog: { kind: 'letters', name: topic.name } })}>${t('letters.open')}</button></p>
      <h3>${t('spec')}</h3>
      <${Spec} topic=${topic} />
    </div>
  `;
}

function Tasks({ name, tasks }) {
  return html`
    <div class="scroll" role="region" aria-label=${t('tasks.caption', { name })} tabindex="0"><table class="tasks">
      <caption class="only-read">${t('tasks.caption', { name })}</caption>
      <thead>
        <tr>
          <th scope="col" class="number">${t('column.partition')}</th><th scope="col">${t('column.state')}</th><th scope="col">${t('column.since')}</th>
          <th scope="col">${t('column.instance')}</th><th scope="col" class="number">${t('column.lag')}</th><th scope="col" class="number">${t('column.behind')}</th>
          <th scope="col" class="number">${t('column.rate')}</th><th scope="col" class="number">${t('column.restarts')}</th>
          <th scope="col" class="number">${t('column.committed')}</th><th scope="col">${t('column.last_exit')}</th>
        </tr>
      </thead>
      <tbody>
        ${tasks.map((task) => html`<${TaskRows} key=${task.partition} task=${task} />`)}
      </tbody>
    </table></div>
  `;
}

function TaskRows({ task }) {
  const { now } = state;
  return html`
    <tr>
      <th scope="row" class="number">${task.partition}</th>
      <td><${State} state=${task.state} health=${task.health} />${task.next_restart_at && html`<br /><span class="aside">${t('next_restart')} <${Ago} at=${task.next_restart_at} now=${now} /></span>`}</td>
      <td><${Ago} at=${task.since_at} now=${now} /></td>
      <td>${task.instance === null ? html`<${Unknown} />` : html`<bdi>${task.instance}</bdi>`}</td>
      <td class="number"><${Count} value=${task.lag} /></td>
      <td class="number">${task.lag_seconds === null ? html`<${Unknown} />` : duration(task.lag_seconds)}</td>
      <td class="number">${fraction(task.records_per_second)}</td>
      <td class="number">${count(task.restarts_total)}</td>
      <td class="number"><${Count} value=${task.committed} /></td>
      <td class="exit">${task.last_exit ? html`<${Exit} exit=${task.last_exit} />` : t('never')}</td>
    </tr>
    ${task.reason && html`<tr class="why"><td></td><td colspan="9"><${Reason} reason=${task.reason} now=${now} /></td></tr>`}
  `;
}

function Exit({ exit }) {
  return html`
    ${term('exit', exit.cause)} · <${Ago} at=${exit.at} now=${state.now} />
    ${exit.offset !== null && html` · ${t('at_offset', { offset: count(exit.offset) })}`}
    ${exit.message && html`<br /><bdi class="detail">${exit.message}</bdi>`}
  `;
}

function Spec({ topic }) {
  const shown = (value) => {
    if (value === null) return html`<span class="aside">${t('none')}</span>`;
    if (typeof value !== 'object') return html`<bdi>${value}</bdi>`;
    const labels = Object.entries(value);
    if (labels.length === 0) return html`<span class="aside">${t('none')}</span>`;
    return labels.map(([name, text]) => html`<span key=${name} class="badge"><bdi>${name}=${text}</bdi></span>`);
  };
  return html`
    <dl class="spec">
      ${Object.entries(topic.spec).map(([field, value]) => html`
        <div key=${field}><dt>${term('field', field)}</dt><dd>${shown(value)} <span class="aside">· ${term('origin', topic.spec_origin[field] ?? 'default')}</span></dd></div>`)}
    </dl>
    <ul class="places">
      ${topic.sources.map((source) => html`<li key=${`${source.kind}${source.key}${source.detail}`}>${term('source', source.kind)} <bdi>${source.detail ?? source.key}</bdi></li>`)}
    </ul>
  `;
}
