// The blame matrix: a table whose cells are tinted by their seconds.

function showMatrix({ waiters, holders, seconds }) {
  const table = $('blame-table');
  if (!waiters.length) return fill(table, el('tbody', {}, el('tr', {}, el('td', { text: 'Nobody was seen to wait for the GIL.' }))));
  // Rows and columns of others are sums, beside which the single functions would all look pale.
  const own = seconds.flatMap((row, n) => row.filter((_, m) => !waiters[n].others && !holders[m].others));
  const most = Math.max(1e-9, ...own);
  const waits = palette.states[WAITS].rgb;
  const named = (head) => [el('span', { class: 'name code', text: head.name }), el('small', { text: head.place })];
  const cell = (s) => {
    const tint = blend(waits, palette.paper, s > 0 ? 0.12 + 0.88 * Math.min(1, s / most) : 0);
    return el('td', { class: 'n', 'data-seconds': s, style: s > 0 ? { background: rgb(tint), color: textColourOn(tint) } : {}, text: s > 0 ? figures.seconds(s) : '·' });
  };
  const sum = (list) => list.reduce((a, b) => a + b, 0);
  const total = (s) => el('td', { class: 'n total', text: figures.seconds(s) });
  fill(table,
    el('thead', {}, el('tr', {}, el('th', { scope: 'col', text: 'waits ↓ behind →' }), holders.map((head) => el('th', { scope: 'col' }, named(head))), el('th', { scope: 'col', class: 'n total', text: 'in all' }))),
    el('tbody', {}, waiters.map((head, n) => el('tr', {}, el('th', { scope: 'row' }, named(head)), seconds[n].map(cell), total(sum(seconds[n]))))),
    el('tfoot', {}, el('tr', {}, el('th', { scope: 'row', text: 'in all' }), holders.map((_, n) => total(sum(seconds.map((row) => row[n])))), total(sum(seconds.flat())))));
}
