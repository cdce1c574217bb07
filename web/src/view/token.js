// Asks for a token, and forgets it.

import { html, useId, useRef } from '../../vendor/preact.js';
import { t } from '../i18n.js';
import { refresh } from '../store.js';
import { keep, token } from '../token.js';

export function TokenForm() {
  const field = useRef(null);
  const id = useId();
  const submit = (event) => {
    event.preventDefault();
    keep(field.current.value);
    field.current.value = '';
    refresh();
  };
  return html`
    <form class="token" onSubmit=${submit}>
      <label for=${id}>${t('token.label')}</label>
      <input id=${id} ref=${field} type="password" autocomplete="off" spellcheck=${false} required />
      <button type="submit">${t('token.send')}</button>
    </form>
  `;
}

/** Shown while a token is kept. What it opened must go with it, so that the page begins anew. */
export function ForgetToken() {
  if (token() === '') return null;
  const forget = () => {
    keep('');
    location.reload();
  };
  return html`<button type="button" class="quiet" onClick=${forget}>${t('token.forget')}</button>`;
}
