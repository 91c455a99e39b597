// Opens files in the real speedscope and reads its profiles' totals: speedscope.mjs RELEASE FOLDER FILE...
import { readFile } from 'node:fs/promises';
import { basename } from 'node:path';
import { browse, serve } from './browser.mjs';

const [release, ...files] = process.argv.slice(2);
const server = await serve({ '/': release });
const browser = await browse();
const out = {};
try {
  for (const file of files) {
    const page = await browser.newPage();
    const errors = [];
    page.on('pageerror', (e) => errors.push(String(e)));
    await page.goto(`http://127.0.0.1:${server.port}/index.html`);
    await page.waitForFunction(() => globalThis.speedscope?.loadFileFromBase64, { timeout: 30000 });
    const data = (await readFile(file)).toString('base64');
    await page.evaluate((name, data) => globalThis.speedscope.loadFileFromBase64(name, data), basename(file), data);
    await page.waitForFunction(() => document.body.innerText.length > 0 && !/Loading/.test(document.body.innerText), { timeout: 30000 });
    await new Promise((done) => setTimeout(done, 1000));
    out[basename(file)] = { title: await page.title(), text: await page.evaluate(() => document.body.innerText), errors };
  }
  console.log(JSON.stringify(out));
} finally {
  await browser.close();
  server.close();
}
