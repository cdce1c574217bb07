// Without DROVER_URL: the page against a fixture server, in states that a real drover is seldom in. With it: the page of the drover at that address.
import { defineConfig } from '@playwright/test';

const baseURL = process.env.DROVER_URL;

export default defineConfig({
  testDir: 'tests',
  testMatch: baseURL ? 'demo.spec.js' : ['page.spec.js', 'matrix.spec.js'],
  workers: baseURL ? 1 : 2,
  fullyParallel: !baseURL,
  timeout: 60_000,
  expect: { timeout: 10_000 },
  forbidOnly: Boolean(process.env.CI),
  reporter: 'list',
  use: {
    baseURL,
    locale: 'en-GB',
    viewport: { width: 1360, height: 900 },
    trace: 'retain-on-failure',
    launchOptions: {
      executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
      // Chromium refuses its sandbox to root.
      args: process.getuid?.() === 0 ? ['--no-sandbox'] : [],
    },
  },
});
