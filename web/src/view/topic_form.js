// Adding a topic and editing one. The server is the only validator: while the reader types, the entry is sent with dry_run=true, and what it answers is shown beside the fields.

import { html, useEffect, useId, useRef, useState } from '../../vendor/preact.js';
import * as api from '../api.js';
import { byInput, CHOICES, FIELDS, isPrecondition, toEntry, toInputs } from '../fields.js';
import { count, t, term } from '../i18n.js';
import { Dialog } from './dialog.js';
import { FailureText } from './parts.js';
import { Preview } from './preview.js';

/** How long the reader must pause before the server is asked. */
const PAUSE_MS = 300;

const nothing = { topic: null, tag: null };

export function TopicForm({ name, onClose, onDone }) {
  const isNew = name === null;
  const [newName, setNewName] = useState('');
  const [stored, setStored] = useState(isNew ? nothing : null);
  const [inputs, setInputs] = useState(isNew ? toInputs({}) : null);
  const [answer, setAnswer] = useState(null);
  const [failure, setFailure] = useState(null);
  const [isBusy, setBusy] = useState(false);
  const [overtaken, setOvertaken] = useState(null);
  const kafkaTopics = useKafkaTopics(isNew);
  const wanted = isNew ? newName.trim() : name;

  const load = async () => {
    try {
      const found = await api.topic(name);
      setStored(found);
      setInputs(toInputs(found.topic.overrides));
      return found;
    } catch (error) {
      setFailure(error);
      return null;
    }
  };
  useEffect(() => {
    if (!isNew) load();
  }, []);

  // A new question makes the answer to an older one worthless, whichever comes first.
  const question = useRef(0);
  const asked = inputs === null ? '' : JSON.stringify([wanted, stored.tag, toEntry(inputs)]);
  useEffect(() => {
    question.current += 1;
    const mine = question.current;
    if (inputs === null || wanted === '') {
      setAnswer(null);
      return undefined;
    }
    const timer = setTimeout(async () => {
      try {
        const found = await api.tryPut(wanted, toEntry(inputs), stored.tag);
        if (question.current !== mine) return;
        setAnswer({ asked, ...found });
        setFailure(null);
      } catch (error) {
        if (question.current !== mine) return;
        // What the server refuses as a whole, such as a name, it refuses with the same errors.
        if (error.errors?.length > 0) {
          setAnswer({ asked, valid: false, errors: error.errors, warnings: [] });
          setFailure(null);
        } else {
          setFailure(error);
        }
      }
    }, PAUSE_MS);
    return () => clearTimeout(timer);
  }, [asked]);

  const save = async (event) => {
    event.preventDefault();
    if (isBusy || inputs === null || wanted === '') return;
    setBusy(true);
    setFailure(null);
    try {
      await api.put(wanted, toEntry(inputs), stored.tag);
      onDone(t(isNew ? 'done.added' : 'done.saved', { name: wanted }));
      return;
    } catch (error) {
      if (error.status === 412 && !isNew) {
        const mine = toEntry(inputs);
        const found = await load();
        if (found) setOvertaken(differences(mine, found.topic.overrides));
      } else if (error.errors?.length > 0) {
        setAnswer({ asked, valid: false, errors: error.errors, warnings: [] });
      } else {
        setFailure(error);
      }
    }
    setBusy(false);
  };

  const errors = byInput(answer?.errors ?? []);
  const isCurrent = answer?.asked === asked;
  const change = (field) => (event) => setInputs({ ...inputs, [field]: event.currentTarget.value });
  const effective = answer?.resolved?.spec ?? stored?.topic?.spec ?? null;
  const field = { inputs, errors, effective, change };

  return html`
    <${Dialog} title=${isNew ? t('add.title') : t('edit.title', { name })} onClose=${onClose} isBusy=${isBusy}>
      ${overtaken && html`<${Overtaken} values=${overtaken} />`}
      ${inputs === null && failure === null && html`<p class="aside">${t('loading')}</p>`}
      <form onSubmit=${save} novalidate>
        ${isNew && html`<${NameInput} value=${newName} onInput=${setNewName} errors=${nameErrors(errors)} topics=${kafkaTopics} />`}
        ${inputs !== null && html`
          <p class="aside">${t('form.hint')}</p>
          <${TextField} field="index" ...${field} />
          <${ChoiceField} field="format" ...${field} />
          <${TextField} field="start" ...${field} />
          <details open=${FIELDS.slice(3).some((name) => inputs[name] !== '' || errors[name])}>
            <summary>${t('form.more')}</summary>
            <div class="more">
              <${ChoiceField} field="operation" ...${field} />
              <${TextField} field="pipeline" ...${field} />
              <${ChoiceField} field="metadata" ...${field} />
              <${ChoiceField} field="tombstones" ...${field} />
              <${ChoiceField} field="on_reject" ...${field} />
              <${TextField} field="labels" isLong ...${field} />
            </div>
          </details>`}
        <div class="answer" aria-live="polite">
          ${errors.form?.filter((error) => !isPrecondition(error)).map((error) => html`<p class="error"><bdi>${error.detail}</bdi> <span class="aside">${error.pointer}</span></p>`)}
          ${!isNew && errors.form?.some(isPrecondition) && html`<p class="error">${t('form.overtaken_soon')}</p>`}
          ${failure && html`<p class="error"><${FailureText} failure=${failure} /></p>`}
          ${answer?.valid && !failure && html`<${Preview} answer=${answer} />`}
        </div>
        <div class="buttons">
          <button type="button" onClick=${onClose} disabled=${isBusy}>${t('cancel')}</button>
          <button type="submit" class="primary" disabled=${isBusy || inputs === null || wanted === '' || (isCurrent && !answer.valid && !hasOnlyPreconditions(answer))}>
            ${isBusy ? t('working') : submitText(isNew, answer)}
          </button>
        </div>
      </form>
    <//>
  `;
}

