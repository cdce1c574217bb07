// The page of a real drover, `drover demo`.
//
//   DROVER_BINARY=../target/debug/drover npm run test:demo      starts the demo, and stops it
//   DROVER_URL=http://127.0.0.1:8080 npm run test:demo           one that runs already

import { test as base, expect } from '@playwright/test';
import { expectAccessible, tabTo, watch } from './support.js';

const test = base.extend({
  page: async ({ page }, use) => {
    // A demo whose task just crashed may be down for a moment, which /healthz says with 503.
    const found = await watch(page, { mayBeRefused: true });
    await use(page);
    expect(found).toEqual([]);
  },
});

const open = async (page, query = '') => {
  await page.goto(`/${query}`);
  await expect(page.locator('.sums')).toBeVisible();
};

const row = (page, name) => page.locator('tbody').filter({ has: page.getByRole('button', { name, exact: true }) });
const sum = async (page, name) => Number((await page.locator('.sums div', { hasText: name }).locator('dd').innerText()).replaceAll(',', ''));

test('tasks run and counts move', async ({ page }) => {
  await open(page);
  await expect(page.locator('#topics-table .state', { hasText: 'Running' }).first()).toBeVisible({ timeout: 30_000 });
  await expect.poll(() => sum(page, 'Records/s'), { timeout: 30_000 }).toBeGreaterThan(0);
  await page.locator('.expander').first().click();
  const tasks = page.locator('table.tasks').first();
  await expect(tasks).toContainText('Running');
  const committed = () => tasks.locator('tbody').innerText();
  const before = await committed();
  await expect.poll(committed, { timeout: 30_000 }).not.toBe(before);
});

test('a task crashes and comes back', async ({ page }) => {
  test.setTimeout(240_000);
  await open(page);
  const before = await sum(page, 'Restarts');
  await expect.poll(() => sum(page, 'Restarts'), { timeout: 180_000 }).toBeGreaterThan(before);
  await expect.poll(async () => {
    const [running, all] = (await page.locator('.sums div', { hasText: 'Tasks running' }).locator('dd').innerText()).split(' of ');
    return running === all;
  }, { timeout: 60_000 }).toBe(true);
});

test('a dead letter is sent again, refused again, and then all that are there', async ({ page }) => {
  // One order in a thousand is cut off: with a hundred orders a second there is one before long.
  test.setTimeout(120_000);
  await open(page);
  await page.getByRole('button', { name: 'demo_orders', exact: true }).click();
  await page.getByRole('button', { name: 'Show dead letters demo_orders' }).click();
  const dialog = page.getByRole('dialog', { name: 'Dead letters of demo_orders' });
  const rows = dialog.getByRole('listitem');
  await expect(rows.first()).toContainText('not a JSON object', { timeout: 90_000 });
  await rows.first().getByText('Record').click();
  await expect(rows.first().locator('pre')).toContainText('{');
  await rows.first().getByRole('button', { name: /^Send again/ }).click();
  await expect(dialog).toContainText('Being sent again: 1.');
  await expect(rows.first()).toContainText('refused again', { timeout: 30_000 });
  await dialog.getByLabel('Error').selectOption('format');
  await dialog.getByRole('button', { name: 'Send all of these again' }).click();
  await dialog.getByRole('alertdialog').getByRole('button', { name: /^Send \d+ again$/ }).click();
  await expect(dialog).toContainText(/Being sent again: \d+\./);
});

