// The page against a fixture server: what it shows, what it asks, and what it does when answers are slow, wrong or missing.

import { ago, calm, letter, task, topic, troubled } from './fixture/data.js';
import { expect, expectAccessible, open, tabTo, test } from './support.js';

const row = (page, name) => page.locator('tbody').filter({ has: page.getByRole('button', { name, exact: true }) });

test.describe('reading', () => {
  test('a well instance is called well, with its topics and sums', async ({ page, fixture }) => {
    await open(page, fixture);
    await expect(page.getByRole('heading', { level: 2 }).first()).toContainText('OK');
    await expect(page).toHaveTitle('OK · drover');
    await expect(row(page, 'orders')).toContainText('Running');
    await expect(row(page, 'orders')).toContainText('3 of 3');
    await expect(row(page, 'payments')).toContainText('240.8');
    await expect(page.locator('.sums')).toContainText('6 of 6');
  });

  test('a lag that is not known is not 0', async ({ page, fixture }) => {
    await open(page, fixture);
    await expect(row(page, 'audit_log').locator('td').nth(2)).toHaveText('–not known');
    await expect(page.locator('.sums div', { hasText: 'Lag' }).locator('dd')).toHaveText('–not known');
  });

  test.describe('trouble', () => {
    test.use({ mayBeRefused: true });

    test('each cause is named once, worst first, with what helps', async ({ page, fixture }) => {
      fixture.show(troubled());
      await open(page, fixture);
      await expect(page.locator('#verdict')).toContainText('Down');
      const causes = page.locator('.causes > li');
      await expect(causes).toHaveCount(6);
      await expect(causes.first()).toContainText('A record was rejected');
      await expect(causes.first()).toContainText('What helps: repair the mapping of the index, then restart the task');
      await expect(causes.filter({ hasText: 'start Elasticsearch' })).toHaveCount(1);
      await causes.filter({ hasText: 'Elasticsearch does not answer' }).getByRole('link', { name: 'orders' }).click();
      await expect(page.locator('#topics-table > tbody')).toHaveCount(1);
    });

    test('a topic opens to its tasks with state, reason, restarts and last exit', async ({ page, fixture }) => {
      fixture.show(troubled());
      await open(page, fixture);
      const button = page.getByRole('button', { name: 'sessions', exact: true });
      await expect(button).toHaveAttribute('aria-expanded', 'false');
      await button.click();
      const tasks = page.getByRole('table', { name: 'Tasks of sessions' });
      await expect(tasks).toContainText('Backing off');
      await expect(tasks).toContainText('The task crashed');
      await expect(tasks).toContainText('17');
      await expect(tasks).toContainText('index out of bounds: the len is 3');
      await expect(tasks).toContainText(/starts in \d+ sec/);
      await button.click();
      await expect(tasks).toBeHidden();
    });
  });

  test('text from outside stays text', async ({ page, fixture }) => {
    const nasty = '<img src=x onerror=alert(1)>&lt;b&gt;\u202e';
    const orders = [task('orders', 0, { state: 'waiting', health: 'degraded', reason: { code: 'sink_unreachable', message: nasty, remedy: nasty, since_at: ago(5) }, instance: nasty })];
    fixture.show({ tasks: orders, topics: [topic('orders', orders, { overrides: { labels: { '<b>': nasty } }, store: 2 })], checks: [{ name: 'component/sink', status: 'degraded', detail: nasty, remedy: nasty, since_at: null }] });
    await open(page, fixture);
    await page.getByRole('button', { name: 'orders', exact: true }).click();
    await expect(page.getByRole('table', { name: 'Tasks of orders' })).toContainText(nasty);
    await expect(page.locator('#page img, #page b')).toHaveCount(0);
    await expect(page.locator('bdi', { hasText: '<img' }).first()).toBeVisible();
  });

  test('filter, state and order are kept in the address', async ({ page, fixture }) => {
    await open(page, fixture);
    await page.locator('#filter').fill('PAY');
    await expect(page.locator('#topics-table > tbody')).toHaveCount(1);
    await page.getByRole('button', { name: 'Lag' }).click();
    await expect(page).toHaveURL(/q=PAY&sort=-lag/);
    await page.reload();
    await expect(page.locator('#topics-table > tbody')).toHaveCount(1);
    await expect(page.getByRole('columnheader', { name: 'Lag' })).toHaveAttribute('aria-sort', 'descending');
    await page.locator('#filter').fill('');
    const names = await page.locator('.expander').allInnerTexts();
    // What is not known comes last.
    expect(names.map((name) => name.trim())).toEqual(['orders', 'payments', 'audit_log']);
  });
});

