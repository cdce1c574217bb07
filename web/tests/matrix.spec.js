// Every view in both languages and both themes: no accessibility finding, no missing word.

import { ago, calm, letter, troubled } from './fixture/data.js';
import { expect, expectAccessible, open, test } from './support.js';

test.use({ mayBeRefused: true });

const empty = () => ({ topics: [], tasks: [], checks: [] });

/** Keys of the dictionaries look like `topics.caption`; one of them on the page is a text that is missing. */
async function expectWords(page) {
  const text = await page.locator('body').innerText();
  const keys = text.match(/\b(?:health|verdict|state|column|reason|cause|field|value|form|preview|action|warning|problem|help|pause|remove|empty|failure|connection|interval|theme|exit|origin|source|sum|show|letters|letter_cause)\.[a-z_]+\b/g) ?? [];
  expect(keys.filter((key) => !key.startsWith('source.file/'))).toEqual([]);
}

for (const lang of ['en', 'zh-CN']) {
  for (const colorScheme of ['light', 'dark']) {
    test.describe(`${lang}, ${colorScheme}`, () => {
      test.use({ colorScheme });
      const check = async (page, what) => {
        await expectAccessible(page, what);
        await expectWords(page);
      };

      test('lists, well, unwell and empty', async ({ page, fixture }) => {
        // Five audits of whole pages, on a machine that may have other tests to run.
        test.slow();
        await open(page, fixture, `?lang=${lang}`);
        await expect(page.locator('html')).toHaveAttribute('lang', lang);
        await check(page, 'calm');
        fixture.show(troubled());
        await expect(page.locator('.verdict.is-down')).toBeVisible();
        for (const name of ['orders', 'payments', 'sessions']) await page.getByRole('button', { name, exact: true }).click();
        await expect(page.locator('.tasks')).toHaveCount(3);
        await check(page, 'troubled, opened');
        await page.locator('#filter').fill('nothing is called so');
        await expect(page.locator('.empty')).toBeVisible();
        await check(page, 'no match');
        await page.locator('.empty button').click();
        fixture.show(empty());
        await expect(page.locator('.empty')).toBeVisible();
        await check(page, 'empty');
        await fixture.stop();
        await expect(page.getByRole('alert')).toBeVisible();
        await check(page, 'unreachable');
        await fixture.start();
      });

      test('on a telephone topics are cards, nothing is cut off and every action is in view', async ({ page, fixture }) => {
        await page.setViewportSize({ width: 360, height: 800 });
        fixture.show(troubled());
        await open(page, fixture, `?lang=${lang}`);
        await page.getByRole('button', { name: 'payments', exact: true }).click();
        await expect(page.locator('.tasks')).toBeVisible();
        const widths = await page.evaluate(() => [document.documentElement, document.getElementById('topics-table').parentElement].map((each) => each.scrollWidth - each.clientWidth));
        expect(widths).toEqual([0, 0]);
        for (const button of await page.locator('.actions button').all()) expect((await button.boundingBox()).x + (await button.boundingBox()).width).toBeLessThanOrEqual(360);
        // The roles outlive the sheet's other layout.
        await expect(page.getByRole('row', { name: /orders/ }).getByRole('cell')).not.toHaveCount(0);
        await check(page, 'cards');
      });

      test('dialogs', async ({ page, fixture }) => {
        test.slow();
        await open(page, fixture, `?lang=${lang}`);
        await page.locator('#add').click();
        await page.locator('dialog input').first().fill('not legal!');
        await expect(page.locator('dialog .error')).toBeVisible();
        await check(page, 'add, refused');
        await page.locator('dialog input').first().fill('returns');
        await expect(page.locator('.preview')).toBeVisible();
        await page.locator('dialog summary').click();
        await check(page, 'add, previewed');
        await page.keyboard.press('Escape');
        await page.locator('.actions').nth(1).locator('button').nth(1).click();
        await check(page, 'pause');
        await page.keyboard.press('Escape');
        await page.locator('.actions').nth(1).locator('button').nth(2).click();
        await expect(page.locator('.preview')).toBeVisible();
        await check(page, 'remove');
        await page.keyboard.press('Escape');
        await page.keyboard.press('?');
        await check(page, 'help');
        await page.keyboard.press('Escape');
        fixture.letters = [letter('orders', 0, 7), letter('orders', 1, 8, { cause: 'crash_loop', redriven_at: ago(5), truncated: true }), letter('orders', 1, 9, { payload_base64: null, truncated: true })];
        await page.getByRole('button', { name: 'orders', exact: true }).click();
        await page.locator('.detail-body button').click();
        await page.locator('dialog summary').first().click();
        await page.locator('dialog .toolbar button').click();
        await expect(page.getByRole('alertdialog')).toBeVisible();
        await check(page, 'dead letters, asked');
        await page.setViewportSize({ width: 360, height: 800 });
        expect(await page.locator('dialog').evaluate((dialog) => dialog.scrollWidth - dialog.clientWidth)).toBe(0);
        await check(page, 'dead letters on a telephone');
      });
    });
  }
}

test('a chosen theme is kept and wins over the system', async ({ page, fixture }) => {
  fixture.show(calm());
  await open(page, fixture);
  const ground = () => page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor);
  const light = await ground();
  await page.getByLabel('Theme').selectOption('dark');
  expect(await ground()).not.toBe(light);
  await page.reload();
  await expect(page.locator('#verdict')).toBeVisible();
  expect(await ground()).not.toBe(light);
  await page.getByLabel('Theme').selectOption('auto');
  expect(await ground()).toBe(light);
});

test('a chosen language is kept', async ({ page, fixture }) => {
  await open(page, fixture);
  await page.getByLabel('Language').selectOption('zh-CN');
  await expect(page.locator('#verdict')).toContainText('正常');
  await expect(page.getByRole('row', { name: /orders/ })).toContainText('运行中');
  await page.reload();
  await expect(page.locator('#verdict')).toContainText('正常');
  await expect(page).toHaveTitle(/正常/);
});

test('with forced colours every state still has its shape and word', async ({ page, fixture }) => {
  await page.emulateMedia({ forcedColors: 'active' });
  fixture.show(troubled());
  await open(page, fixture);
  for (const state of await page.locator('.state').all()) {
    await expect(state.locator('svg')).toBeVisible();
    expect((await state.innerText()).trim()).not.toBe('');
  }
});
