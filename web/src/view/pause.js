// Pausing a topic, with a reason and an end if the reader wants them.

import { html, useId, useState } from '../../vendor/preact.js';
import * as api from '../api.js';
import { t } from '../i18n.js';
import { Dialog } from './dialog.js';
import { FailureText } from './parts.js';

export function PauseDialog({ name, onClose, onDone }) {
  const [reason, setReason] = useState('');
  const [until, setUntil] = useState('');
  const [errors, setErrors] = useState([]);
  const [failure, setFailure] = useState(null);
  const [isBusy, setBusy] = useState(false);
  const reasonId = useId();
  const untilId = useId();

  const pause = async (event) => {
    event.preventDefault();
    if (isBusy) return;
    setBusy(true);
    setFailure(null);
    setErrors([]);
    const body = {};
    if (reason.trim() !== '') body.reason = reason.trim();
    if (until !== '') body.until_at = new Date(until).toISOString();
    try {
      await api.pause(name, body);
      onDone(t('done.paused', { name }));
      return;
    } catch (error) {
      if (error.errors?.length > 0) setErrors(error.errors);
      else setFailure(error);
    }
    setBusy(false);
  };

  const of = (pointer) => errors.filter((error) => error.pointer === pointer);
  const rest = errors.filter((error) => error.pointer !== '/reason' && error.pointer !== '/until_at');
  const shown = (id, found) => html`<div id=${`${id}-errors`} aria-live="polite">${found.map((error) => html`<p class="error"><bdi>${error.detail}</bdi></p>`)}</div>`;

  return html`
    <${Dialog} title=${t('pause.title', { name })} onClose=${onClose} isBusy=${isBusy}>
      <form onSubmit=${pause} novalidate>
        <p>${t('pause.what')}</p>
        <div class="field">
          <label for=${reasonId}>${t('pause.reason')}</label>
          <input id=${reasonId} autofocus value=${reason} autocomplete="off" aria-invalid=${of('/reason').length > 0} aria-describedby=${`${reasonId}-errors`}
            onInput=${(event) => setReason(event.currentTarget.value)} />
          ${shown(reasonId, of('/reason'))}
        </div>
        <div class="field">
          <label for=${untilId}>${t('pause.until')}</label>
          <input id=${untilId} type="datetime-local" value=${until} aria-invalid=${of('/until_at').length > 0} aria-describedby=${`${untilId}-errors`}
            onInput=${(event) => setUntil(event.currentTarget.value)} />
          ${shown(untilId, of('/until_at'))}
        </div>
        <div class="answer" aria-live="polite">
          ${rest.map((error) => html`<p class="error"><bdi>${error.detail}</bdi> <span class="aside">${error.pointer}</span></p>`)}
          ${failure && html`<p class="error"><${FailureText} failure=${failure} /></p>`}
        </div>
        <div class="buttons">
          <button type="button" onClick=${onClose} disabled=${isBusy}>${t('cancel')}</button>
          <button type="submit" class="primary" disabled=${isBusy}>${isBusy ? t('working') : t('pause')}</button>
        </div>
      </form>
    <//>
  `;
}
