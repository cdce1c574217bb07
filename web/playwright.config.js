// The page against a fixture server, in states that a real drover is seldom in. playwright.demo.config.js has the page of a real one.
import { defineConfig } from '@playwright/test';
import { browser } from './tests/browser.js';

export default defineConfig({
  testDir: 'tests',
  testMatch: ['page.spec.js', 'matrix.spec.js'],
  workers: 2,
  fullyParallel: true,
  timeout: 60_000,
  expect: { timeout: 10_000 },
  forbidOnly: Boolean(process.env.CI),
  reporter: 'list',
  use: { ...browser, trace: 'retain-on-failure' },
});
