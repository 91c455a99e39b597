// Opens files in speedscope and reads the table of its "Sandwich" view for each profile:
// speedscope.mjs RELEASE FILE...
// Prints for each file: profiles with their names and rows (function, total and self as shown), and
// errors of the page.
import { basename, dirname } from 'node:path';
import { browse, serve } from './browser.mjs';

const [release, ...files] = process.argv.slice(2);
const server = await serve({ '/file/': dirname(files[0]), '/': release });
const browser = await browse();
const out = {};

// The toolbar: the profile's name, its number and the number of profiles.
async function shown(page) {
  const text = await page.evaluate(() => document.body.innerText);
  const found = text.match(/^(.*) \((\d+)\/(\d+)\)/m);
  return found ? { name: found[1].trim(), index: Number(found[2]), count: Number(found[3]) } : { name: await page.title(), index: 1, count: 1 };
}

// Rows of the table. The page contains only visible rows, so the window is high. The list of profiles
// is a table too, without shares.
async function rows(page) {
  await page.keyboard.press('3');
  await page.evaluate(() => {
    globalThis.rows = () => [...document.querySelectorAll('tr')]
      .map((row) => [...row.querySelectorAll('td')].map((cell) => cell.innerText.trim()))
      .filter((cells) => cells.length === 3 && /%\)$/.test(cells[0]))
      .map(([total, self, name]) => ({ total, self, name }));
  });
  await painted(page);
  await page.waitForFunction(() => globalThis.rows().length > 0, { timeout: 10000 });
  return page.evaluate(() => globalThis.rows());
}

// The page shows the selection two frames later.
function painted(page) {
  return page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
}

try {
  for (const file of files) {
    const page = await browser.newPage();
    await page.setViewport({ width: 1280, height: 1600 });
    const errors = [];
    page.on('pageerror', (e) => errors.push(String(e)));
    await page.goto(`http://127.0.0.1:${server.port}/index.html#profileURL=${encodeURIComponent(`/file/${basename(file)}`)}`);
    await page.waitForFunction(() => /Sandwich/.test(document.body.innerText), { timeout: 30000 });
    const profiles = [];
    for (;;) {
      const now = await shown(page);
      profiles.push({ name: now.name, rows: await rows(page) });
      if (now.index >= now.count) break;
      await page.keyboard.press('n');
      await page.waitForFunction((next) => document.body.innerText.includes(`(${next}/`), { timeout: 10000 }, now.index + 1);
    }
    out[basename(file)] = { profiles, errors };
    if (process.env.GILPROF_SCREENSHOTS) {
      for (const [key, view] of [['1', 'time'], ['2', 'left'], ['3', 'sandwich']]) {
        await page.keyboard.press(key);
        await painted(page);
        await page.screenshot({ path: `${process.env.GILPROF_SCREENSHOTS}/${basename(file)}.${view}.png` });
      }
    }
    await page.close();
  }
  console.log(JSON.stringify(out));
} finally {
  await browser.close();
  server.close();
}
