// Figures as text, by the rules of src/output/numbers.rs: an unknown figure is a dash and a tiny one
// begins with `<`; neither is ever 0.

const NONE = '–';
const NOISE = 0.0005;
const finite = (x) => typeof x === 'number' && Number.isFinite(x);

// Digits in groups of three, separated by a narrow space that does not break.
const grouped = (n) => String(Math.round(n)).replace(/\B(?=(\d{3})+(?!\d))/g, '\u202f');

const figures = {
  // A share as per cent with one decimal: 33.4, <0.1, 0.
  share(x) {
    if (!finite(x)) return NONE;
    if (x < NOISE) return '0';
    if (x >= 1 - NOISE) return '100';
    return x < 0.001 ? '<0.1' : (x * 100).toFixed(1);
  },
  percent(x) {
    const p = figures.wholePercent(x);
    return p === NONE ? p : `${p}\u202f%`;
  },
  wholePercent(x) {
    if (!finite(x)) return NONE;
    if (x >= NOISE && x < 0.005) return '<1';
    if (x >= 0.995 && x < 1 - NOISE) return '>99';
    return String(Math.round(x * 100));
  },
  // Threads on average.
  mean(x) {
    if (!finite(x)) return NONE;
    if (x < NOISE) return '0';
    return x < 0.005 ? '<.01' : x.toFixed(2);
  },
  ms(x) {
    if (!finite(x)) return NONE;
    if (x > 0 && x < 0.05) return '<0.1\u202fms';
    return x < 9.95 ? `${x.toFixed(1)}\u202fms` : `${grouped(x)}\u202fms`;
  },
  // A length of time, in a suitable unit.
  length(s) {
    if (!finite(s)) return NONE;
    if (s > 0 && s < 1e-3) return `${Math.max(1, Math.round(s * 1e6))}\u202fµs`;
    if (s < 0.995) return `${s < 0.00995 ? (s * 1e3).toFixed(2) : s < 0.0995 ? (s * 1e3).toFixed(1) : Math.round(s * 1e3)}\u202fms`;
    if (s < 120) return `${s < 10 ? s.toFixed(2) : s.toFixed(1)}\u202fs`;
    return s < 7200 ? `${grouped(s / 60)}\u202fmin` : `${(s / 3600).toFixed(1)}\u202fh`;
  },
  seconds(s) {
    if (!finite(s)) return NONE;
    if (s < 1e-9) return '0';
    if (s < 0.005) return '<.01';
    return s < 100 ? s.toFixed(2) : grouped(s);
  },
  factor: (x) => (finite(x) ? `${x.toFixed(1)}×` : NONE),
  interval: (e) => `${e.low.toFixed(1)} – ${e.high.toFixed(1)}`,
  count(x) {
    if (!finite(x)) return NONE;
    return x < 9.95 && Math.abs(x - Math.round(x)) >= 0.05 ? x.toFixed(1) : grouped(Math.max(0, x));
  },
  // A time since the window's begin, with the decimals that the visible range needs.
  at(s, span) {
    const decimals = Math.max(0, Math.min(6, Math.ceil(-Math.log10(Math.max(span, 1e-9) / 200))));
    if (span > 600) {
      const whole = Math.floor(s);
      const two = (n) => String(n).padStart(2, '0');
      return `${Math.floor(whole / 3600)}:${two(Math.floor(whole / 60) % 60)}:${two(whole % 60)}`;
    }
    return `${s.toFixed(decimals)}\u202fs`;
  },
};
