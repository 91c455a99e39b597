// The flame graph of folded stacks, with a switch for the kind of time, search, zoom and a table. The
// root is at the top, as in the SVG (see src/output/flamegraph.rs).

const FRAME = 19;
const MODES = { holding: 'Holding', waiting: 'Waiting', native: 'Native', wall: 'All time', blame: 'Blame' };

// A tree as arrays in preorder: the descendants of a node follow it up to `end`.
class Tree {
  constructor({ packed, micros, weight, least, leftOut, legend }, names) {
    const numbers = unpack(packed);
    const count = numbers.length / 3;
    Object.assign(this, { names, micros, weight, least, leftOut, legend, count, name: new Uint32Array(count), time: new Float64Array(count), start: new Float64Array(count) });
    Object.assign(this, { depth: new Uint16Array(count), parent: new Int32Array(count).fill(-1), end: new Uint32Array(count), self: new Float64Array(count) });
    const open = [];
    for (let n = 0; n < count; n++) {
      [this.name[n], this.time[n]] = [numbers[3 * n], numbers[3 * n + 1]];
      this.self[n] = this.time[n];
      const above = open[open.length - 1];
      if (above) {
        this.parent[n] = above.node;
        this.start[n] = above.at;
        above.at += this.time[n];
        above.left--;
        this.self[above.node] -= this.time[n];
      }
      this.depth[n] = open.length;
      open.push({ node: n, at: this.start[n], left: numbers[3 * n + 2] });
      while (open.length && !open[open.length - 1].left) this.end[open.pop().node] = n + 1;
    }
  }

  text(n) {
    return n === 0 ? 'all threads' : this.names[this.name[n]][0];
  }

  children(n) {
    const out = [];
    for (let child = n + 1; child < this.end[n]; child = this.end[child]) out.push(child);
    return out;
  }
}

// The colour of a state by its number; the number after the last state is the neutral colour.
const stateColour = (state) => (state < STATES ? palette.states[state].rgb : palette.neutral);

