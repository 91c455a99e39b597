// The tracks: draws the visible range of time, moves it by pointer, wheel and keys, and describes
// the span under the pointer.

const ROW = { wide: { height: 22, bar: 17, label: 0 }, narrow: { height: 34, bar: 17, label: 15 } };
const SHORTEST = 20e-6;

const timeline = {
  // Room for names at the left and for the second axis at the right; the chart above uses the same.
  margins() {
    const narrow = $('tracks-scroll').clientWidth < 640;
    return { narrow, left: narrow ? 42 : 150, right: narrow ? 34 : 44 };
  },

  plotWidth() {
    const { left, right } = this.margins();
    return Math.max(10, $('tracks-scroll').clientWidth - left - right);
  },

  // The tracks, of all processes, and the process whose GIL is in the chart. Another process of the
  // same tracks leaves the visible range as it is.
  show(tracks, process, leftOut) {
    this.leftOut = leftOut;
    if (this.tracks !== tracks) {
      this.tracks = tracks;
      this.view = { from: 0, to: tracks.seconds };
      this.cursor = null;
      $('track-description').textContent = '';
    }
    gilChart.show(process.timeline, tracks.parts ? process.offset : 0);
    this.draw();
  },

  setView(from, to) {
    const { seconds } = this.tracks;
    const span = Math.max(SHORTEST, Math.min(seconds, to - from));
    from = Math.max(0, Math.min(seconds - span, from));
    this.view = { from, to: from + span };
    this.redraw();
  },

  zoom(factor, around) {
    const { from, to } = this.view;
    const fixed = around ?? (this.cursor ? this.cursor.time : (from + to) / 2);
    this.setView(fixed - (fixed - from) * factor, fixed + (to - fixed) * factor);
  },

  move(part) {
    const by = (this.view.to - this.view.from) * part;
    this.setView(this.view.from + by, this.view.to + by);
  },

  draw() {
    const canvas = $('tracks');
    const { narrow, left } = this.margins();
    const row = narrow ? ROW.narrow : ROW.wide;
    const width = Math.max(200, $('tracks-scroll').clientWidth);
    const height = Math.max(row.height, this.tracks.list.length * row.height);
    const scale = canvasOf(canvas, width, height);
    const context = canvas.getContext('2d');
    this.place = { left, row, width, plot: this.plotWidth() };
    this.bars(context, scale);
    this.labels(context, scale);
    this.marks(context, scale);
    const { from, to } = this.view;
    const detail = this.tracks.exact ? 'every span' : `columns of ${figures.length(this.tracks.width)}`;
    $('view').textContent = `${figures.at(from, to - from)} – ${figures.at(to, to - from)} of ${figures.length(this.tracks.seconds)}, ${detail}${this.leftOut ? `; ${grouped(this.leftOut)} less busy threads are not drawn` : ''}`;
    canvas.setAttribute('aria-label', `Tracks of ${this.tracks.list.filter((track) => !track.heading).length} threads, from ${figures.at(from, to - from)} to ${figures.at(to, to - from)}`);
    gilChart.setView(from, to);
    if ($('visible-range').open) this.table();
  },

  // A column of pixels is divided among the states by their shares in its part of the time.
  bars(context, scale) {
    const { left, row, plot } = this.place;
    const [pixels, bar] = [Math.round(plot * scale), Math.max(1, Math.round(row.bar * scale))];
    const colours = palette.colours.map(([r, g, b]) => (255 << 24) | (b << 16) | (g << 8) | r);
    const step = (this.view.to - this.view.from) / pixels;
    const sums = new Float64Array(STATES);
    this.tracks.list.forEach((track, n) => {
      if (track.heading) return;
      const image = context.createImageData(pixels, bar);
      const buffer = new Uint32Array(image.data.buffer);
      for (let x = 0; x < pixels; x++) {
        this.tracks.within(track, this.view.from + x * step, this.view.from + (x + 1) * step, sums);
        let [y, sum] = [0, 0];
        for (let s = 0; s < STATES; s++) {
          if (!sums[s]) continue;
          sum += sums[s];
          for (const end = Math.min(bar, Math.round((sum / step) * bar)); y < end; y++) buffer[y * pixels + x] = colours[s];
        }
      }
      context.putImageData(image, Math.round(left * scale), Math.round((n * row.height + row.label) * scale));
    });
  },

  labels(context, scale) {
    const { left, row, width } = this.place;
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.fillStyle = rgb(themed('--ink'));
    context.font = '12px system-ui, sans-serif';
    context.textBaseline = 'middle';
    const room = row.label ? width - left : left - 12;
    this.tracks.list.forEach((track, n) => {
      const y = n * row.height + (row.label ? row.label / 2 : row.bar / 2);
      if (track.heading) return this.headingAt(context, track, n * row.height, width);
      context.fillText(cut(context, track.name || String(track.tid), room), row.label ? left : 0, y + 0.5);
    });
  },

  // A process above its threads.
  headingAt(context, track, top, width) {
    const { font } = context;
    const bottom = top + this.place.row.height - 6;
    context.font = `600 ${font}`;
    context.fillText(cut(context, `${track.heading}: ${track.about}`, width), 0, bottom - 6);
    context.font = font;
    context.fillRect(0, bottom + 2, width, 0.5);
  },

  marks(context, scale) {
    if (!this.cursor) return;
    const { left, row, plot } = this.place;
    const x = left + ((this.cursor.time - this.view.from) / (this.view.to - this.view.from)) * plot;
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.strokeStyle = rgb(themed('--ink'));
    context.lineWidth = 1.5;
    context.strokeRect(left - 1, this.cursor.track * row.height + row.label - 1, plot + 2, row.bar + 2);
    if (x >= left && x <= left + plot) {
      context.beginPath();
      context.moveTo(x, 0);
      context.lineTo(x, this.tracks.list.length * row.height);
      context.stroke();
    }
  },

  // The track and the time under the pointer.
  under(event) {
    const box = $('tracks').getBoundingClientRect();
    const { left, row, plot } = this.place;
    const part = (event.clientX - box.left - left) / plot;
    return { track: Math.floor((event.clientY - box.top) / row.height), time: this.view.from + part * (this.view.to - this.view.from), inside: part >= 0 && part <= 1 };
  },

  // What a thread did at a time, as lines of text.
  description(number, time) {
    const track = this.tracks.list[number];
    const found = this.tracks.at(number, time);
    if (!track) return null;
    if (track.heading) return [track.heading, track.about];
    const title = `${track.name || track.tid} at ${figures.at(time, this.view.to - this.view.from)}`;
    if (!found || found.state === null) return [title, 'not sampled'];
    const { label } = palette.states[found.state];
    const lines = [title, found.shares ? `mostly ${label} in this column of ${figures.length(found.to - found.from)}` : `${label} for ${figures.length(found.to - found.from)}`];
    if (found.shares) lines.push([...found.shares].map((x, s) => [x, s]).filter(([x]) => x >= 0.005).map(([x, s]) => `${palette.states[s].label} ${figures.percent(x)}`).join(', '));
    if (found.place) lines.push(`in ${found.place}`);
    if (found.holder) lines.push(`GIL held by ${found.holder}`);
    return lines;
  },

  step(direction) {
    const { track, time } = this.cursor;
    const found = this.tracks.at(track, time);
    if (!found) return;
    const to = direction > 0 ? found.to + 1e-7 : found.from - 1e-6;
    this.select(track, Math.max(0, Math.min(this.tracks.seconds, to)));
  },

  // Moves the cursor and describes what is there.
  select(track, time) {
    const last = this.tracks.list.length - 1;
    this.cursor = { track: Math.max(0, Math.min(last, track)), time };
    const { from, to } = this.view;
    if (time < from || time > to) this.setView(time - (to - from) / 2, time + (to - from) / 2);
    $('track-description').textContent = (this.description(this.cursor.track, time) ?? []).join('; ');
    this.redraw();
  },

  table() {
    const sums = new Float64Array(STATES);
    const rows = this.tracks.list.filter((track) => !track.heading).map((track) => {
      this.tracks.within(track, this.view.from, this.view.to, sums);
      return [track, [...sums]];
    });
    const seen = palette.states.map((_, n) => n).filter((n) => rows.some(([, row]) => row[n] > 0));
    fill($('visible-range-table'),
      el('thead', {}, el('tr', {}, el('th', { scope: 'col', text: 'Thread' }), seen.map((n) => el('th', { scope: 'col', class: 'n', text: palette.states[n].short })))),
      el('tbody', {}, rows.map(([track, row]) => el('tr', { 'data-tid': track.tid, 'data-pid': track.pid },
        el('th', { scope: 'row', text: `${this.tracks.parts ? `${track.pid}: ` : ''}${track.name || track.tid}` }), seen.map((n) => el('td', { class: 'n', 'data-state': n, 'data-seconds': row[n].toFixed(6), text: figures.seconds(row[n]) }))))));
  },

  key(event) {
    const { from, to } = this.view;
    const middle = (from + to) / 2;
    const cursor = this.cursor ?? { track: 0, time: middle };
    const keys = {
      '+': () => this.zoom(0.5), '=': () => this.zoom(0.5), '-': () => this.zoom(2), '0': () => this.setView(0, this.tracks.seconds),
      ArrowLeft: () => this.move(-0.2), ArrowRight: () => this.move(0.2), Home: () => this.setView(0, to - from), End: () => this.setView(this.tracks.seconds, this.tracks.seconds + 1),
      ArrowUp: () => this.select(this.cursor ? cursor.track - 1 : 0, cursor.time), ArrowDown: () => this.select(this.cursor ? cursor.track + 1 : 0, cursor.time),
      '.': () => (this.cursor ? this.step(1) : this.select(0, middle)), ',': () => (this.cursor ? this.step(-1) : this.select(0, middle)),
      Escape: () => { this.cursor = null; $('track-description').textContent = ''; this.redraw(); },
    };
    const act = event.ctrlKey || event.metaKey || event.altKey ? null : keys[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  },

  // Called once; all processes use the same canvas.
  listen() {
    const canvas = $('tracks');
    this.redraw = perFrame(() => this.draw());
    canvas.addEventListener('keydown', (event) => this.key(event));
    let held = null;
    canvas.addEventListener('pointerdown', (event) => {
      held = { x: event.clientX, view: this.view, moved: false, at: this.under(event) };
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener('pointermove', (event) => {
      if (held) {
        const by = ((held.x - event.clientX) / this.place.plot) * (held.view.to - held.view.from);
        held.moved ||= Math.abs(event.clientX - held.x) > 3;
        if (held.moved) this.setView(held.view.from + by, held.view.to + by);
      }
      const at = this.under(event);
      const lines = at.inside && !(held && held.moved) ? this.description(at.track, at.time) : null;
      lines ? tip.show(event.clientX, event.clientY, lines) : tip.hide();
    });
    canvas.addEventListener('pointerup', () => {
      if (held && !held.moved && held.at.inside) this.select(held.at.track, held.at.time);
      held = null;
    });
    canvas.addEventListener('pointercancel', () => (held = null));
    canvas.addEventListener('pointerleave', tip.hide);
    // Without focus or Ctrl the wheel scrolls the page, which would otherwise stop at the tracks.
    canvas.addEventListener('wheel', (event) => {
      if (document.activeElement !== canvas && !event.ctrlKey) return;
      event.preventDefault();
      if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) this.move(event.deltaX / this.place.plot);
      else this.zoom(1.0015 ** event.deltaY, this.under(event).time);
    }, { passive: false });
    const moves = { in: () => this.zoom(0.5), out: () => this.zoom(2), left: () => this.move(-0.25), right: () => this.move(0.25), all: () => this.setView(0, this.tracks.seconds) };
    document.querySelectorAll('[data-move]').forEach((button) => button.addEventListener('click', () => moves[button.dataset.move]()));
    $('visible-range').addEventListener('toggle', () => this.redraw());
  },
};

// A text that fits into the room; a longer one loses its middle.
function cut(context, text, room) {
  if (context.measureText(text).width <= room) return text;
  let [low, high] = [0, text.length];
  const shape = (n) => `${text.slice(0, Math.ceil(n / 2))}…${n > 1 ? text.slice(-Math.floor(n / 2)) : ''}`;
  while (low + 1 < high) {
    const middle = (low + high) >> 1;
    if (context.measureText(shape(middle)).width <= room) low = middle;
    else high = middle;
  }
  return shape(low);
}
