// The base of every part of the page: elements made from text only, and colours that the styles and
// the canvases share.

const $ = (id) => document.getElementById(id);

// An element with properties and children. Strings become text nodes: nothing here parses markup.
function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === 'class') node.className = value;
    else if (name === 'text') node.textContent = value;
    else if (name === 'style') for (const [key, v] of Object.entries(value)) node.style.setProperty(key, v);
    else if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? '' : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

// Replaces the children of a node; a table keeps its caption.
function fill(node, ...children) {
  const caption = node.tagName === 'TABLE' ? node.caption : null;
  node.replaceChildren(...(caption ? [caption] : []), ...children.flat().filter(Boolean));
}

// Sets the text of a live region; a screen reader does not repeat unchanged text.
function announce(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

const rgb = ([r, g, b], alpha = 1) => (alpha === 1 ? `rgb(${r}, ${g}, ${b})` : `rgba(${r}, ${g}, ${b}, ${alpha})`);

// Black or white, the one with more contrast on a colour; it always has WCAG's contrast of 4.5.
function textColourOn([r, g, b]) {
  const part = (c) => ((c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  const luminance = 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  return luminance > 0.179 ? '#000' : '#fff';
}

// A style variable in the present theme, as [r, g, b].
function themed(name) {
  const probe = el('i', { style: { color: `var(${name})`, display: 'none' } });
  document.body.append(probe);
  const parts = getComputedStyle(probe).color.match(/[\d.]+/g).map(Number);
  probe.remove();
  return parts.slice(0, 3);
}

const blend = (over, under, alpha) => over.map((c, n) => Math.round(c * alpha + under[n] * (1 - alpha)));

// Colours of the one palette, by the number of the state. Idle states are blended with the background
// of either theme.
const palette = {
  states: [],
  read(data) {
    this.states = data.states;
    this.neutral = data.neutral;
    this.apply();
  },
  // Called again when the theme changes.
  apply() {
    const paper = themed('--card');
    this.colours = this.states.map((s) => (s.quiet ? blend(s.rgb, paper, document.documentElement.dataset.theme === 'dark' ? 0.22 : 0.6) : s.rgb));
    this.colours.push(this.neutral);
    this.paper = paper;
    this.colours.forEach((c, n) => document.documentElement.style.setProperty(`--s${n}`, rgb(c)));
  },
};

// A legend of the states that occur.
function legendOf(list, states) {
  fill(list, states.map((n) => el('li', {}, el('i', { class: 'swatch', style: { background: `var(--s${n})` } }), palette.states[n].short)));
}

// Sets the size of a canvas in CSS pixels. Its backing store has the screen's resolution, within the
// limit of browsers.
function canvasOf(canvas, width, height) {
  const most = 16e6 / Math.max(1, width * height);
  const scale = Math.max(0.5, Math.min(window.devicePixelRatio || 1, Math.sqrt(most)));
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  return scale;
}

// The box beside the pointer. The first line is its title.
const tip = {
  show(x, y, lines) {
    const box = $('tip');
    fill(box, lines.filter(Boolean).map((line, n) => (typeof line === 'string' ? el('p', { class: n ? '' : 'first', text: line }) : line)));
    box.hidden = false;
    const { offsetWidth: w, offsetHeight: h } = box;
    box.style.left = `${Math.max(4, x + 14 + w > innerWidth ? x - w - 10 : x + 14)}px`;
    box.style.top = `${Math.max(4, y + 14 + h > innerHeight ? y - h - 10 : y + 14)}px`;
  },
  hide() {
    $('tip').hidden = true;
  },
};

// Runs at most once per frame, however often it is called.
function perFrame(work) {
  let pending = false;
  return () => {
    if (pending) return;
    pending = true;
    requestAnimationFrame(() => {
      pending = false;
      work();
    });
  };
}
