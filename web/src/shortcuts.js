// Single keys that do something. They can be turned off, and never act while the reader types or a dialog is open.

import { state, update } from './store.js';

export const shortcuts = [
  { key: '/', what: 'help.filter', act: () => document.getElementById('filter')?.focus() },
  { key: 'a', what: 'help.add', act: () => update({ dialog: { kind: 'edit', name: null } }) },
  { key: '?', what: 'help.help', act: () => update({ dialog: { kind: 'help' } }) },
];

const isTyping = (element) => element instanceof HTMLElement && (element.isContentEditable || ['INPUT', 'SELECT', 'TEXTAREA'].includes(element.tagName));

export function listenForShortcuts() {
  document.addEventListener('keydown', (event) => {
    if (!state.hasShortcuts || state.dialog !== null || state.topics === null) return;
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || isTyping(event.target)) return;
    const shortcut = shortcuts.find(({ key }) => key === event.key);
    if (!shortcut) return;
    event.preventDefault();
    shortcut.act();
  });
}
