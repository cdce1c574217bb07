// Single keys that do something. They can be turned off, and never act while the reader types or a dialog is open.

import { mayChange, state, update } from './store.js';

const shortcuts = [
  { key: '/', what: 'help.filter', act: () => document.getElementById('filter')?.focus() },
  { key: 'a', what: 'help.add', isChange: true, act: () => update({ dialog: { kind: 'edit', name: null } }) },
  { key: '?', what: 'help.help', act: () => update({ dialog: { kind: 'help' } }) },
];

/** The keys that do something for this reader. */
export const available = () => shortcuts.filter(({ isChange }) => !isChange || mayChange());

const isTyping = (element) => element instanceof HTMLElement && (element.isContentEditable || ['INPUT', 'SELECT', 'TEXTAREA'].includes(element.tagName));

export function listenForShortcuts() {
  document.addEventListener('keydown', (event) => {
    if (!state.hasShortcuts || state.dialog !== null || state.topics === null) return;
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || isTyping(event.target)) return;
    const shortcut = available().find(({ key }) => key === event.key);
    if (!shortcut) return;
    event.preventDefault();
    shortcut.act();
  });
}
