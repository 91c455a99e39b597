// A headless Chromium for the tests of viewers, and a server for local files.
import { createRequire } from 'node:module';
import { createServer } from 'node:http';
import { readFile } from 'node:fs/promises';
import { extname, join, normalize } from 'node:path';

const { GILPROF_MODULES: modules, GILPROF_CHROMIUM: chromium } = process.env;
export const require = createRequire(join(modules, 'x.js'));

export async function browse() {
  const puppeteer = require('puppeteer-core');
  const launch = (puppeteer.default ?? puppeteer).launch;
  return launch({ executablePath: chromium, headless: true, args: ['--no-sandbox', '--disable-dev-shm-usage', '--allow-file-access-from-files'] });
}

const TYPES = { '.html': 'text/html', '.js': 'text/javascript', '.css': 'text/css', '.wasm': 'application/wasm', '.json': 'application/json' };

// Serves folders by their first path segment. Resolves to the port.
export function serve(folders, port = 0) {
  const server = createServer(async (request, response) => {
    const path = normalize(decodeURIComponent(new URL(request.url, 'http://x').pathname));
    for (const [prefix, folder] of Object.entries(folders)) {
      if (!path.startsWith(prefix)) continue;
      try {
        const body = await readFile(join(folder, path.slice(prefix.length) || 'index.html'));
        response.writeHead(200, { 'Content-Type': TYPES[extname(path) || '.html'] ?? 'application/octet-stream', 'Access-Control-Allow-Origin': '*' });
        return response.end(body);
      } catch { /* the next folder, or nothing */ }
    }
    response.writeHead(404).end();
  });
  return new Promise((done) => server.listen(port, '127.0.0.1', () => done({ port: server.address().port, close: () => server.close() })));
}