test.describe('staying current', () => {
  test('an unchanged list is asked for with its tag and costs no body', async ({ page, fixture }) => {
    await open(page, fixture);
    await expect.poll(() => fixture.asked('GET', '/api/v1/topics').filter((request) => request.status === 304).length).toBeGreaterThan(1);
    await page.getByRole('button', { name: 'orders', exact: true }).click();
    await expect.poll(() => fixture.asked('GET', '/api/v1/tasks').filter((request) => request.status === 304).length).toBeGreaterThan(0);
  });

  test('a change shows without loading the page again', async ({ page, fixture }) => {
    await open(page, fixture);
    fixture.topic('orders').status = { ...fixture.topic('orders').status, lag: 98765, restarts_total: 5 };
    await expect(row(page, 'orders')).toContainText('98,765');
  });

  test('a task that fails shows at once, however seldom the numbers are read', async ({ page, fixture }) => {
    await open(page, fixture);
    await page.getByLabel('Update').selectOption('15000');
    await expect.poll(() => fixture.streams.size).toBe(1);
    fixture.topic('orders').status = { ...fixture.topic('orders').status, restarts_total: 77_123 };
    fixture.tell('task');
    await expect(row(page, 'orders')).toContainText('77,123', { timeout: 5000 });
  });

  test('a stream that ended is opened again, and what happened meanwhile is read', async ({ page, fixture }) => {
    await open(page, fixture);
    await page.getByLabel('Update').selectOption('15000');
    await expect.poll(() => fixture.streams.size).toBe(1);
    fixture.endStreams();
    fixture.topic('orders').status = { ...fixture.topic('orders').status, restarts_total: 77_124 };
    await expect(row(page, 'orders')).toContainText('77,124', { timeout: 8000 });
  });

  test('a slow server is not asked again before it has answered', async ({ page, fixture }) => {
    await open(page, fixture);
    fixture.delay = 3000;
    const before = fixture.asked('GET', '/api/v1/topics').length;
    let atOnce = 0;
    page.on('request', (request) => { if (request.url().includes('/api/v1/topics')) atOnce += 1; });
    page.on('response', (response) => { if (response.url().includes('/api/v1/topics')) atOnce -= 1; });
    await expect.poll(() => fixture.asked('GET', '/api/v1/topics').length, { timeout: 20_000 }).toBeGreaterThan(before + 1);
    expect(Math.abs(atOnce)).toBeLessThanOrEqual(1);
  });

  test('a hidden page asks nothing and reads anew when it is shown', async ({ page, fixture }) => {
    await page.clock.install();
    await open(page, fixture);
    const setHidden = (isHidden) => page.evaluate((value) => {
      Object.defineProperty(document, 'hidden', { value, configurable: true });
      document.dispatchEvent(new Event('visibilitychange'));
    }, isHidden);
    await setHidden(true);
    // An attempt that ran when the page was hidden ends first.
    await page.waitForLoadState('networkidle');
    const before = fixture.requests.length;
    await page.clock.runFor(60_000);
    await page.waitForLoadState('networkidle');
    expect(fixture.requests.length).toBe(before);
    await setHidden(false);
    await expect.poll(() => fixture.requests.length).toBeGreaterThan(before);
  });

  test('updates can be turned off, and one can be asked for', async ({ page, fixture }) => {
    await open(page, fixture);
    await page.getByLabel('Update').selectOption('0');
    await expect(page.getByText('Updates are off')).toBeVisible();
    fixture.topic('orders').status = { ...fixture.topic('orders').status, lag: 98765 };
    await page.getByRole('button', { name: 'Refresh' }).click();
    await expect(row(page, 'orders')).toContainText('98,765');
  });

  test('the focus stays where it is while values change', async ({ page, fixture }) => {
    await open(page, fixture);
    const button = page.getByRole('button', { name: 'Pause orders' });
    await button.focus();
    fixture.topic('orders').status = { ...fixture.topic('orders').status, lag: 98765 };
    await expect(row(page, 'orders')).toContainText('98,765');
    await expect(button).toBeFocused();
  });

  test('rows do not move under the pointer', async ({ page, fixture }) => {
    await open(page, fixture, '?sort=-rate');
    const names = () => page.locator('.expander').allInnerTexts();
    expect((await names())[0]).toContain('payments');
    await row(page, 'payments').hover();
    fixture.topic('orders').status = { ...fixture.topic('orders').status, records_per_second: 9999 };
    await expect(row(page, 'orders')).toContainText('9,999');
    expect((await names())[0]).toContain('payments');
    await page.mouse.move(5, 5);
    await expect.poll(async () => (await names())[0]).toContain('orders');
  });

  test('a page of another version says so', async ({ page, fixture }) => {
    await open(page, fixture);
    fixture.version = '9.9.9';
    await expect(page.getByText('drover 9.9.9 is running now')).toBeVisible();
    await expect(page.getByRole('button', { name: 'Reload' })).toBeVisible();
  });

  test.describe('failures', () => {
    test.use({ mayBeRefused: true });

    test('a server that is gone leaves what was seen, with its age, and comes back', async ({ page, fixture }) => {
      await open(page, fixture);
      await fixture.stop();
      await expect(page.getByRole('alert')).toContainText('Cannot reach drover');
      await expect(page.getByRole('alert')).toContainText('What you see is from');
      await expect(page.locator('main')).toHaveClass(/is-stale/);
      await expect(row(page, 'orders')).toContainText('Running');
      await fixture.start();
      await page.getByRole('button', { name: 'Try now' }).click();
      await expect(page.getByRole('alert')).toBeHidden();
      await expect(page.locator('main')).not.toHaveClass(/is-stale/);
    });

    test('an error of the server is told with its code and detail', async ({ page, fixture }) => {
      await open(page, fixture);
      fixture.refuse = { status: 500, code: 'internal', detail: 'the log has the details' };
      await expect(page.getByRole('alert')).toContainText('drover did not give a good answer');
      await expect(page.getByRole('alert')).toContainText('the log has the details');
    });

    test('who has no token is asked for one, and not told that there are no topics', async ({ page, fixture }) => {
      fixture.token = 'drover_good';
      await page.goto(fixture.url);
      await expect(page.getByRole('alert')).toContainText('only with a token');
      await expect(page.getByText('No topic is configured')).toBeHidden();
      await expectAccessible(page, 'the page that asks for a token');
      await page.getByLabel('Token').fill('drover_wrong \u{1f600}');
      await page.getByRole('button', { name: 'Use it' }).click();
      await expect(page.getByRole('alert')).toContainText('You are not permitted to see this');
      await page.getByLabel('Token').fill(' drover_good\n');
      await page.keyboard.press('Enter');
      await expect(row(page, 'orders')).toContainText('Running');
      await expect(page.getByRole('alert')).toBeHidden();
      // It lasts as long as the tab, and is in no address.
      await page.reload();
      await expect(row(page, 'orders')).toContainText('Running');
      expect(fixture.requests.filter((request) => request.path.includes('drover_'))).toEqual([]);
      await page.getByRole('button', { name: 'Forget the token' }).click();
      await expect(page.getByRole('alert')).toContainText('only with a token');
      await expect(row(page, 'orders')).toBeHidden();
    });

    test('a token that is revoked while the page is open leaves what was seen and asks again', async ({ page, fixture }) => {
      await open(page, fixture);
      fixture.token = 'drover_good';
      await expect(page.getByRole('alert')).toContainText('What you see is from');
      await page.getByLabel('Token').fill('drover_good');
      await page.keyboard.press('Enter');
      await expect(page.getByRole('alert')).toBeHidden();
    });

    test('the four texts for nothing to see differ', async ({ page, fixture }) => {
      const texts = new Set();
      await open(page, fixture, '?q=nothing');
      texts.add(await page.locator('.empty strong').innerText());
      fixture.show({ topics: [], tasks: [], checks: [] });
      await expect(page.locator('.empty')).toContainText('curl -X PUT');
      texts.add(await page.locator('.empty strong').innerText());
      fixture.refuse = { status: 403, code: 'forbidden', detail: '' };
      await expect(page.getByRole('alert')).toContainText('not permitted');
      texts.add(await page.locator('[role=alert] strong').first().innerText());
      await fixture.stop();
      await expect(page.getByRole('alert')).toContainText('Cannot reach');
      texts.add(await page.locator('[role=alert] strong').first().innerText());
      expect(texts.size).toBe(4);
      await fixture.start();
    });
  });
});

