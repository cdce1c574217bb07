// The whole page: is anything wrong, what is there, and is what one sees current.

import { html, useEffect, useRef } from '../../vendor/preact.js';
import * as i18n from '../i18n.js';
import { write } from '../settings.js';
import { chooseInterval, refresh, state, update } from '../store.js';
import { token } from '../token.js';
import { verdict } from '../verdict.js';
import { Help } from './help.js';
import { LettersDialog } from './letters.js';
import { Ago, FailureText, Icon } from './parts.js';
import { PauseDialog } from './pause.js';
import { RemoveDialog } from './remove.js';
import { TopicForm } from './topic_form.js';
import { ForgetToken, TokenForm } from './token.js';
import { Topics } from './topics.js';
import { Verdict } from './verdict.js';

const { t } = i18n;

export function Page() {
  const found = verdict(state);
  useEffect(() => {
    document.title = `${i18n.term('health', found.health)} · drover`;
  }, [found.health, i18n.current()]);
  const isStale = state.failure !== null;
  return html`
    <header class="bar">
      <h1>drover${state.info && html` <span class="instance"><bdi>${state.info.instance}</bdi></span>`}</h1>
      <${Connection} />
      <div class="settings">
        <${Choice} label=${t('interval')} value=${String(state.interval)} onChoose=${(value) => chooseInterval(Number(value))}
          options=${[['2000', t('interval.2')], ['5000', t('interval.5')], ['15000', t('interval.15')], ['0', t('interval.off')]]} />
        <${Choice} label=${t('language')} value=${i18n.current()} onChoose=${chooseLanguage} options=${Object.entries(i18n.known)} />
        <${Choice} label=${t('theme')} value=${state.theme} onChoose=${chooseTheme}
          options=${['auto', 'light', 'dark'].map((theme) => [theme, t(`theme.${theme}`)])} />
        <${ForgetToken} />
        <button type="button" class="square" aria-label=${t('help.title')} title=${t('help.title')} onClick=${() => update({ dialog: { kind: 'help' } })}>?</button>
      </div>
    </header>
    <main class=${isStale ? 'is-stale' : ''}>
      <${Banners} />
      ${state.topics !== null && html`<${Verdict} found=${found} /><${Topics} />`}
    </main>
    <footer>
      ${state.info && html`drover <bdi>${state.info.version}</bdi> · `}
      <a href="/openapi.json">${t('footer.api')}</a> · <a href="/metrics">${t('footer.metrics')}</a> · <a href="/healthz?verbose">${t('footer.health')}</a>
    </footer>
    <${Announcer} text=${i18n.term('health', found.health)} />
    <${OpenDialog} />
  `;
}

function Choice({ label, value, options, onChoose }) {
  return html`
    <label class="choice"><span>${label}</span>
      <select value=${value} onChange=${(event) => onChoose(event.currentTarget.value)}>
        ${options.map(([key, text]) => html`<option key=${key} value=${key} selected=${key === value}>${text}</option>`)}
      </select>
    </label>
  `;
}

async function chooseLanguage(tag) {
  write('lang', tag);
  // The address must not disagree with what was just chosen.
  const query = new URLSearchParams(location.search);
  query.delete('lang');
  history.replaceState(null, '', query.size > 0 ? `?${query}` : location.pathname);
  try {
    await i18n.use(tag);
  } catch {
    update({ message: t('language.failed') });
    return;
  }
  update({ message: '' });
}

function chooseTheme(theme) {
  write('theme', theme);
  if (theme === 'auto') delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  update({ theme });
}

/** Whether what is shown is current. */
function Connection() {
  if (state.failure !== null) return html`<p class="connection is-down"><${Icon} name="unknown" />${t('connection.stale')}</p>`;
  if (state.interval === 0) {
    return html`<p class="connection"><${Icon} name="paused" />${t('connection.off')} <${Ago} at=${state.freshAt} now=${state.now} />
      <button type="button" class="quiet" onClick=${refresh}>${t('refresh')}</button></p>`;
  }
  return html`<p class="connection is-ok"><${Icon} name="ok" />${t('connection.live')}</p>`;
}

function Banners() {
  const page = document.querySelector('meta[name="drover-version"]')?.content;
  const isOld = state.info && page && page !== state.info.version;
  return html`
    ${state.failure && html`<${FailureBanner} />`}
    ${isOld && html`<div class="banner is-degraded"><${Icon} name="degraded" /><p>${t('new_version', { version: state.info.version })}
      <button type="button" onClick=${() => location.reload()}>${t('reload')}</button></p></div>`}
    ${state.message && html`<div class="banner"><p>${state.message} <button type="button" class="quiet" onClick=${() => update({ message: '' })}>${t('dismiss')}</button></p></div>`}
  `;
}

/** Cannot reach the server, or it does not let us. What was seen last stays on the page. */
function FailureBanner() {
  const { failure, nextAt, now, freshAt } = state;
  const isForbidden = failure.status === 401 || failure.status === 403;
  const what = failure.status === 401 && token() === '' ? t('token.needed') : isForbidden ? t('failure.forbidden') : failure.code === 'unreachable' ? t('failure.unreachable', { host: location.host }) : t('failure.other');
  return html`
    <div class="banner is-down" role="alert">
      <${Icon} name="down" />
      <p>
        <strong>${what}</strong>${' '}${freshAt > 0 ? t('failure.age', { time: i18n.moment(freshAt) }) : t('failure.nothing')}<br />
        <${FailureText} failure=${failure} />
      </p>
      ${failure.status === 401 && html`<${TokenForm} />`}
      <p class="aside">
        ${nextAt !== null && html`<span aria-hidden="true">${t('failure.next', { in: i18n.distance(Math.max(nextAt, now), now) })}</span>`}
        <button type="button" onClick=${refresh}>${t('retry')}</button>
      </p>
    </div>
  `;
}

/** Tells screen readers of a new verdict, at most every ten seconds, and of what was done. */
function Announcer({ text }) {
  const element = useRef(null);
  const last = useRef({ text, at: 0 });
  useEffect(() => {
    const wait = Math.max(0, last.current.at + 10_000 - Date.now());
    if (last.current.text === text) return undefined;
    const timer = setTimeout(() => {
      last.current = { text, at: Date.now() };
      if (element.current) element.current.textContent = t('announce', { verdict: text });
    }, wait);
    return () => clearTimeout(timer);
  }, [text]);
  return html`
    <div class="only-read" role="status" ref=${element}></div>
    <div class="only-read" role="status">${state.message}</div>
  `;
}

function OpenDialog() {
  const { dialog } = state;
  if (dialog === null) return null;
  const onClose = () => update({ dialog: null });
  const onDone = async (message) => {
    update({ dialog: null, message });
    await refresh();
    // The row that had the focus may be gone with its topic.
    if (document.activeElement === document.body) document.getElementById('add')?.focus();
  };
  switch (dialog.kind) {
    case 'edit':
      return html`<${TopicForm} key=${dialog.name} name=${dialog.name} onClose=${onClose} onDone=${onDone} />`;
    case 'pause':
      return html`<${PauseDialog} key=${dialog.name} name=${dialog.name} onClose=${onClose} onDone=${onDone} />`;
    case 'letters':
      return html`<${LettersDialog} key=${dialog.name} name=${dialog.name} onClose=${onClose} />`;
    case 'remove':
      return html`<${RemoveDialog} key=${dialog.name} name=${dialog.name} onClose=${onClose} onDone=${onDone} />`;
    default:
      return html`<${Help} onClose=${onClose} />`;
  }
}