for (const [lang, colorScheme] of [['en', 'light'], ['en', 'dark'], ['zh-CN', 'light'], ['zh-CN', 'dark']]) {
  test.describe(`${lang}, ${colorScheme}`, () => {
    test.use({ colorScheme });

    test('a topic is added, paused, resumed and removed by the keyboard', async ({ page, request }) => {
      // Two audits and some hundred keys, on a machine that may have other tests to run.
      test.slow();
      const words = await (await request.get(new URL(`i18n/${lang}.json`, await assets(request)).href)).json();
      const t = (key, values = {}) => words[key].replace(/\{(\w+)\}/g, (_, name) => values[name]);
      const name = await freeName(request, `page-test-${lang}-${colorScheme}`);
      await open(page, `?lang=${lang}`);
      await expectAccessible(page, 'list');

      await page.keyboard.press('a');
      const add = page.getByRole('dialog', { name: t('add.title') });
      await expect(add.getByLabel(t('field.name'), { exact: true })).toBeFocused();
      await page.keyboard.type(name);
      await expect(add.locator('.preview')).toBeVisible();
      await expectAccessible(page, 'add');
      await page.keyboard.press('Enter');
      await expect(add).toBeHidden();
      await expect(row(page, name)).toBeVisible();

      const act = async (action) => {
        await tabTo(page, page.getByRole('button', { name: t('action.of', { action: t(action), name }) }));
        await page.keyboard.press('Enter');
      };
      await act('pause');
      const pause = page.getByRole('dialog', { name: t('pause.title', { name }) });
      await page.keyboard.type('looked at by a test');
      await page.keyboard.press('Enter');
      await expect(pause).toBeHidden();
      await expect(row(page, name)).toContainText(t('state.paused'));
      await expect(row(page, name)).toContainText('looked at by a test');

      await act('resume');
      await expect(row(page, name)).not.toContainText(t('state.paused'));

      await act('remove');
      const remove = page.getByRole('dialog', { name: t('remove.title', { name }) });
      const confirm = remove.getByRole('button', { name: t('remove'), exact: true });
      await expect(confirm).toBeEnabled();
      await tabTo(page, confirm);
      await page.keyboard.press('Enter');
      await expect(remove).toBeHidden();
      await expect(row(page, name)).toHaveCount(0);
    });
  });
}

test('what the server refuses is shown beside its field', async ({ page }) => {
  await open(page);
  await page.locator('#add').click();
  const dialog = page.getByRole('dialog');
  await dialog.getByLabel('Topic', { exact: true }).fill('refused');
  await dialog.getByLabel('Index', { exact: true }).fill('UPPER CASE');
  await expect(dialog.getByLabel('Index', { exact: true })).toHaveAttribute('aria-invalid', 'true');
  await expect(dialog.getByRole('button', { name: 'Add topic' })).toBeDisabled();
  await dialog.getByLabel('Index', { exact: true }).fill('');
  await dialog.getByLabel('Topic', { exact: true }).fill('not legal');
  await expect(dialog.getByLabel('Topic', { exact: true })).toHaveAttribute('aria-invalid', 'true');
});

test('an edit that somebody overtook says so', async ({ page, request }) => {
  const name = `page-test-overtaken`;
  await request.put(`/api/v1/topics/${name}`, { data: { index: 'first' } });
  try {
    await open(page);
    await page.getByRole('button', { name: `Edit ${name}` }).click();
    const dialog = page.getByRole('dialog');
    await expect(dialog.getByLabel('Index', { exact: true })).toHaveValue('first');
    await dialog.getByLabel('Index', { exact: true }).fill('mine');
    await request.put(`/api/v1/topics/${name}`, { data: { index: 'theirs' } });
    await dialog.getByRole('button', { name: 'Save' }).click();
    await expect(dialog.getByRole('alert')).toContainText('changed by someone else');
    await expect(dialog.getByLabel('Index', { exact: true })).toHaveValue('theirs');
  } finally {
    await request.delete(`/api/v1/topics/${name}`);
  }
});

test.describe('without JavaScript', () => {
  for (const [locale, colorScheme, word] of [['en-GB', 'light', 'Topics'], ['zh-CN', 'dark', '主题']]) {
    test.describe(`${locale}, ${colorScheme}`, () => {
      test.use({ locale, colorScheme });
      // axe needs scripts of its own in the page, so the page is drawn without drover's: the module is not let through.
      test('the server draws the topics', async ({ page }) => {
        await page.route('**/src/main.js', (route) => route.fulfill({ contentType: 'text/javascript', body: '' }));
        await page.goto('/');
        await expect(page.getByRole('heading', { name: word, exact: true })).toBeVisible();
        expect(await page.locator('#topics-table tbody').count()).toBeGreaterThan(0);
        await expectAccessible(page, 'drawn by the server');
      });
    });
  }
});

/** Where the files of the page are. */
async function assets(request) {
  const page = await (await request.get('/', { headers: { accept: 'text/html' } })).text();
  return new URL(`${page.match(/\/assets\/[0-9a-f]+\//)[0]}`, process.env.DROVER_URL).href;
}

/** A topic of Kafka's that nobody names, so that its tasks start; else one that Kafka lacks, which waits. */
async function freeName(request, other) {
  const answer = await request.get('/api/v1/kafka/topics?limit=1000');
  if (!answer.ok()) return other;
  const managed = (await (await request.get('/api/v1/topics?limit=1000')).json()).items.map((topic) => topic.name);
  return (await answer.json()).items.map((topic) => topic.name).find((name) => !managed.includes(name)) ?? other;
}
