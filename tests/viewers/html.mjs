// Opens gilprof's own page by file:// and prints its content and its reactions as JSON:
// html.mjs AXE FILE [SHOTS-FOLDER]
// Requests other than for the file itself, and dialogs, are counted and refused. Errors of the console
// are collected.
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { browse } from './browser.mjs';

const [axeFile, file, shots] = process.argv.slice(2);
const axe = await readFile(axeFile, 'utf8');
const address = pathToFileURL(file).href;
const browser = await browse();
const result = { requests: [], errors: [], dialogs: 0, interactive_ms: [], axe: {}, sideways: {} };

// A loaded page in one colour scheme and width.
async function open(scheme, width) {
  const page = await browser.newPage();
  await page.setViewport({ width, height: 900 });
  await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: scheme }]);
  await page.setRequestInterception(true);
  page.on('request', (request) => {
    if (request.url() === address || request.url().startsWith('data:')) return request.continue();
    result.requests.push(request.url());
    return request.abort();
  });
  page.on('console', (message) => ['error', 'warn', 'warning'].includes(message.type()) && result.errors.push(message.text()));
  page.on('pageerror', (error) => result.errors.push(String(error)));
  page.on('dialog', (dialog) => (result.dialogs++, dialog.dismiss()));
  await page.goto(address);
  await page.waitForFunction(() => document.documentElement.dataset.ready === 'yes', { timeout: 60000 });
  result.interactive_ms.push(await page.evaluate(() => performance.getEntriesByName('gilprof-interactive')[0].startTime));
  return page;
}

// Resolves after the next frame is painted.
const painted = (page) => page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
const text = (page, selector) => page.$eval(selector, (node) => node.textContent);

async function inspect(page, name) {
  await page.evaluate((source) => { (0, eval)(source); }, axe).catch(() => page.evaluate(axe));
  const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ['violations'] }));
  result.axe[name] = violations.map(({ id, impact, nodes }) => ({ id, impact, where: nodes.map((node) => node.target.join(' ')).slice(0, 5), why: nodes[0]?.failureSummary }));
  result.sideways[name] = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  if (shots) await page.screenshot({ path: join(shots, `${name}.png`), fullPage: true });
}

// The content of the page, as numbers.
const read = (page) => page.evaluate(async () => {
  const frame = () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  const words = (node) => node.textContent;
  const all = (root, selector) => [...root.querySelectorAll(selector)];
  // The page fills an opened section one frame after the event, which may itself be some frames late.
  const toggled = (id, open) => new Promise((done) => {
    const details = document.getElementById(id);
    if (details.open === open) return done();
    details.addEventListener('toggle', done, { once: true });
    details.open = open;
  });
  const figures = (open) => Promise.all(['visible-range', 'flame-figures'].map((id) => toggled(id, open)));
  await figures(true);
  await frame();
  const threads = all(document, '#thread-table tbody tr').map((row) => {
    const bar = row.querySelector('.stack').getBoundingClientRect();
    const parts = all(row, '.stack i');
    return {
      name: words(row.querySelector('.name')), note: words(row.querySelector('small')),
      shares: Object.fromEntries(parts.map((part) => [part.dataset.state, Number(part.dataset.share)])),
      covered: parts.reduce((sum, part) => sum + part.getBoundingClientRect().width, 0) / bar.width,
      cells: all(row, 'td.n').map(words),
    };
  });
  const functions = all(document, '#function-table tbody tr').map((row) => ({
    name: words(row.querySelector('.name')), place: words(row.querySelector('small')),
    cells: Object.fromEntries(all(row, 'td').map((cell) => [cell.dataset.key, words(cell)])),
  }));
  const tracks = all(document, '#visible-range-table tbody tr').map((row) => ({
    pid: Number(row.dataset.pid), tid: Number(row.dataset.tid), name: words(row.querySelector('th')),
    seconds: Object.fromEntries(all(row, 'td').map((cell) => [cell.dataset.state, Number(cell.dataset.seconds)])),
  }));
  const flames = {};
  for (const input of all(document, '#flame-modes input')) {
    if (input.disabled) { flames[input.value] = { micros: 0, rows: 0 }; continue; }
    input.click();
    await frame();
    flames[input.value] = { micros: Number(document.getElementById('flame').dataset.micros), rows: all(document, '#flame-table tbody tr').map((row) => [words(row.querySelector('th')), ...all(row, 'td').map((cell) => Number(cell.dataset.micros))]) };
  }
  document.querySelector('#flame-modes input:not(:disabled)').click();
  await frame();
  await figures(false);
  return {
    title: document.title, headline: words(document.getElementById('headline')), banner: words(document.getElementById('banner')),
    gains: all(document, '#gains .gain').map(words), because: all(document, '#because li').map(words), gil: words(document.getElementById('gil')),
    threads, functions, tracks, flames, view: words(document.getElementById('view')), gilChart: document.getElementById('gil-chart').getAttribute('aria-label'),
    blame: all(document, '#blame-table tbody td[data-seconds]').reduce((sum, cell) => sum + Number(cell.dataset.seconds), 0),
    images: document.images.length, scripts: document.scripts.length, body: document.body.innerText.length,
    names: words(document.getElementById('thread-table')),
  };
});

// Every colour in the middle of a canvas's first row, which shows that it was painted.
const colours = (page, id) => page.$eval(id, (canvas) => {
  const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, Math.min(canvas.height, 40));
  return new Set(new Uint32Array(data.buffer)).size;
});

