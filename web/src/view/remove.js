// Removing a topic: first what would stop and what stays, then the removal under the tag that was shown.

import { html, useEffect, useState } from '../../vendor/preact.js';
import * as api from '../api.js';
import { t, term } from '../i18n.js';
import { Dialog } from './dialog.js';
import { FailureText } from './parts.js';
import { Preview } from './preview.js';

export function RemoveDialog({ name, onClose, onDone }) {
  const [tag, setTag] = useState(null);
  const [answer, setAnswer] = useState(null);
  const [failure, setFailure] = useState(null);
  const [isBusy, setBusy] = useState(false);
  const [isOvertaken, setOvertaken] = useState(false);

  const look = async () => {
    try {
      const found = await api.topic(name);
      setTag(found.tag);
      setAnswer(await api.tryRemove(name, found.tag));
    } catch (error) {
      setFailure(error);
    }
  };
  useEffect(() => {
    look();
  }, []);

  const remove = async (event) => {
    event.preventDefault();
    if (isBusy || !answer?.valid) return;
    setBusy(true);
    setFailure(null);
    try {
      const rest = await api.remove(name, tag);
      onDone(t(rest ? 'done.removed_partly' : 'done.removed', { name }));
      return;
    } catch (error) {
      if (error.status === 412) {
        setOvertaken(true);
        await look();
      } else {
        setFailure(error);
      }
    }
    setBusy(false);
  };

  return html`
    <${Dialog} title=${t('remove.title', { name })} onClose=${onClose} isBusy=${isBusy}>
      <form onSubmit=${remove}>
        ${isOvertaken && html`<div class="banner is-degraded" role="alert"><p><strong>${t('remove.overtaken')}</strong></p></div>`}
        <p>${t('remove.keeps')}</p>
        <div class="answer" aria-live="polite">
          ${answer === null && failure === null && html`<p class="aside">${t('loading')}</p>`}
          ${answer?.errors.map((error) => html`<p class="error"><strong>${term('problem', error.code)}</strong> <bdi>${error.detail}</bdi></p>`)}
          ${answer?.valid && html`<${Preview} answer=${answer} />`}
          ${failure && html`<p class="error"><${FailureText} failure=${failure} /></p>`}
        </div>
        <div class="buttons">
          <button type="button" autofocus onClick=${onClose} disabled=${isBusy}>${t('cancel')}</button>
          <button type="submit" class="danger" disabled=${isBusy || !answer?.valid}>${isBusy ? t('working') : t('remove')}</button>
        </div>
      </form>
    <//>
  `;
}