test.describe('changing', () => {
  test('a topic is added, paused, resumed and removed by the keyboard alone', async ({ page, fixture }) => {
    await open(page, fixture);
    await page.keyboard.press('a');
    const dialog = page.getByRole('dialog', { name: 'Add a topic' });
    await expect(dialog.getByLabel('Topic')).toBeFocused();
    await page.keyboard.type('returns');
    await expect(dialog.locator('.preview')).toContainText('12,345');
    await expect(dialog.getByRole('button', { name: 'Add topic and start tasks: 2' })).toBeVisible();
    await page.keyboard.press('Enter');
    await expect(dialog).toBeHidden();
    await expect(row(page, 'returns')).toContainText('2 of 2');
    await expect(page.locator('[role=status]', { hasText: 'returns was added.' })).toHaveCount(1);

    await tabTo(page, page.getByRole('button', { name: 'Pause returns' }));
    await page.keyboard.press('Enter');
    const pause = page.getByRole('dialog', { name: 'Pause returns' });
    await expect(pause.getByLabel('Reason (optional)')).toBeFocused();
    await page.keyboard.type('maintenance');
    await page.keyboard.press('Enter');
    await expect(pause).toBeHidden();
    await expect(row(page, 'returns')).toContainText('Paused by anonymous');
    await expect(row(page, 'returns')).toContainText('maintenance');

    await tabTo(page, page.getByRole('button', { name: 'Resume returns' }));
    await page.keyboard.press('Enter');
    await expect(row(page, 'returns')).toContainText('Running');

    await tabTo(page, page.getByRole('button', { name: 'Remove returns' }));
    await page.keyboard.press('Enter');
    const remove = page.getByRole('dialog', { name: 'Remove returns' });
    await expect(remove.locator('.preview')).toContainText('returns/0, returns/1');
    // What destroys is not what Enter does at once.
    await expect(remove.getByRole('button', { name: 'Cancel' })).toBeFocused();
    await tabTo(page, remove.getByRole('button', { name: 'Remove' }));
    await page.keyboard.press('Enter');
    await expect(remove).toBeHidden();
    await expect(row(page, 'returns')).toHaveCount(0);
    await expect(page.locator('#add')).toBeFocused();
  });

  test('what is sent: preconditions, and only the fields that are filled in', async ({ page, fixture }) => {
    await open(page, fixture);
    await page.locator('#add').click();
    const dialog = page.getByRole('dialog');
    await dialog.getByLabel('Topic').fill('returns');
    await dialog.getByLabel('Index').fill('returns-{date}');
    await dialog.getByText('More fields').click();
    await dialog.getByLabel('Labels').fill('team = shop\n\nurgent');
    await dialog.getByRole('button', { name: /Add topic/ }).click();
    await expect(dialog).toBeHidden();
    const [put] = fixture.asked('PUT', '/returns').filter((request) => !request.path.includes('dry_run'));
    expect(put.headers['if-none-match']).toBe('*');
    expect(put.body).toEqual({ index: 'returns-{date}', labels: { team: 'shop', urgent: '' } });

    await page.getByRole('button', { name: 'Edit orders' }).click();
    await expect(dialog.getByLabel('Index')).toHaveValue('orders-{date}');
    await dialog.getByLabel('Format').selectOption('text');
    await dialog.getByRole('button', { name: 'Save' }).click();
    await expect(dialog).toBeHidden();
    const [edit] = fixture.asked('PUT', '/orders').filter((request) => !request.path.includes('dry_run'));
    expect(edit.headers['if-match']).toBe('"r12"');
    expect(edit.body).toEqual({ index: 'orders-{date}', format: 'text' });
  });

  test('what the server refuses is shown beside its field before anything is written', async ({ page, fixture }) => {
    await open(page, fixture);
    await page.locator('#add').click();
    const dialog = page.getByRole('dialog');
    await dialog.getByLabel('Topic').fill('no spaces please');
    await dialog.getByLabel('Index').fill('UPPER');
    await dialog.getByLabel('Start').fill('soon');
    for (const [label, text] of [['Topic', 'only letters, digits'], ['Index', 'no upper-case letters'], ['Start', 'earliest, latest or an RFC 3339 time']]) {
      const input = dialog.getByLabel(label, { exact: true });
      await expect(input).toHaveAttribute('aria-invalid', 'true');
      await expect(input).toHaveAccessibleDescription(new RegExp(text));
    }
    await expect(dialog.getByRole('button', { name: 'Add topic' })).toBeDisabled();
    expect(fixture.asked('PUT', '').every((request) => request.path.includes('dry_run=true'))).toBe(true);
    await dialog.getByLabel('Topic').fill('..');
    await expect(dialog.getByText('a topic cannot be called ..')).toBeVisible();
  });

  test('a late answer to an older question changes nothing', async ({ page, fixture }) => {
    await open(page, fixture);
    await page.locator('#add').click();
    const dialog = page.getByRole('dialog');
    let release;
    const isReleased = new Promise((resolve) => { release = resolve; });
    let asked = 0;
    await page.route('**/api/v1/topics/*dry_run=true', async (route) => {
      asked += 1;
      const isFirst = asked === 1;
      const answer = await route.fetch();
      if (isFirst) await isReleased;
      await route.fulfill({ response: answer });
    });
    await dialog.getByLabel('Index').fill('UPPER');
    await dialog.getByLabel('Topic').fill('returns');
    await expect.poll(() => asked).toBe(1);
    await dialog.getByLabel('Index').fill('lower');
    await expect(dialog.locator('.preview')).toContainText('lower');
    const isLate = page.waitForResponse((response) => response.request().postData()?.includes('UPPER') ?? false);
    release();
    await (await isLate).finished();
    // One more turn of the page, so that the answer was dealt with.
    await page.evaluate(() => new Promise((resolve) => { requestAnimationFrame(() => requestAnimationFrame(resolve)); }));
    await expect(dialog.locator('.preview')).toContainText('lower');
    await expect(dialog.locator('.error')).toHaveCount(0);
  });

  test('a topic that Kafka lacks may be added, with a warning', async ({ page, fixture }) => {
    await open(page, fixture);
    await page.locator('#add').click();
    const dialog = page.getByRole('dialog');
    await dialog.getByLabel('Topic').fill('later');
    await expect(dialog.locator('.warning')).toContainText('Kafka has no such topic.');
    await dialog.getByRole('button', { name: 'Add topic' }).click();
    await expect(row(page, 'later')).toContainText('Waiting');
  });

  test('a topic that has an entry is not added again', async ({ page, fixture }) => {
    await open(page, fixture);
    await page.locator('#add').click();
    const dialog = page.getByRole('dialog');
    await dialog.getByLabel('Topic').fill('orders');
    await expect(dialog.getByText('This topic has an entry already')).toBeVisible();
    await expect(dialog.getByRole('button', { name: 'Add topic' })).toBeDisabled();
  });

  test.describe('refusals', () => {
    test.use({ mayBeRefused: true });

    test('an edit that somebody overtook says so, loads theirs and keeps mine in view', async ({ page, fixture }) => {
      await open(page, fixture);
      await page.getByRole('button', { name: 'Edit orders' }).click();
      const dialog = page.getByRole('dialog');
      await dialog.getByLabel('Index').fill('mine');
      await expect(dialog.locator('.preview')).toContainText('mine');
      fixture.overtake('orders', { index: 'theirs', format: 'text' });
      await dialog.getByRole('button', { name: 'Save' }).click();
      await expect(dialog.getByRole('alert')).toContainText('changed by someone else');
      await expect(dialog.getByRole('alert')).toContainText('Index: mine');
      await expect(dialog.getByLabel('Index')).toHaveValue('theirs');
      await expect(dialog.getByLabel('Format')).toHaveValue('text');
      expect(fixture.topic('orders').overrides).toEqual({ index: 'theirs', format: 'text' });
      await dialog.getByLabel('Index').fill('mine');
      await dialog.getByRole('button', { name: 'Save' }).click();
      await expect(dialog).toBeHidden();
      expect(fixture.topic('orders').overrides).toEqual({ index: 'mine', format: 'text' });
    });

    test('a removal that somebody overtook is not done', async ({ page, fixture }) => {
      await open(page, fixture);
      await page.getByRole('button', { name: 'Remove payments' }).click();
      const dialog = page.getByRole('dialog');
      await expect(dialog.locator('.preview')).toBeVisible();
      fixture.overtake('payments', { format: 'text' });
      await dialog.getByRole('button', { name: 'Remove' }).click();
      await expect(dialog.getByRole('alert')).toContainText('changed by someone else');
      expect(fixture.topic('payments')).toBeDefined();
      await dialog.getByRole('button', { name: 'Remove' }).click();
      await expect(row(page, 'payments')).toHaveCount(0);
    });

    test('a topic that only the file names is not removed here, and the remedy is shown', async ({ page, fixture }) => {
      await open(page, fixture);
      await page.getByRole('button', { name: 'Remove audit_log' }).click();
      const dialog = page.getByRole('dialog');
      await expect(dialog).toContainText('file topics[0] names this topic; remove it there');
      await expect(dialog.getByRole('button', { name: 'Remove' })).toBeDisabled();
    });

    test('a pause that is over before it begins is refused beside its field', async ({ page, fixture }) => {
      await open(page, fixture);
      await page.getByRole('button', { name: 'Pause orders' }).click();
      const dialog = page.getByRole('dialog');
      await dialog.getByLabel('Ends by itself').fill('2020-01-01T00:00');
      await dialog.getByRole('button', { name: 'Pause' }).click();
      await expect(dialog.getByLabel('Ends by itself')).toHaveAccessibleDescription('it is in the past');
      await expect(row(page, 'orders')).toContainText('Running');
    });

    test('a store that does not answer leaves the form as it was', async ({ page, fixture }) => {
      await open(page, fixture);
      await page.locator('#add').click();
      const dialog = page.getByRole('dialog');
      await dialog.getByLabel('Topic').fill('returns');
      await expect(dialog.locator('.preview')).toBeVisible();
      fixture.refuse = { status: 503, code: 'store-unavailable', detail: 'etcd does not answer' };
      await dialog.getByRole('button', { name: /Add topic/ }).click();
      await expect(dialog).toContainText('etcd does not answer');
      await expect(dialog.getByLabel('Topic')).toHaveValue('returns');
      fixture.refuse = null;
      await dialog.getByRole('button', { name: /Add topic/ }).click();
      await expect(row(page, 'returns')).toBeVisible();
    });

    test('a topic that vanished while its dialog opened is told', async ({ page, fixture }) => {
      await open(page, fixture);
      await page.getByLabel('Update').selectOption('0');
      fixture.show({ topics: [], tasks: [] });
      await page.getByRole('button', { name: 'Edit orders' }).click();
      await expect(page.getByRole('dialog')).toContainText('no source names the topic orders');
    });
  });
});

