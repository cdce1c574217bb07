// The dead letters of a topic: records that no server would take, with the reason, and how they are sent again or deleted.

import { html, useEffect, useRef, useState } from '../../vendor/preact.js';
import * as api from '../api.js';
import { count, t, term } from '../i18n.js';
import { asText } from '../payload.js';
import { mayChange, refresh, state } from '../store.js';
import { Dialog } from './dialog.js';
import { Ago, FailureText } from './parts.js';

/** Letters that are asked for at first, and how many more at a time. */
const STEP = 50;
/** The most that one answer of the API holds. */
const MOST = 1000;

export function LettersDialog({ name, onClose }) {
  const [errorType, setErrorType] = useState('');
  const [limit, setLimit] = useState(STEP);
  const [found, setFound] = useState(null);
  const [types, setTypes] = useState([]);
  const [failure, setFailure] = useState(null);
  /** How many letters the reader is asked about; null = nothing is asked. */
  const [asked, setAsked] = useState(null);
  /** What was done last: a text's key and its values. */
  const [done, setDone] = useState(null);
  const [isBusy, setBusy] = useState(false);
  const latest = useRef(0);

  const look = async () => {
    const turn = (latest.current += 1);
    try {
      const page = await api.letters(name, errorType, limit);
      // An answer that was overtaken by a newer question is no answer to it.
      if (turn !== latest.current) return;
      setFound(page);
      setTypes((known) => [...new Set([...known, ...page.items.map((letter) => letter.error.type)])].sort());
      setFailure(null);
    } catch (error) {
      if (turn === latest.current) setFailure(error);
    }
  };
  // As often as the rest of the page, and when the reader asks for other letters.
  useEffect(() => {
    look();
  }, [errorType, limit, state.freshAt]);

  const act = async (request, then) => {
    if (isBusy) return;
    setBusy(true);
    setFailure(null);
    try {
      then(await request());
    } catch (error) {
      setFailure(error);
    }
    setBusy(false);
  };
  const tell = (key, values) => {
    setAsked(null);
    setDone({ key, values });
    refresh();
    look();
  };
  const sent = ({ accepted }) => tell('letters.accepted', { count: count(accepted) });
  const remove = (letter) => act(() => api.deleteLetter(letter.id), () => tell('letters.deleted', letter));
  const choose = (event) => {
    setErrorType(event.currentTarget.value);
    setLimit(STEP);
    setAsked(null);
    setFound(null);
  };

  return html`
    <${Dialog} title=${t('letters.title', { name })} onClose=${onClose} isBusy=${isBusy} isWide>
      <p>${t('letters.what')}</p>
      <div class="toolbar">
        <label class="field-inline"><span>${t('letters.type')}</span>
          <select value=${errorType} disabled=${isBusy} onChange=${choose}>
            <option value="" selected=${errorType === ''}>${t('letters.type.all')}</option>
            ${types.map((type) => html`<option key=${type} value=${type} selected=${type === errorType}>${type}</option>`)}
          </select>
        </label>
        ${mayChange() && found?.items.length > 0 && asked === null && html`
          <button type="button" disabled=${isBusy} onClick=${() => act(() => api.tryRedrive(name, errorType), (answer) => setAsked(answer.accepted))}>${t('letters.again_all')}</button>`}
      </div>
      ${asked !== null && html`<${Confirm} label=${t('letters.again_all')} question=${t('letters.confirm', { count: count(asked) })} answer=${t('letters.confirm.send', { count: count(asked) })}
        isBusy=${isBusy} isNothing=${asked === 0} onCancel=${() => setAsked(null)} onConfirm=${() => act(() => api.redrive(name, errorType), sent)} />`}
      <div class="answer" aria-live="polite">
        ${done !== null && html`<p><strong>${t(done.key, done.values)}</strong></p>`}
        ${failure && html`<p class="error"><${FailureText} failure=${failure} /></p>`}
        ${found === null && failure === null && html`<p class="aside">${t('loading')}</p>`}
        ${found?.items.length === 0 && html`<p class="aside">${t('letters.none')}</p>`}
      </div>
      ${found?.items.length > 0 && html`<ul class="letters" aria-label=${t('letters.title', { name })}>
        ${found.items.map((letter) => html`<${Letter} key=${letter.id} letter=${letter} isBusy=${isBusy} onSend=${() => act(() => api.redriveOne(letter.id), sent)} onDelete=${() => remove(letter)} />`)}
      </ul>`}
      ${found?.next && html`<p class="aside more-letters">${t('letters.shown', { count: count(found.items.length) })}
        ${limit < MOST && html`<button type="button" onClick=${() => setLimit(Math.min(limit + STEP, MOST))}>${t('letters.more')}</button>`}</p>`}
      <div class="buttons"><button type="button" onClick=${onClose} disabled=${isBusy}>${t('close')}</button></div>
    <//>
  `;
}

