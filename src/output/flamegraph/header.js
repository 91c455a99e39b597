// Lays out the header for the width of the window: breaks the title and the subtitle into lines,
// flows the legend, and moves the frames below both. Runs again when the width changes.
window.addEventListener('load', function () {
  var PAD = 10, LINE = 16, CONTROLS = 210, UNZOOM = 120, NARROW = 760;
  var root = document.documentElement, base = document.getElementById('legend').dataset;
  var byId = function (id) { return document.getElementById(id); };

  // Breaks the text of a node into lines that fit; returns how many there are. The font is
  // monospace, so one measurement serves every width.
  function wrap(node, x, y, step, width) {
    var text = node.dataset.text = node.dataset.text || node.textContent;
    var letter = node.dataset.letter = node.dataset.letter || node.getComputedTextLength() / text.length || 7.2;
    var columns = Math.max(8, Math.floor(width / letter)), lines = [''];
    text.split(' ').forEach(function (word) {
      var last = lines.length - 1;
      if (!lines[last]) lines[last] = word;
      else if (lines[last].length + 1 + word.length <= columns) lines[last] += ' ' + word;
      else lines.push(word);
      for (last = lines.length - 1; lines[last].length > columns; last++) {
        lines.push(lines[last].slice(columns));
        lines[last] = lines[last].slice(0, columns);
      }
    });
    node.replaceChildren.apply(node, lines.map(function (line, n) {
      var span = document.createElementNS('http://www.w3.org/2000/svg', 'tspan');
      span.setAttribute('x', x);
      span.setAttribute('y', y + n * step);
      span.textContent = line;
      return span;
    }));
    return lines.length;
  }

  // Places the entries of the legend from left to right; returns the last line's baseline.
  function flow(y, width) {
    var x = PAD, tallest = 1;
    document.querySelectorAll('#legend > g').forEach(function (entry) {
      var text = entry.querySelector('text');
      var lines = wrap(text, LINE, 0, LINE - 2, width - PAD - LINE);
      var room = LINE + (lines > 1 ? width : text.getComputedTextLength());
      if (x > PAD && x + room > width) {
        y += LINE + (tallest - 1) * (LINE - 2);
        x = PAD;
        tallest = 1;
      }
      entry.setAttribute('transform', 'translate(' + x + ',' + y + ')');
      x += room + LINE + 2;
      tallest = Math.max(tallest, lines);
    });
    return y + (tallest - 1) * (LINE - 2);
  }

  function layout() {
    var width = root.getBoundingClientRect().width, y = 24;
    y += 20 * wrap(byId('title'), '50%', y, 20, width - 2 * PAD) + 2;
    y += LINE * wrap(byId('subtitle'), '50%', y, LINE, width - 2 * PAD) + 10;
    ['search', 'unzoom'].forEach(function (id) { byId(id).setAttribute('y', y); });
    byId('search').setAttribute('x', width - PAD);
    byId('unzoom').setAttribute('x', width - PAD - UNZOOM);
    y = width < NARROW ? flow(y + 24, width - PAD) : flow(y, width - CONTROLS);
    y += 22;
    byId('details').setAttribute('y', y);
    var moved = y + 8 - base.top, height = Number(base.height) + moved;
    byId('frames').setAttribute('y', moved);
    byId('matched').setAttribute('y', height - 11);
    root.setAttribute('height', height);
  }

  // After inferno's own script, which makes the width follow the window.
  setTimeout(function () { layout(); window.addEventListener('resize', layout); }, 0);
});