test.describe('who may only look', () => {
  test('sees why there is no button that changes something, and keys do nothing either', async ({ page, fixture }) => {
    fixture.role = 'read';
    fixture.letters = [letter('orders', 0, 7)];
    await open(page, fixture);
    await expect(page.getByText('Read only: the token “grafana” may look and not change.')).toBeVisible();
    await expect(page.getByRole('button', { name: /Add topic|Edit|Pause|Resume|Remove/ })).toHaveCount(0);
    await expect(page.getByRole('columnheader', { name: 'Actions' })).toHaveCount(0);
    await page.keyboard.press('a');
    await page.keyboard.press('?');
    await expect(page.getByRole('dialog', { name: 'Help' })).not.toContainText('add a topic');
    await page.keyboard.press('Escape');
    await page.getByRole('button', { name: 'orders', exact: true }).click();
    await expect(page.getByRole('table', { name: 'Tasks of orders' })).toBeVisible();
    await page.getByRole('button', { name: 'Show dead letters orders' }).click();
    const dialog = page.getByRole('dialog', { name: 'Dead letters of orders' });
    await expect(dialog).toContainText('failed to parse field [at]');
    await expect(dialog.getByRole('button', { name: /again/ })).toHaveCount(0);
    await expectAccessible(page, 'read only');
    // A token that may change things is seen at the next reading.
    await page.keyboard.press('Escape');
    fixture.role = 'write';
    await expect(page.getByRole('button', { name: 'Edit orders' })).toBeVisible();
    await expect(page.getByText('Read only')).toBeHidden();
  });
});