function Confirm({ label, question, answer, isBusy, isNothing, isDanger, onCancel, onConfirm }) {
  const cancel = useRef(null);
  // What follows from a second press of the same key must be chosen.
  useEffect(() => cancel.current?.focus(), []);
  return html`
    <div class="banner is-degraded" role="alertdialog" aria-label=${label}>
      <p>${question}</p>
      <p class="aside">
        <button type="button" ref=${cancel} onClick=${onCancel} disabled=${isBusy}>${t('cancel')}</button>
        <button type="button" class=${isDanger ? 'danger' : 'primary'} onClick=${onConfirm} disabled=${isBusy || isNothing}>${isBusy ? t('working') : answer}</button>
      </p>
    </div>
  `;
}

/** Whether the store could not keep the record. */
const isGone = (letter) => letter.payload_base64 === null && letter.payload_bytes > 0;

function Letter({ letter, isBusy, onSend, onDelete }) {
  const { now } = state;
  const [isAsked, setAsked] = useState(false);
  const name = t('letters.place', letter);
  const button = (action, onClick, kind) => html`<button type="button" class=${kind} aria-label=${t('action.of', { action, name })} disabled=${isBusy} onClick=${onClick}>${action}</button>`;
  return html`
    <li>
      <div class="letter-head">
        <strong>${name}</strong>
        <span class="badge">${term('letter_cause', letter.cause)}</span>
        <span class="aside"><${Ago} at=${letter.last_at} now=${now} /> · ${t('letters.attempts', { count: count(letter.attempts) })}${letter.redriven_at && html` · ${t('letters.redriven')} <${Ago} at=${letter.redriven_at} now=${now} />`}</span>
        ${mayChange() && !isGone(letter) && button(t('letters.again'), onSend)}
        ${mayChange() && !isAsked && button(t('letters.delete'), () => setAsked(true), 'danger')}
      </div>
      ${isAsked && html`<${Confirm} label=${t('action.of', { action: t('letters.delete'), name })} question=${t('letters.delete.confirm')} answer=${t('letters.delete')}
        isBusy=${isBusy} isDanger=${true} onCancel=${() => setAsked(false)} onConfirm=${onDelete} />`}
      <p><bdi><code>${letter.error.type}</code></bdi>${letter.error.status !== null && ` ${letter.error.status}`}<br /><bdi>${letter.error.reason}</bdi></p>
      <${Payload} letter=${letter} />
    </li>
  `;
}

/** The record, as text where it is one. */
function Payload({ letter }) {
  if (isGone(letter)) return html`<p class="aside">${t('letters.record.gone')}</p>`;
  if (letter.payload_base64 === null) return null;
  const { text, isText } = asText(letter.payload_base64);
  const notes = [isText ? null : t('letters.record.base64'), letter.truncated ? t('letters.record.cut') : null].filter((note) => note !== null);
  return html`<details><summary>${t('letters.record')}${notes.length > 0 && ` (${notes.join(', ')})`}</summary><pre tabindex="0"><bdi>${text}</bdi></pre></details>`;
}
