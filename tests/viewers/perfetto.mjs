// Opens a trace in Perfetto's own UI and asks its trace processor: perfetto.mjs WEB_DIST TRACE
import { dirname, basename } from 'node:path';
import { browse, serve } from './browser.mjs';

const [webDist, trace] = process.argv.slice(2);
// The UI may load traces of its own origin and of 127.0.0.1:9001.
const server = await serve({ '/trace/': dirname(trace), '/': webDist }, 9001);
const browser = await browse();
try {
  const page = await browser.newPage();
  await page.goto(`http://127.0.0.1:9001/index.html#!/?url=http://127.0.0.1:9001/trace/${basename(trace)}`);
  await page.waitForFunction(() => globalThis.app?.trace?.engine ?? globalThis.app?._activeTrace?.engine, { timeout: 90000 });
  const ask = (sql, columns) => page.evaluate(async (sql, columns) => {
    const engine = (globalThis.app.trace ?? globalThis.app._activeTrace).engine;
    const types = Object.fromEntries(Object.entries(columns).map(([name, type]) => [name, type === 'text' ? 'str' : 0]));
    const result = await engine.query(sql);
    const rows = [];
    for (const it = result.iter(types); it.valid(); it.next()) {
      rows.push(Object.fromEntries(Object.keys(types).map((name) => [name, it[name]])));
    }
    return rows;
  }, sql, columns);
  const states = await ask(
    `select coalesce(thread.name, '') as thread, slice.name as state, sum(slice.dur) as nanos, count(*) as slices
     from slice join thread_track on slice.track_id = thread_track.id join thread using (utid) group by 1, 2`,
    { thread: 'text', state: 'text', nanos: 'number', slices: 'number' });
  const [{ flows }] = await ask('select count(*) as flows from flow', { flows: 'number' });
  const counters = await ask('select counter_track.name as name, count(*) as points from counter join counter_track on counter.track_id = counter_track.id group by 1', { name: 'text', points: 'number' });
  const errors = await ask("select name, value from stats where severity in ('error', 'data_loss') and value > 0", { name: 'text', value: 'number' });
  console.log(JSON.stringify({ states, flows, counters, errors }));
} finally {
  await browser.close();
  server.close();
}
