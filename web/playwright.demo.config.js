// The page of a real drover: of the demo at DROVER_URL, else of one that is started for the tests and stopped after them (tests/demo.setup.js).
import { defineConfig } from '@playwright/test';
import { browser } from './tests/browser.js';

export default defineConfig({
  testDir: 'tests',
  testMatch: 'demo.spec.js',
  globalSetup: './tests/demo.setup.js',
  // The tests add and remove topics of one drover.
  workers: 1,
  timeout: 60_000,
  expect: { timeout: 10_000 },
  forbidOnly: Boolean(process.env.CI),
  reporter: 'list',
  // Playwright reads this file once more in each worker, after the set-up has told the address.
  use: { ...browser, baseURL: process.env.DROVER_URL, trace: 'retain-on-failure' },
});