async function drive(page) {
  const done = {};
  const box = async (id) => (await page.$(id)).boundingBox();
  const micros = () => page.$eval('#flame', (node) => Number(node.dataset.micros));
  // Flamegraph: another time, search, zoom by click, back by key.
  done.flame = { whole: await micros(), focusable: await page.$eval('#flame', (node) => node.tabIndex) };
  await page.$eval('#flame-modes input[value="wall"]', (node) => node.click());
  await painted(page);
  done.flame.wall = await micros();
  done.flame.colours = await colours(page, '#flame');
  await page.type('#flame-search', 'python)');
  await painted(page);
  done.flame.search = await text(page, '#flame-where');
  await page.$eval('#flame-search', (node) => { node.value = ''; node.dispatchEvent(new Event('input')); });
  await (await page.$('#flame')).scrollIntoView();
  let at = await box('#flame');
  // The topmost frame at the right edge that is narrower than the whole graph.
  for (let row = 1; row < 8 && !(done.flame.clicked < done.flame.wall); row++) {
    await page.mouse.click(at.x + at.width - 4, at.y + 19 * (row + 0.5));
    await painted(page);
    done.flame.clicked = await micros();
  }
  done.flame.where = await text(page, '#flame-where');
  await page.keyboard.press('Escape');
  await painted(page);
  done.flame.back = await micros();
  await page.keyboard.press('ArrowDown');
  await page.keyboard.press('Enter');
  await painted(page);
  done.flame.walked = await text(page, '#flame-where');
  await page.click('#flame-reset');
  await painted(page);
  done.flame.reset = await micros();
  // Timeline: keys, buttons, wheel, drag, hover.
  const view = async () => (await painted(page), text(page, '#view'));
  done.timeline = { whole: await view() };
  await page.focus('#tracks');
  await page.keyboard.press('+');
  done.timeline.zoomed = await view();
  await page.keyboard.press('ArrowRight');
  done.timeline.moved = await view();
  await page.keyboard.press('.');
  await page.keyboard.press('ArrowDown');
  await page.keyboard.press('.');
  await painted(page);
  done.timeline.spoken = await text(page, '#track-description');
  await page.keyboard.press('0');
  done.timeline.again = await view();
  done.timeline.colours = await colours(page, '#tracks');
  await page.click('[data-move="in"]');
  done.timeline.button = await view();
  await page.focus('#tracks');
  await (await page.$('#tracks')).scrollIntoView();
  at = await box('#tracks');
  const [x, y] = [at.x + at.width / 2, at.y + 8];
  await page.mouse.move(x, y);
  await painted(page);
  done.timeline.hover = await page.$eval('#tip', (node) => (node.hidden ? '' : node.innerText));
  await page.mouse.wheel({ deltaY: -400 });
  done.timeline.wheel = await view();
  await page.mouse.down();
  await page.mouse.move(x - 120, y, { steps: 4 });
  await page.mouse.up();
  done.timeline.dragged = await view();
  await page.focus('#tracks');
  await page.keyboard.press('0');
  await painted(page);
  // The window selected in the chart above is shown.
  // With many tracks the chart may be outside of the viewport.
  await page.$eval('#gil-chart', (node) => node.scrollIntoView({ block: 'center' }));
  await painted(page);
  const over = await (await page.$('#gil-chart .u-over'))?.boundingBox();
  if (over) {
    await page.mouse.move(over.x + over.width * 0.25, over.y + 40);
    await page.mouse.down();
    await page.mouse.move(over.x + over.width * 0.5, over.y + 40, { steps: 4 });
    await page.mouse.up();
    done.timeline.chosen = await view();
    await page.click('[data-move="all"]');
  }
  // Functions: sort by pointer and by key, filter.
  const column = (key) => page.$$eval(`#function-table td[data-key="${key}"]`, (cells) => cells.map((cell) => cell.textContent));
  const sorted = () => page.$eval('#function-table [data-key="io"]', (node) => node.closest('th').getAttribute('aria-sort'));
  done.functions = { before: await sorted() };
  await page.$eval('#function-table [data-key="io"]', (node) => node.click());
  done.functions.down = [await sorted(), await column('io')];
  await page.keyboard.press('Enter');
  done.functions.up = [await sorted(), await column('io')];
  await page.type('#function-filter', 'zzz-no-such');
  done.functions.filtered = (await column('io')).length;
  await page.$eval('#function-filter', (node) => { node.value = ''; node.dispatchEvent(new Event('input')); });
  done.theme = [await page.evaluate(() => document.documentElement.dataset.theme)];
  await page.$eval('#theme', (node) => node.click());
  await painted(page);
  done.theme.push(await page.evaluate(() => document.documentElement.dataset.theme));
  return done;
}

try {
  const page = await open('light', 1280);
  result.processes = [];
  const count = await page.$$eval('#process option', (options) => options.length);
  result.service = await page.evaluate(() => {
    const words = (id) => document.getElementById(id).textContent;
    const rows = [...document.querySelectorAll('#process-table tbody tr')].map((row) => ({
      pid: Number(row.dataset.pid), words: row.textContent, cells: Object.fromEntries([...row.querySelectorAll('td[data-key]')].map((cell) => [cell.dataset.key, cell.textContent])),
    }));
    return { hidden: document.getElementById('service').hidden, banner: words('service-banner'), headline: words('service-headline'), rows };
  });
  result.chooser = await page.$eval('#chooser', (node) => !node.hidden);
  for (let n = 0; n < count; n++) {
    await page.select('#process', String(n));
    await painted(page);
    result.processes.push(await read(page));
  }
  await page.select('#process', '0');
  await painted(page);
  await inspect(page, 'light-1280');
  result.drive = await drive(page);
  await page.close();
  for (const [scheme, width] of [['dark', 1280], ['light', 400], ['dark', 400]]) {
    const other = await open(scheme, width);
    await inspect(other, `${scheme}-${width}`);
    await other.close();
  }
  console.log(JSON.stringify(result));
} finally {
  await browser.close();
}