test.describe('dead letters', () => {
  const openLetters = async (page, name) => {
    await page.getByRole('button', { name, exact: true }).click();
    await page.getByRole('button', { name: `Show dead letters ${name}` }).click();
    return page.getByRole('dialog', { name: `Dead letters of ${name}` });
  };
  const strict = { type: 'strict_dynamic_mapping_exception', reason: 'mapping set to strict', status: 400 };

  test('one is sent again, then all of an error once their number was confirmed', async ({ page, fixture }) => {
    fixture.letters = [letter('orders', 0, 7), letter('orders', 1, 8, { error: strict }), letter('orders', 2, 9, { error: strict, refuses: true }), letter('payments', 0, 1)];
    await open(page, fixture);
    const dialog = await openLetters(page, 'orders');
    const rows = dialog.getByRole('listitem');
    await expect(rows).toHaveCount(3);
    await expect(rows.first()).toContainText('Partition 0, offset 7');
    await rows.first().getByText('Record').click();
    await expect(rows.first()).toContainText('{"at":"never"}');
    await dialog.getByRole('button', { name: 'Send again Partition 0, offset 7' }).click();
    await expect(dialog).toContainText('Being sent again: 1.');
    await expect(rows).toHaveCount(2);
    expect(fixture.asked('POST', '/api/v1/dead-letters/').map((request) => request.path)).toEqual(['/api/v1/dead-letters/HK2wYQabcdefghijklmnop%3A0%3A7/redrive']);

    fixture.letters.push(letter('orders', 3, 10));
    await dialog.getByLabel('Error').selectOption('strict_dynamic_mapping_exception');
    await expect(rows).toHaveCount(2);
    await dialog.getByRole('button', { name: 'Send all of these again' }).click();
    const question = dialog.getByRole('alertdialog');
    await expect(question).toContainText('Dead letters that would be sent again: 2.');
    await expect(question.getByRole('button', { name: 'Cancel' })).toBeFocused();
    expect(fixture.asked('POST', 'error_type=strict').filter((request) => !request.path.includes('dry_run'))).toEqual([]);
    await question.getByRole('button', { name: 'Send 2 again' }).click();
    await expect(rows).toHaveCount(1);
    await expect(rows).toContainText('refused again');
    // What the filter left out, and other topics', stay.
    expect(fixture.letters.map((each) => each.offset).sort()).toEqual([1, 10, 9]);
  });

  test('a question that is answered with no sends nothing', async ({ page, fixture }) => {
    fixture.letters = [letter('orders', 0, 7)];
    await open(page, fixture);
    const dialog = await openLetters(page, 'orders');
    await dialog.getByRole('button', { name: 'Send all of these again' }).click();
    // The question comes with the number, which the server is asked for first.
    await expect(dialog.getByRole('alertdialog').getByRole('button', { name: 'Cancel' })).toBeFocused();
    await page.keyboard.press('Enter');
    await expect(dialog.getByRole('alertdialog')).toBeHidden();
    expect(fixture.asked('POST', '/redrive').every((request) => request.path.includes('dry_run=true'))).toBe(true);
  });

  test('a letter is deleted only by who says so twice', async ({ page, fixture }) => {
    fixture.letters = [letter('orders', 0, 7), letter('orders', 1, 8, { payload_base64: null, truncated: true })];
    await open(page, fixture);
    const dialog = await openLetters(page, 'orders');
    const rows = dialog.getByRole('listitem');
    // What cannot be sent again can be deleted, too.
    await dialog.getByRole('button', { name: 'Delete Partition 1, offset 8' }).click();
    const question = dialog.getByRole('alertdialog', { name: 'Delete Partition 1, offset 8' });
    await expect(question.getByRole('button', { name: 'Cancel' })).toBeFocused();
    await page.keyboard.press('Enter');
    await expect(question).toBeHidden();
    expect(fixture.asked('DELETE', '/api/v1/dead-letters')).toEqual([]);
    await dialog.getByRole('button', { name: 'Delete Partition 1, offset 8' }).click();
    await question.getByRole('button', { name: 'Delete' }).click();
    await expect(dialog).toContainText('Deleted: partition 1, offset 8.');
    await expect(rows).toHaveCount(1);
    await expect(rows).toContainText('Partition 0, offset 7');
    expect(fixture.asked('DELETE', '/api/v1/dead-letters').map((request) => request.path)).toEqual(['/api/v1/dead-letters/HK2wYQabcdefghijklmnop%3A1%3A8']);
  });

  test('many are shown a part at a time, and what a record says stays text', async ({ page, fixture }) => {
    const nasty = '<img src=x onerror=alert(1)>';
    fixture.letters = Array.from({ length: 120 }, (_, offset) => letter('orders', 0, offset, { payload_base64: btoa(nasty), error: { type: nasty, reason: nasty, status: null } }));
    await open(page, fixture);
    const dialog = await openLetters(page, 'orders');
    await expect(dialog.getByRole('listitem')).toHaveCount(50);
    await dialog.getByRole('button', { name: 'Show more' }).click();
    await expect(dialog.getByRole('listitem')).toHaveCount(100);
    await dialog.getByText('Record', { exact: true }).first().click();
    await expect(dialog.locator('pre').first()).toHaveText(nasty);
    await expect(page.locator('#page img')).toHaveCount(0);
  });

  test('a letter that dies or is sent elsewhere meanwhile shows without asking', async ({ page, fixture }) => {
    await open(page, fixture);
    const dialog = await openLetters(page, 'orders');
    await expect(dialog).toContainText('There is no dead letter.');
    fixture.letters = [letter('orders', 0, 7, { payload_base64: null, truncated: true })];
    await expect(dialog).toContainText('The record was too large to be kept');
  });

  test.describe('refused', () => {
    test.use({ mayBeRefused: true });

    test('a redrive that the server refuses is told and can be tried again', async ({ page, fixture }) => {
      fixture.letters = [letter('orders', 0, 7)];
      await open(page, fixture);
      await page.getByLabel('Update').selectOption('0');
      const dialog = await openLetters(page, 'orders');
      await expect(dialog.getByRole('listitem')).toHaveCount(1);
      fixture.refuse = { status: 503, code: 'store-unavailable', detail: 'the dead-letter store cannot be read' };
      await dialog.getByRole('button', { name: /^Send again/ }).click();
      await expect(dialog).toContainText('the dead-letter store cannot be read');
      fixture.refuse = null;
      await dialog.getByRole('button', { name: /^Send again/ }).click();
      await expect(dialog).toContainText('There is no dead letter.');
    });
  });
});

