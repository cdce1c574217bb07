// Pictures of the page for a person to look at: node tests/shots.mjs; they land in screenshots/. With DROVER_URL of the drover there too.
import { mkdirSync } from 'node:fs';
import { chromium } from '@playwright/test';
import { launchOptions } from './browser.js';
import { ago, calm, letter, troubled } from './fixture/data.js';
import { Fixture } from './fixture/server.js';

mkdirSync('screenshots', { recursive: true });
const browser = await chromium.launch(launchOptions);
const scenes = { calm, troubled, empty: () => ({ topics: [], tasks: [], checks: [] }) };
for (const [scene, make] of Object.entries(scenes)) {
  for (const [lang, theme] of [['en', 'light'], ['zh-CN', 'dark']]) {
    const fixture = await new Fixture(make()).start();
    const page = await browser.newPage({ viewport: { width: 1360, height: 900 }, colorScheme: theme });
    const shot = (name) => page.screenshot({ path: `screenshots/${scene}-${lang}-${theme}${name}.png`, fullPage: true });
    await page.goto(`${fixture.url}/?lang=${lang}`);
    await page.locator('#verdict').waitFor();
    await shot('');
    if (scene === 'troubled') {
      await page.locator('.expander').nth(2).click();
      await page.locator('.tasks').waitFor();
      await shot('-open');
      await page.locator('.actions button').nth(3).click();
      await page.locator('.preview').waitFor();
      await shot('-edit');
      await page.keyboard.press('Escape');
      await page.keyboard.press('?');
      await shot('-help');
      await page.keyboard.press('Escape');
      await page.setViewportSize({ width: 390, height: 844 });
      await shot('-narrow');
      await page.setViewportSize({ width: 1360, height: 900 });
      await fixture.stop();
      await page.locator('[role=alert]').waitFor();
      await shot('-stale');
    } else {
      if (scene === 'calm') {
        const strict = { type: 'strict_dynamic_mapping_exception', reason: 'mapping set to strict, dynamic introduction of [shoe_size] within [_doc] is not allowed', status: 400 };
        fixture.letters = [letter('orders', 0, 7), letter('orders', 1, 8, { error: strict, redriven_at: ago(5), attempts: 2 }), letter('orders', 2, 9, { cause: 'too_large', error: { type: 'too_large', reason: 'the document has 12 MiB', status: null }, payload_base64: null, payload_bytes: 12_000_000, truncated: true })];
        await page.locator('.expander').nth(1).click();
        await page.locator('.detail-body button').click();
        await page.locator('dialog summary').first().click();
        await page.locator('dialog .toolbar button').click();
        await page.locator('[role=alertdialog]').waitFor();
        await shot('-letters');
        await page.setViewportSize({ width: 390, height: 844 });
        await shot('-letters-narrow');
        await page.locator('dialog .danger').first().click();
        await shot('-letters-delete');
        await page.setViewportSize({ width: 1360, height: 900 });
        await page.keyboard.press('Escape');
        fixture.role = 'read';
        await page.locator('.read-only').waitFor();
        await shot('-read-only');
        fixture.role = 'write';
        await page.locator('#add').waitFor();
        await page.locator('.expander').nth(1).click();
        await page.locator('#add').click();
        await page.locator('dialog input').first().fill('Returns/1');
        await page.locator('dialog .error').first().waitFor();
        await shot('-add-wrong');
        await page.locator('dialog input').first().fill('returns');
        await page.locator('.preview').waitFor();
        await shot('-add');
        await page.keyboard.press('Escape');
        await page.locator('.actions .danger').nth(1).click();
        await page.locator('.preview').waitFor();
        await shot('-remove');
      }
      await fixture.stop();
    }
    await page.close();
  }
}
if (process.env.DROVER_URL) {
  for (const lang of ['en', 'zh-CN']) {
    for (const colorScheme of ['light', 'dark']) {
      for (const [device, viewport] of [['desktop', { width: 1360, height: 900 }], ['phone', { width: 390, height: 844 }]]) {
        const page = await browser.newPage({ viewport, colorScheme, locale: 'en-GB' });
        await page.goto(`${process.env.DROVER_URL}/?lang=${lang}`);
        await page.locator('.expander').first().click();
        await page.locator('.tasks').waitFor();
        await page.screenshot({ path: `screenshots/demo-${lang}-${colorScheme}-${device}.png`, fullPage: true });
        await page.close();
      }
    }
  }
}
await browser.close();
