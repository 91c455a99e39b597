// Opens traces in Perfetto's own UI and queries its trace processor: perfetto.mjs WEB_DIST TRACE...
// Prints for each file: time per process, thread and state; averages of the counters; the arrows;
// waiting with a known holder; errors of the import.
import { basename, dirname } from 'node:path';
import { browse, serve } from './browser.mjs';

const [webDist, ...traces] = process.argv.slice(2);
// The UI may load traces of its own origin and of 127.0.0.1:9001.
const server = await serve({ '/trace/': dirname(traces[0]), '/': webDist }, 9001);
const browser = await browse();
const out = {};

const STATES = `select process.name || ', pid ' || process.pid as process, thread.name as thread, slice.name as state,
    sum(slice.dur) as nanos, count(*) as slices
  from slice join thread_track on slice.track_id = thread_track.id join thread using (utid) join process using (upid) group by 1, 2, 3`;
// A value holds until the next one of its track, the last one until the end of the process's slices.
const COUNTERS = `with ends as (select upid, max(slice.ts + slice.dur) as at from slice
    join thread_track on slice.track_id = thread_track.id join thread using (utid) group by 1),
  steps as (select track.name as name, process.name || ', pid ' || process.pid as process, counter.value as value, counter.ts as ts,
    coalesce(lead(counter.ts) over (partition by counter.track_id order by counter.ts), ends.at) as next
    from counter join process_counter_track track on counter.track_id = track.id join process using (upid) join ends using (upid))
  select process, name, sum(value * (next - ts)) / sum(next - ts) as mean, max(value) as most, count(*) as points from steps group by 1, 2`;
// From the end of the slice that an arrow leaves to the beginning of the one that it enters.
const ARROWS = `select count(*) as count, coalesce(sum(a.track_id = b.track_id), 0) as to_itself,
    coalesce(sum(not (a.name glob 'holding*' and b.name glob 'holding*')), 0) as not_of_holds,
    coalesce(max(abs(b.ts - a.ts - a.dur)), 0) as longest, coalesce(sum(ta.upid != tb.upid), 0) as between_processes
  from flow join slice a on flow.slice_out = a.id join slice b on flow.slice_in = b.id
  join thread_track ra on a.track_id = ra.id join thread ta on ra.utid = ta.utid
  join thread_track rb on b.track_id = rb.id join thread tb on rb.utid = tb.utid`;
// Waiting with a known holder.
const BEHIND = `select process.name || ', pid ' || process.pid as process,
    sum(iif(extract_arg(slice.arg_set_id, 'debug.holder') is null, 0, slice.dur)) as nanos
  from slice join thread_track on slice.track_id = thread_track.id join thread using (utid) join process using (upid)
  where slice.name = 'GIL wait' group by 1`;
const ERRORS = `select name, value from stats where severity in ('error', 'data_loss') and value > 0`;

try {
  for (const trace of traces) {
    const page = await browser.newPage();
    await page.setViewport({ width: 1280, height: 900 });
    await page.goto(`http://127.0.0.1:9001/index.html#!/?url=http://127.0.0.1:9001/trace/${basename(trace)}`);
    await page.waitForFunction(() => globalThis.app?.trace?.engine, { timeout: 90000 });
    const ask = (sql, texts, numbers) => page.evaluate(async (sql, texts, numbers) => {
      const types = Object.fromEntries([...texts.map((name) => [name, 'str']), ...numbers.map((name) => [name, 0])]);
      const rows = [];
      for (const it = (await globalThis.app.trace.engine.query(sql)).iter(types); it.valid(); it.next()) {
        rows.push(Object.fromEntries(Object.keys(types).map((name) => [name, it[name]])));
      }
      return rows;
    }, sql, texts, numbers);
    const [arrows] = await ask(ARROWS, [], ['count', 'to_itself', 'not_of_holds', 'longest', 'between_processes']);
    out[basename(trace)] = {
      states: await ask(STATES, ['process', 'thread', 'state'], ['nanos', 'slices']),
      counters: await ask(COUNTERS, ['process', 'name'], ['mean', 'most', 'points']),
      arrows,
      behind: await ask(BEHIND, ['process'], ['nanos']),
      errors: await ask(ERRORS, ['name'], ['value']),
    };
    if (process.env.GILPROF_SCREENSHOTS) { // for a person
      await page.mouse.click(260, 181); // the first process
      await page.mouse.move(800, 400);
      await page.keyboard.down('w'); // zoom in
      await new Promise((done) => setTimeout(done, 2000));
      await page.keyboard.up('w');
      await new Promise((done) => setTimeout(done, 2000));
      await page.screenshot({ path: `${process.env.GILPROF_SCREENSHOTS}/${basename(trace)}.png` });
    }
    await page.close();
  }
  console.log(JSON.stringify(out));
} finally {
  await browser.close();
  server.close();
}