test.describe('keys', () => {
  test('single keys act, not while typing, and can be turned off', async ({ page, fixture }) => {
    await open(page, fixture);
    await page.keyboard.press('/');
    await expect(page.locator('#filter')).toBeFocused();
    await page.keyboard.type('a?/');
    await expect(page.locator('#filter')).toHaveValue('a?/');
    await expect(page.getByRole('dialog')).toBeHidden();
    await page.locator('#filter').fill('');
    await page.locator('#topics').click();
    await page.keyboard.press('?');
    const help = page.getByRole('dialog', { name: 'Help' });
    await expect(help).toBeVisible();
    await help.getByLabel('Single keys do something').uncheck();
    await page.keyboard.press('Escape');
    await expect(help).toBeHidden();
    await page.keyboard.press('a');
    await page.keyboard.press('?');
    await expect(page.getByRole('dialog')).toBeHidden();
    await page.reload();
    await expect(page.locator('#verdict')).toBeVisible();
    await page.keyboard.press('?');
    await expect(page.getByRole('dialog')).toBeHidden();
  });

  test('Escape closes a dialog and the focus returns to what opened it', async ({ page, fixture }) => {
    await open(page, fixture);
    const edit = page.getByRole('button', { name: 'Edit orders' });
    await edit.focus();
    await page.keyboard.press('Enter');
    await expect(page.getByRole('dialog')).toBeVisible();
    await page.keyboard.press('Escape');
    await expect(page.getByRole('dialog')).toBeHidden();
    await expect(edit).toBeFocused();
  });

  test('everything that acts is reached by Tab', async ({ page, fixture }) => {
    fixture.show(calm());
    await open(page, fixture);
    const all = page.locator('button, select, input, a[href]');
    const count = await all.count();
    const reached = new Set();
    for (let presses = 0; presses < count + 10; presses += 1) {
      await page.keyboard.press('Tab');
      reached.add(await page.evaluate(() => [...document.querySelectorAll('button, select, input, a[href]')].indexOf(document.activeElement)));
    }
    reached.delete(-1);
    expect(reached.size).toBe(count);
  });
});

test('a thousand topics are drawn and filtered', async ({ page, fixture }) => {
  const many = Array.from({ length: 1000 }, (_, index) => topic(`topic-${String(index).padStart(4, '0')}`, [task(`topic-${index}`, 0)]));
  fixture.show({ topics: many, tasks: [], checks: [] });
  await open(page, fixture);
  await expect(page.locator('#topics-table > tbody')).toHaveCount(1000);
  await page.locator('#filter').fill('0999');
  await expect(page.locator('#topics-table > tbody')).toHaveCount(1);
});
