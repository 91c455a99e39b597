// The table of functions: sorted by any column, filtered by text.

const FUNCTION_COLUMNS = [
  { key: 'name', label: 'Function', text: true },
  { key: 'inflicted_wait', label: 'others waiting', hint: 'threads that waited while this function held the GIL' },
  { key: 'holding', label: 'holding' }, { key: 'holding_native', label: 'in C', hint: 'the share of holding inside C calls' },
  { key: 'waiting', label: 'waiting' }, { key: 'native', label: 'native' }, { key: 'lock', label: 'lock' }, { key: 'io', label: 'io' },
  { key: 'hot_line', label: 'hot line', whole: true },
];

const functionTable = {
  show(process) {
    this.rows = process.report.functions.map((row, n) => ({ ...row, place: process.places[n], caller: process.callers[n] }));
    // The report's order: the function that others wait for most comes first.
    this.sorted = { key: 'inflicted_wait', down: true };
    this.head();
    this.body();
  },

  head() {
    const heading = ({ key, label, hint, text }) => {
      const { key: by, down } = this.sorted;
      return el('th', { scope: 'col', class: text ? '' : 'n', 'aria-sort': by === key ? (down ? 'descending' : 'ascending') : 'none' },
        el('button', { type: 'button', class: 'sort', 'data-key': key, title: hint, onclick: () => this.by(key, !text) }, label));
    };
    fill($('function-table'), el('thead', {}, el('tr', {}, FUNCTION_COLUMNS.map(heading))), el('tbody'));
  },

  by(key, down) {
    this.sorted = { key, down: this.sorted.key === key ? !this.sorted.down : down };
    this.head();
    this.body();
    $('function-table').querySelector(`[data-key="${key}"]`).focus();
  },

  body() {
    const { key, down } = this.sorted;
    const query = $('function-filter').value.trim().toLowerCase();
    const shown = this.rows.filter((row) => !query || `${row.name} ${row.file} ${row.caller ?? ''}`.toLowerCase().includes(query));
    const order = (a, b) => (typeof a[key] === 'string' ? a[key].localeCompare(b[key]) : a[key] - b[key]);
    // Sorting is stable: rows with equal figures keep the report's order.
    shown.sort((a, b) => (down ? order(b, a) : order(a, b)));
    const cell = (row, column) => (column.text
      ? el('th', { scope: 'row' }, name(row.name, 'name code'), el('small', { title: row.file, text: row.place }), row.caller ? el('small', { title: row.called_from.file, text: `called from ${row.caller}` }) : null)
      : el('td', { class: 'n', 'data-key': column.key, text: column.whole ? (row[column.key] ? String(row[column.key]) : NONE) : figures.mean(row[column.key]) }));
    $('function-table').tBodies[0].replaceChildren(...shown.map((row) => el('tr', {}, FUNCTION_COLUMNS.map((column) => cell(row, column)))));
    $('function-count').textContent = shown.length === this.rows.length ? `${grouped(shown.length)} functions` : `${grouped(shown.length)} of ${grouped(this.rows.length)} functions`;
  },

  listen() {
    $('function-filter').addEventListener('input', () => this.body());
  },
};
