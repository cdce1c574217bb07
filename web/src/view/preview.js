// What a dry run says would happen.

import { html } from '../../vendor/preact.js';
import { count, t, term } from '../i18n.js';
import { Count } from './parts.js';

/** Tasks that are listed by name. */
const MOST_NAMES = 8;

export function Preview({ answer }) {
  const { resolved, would, warnings, action } = answer;
  return html`
    <section class="preview" aria-label=${t('preview')}>
      <dl>
        <div><dt>${t('preview.action')}</dt><dd>${term('action', action)}</dd></div>
        ${resolved.index_example !== null && html`<div><dt>${t('preview.index')}</dt><dd><bdi><code>${resolved.index_example}</code></bdi></dd></div>`}
        ${resolved.spec !== null && html`
          <div><dt>${t('preview.partitions')}</dt><dd><${Count} value=${resolved.partitions} /></dd></div>
          <div><dt>${t('preview.records')}</dt><dd><${Count} value=${resolved.records_to_read} /></dd></div>`}
        <${Tasks} label=${t('preview.start')} tasks=${would.start} />
        <${Tasks} label=${t('preview.stop')} tasks=${would.stop} />
        <${Tasks} label=${t('preview.restart')} tasks=${would.restart} />
      </dl>
      ${warnings.map((warning) => html`<p key=${warning.code} class="warning"><strong>${term('warning', warning.code)}</strong> <bdi>${warning.detail}</bdi></p>`)}
    </section>
  `;
}

function Tasks({ label, tasks }) {
  if (tasks.length === 0) return null;
  const more = tasks.length - MOST_NAMES;
  return html`<div><dt>${label}</dt><dd>${count(tasks.length)} <span class="aside"><bdi>${tasks.slice(0, MOST_NAMES).join(', ')}</bdi>${more > 0 && ` ${t('cause.more', { count: count(more) })}`}</span></dd></div>`;
}
