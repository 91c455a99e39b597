// The GIL over time, above the tracks: how busy it was and how many threads waited, drawn by uPlot
// on the tracks' time scale.

/* global uPlot */
const BUSY = 0;
const WAITS = 4;

// The mean of the known values; null where no sample covers the time.
const mean = (list) => {
  const known = list.filter((x) => x !== null);
  return known.length ? known.reduce((a, b) => a + b, 0) / known.length : null;
};
// Steps of the time axis: round parts of a second, of a minute and of an hour.
const MARKS = [...[-6, -5, -4, -3, -2, -1, 0].flatMap((ten) => [1, 2, 5].map((n) => n * 10 ** ten)), 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 43200, 86400];
const scaled = (x, by) => (x === null ? null : x / by);

const gilChart = {
  // `offset`: the time on the tracks' clock at which the process was first measured.
  show(data, offset) {
    this.data = data;
    this.offset = offset;
    const choice = $('gil-choice');
    fill(choice, data.gils.map((gil, n) => el('option', { value: n, text: `GIL ${gil.gil}` })));
    $('gil-chooser').hidden = data.gils.length < 2;
    choice.onchange = () => this.make();
    this.make();
  },

  make() {
    this.chart?.destroy();
    this.chart = null;
    const box = $('gil-chart');
    const gil = this.data.gils[Number($('gil-choice').value) || 0];
    if (!gil) return fill(box, el('p', { class: 'note', text: 'The GIL could not be read.' }));
    fill(box);
    this.gil = gil;
    const { from, to } = timeline.view;
    this.chart = new uPlot(this.options(Math.max(1, ...gil.waiters) / 100), this.steps(from, to), box);
    box.setAttribute('aria-label', `The GIL over time: busy ${figures.percent(mean(gil.busy) / 1000)} and ${figures.mean(mean(gil.waiters) / 100)} threads waiting on average, at most ${figures.mean(Math.max(0, ...gil.waiters) / 100)}`);
    fill($('gil-chart-legend'),
      el('li', {}, el('i', { class: 'swatch', style: { background: `var(--s${BUSY})` } }), 'GIL held, share of the time (left axis)'),
      el('li', {}, el('i', { class: 'swatch line', style: { background: `var(--s${WAITS})` } }), 'threads waiting for it (right axis)'));
  },

  // The visible points, averaged over steps of some pixels: finer steps would be a blur.
  steps(from, to) {
    const { busy, waiters } = this.gil;
    const point = this.data.seconds / busy.length;
    [from, to] = [from - this.offset, to - this.offset];
    const wide = Math.max(1, Math.round((to - from) / point / Math.max(40, timeline.plotWidth() / 5)));
    const [first, last] = [Math.max(0, Math.floor(from / point / wide) - 1) * wide, Math.max(0, Math.min(busy.length, Math.ceil(to / point) + wide))];
    const [xs, held, waits] = [[], [], []];
    for (let n = first; n < last; n += wide) {
      xs.push(this.offset + n * point);
      held.push(scaled(mean(busy.slice(n, n + wide)), 1000));
      waits.push(scaled(mean(waiters.slice(n, n + wide)), 100));
    }
    // The last step needs an end.
    xs.push(this.offset + Math.min(busy.length, last) * point);
    held.push(held[held.length - 1]);
    waits.push(waits[waits.length - 1]);
    return [xs, held, waits];
  },

  options(most) {
    const { left, right, narrow } = timeline.margins();
    const colour = (n, alpha) => rgb(palette.colours[n], alpha);
    const [ink, rule] = [rgb(themed('--soft')), rgb(themed('--rule'))];
    const axis = { stroke: ink, font: '11px system-ui, sans-serif', ticks: { show: false }, gap: 4 };
    const stepped = uPlot.paths.stepped({ align: 1 });
    return {
      width: $('tracks-scroll').clientWidth, height: narrow ? 120 : 150, padding: [8, 0, 0, 0], legend: { show: false },
      cursor: { y: false, points: { show: false }, drag: { x: true, y: false, setScale: false } },
      scales: { x: { time: false, auto: false, min: timeline.view.from, max: timeline.view.to }, busy: { range: [0, 1.06] }, waits: { range: [0, Math.ceil(most) * 1.06] } },
      axes: [
        { ...axis, size: 24, incrs: MARKS, grid: { stroke: rule, width: 1 }, space: narrow ? 60 : 90, values: (_, at) => at.map((t) => figures.at(t, (timeline.view.to - timeline.view.from) * 10)) },
        { ...axis, scale: 'busy', size: left, splits: () => [0, 0.5, 1], grid: { stroke: rule, width: 1 }, values: (_, at) => at.map((x) => (x ? `${x * 100}\u202f%` : '')) },
        { ...axis, scale: 'waits', side: 1, size: right, grid: { show: false }, splits: () => [0, Math.ceil(most)], values: (_, at) => at.map((x) => (x ? grouped(x) : '')) },
      ],
      series: [{}, { scale: 'busy', paths: stepped, stroke: colour(BUSY), fill: colour(BUSY, 0.35), width: 1, points: { show: false } },
        { scale: 'waits', paths: stepped, stroke: colour(WAITS), width: 2, points: { show: false } }],
      hooks: {
        setSelect: [(chart) => {
          const { left: x, width } = chart.select;
          if (width > 2) timeline.setView(chart.posToVal(x, 'x'), chart.posToVal(x + width, 'x'));
          chart.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
        }],
        setCursor: [(chart) => this.describe(chart)],
      },
    };
  },

  describe(chart) {
    const { idx, left, top } = chart.cursor;
    if (idx === null || idx === undefined || left < 0) return tip.hide();
    const box = chart.over.getBoundingClientRect();
    const [, busy, waiters] = chart.data;
    tip.show(box.left + left, box.top + top, [figures.at(chart.data[0][idx], timeline.view.to - timeline.view.from), `GIL held ${figures.percent(busy[idx] ?? NaN)}`, `${figures.mean(waiters[idx] ?? NaN)} threads waiting`]);
  },

  // Follows the tracks.
  setView(from, to) {
    if (!this.chart) return;
    const { min, max } = this.chart.scales.x;
    if (min === from && max === to) return;
    this.chart.batch(() => {
      this.chart.setData(this.steps(from, to), false);
      this.chart.setScale('x', { min: from, max: to });
    });
  },
};
