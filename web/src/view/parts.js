// Small pieces that several views draw. Text from outside is only ever a text node, inside <bdi> so that it cannot reorder its neighbours.

import { html } from '../../vendor/preact.js';
import { count, distance, moment, t, term } from '../i18n.js';

const sprite = new URL('../../icons/icons.svg', import.meta.url).pathname;

export const Icon = ({ name }) => html`<svg class="icon" aria-hidden="true"><use href=${`${sprite}#${name}`} /></svg>`;

/** States in which nothing is wrong and nothing is done. */
const IDLE = new Set(['paused', 'unassigned', 'stopped']);

/** A state: shape, word and the colour of its health. */
export const State = ({ state, health }) => html`<span class=${`state is-${health === 'ok' && IDLE.has(state) ? 'unknown' : health}`}><${Icon} name=${state} />${term('state', state)}</span>`;

/** What is not known is not 0. */
export const Unknown = () => html`<span class="unknown" title=${t('unknown')}><span aria-hidden="true">–</span><span class="only-read">${t('unknown')}</span></span>`;

export const Count = ({ value }) => (value === null || value === undefined ? html`<${Unknown} />` : count(value));

/** When something was, or will be, seen from now. */
export const Ago = ({ at, now }) => {
  const milliseconds = typeof at === 'number' ? at : Date.parse(at);
  return html`<time datetime=${new Date(milliseconds).toISOString()} title=${moment(milliseconds)}>${distance(milliseconds, now)}</time>`;
};

/** Why something is not well and what helps: the page's word for the code, and below it what the server says. */
export const Reason = ({ reason, now }) => html`
  <p class="reason">
    <strong>${term('reason', reason.code)}</strong> · <${Ago} at=${reason.since_at} now=${now} /><br />
    <bdi>${reason.message}</bdi>
    ${reason.remedy && html`<br /><span class="remedy">${t('remedy')} <bdi>${reason.remedy}</bdi></span>`}
  </p>
`;

/** A failed request, in words. */
export const FailureText = ({ failure }) => html`
  <strong>${term('problem', failure.code)}</strong>
  ${failure.message && html` <bdi class="detail">${failure.message}</bdi>`}
`;