const flame = {
  show(flames) {
    this.flames = flames;
    this.trees = {};
    this.mode = flames.trees.find((tree) => tree.mode === 'holding' && tree.micros)?.mode ?? 'wall';
    fill($('flame-modes'), el('legend', { class: 'quiet', text: 'Kind of time' }), flames.trees.map(({ mode, micros }) => el('label', {},
      el('input', { type: 'radio', name: 'mode', value: mode, checked: mode === this.mode, disabled: !micros, onchange: () => this.setMode(mode) }), el('span', { text: MODES[mode] }))));
    this.setMode(this.mode);
  },

  setMode(mode) {
    this.mode = mode;
    this.tree = this.trees[mode] ??= new Tree(this.flames.trees.find((tree) => tree.mode === mode), this.flames.names);
    this.root = this.focus = 0;
    this.showLegend();
    this.find();
  },

  // The colours and marks that occur in this tree, as the SVG explains them.
  showLegend() {
    fill($('flame-legend'), this.tree.legend.map(([state, text]) => {
      const [, mark, meaning] = /^(\[[^\]]*\])? ?(.*)$/.exec(text);
      return el('li', {}, el('i', { class: 'swatch', style: { background: rgb(stateColour(state)) } }), el('span', {}, mark ? el('span', { class: 'code', text: mark }) : null, ` ${meaning}`));
    }));
  },

  // Sums the outermost frames that match; a match inside another is not counted again.
  find() {
    const query = $('flame-search').value.trim().toLowerCase();
    this.matches = null;
    if (query) {
      this.matches = new Set();
      this.matched = 0;
      for (let n = 1, covered = 0; n < this.tree.count; n++) {
        if (!this.tree.text(n).toLowerCase().includes(query)) continue;
        this.matches.add(n);
        if (n < covered) continue;
        this.matched += this.tree.time[n];
        covered = this.tree.end[n];
      }
    }
    this.redraw();
  },

  zoomInto(n) {
    this.root = this.focus = n;
    this.redraw();
  },

  // The position of a frame; null for a frame out of sight.
  box(n) {
    const { tree, root, width } = this;
    const above = n < root && tree.end[n] > root;
    if (!above && !(n >= root && n < tree.end[root])) return null;
    const scale = width / (tree.time[root] || 1);
    const [x, w] = above ? [0, width] : [(tree.start[n] - tree.start[root]) * scale, tree.time[n] * scale];
    return w < 0.4 ? null : { x, w, y: tree.depth[n] * FRAME, above };
  },

  draw() {
    const { tree } = this;
    this.width = Math.max(200, $('flame-scroll').clientWidth);
    let deepest = 0;
    const boxes = [];
    for (let n = 0; n < tree.count; n++) {
      const box = this.box(n);
      if (box) {
        boxes.push([n, box]);
        deepest = Math.max(deepest, tree.depth[n]);
      }
    }
    const canvas = $('flame');
    const scale = canvasOf(canvas, this.width, (deepest + 1) * FRAME + 2);
    const context = canvas.getContext('2d');
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.font = '12px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace';
    context.textBaseline = 'middle';
    const letter = context.measureText('m').width;
    boxes.forEach(([n, box]) => this.frame(context, n, box, letter));
    this.describe();
    if ($('flame-figures').open) this.table();
  },

  colour(n) {
    if (n === 0) return palette.neutral;
    const [text, state, shade] = this.tree.names[this.tree.name[n]];
    const base = stateColour(state);
    return text.startsWith('[') ? base : base.map((c) => Math.max(0, Math.min(255, c + shade)));
  },

  frame(context, n, { x, w, y, above }, letter) {
    let colour = this.colour(n);
    if (above || (this.matches && !this.matches.has(n))) colour = blend(colour, palette.paper, 0.35);
    context.fillStyle = rgb(colour);
    context.fillRect(x, y, Math.max(0.5, w - (w > 3 ? 1 : 0)), FRAME - 1);
    if (n === this.focus && document.activeElement === $('flame')) {
      context.strokeStyle = rgb(themed('--ink'));
      context.lineWidth = 2;
      context.strokeRect(x + 1, y + 1, Math.max(2, w - 3), FRAME - 3);
    }
    const letters = Math.floor((w - 8) / letter);
    if (letters < 3) return;
    const text = this.tree.text(n);
    context.fillStyle = textColourOn(colour);
    context.fillText(text.length > letters ? `${text.slice(0, letters - 1)}…` : text, x + 4, y + FRAME / 2);
  },

  part(n) {
    return this.tree.micros ? this.tree.time[n] / this.tree.micros : 0;
  },

  describe() {
    const { tree, root, focus } = this;
    const about = (n) => `${tree.text(n)}: ${figures.length(tree.time[n] / 1e6)}, ${figures.share(this.part(n))} % of ${tree.weight}`;
    const lines = [about(document.activeElement === $('flame') ? focus : root)];
    if (this.matches) lines.push(`matches in ${grouped(this.matches.size)} frames, ${figures.share(tree.micros ? this.matched / tree.micros : 0)} % of the time`);
    if (tree.leftOut) lines.push(`${grouped(tree.leftOut)} frames of ${figures.length(tree.least / 1e6)} or less are not drawn; their callers include their time`);
    announce($('flame-where'), lines.join('; '));
    $('flame-reset').disabled = root === 0;
    $('flame').setAttribute('aria-label', `Flame graph of ${tree.weight}, ${figures.length(tree.micros / 1e6)} in total`);
    $('flame').dataset.micros = tree.time[root];
  },

  at(event) {
    const box = $('flame').getBoundingClientRect();
    const [x, depth] = [event.clientX - box.left, Math.floor((event.clientY - box.top) / FRAME)];
    for (let n = 0; n < this.tree.count; n++) {
      if (this.tree.depth[n] !== depth) continue;
      const found = this.box(n);
      if (found && x >= found.x && x < found.x + found.w) return n;
    }
    return null;
  },

  // Self and total time by name, below the zoomed frame. The total counts a stack once, however often
  // the name is on it.
  table() {
    const { tree, root } = this;
    const sums = new Map();
    const open = new Map();
    const path = [];
    for (let n = root; n < tree.end[root]; n++) {
      while (path.length && tree.end[path[path.length - 1]] <= n) {
        const text = tree.text(path.pop());
        open.set(text, open.get(text) - 1);
      }
      const text = tree.text(n);
      const sum = sums.get(text) ?? { self: 0, all: 0 };
      sum.self += tree.self[n];
      if (!open.get(text)) sum.all += tree.time[n];
      open.set(text, (open.get(text) ?? 0) + 1);
      sums.set(text, sum);
      path.push(n);
    }
    const rows = [...sums].sort((a, b) => b[1].self - a[1].self || b[1].all - a[1].all).slice(0, 30);
    fill($('flame-table'),
      el('thead', {}, el('tr', {}, ['Frame', 'self', 'total'].map((head, n) => el('th', { scope: 'col', class: n ? 'n' : '', text: head })))),
      el('tbody', {}, rows.map(([text, sum]) => el('tr', {}, el('th', { scope: 'row', class: 'code', text }),
        [sum.self, sum.all].map((micros) => el('td', { class: 'n', 'data-micros': Math.round(micros), text: figures.length(micros / 1e6) }))))));
  },

  key(event) {
    const { tree, focus } = this;
    const walk = (by) => {
      const siblings = focus > this.root ? tree.children(tree.parent[focus]) : [focus];
      return siblings[siblings.indexOf(focus) + by];
    };
    const keys = {
      ArrowDown: () => tree.children(focus)[0], ArrowUp: () => (focus > 0 ? tree.parent[focus] : undefined),
      ArrowRight: () => walk(1), ArrowLeft: () => walk(-1), Home: () => 0,
      Enter: () => (this.zoomInto(focus), undefined), ' ': () => (this.zoomInto(focus), undefined), Escape: () => (this.zoomInto(this.root > 0 ? tree.parent[this.root] : 0), undefined),
    };
    const act = event.ctrlKey || event.metaKey || event.altKey ? null : keys[event.key];
    if (!act) return;
    event.preventDefault();
    const to = act();
    if (to !== undefined) {
      this.focus = to;
      if (!this.box(to)) this.root = to;
      this.redraw();
    }
  },

  listen() {
    const canvas = $('flame');
    this.redraw = perFrame(() => this.draw());
    canvas.addEventListener('keydown', (event) => this.key(event));
    ['focus', 'blur'].forEach((name) => canvas.addEventListener(name, () => this.redraw()));
    canvas.addEventListener('click', (event) => {
      const n = this.at(event);
      if (n !== null) this.zoomInto(n);
    });
    canvas.addEventListener('pointermove', (event) => {
      const n = this.at(event);
      canvas.style.cursor = n === null ? 'default' : 'pointer';
      if (n === null) return tip.hide();
      tip.show(event.clientX, event.clientY, [this.tree.text(n), `${figures.length(this.tree.time[n] / 1e6)}, ${figures.share(this.part(n))} % of ${this.tree.weight}`,
        this.tree.self[n] > 0 ? `self ${figures.length(this.tree.self[n] / 1e6)}` : '']);
    });
    canvas.addEventListener('pointerleave', tip.hide);
    $('flame-search').addEventListener('input', () => this.find());
    $('flame-reset').addEventListener('click', () => this.zoomInto(0));
    $('flame-figures').addEventListener('toggle', () => this.redraw());
  },
};
