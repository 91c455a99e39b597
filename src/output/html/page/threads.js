// One bar per thread: the shares of its states in the palette's order, which add to 100 %.

// A thread's shares, by the number of the state.
function sharesOf(thread) {
  const { holding: h, states: s } = thread;
  const shares = [h.python, h.native, h.blocked, h.starved, s.waiting, s.native, s.starved, s.lock, s.io, s.unknown].map((x) => Math.max(0, x || 0));
  // Time that the shares do not cover is unknown; it is never spread over the other states.
  const rest = 1 - shares.reduce((a, b) => a + b, 0);
  if (rest > 0) shares[9] += rest;
  return shares;
}

const THREAD_COLUMNS = [
  ['holding', (t) => t.states.holding, true], ['waiting', (t) => t.states.waiting, true], ['native', (t) => t.states.native], ['starved', (t) => t.states.starved],
  ['lock', (t) => t.states.lock], ['io', (t) => t.states.io], ['unknown', (t) => t.states.unknown], ['cpu', (t) => t.cpu],
];

function showThreads(process) {
  const { report } = process;
  const { threads } = report;
  const all = threads.map(sharesOf);
  const seen = palette.states.map((_, n) => n).filter((n) => all.some((shares) => shares[n] >= 0.001));
  legendOf($('legend'), seen);
  const columns = THREAD_COLUMNS.filter(([label, of]) => label !== 'unknown' || threads.some((t) => of(t) >= NOISE));
  const head = el('thead', {}, el('tr', {}, el('th', { scope: 'col', text: 'Thread' }), el('th', { scope: 'col', class: 'wide', text: 'Time' }),
    columns.map(([label, , key]) => el('th', { scope: 'col', class: key ? 'n' : 'n minor', text: label }))));
  const body = el('tbody', {}, threads.map((thread, n) => el('tr', {},
    el('th', { scope: 'row' }, name(thread.name || '(no name)', 'name'), el('small', { text: notes(thread, report) })),
    el('td', { class: 'wide' }, bar(all[n])),
    columns.map(([, of, key]) => el('td', { class: key ? 'n' : 'n minor', text: figures.share(of(thread)) })))));
  fill($('thread-table'), head, body);
  $('more-threads').textContent = process.more_threads ? `${grouped(process.more_threads)} more threads, less busy than these, are in gilprof's JSON.` : '';
}

// The thread id, and what is unusual about a thread.
function notes(thread, report) {
  const parts = [String(thread.tid)];
  if (!thread.python) parts.push('not a Python thread');
  if (thread.gil !== undefined) parts.push(`GIL ${thread.gil}`);
  if (thread.seconds < report.window.seconds * 0.98) parts.push(`sampled for ${figures.length(thread.seconds)}`);
  return parts.join(', ');
}

function bar(shares) {
  const present = shares.map((x, n) => [x, n]).filter(([x]) => x > 0);
  const lines = present.filter(([x]) => x >= NOISE).map(([x, n]) => `${palette.states[n].label} ${figures.share(x)}\u202f%`);
  const node = el('div', { class: 'stack', role: 'img', 'aria-label': lines.join(', ') || 'not sampled' },
    present.map(([x, n]) => el('i', { 'data-state': n, 'data-share': x, style: { 'flex-grow': x, background: `var(--s${n})` } })));
  node.addEventListener('pointermove', (e) => tip.show(e.clientX, e.clientY, lines.map((text) => el('p', { text }))));
  node.addEventListener('pointerleave', tip.hide);
  return node;
}