/** For a new topic an entry that is there already is a matter of its name. */
const nameErrors = (errors) => [...(errors.name ?? []), ...(errors.form ?? []).filter(isPrecondition).map((error) => ({ ...error, detail: t('form.exists') }))];

const hasOnlyPreconditions = (answer) => answer.errors.every(isPrecondition) && answer.errors[0]?.pointer === '/header/if-match';

function submitText(isNew, answer) {
  const starting = answer?.would?.start.length ?? 0;
  if (!isNew) return t('save');
  return starting > 0 ? t('add.submit_tasks', { count: count(starting) }) : t('add.submit');
}

function differences(mine, theirs) {
  const isOther = (field) => JSON.stringify(mine[field] ?? null) !== JSON.stringify(theirs[field] ?? null);
  return FIELDS.filter(isOther).map((field) => [field, mine[field] === undefined ? '' : toInputs({ [field]: mine[field] })[field]]);
}

function Overtaken({ values }) {
  return html`
    <div class="banner is-degraded" role="alert">
      <div>
        <p><strong>${t('form.overtaken')}</strong></p>
        ${values.length > 0 && html`<p>${t('form.overtaken_yours')}</p><ul>${values.map(([field, text]) => html`<li key=${field}>${term('field', field)}: <bdi>${text === '' ? t('none') : text}</bdi></li>`)}</ul>`}
      </div>
    </div>
  `;
}

function useKafkaTopics(isNeeded) {
  const [topics, setTopics] = useState([]);
  useEffect(() => {
    // Only suggestions: without them a name is typed.
    if (isNeeded) api.kafkaTopics().then(setTopics, () => {});
  }, []);
  return topics;
}

function Field({ id, label, hint, errors = [], children }) {
  return html`
    <div class=${`field${errors.length > 0 ? ' is-wrong' : ''}`}>
      <label for=${id}>${label}</label>
      ${children}
      ${hint && html`<p class="aside" id=${`${id}-hint`}>${hint}</p>`}
      <div id=${`${id}-errors`} aria-live="polite">${errors.map((error) => html`<p class="error"><bdi>${error.detail}</bdi></p>`)}</div>
    </div>
  `;
}

const described = (id, hint, errors = []) => [hint && `${id}-hint`, errors.length > 0 && `${id}-errors`].filter(Boolean).join(' ') || undefined;

function NameInput({ value, onInput, errors, topics }) {
  const id = useId();
  const known = topics.find((topic) => topic.name === value.trim());
  const hint = known ? t('form.name.known', { count: count(known.partitions) }) : t('form.name.hint');
  return html`
    <${Field} id=${id} label=${t('field.name')} hint=${hint} errors=${errors}>
      <input id=${id} list=${`${id}-list`} value=${value} autofocus autocomplete="off" spellcheck=${false} aria-required="true" aria-invalid=${errors.length > 0}
        aria-describedby=${described(id, hint, errors)} onInput=${(event) => onInput(event.currentTarget.value)} />
      <datalist id=${`${id}-list`}>${topics.map((topic) => html`<option key=${topic.name} value=${topic.name} />`)}</datalist>
    <//>
  `;
}

/** What a field that is left empty comes to. */
function effectiveText(effective, field) {
  const value = effective?.[field];
  if (value === undefined) return '';
  if (field === 'labels') return Object.entries(value).map(([name, text]) => `${name}=${text}`).join('\n');
  return value ?? t('none');
}

function TextField({ field, inputs, errors, effective, change, isLong = false }) {
  const id = useId();
  const hint = t(`field.${field}.hint`);
  const attributes = {
    id,
    value: inputs[field],
    placeholder: effectiveText(effective, field),
    autocomplete: 'off',
    spellcheck: false,
    'aria-invalid': Boolean(errors[field]),
    'aria-describedby': described(id, hint, errors[field]),
    onInput: change(field),
  };
  return html`
    <${Field} id=${id} label=${t(`field.${field}`)} hint=${hint} errors=${errors[field]}>
      ${isLong ? html`<textarea rows="2" ...${attributes}></textarea>` : html`<input ...${attributes} />`}
    <//>
  `;
}

function ChoiceField({ field, inputs, errors, effective, change }) {
  const id = useId();
  const unset = inputs[field] === '' && effective ? t('form.unset_is', { value: term(`value.${field}`, effective[field]) }) : t('form.unset');
  const options = [['', unset], ...CHOICES[field].map((value) => [value, term(`value.${field}`, value)])];
  return html`
    <${Field} id=${id} label=${t(`field.${field}`)} errors=${errors[field]}>
      <select id=${id} aria-invalid=${Boolean(errors[field])} aria-describedby=${described(id, '', errors[field])} onChange=${change(field)}>
        ${options.map(([value, text]) => html`<option key=${value} value=${value} selected=${value === inputs[field]}>${text}</option>`)}
      </select>
    <//>
  `;
}
