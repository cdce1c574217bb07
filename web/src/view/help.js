// What the keys do, and whether they do it.

import { html } from '../../vendor/preact.js';
import { t } from '../i18n.js';
import { write } from '../settings.js';
import { available } from '../shortcuts.js';
import { state, update } from '../store.js';
import { Dialog } from './dialog.js';
import { State } from './parts.js';
import { STATES } from '../listing.js';

const HEALTH_OF = { failed: 'down', stalled: 'down', backoff: 'degraded', waiting: 'degraded' };

export function Help({ onClose }) {
  const choose = (event) => {
    const hasShortcuts = event.currentTarget.checked;
    write('shortcuts', hasShortcuts ? 'on' : 'off');
    update({ hasShortcuts });
  };
  return html`
    <${Dialog} title=${t('help.title')} onClose=${onClose}>
      <h3>${t('help.keys')}</h3>
      <dl class="keys">
        ${available().map(({ key, what }) => html`<div key=${key}><dt><kbd>${key}</kbd></dt><dd>${t(what)}</dd></div>`)}
        <div><dt><kbd>Esc</kbd></dt><dd>${t('help.escape')}</dd></div>
      </dl>
      <label class="check"><input type="checkbox" checked=${state.hasShortcuts} onChange=${choose} /> ${t('help.shortcuts')}</label>
      <h3>${t('help.states')}</h3>
      <dl class="states">
        ${STATES.map((name) => html`<div key=${name}><dt><${State} state=${name} health=${HEALTH_OF[name] ?? 'ok'} /></dt><dd>${t(`state.${name}.what`)}</dd></div>`)}
      </dl>
      <div class="buttons"><button type="button" onClick=${onClose}>${t('close')}</button></div>
    <//>
  `;
}
