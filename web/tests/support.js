// What every browser test needs: a fixture server of its own, and a watch over what must never happen on the page.

import AxeBuilder from '@axe-core/playwright';
import { test as base, expect } from '@playwright/test';
import { Fixture } from './fixture/server.js';

export { expect };

/** What the browser itself logs for an answer that is an error; each test says which it provokes. */
const REFUSED = /^Failed to load resource: (the server responded with a status of (401|403|404|409|412|422|500|503)|net::ERR_(CONNECTION_REFUSED|CONNECTION_RESET|EMPTY_RESPONSE|INCOMPLETE_CHUNKED_ENCODING))/;

/** Watches a page: console errors, exceptions, CSP violations, requests to another origin. */
export async function watch(page, { mayBeRefused = false } = {}) {
  const found = [];
  page.on('console', (message) => {
    if (message.type() !== 'error' && message.type() !== 'warning') return;
    if (mayBeRefused && REFUSED.test(message.text())) return;
    found.push(`console: ${message.text()}`);
  });
  page.on('pageerror', (error) => found.push(`exception: ${error.stack}`));
  page.on('request', (request) => {
    const own = new URL(page.url() === 'about:blank' ? request.url() : page.url()).origin;
    if (new URL(request.url()).origin !== own) found.push(`foreign request: ${request.url()}`);
  });
  await page.exposeFunction('reportViolation', (text) => found.push(`CSP: ${text}`));
  await page.addInitScript(() => {
    document.addEventListener('securitypolicyviolation', (event) => globalThis.reportViolation(`${event.violatedDirective} ${event.blockedURI}`));
  });
  return found;
}

export const test = base.extend({
  /** Whether the test makes the server refuse requests, which the browser logs. */
  mayBeRefused: [false, { option: true }],

  fixture: async ({}, use) => {
    const fixture = await new Fixture().start();
    await use(fixture);
    await fixture.stop();
  },

  page: async ({ page, mayBeRefused }, use) => {
    const found = await watch(page, { mayBeRefused });
    await use(page);
    expect(found).toEqual([]);
  },
});

export async function open(page, fixture, query = '') {
  await page.goto(`${fixture.url}/${query}`);
  await expect(page.locator('#verdict')).toBeVisible();
}

export async function expectAccessible(page, what) {
  const { violations } = await new AxeBuilder({ page }).withTags(['wcag2a', 'wcag2aa', 'wcag21aa', 'wcag22aa', 'best-practice']).analyze();
  const told = violations.map((violation) => `${violation.id}: ${violation.nodes.map((node) => `${node.target} ${node.failureSummary}`).join(' | ')}`);
  expect(told, what).toEqual([]);
}

/** Presses Tab until the element has the focus, as a reader without a mouse does. */
export async function tabTo(page, locator) {
  for (let presses = 0; presses < 100; presses += 1) {
    if (await locator.evaluate((element) => element === document.activeElement)) return;
    await page.keyboard.press('Tab');
  }
  throw new Error(`Tab never reaches ${locator}`);
}
