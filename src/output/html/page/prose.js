// Sentences and names of the report as a page shows them.

// The terminal's x and hyphens as a page has them; an interval is not broken at its dash.
const typeset = (text) => text.replace(/(\d)x\b/g, '$1×').replace(/(\d) - (\d)/g, '$1\u2060–\u2060$2');

// Text with `code` between backticks, as nodes. A backtick without a partner stays a character.
function prose(text) {
  const parts = text.split('`');
  const last = parts.length % 2 ? parts.length : parts.length - 1;
  const nodes = parts.slice(0, last).map((part, n) => (n % 2 ? el('code', { text: part }) : part));
  return last < parts.length ? [...nodes, `\`${parts[last]}`] : nodes;
}

// A name that may wrap after its underscores and dots.
function name(text, className) {
  const parts = text.split(/(?<=[_.])(?=[^_.])/);
  return el('span', { class: className, title: text }, parts.flatMap((part, n) => (n ? [el('wbr'), part] : [part])));
}

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1);
