// The blame matrix: a table whose cells are tinted by their seconds.

function showMatrix({ waiters, holders, seconds }) {
  const table = $('blame-table');
  if (!waiters.length) return fill(table, el('tbody', {}, el('tr', {}, el('td', { text: 'No thread was seen to wait for the GIL.' }))));
  // The sums of `others` do not count for the tint: single functions would all be pale beside them.
  const own = seconds.flatMap((row, n) => row.filter((_, m) => !waiters[n].others && !holders[m].others));
  const most = Math.max(1e-9, ...own);
  const waits = palette.states[WAITS].rgb;
  const named = (head) => [name(head.name, 'name code'), el('small', { text: head.place }), head.caller ? el('small', { text: `called from ${head.caller}` }) : null];
  const cell = (s) => {
    const tint = blend(waits, palette.paper, s > 0 ? 0.12 + 0.88 * Math.min(1, s / most) : 0);
    return el('td', { class: 'n', 'data-seconds': s, style: s > 0 ? { background: rgb(tint), color: textColourOn(tint) } : {}, text: s > 0 ? figures.seconds(s) : '·' });
  };
  const sum = (list) => list.reduce((a, b) => a + b, 0);
  const total = (s) => el('td', { class: 'n total', text: figures.seconds(s) });
  fill(table,
    el('thead', {}, el('tr', {}, el('th', { scope: 'col', text: 'waiting ↓ holder →' }), holders.map((head) => el('th', { scope: 'col' }, named(head))), el('th', { scope: 'col', class: 'n total', text: 'total' }))),
    el('tbody', {}, waiters.map((head, n) => el('tr', {}, el('th', { scope: 'row' }, named(head)), seconds[n].map(cell), total(sum(seconds[n]))))),
    el('tfoot', {}, el('tr', {}, el('th', { scope: 'row', text: 'total' }), holders.map((_, n) => total(sum(seconds.map((row) => row[n])))), total(sum(seconds.flat())))));
}
