// Pictures of the page for a person to look at: node tests/shots.mjs; they land in screenshots/. With DROVER_URL of the drover there too.
import { mkdirSync } from 'node:fs';
import { chromium } from '@playwright/test';
import { launchOptions } from './browser.js';
import { calm, troubled } from './fixture/data.js';
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
