// The frame of every dialog: the browser's own modal dialog, which traps and returns the focus and closes with Escape.

import { html, useId, useLayoutEffect, useRef } from '../../vendor/preact.js';
import { t } from '../i18n.js';
import { Icon } from './parts.js';

/**
 * `onClose` is called however the dialog is closed. With `isBusy` it stays open, because what was begun cannot be taken back by closing.
 */
export function Dialog({ title, onClose, isBusy = false, isWide = false, children }) {
  const element = useRef(null);
  const titleId = useId();
  useLayoutEffect(() => {
    const opener = document.activeElement;
    const dialog = element.current;
    dialog.showModal();
    return () => {
      // As long as it is open, nothing outside it takes the focus.
      dialog.close();
      const target = opener?.isConnected && opener !== document.body ? opener : document.getElementById('add');
      target?.focus();
    };
  }, []);
  const cancel = (event) => {
    event.preventDefault();
    if (!isBusy) onClose();
  };
  return html`
    <dialog ref=${element} class=${isWide ? 'is-wide' : ''} aria-labelledby=${titleId} onCancel=${cancel} onClose=${() => element.current && onClose()}>
      <div class="dialog-head">
        <h2 id=${titleId}>${title}</h2>
        <button type="button" class="quiet square" aria-label=${t('close')} onClick=${() => !isBusy && onClose()}><${Icon} name="failed" /></button>
      </div>
      ${children}
    </dialog>
  `;
}
