// Begins: words, first drawing, the loop, the keyboard.

import { html, render } from '../vendor/preact.js';
import * as i18n from './i18n.js';
import { read } from './settings.js';
import { listenForShortcuts } from './shortcuts.js';
import { onChange, start, state } from './store.js';
import { Page } from './view/page.js';

const root = document.getElementById('page');

await i18n.use(i18n.preferred(location.search, read('lang', null), navigator.languages));
// What the server drew stays until there is something newer.
let isFirst = true;
onChange(() => {
  if (isFirst && state.topics === null && state.failure === null) return;
  if (isFirst) root.replaceChildren();
  isFirst = false;
  render(html`<${Page} />`, root);
});
listenForShortcuts();
await start();
