// The card at the top: the verdict, its evidence, the advice, the predicted gain and the confidence;
// then the GIL's figures and the other findings.

const CONFIDENCE = { high: 'The evidence is plain.', medium: 'The evidence leaves some room.', low: 'The evidence is thin.' };
const GAINS = [['processes', 'In processes'], ['free_threading', 'Free-threaded Python'], ['release_in_native', 'GIL released in C']];

// What to do, each step with its code.
function verdictSteps(verdict) {
  const sketch = (lines) => el('pre', { tabindex: '0', 'aria-label': 'Sketch of the code' }, el('code', { text: lines.join('\n') }));
  const step = (text, n) => el('li', {}, el('p', {}, prose(typeset(text))), verdict.sketches?.filter((one) => one.step === n).map((one) => sketch(one.lines)));
  return [verdict.next_steps.length ? el('h2', { text: 'What to do' }) : null, el('ol', { class: 'steps' }, verdict.next_steps.map(step))];
}

function showVerdict(process) {
  const { report } = process;
  const { verdict } = report;
  const card = $('verdict');
  card.style.setProperty('--tone', `var(--s${process.tone})`);
  $('banner').textContent = process.banner;
  $('banner').style.color = textColourOn(palette.colours[process.tone]);
  fill($('headline'), prose(sentence(typeset(process.headline))));
  fill($('because'), verdict.because.map((fact) => el('li', {}, prose(fact))));
  fill($('steps'), verdictSteps(verdict));
  $('steps').querySelectorAll('pre').forEach((sketch) => scrolling.watch(sketch));
  showGains(verdict, report.what_if ?? []);
  const saturation = verdict.gil_saturates_at;
  const around = verdict.gil_saturates_at_interval;
  fill($('sure'),
    pair('Confidence', verdict.confidence, CONFIDENCE[verdict.confidence]),
    pair('The GIL saturates at', finite(saturation) ? threadCount(saturation) : NONE, finite(saturation) ? saturationNote(around) : 'Not known: no thread holds the GIL, or the samples are too few.'));
}

const threadCount = (count) => (figures.count(count) === '1' ? 'one such thread' : `about ${figures.count(count)} such threads`);

// What saturation means, and its interval where the ends differ.
function saturationNote(around) {
  const [low, high] = around ? [figures.count(around.low), figures.count(around.high)] : [];
  return `${low !== high ? `${low} to ${high}. ` : ''}More of them would only wait for it.`;
}

const pair = (name, value, note) => el('div', {}, el('dt', { text: name }), el('dd', {}, el('b', { text: value }), note ? el('small', { text: note }) : null));

// Each gain as its interval on one common scale from 0; 1× is the present.
function showGains(verdict, whatIf) {
  const rows = GAINS.map(([key, label]) => ({ label, gain: verdict.speedup[key] }));
  whatIf.forEach((answer) => rows.push({ label: answer.question, gain: answer.gain, note: answer.note }));
  if (!rows.some((row) => row.gain)) {
    const notes = whatIf.map((answer) => el('p', { class: 'note' }, prose(`${answer.question}: ${answer.note}`)));
    return fill($('gains'), el('p', { class: 'note', text: 'Not predicted for this program. The verdict says why.' }), notes);
  }
  const most = Math.max(2, ...rows.map((row) => (row.gain ? Math.ceil(row.gain.high * 1.02) : 0)));
  const at = (x) => `${(Math.max(0, Math.min(x, most)) / most) * 100}%`;
  const step = most > 8 ? Math.ceil(most / 6) : 1;
  const ticks = [];
  for (let n = 1; n <= most; n += step) ticks.push(n);
  const line = ({ label, gain, note }) => el('div', { class: 'gain' },
    el('p', { class: 'what' }, el('span', { text: label }), el('b', { text: gain ? figures.factor(gain.estimate) : NONE }), el('small', { text: gain ? figures.interval(gain) : 'not predicted' })),
    gain ? el('div', { class: 'track', 'aria-hidden': 'true' },
      ticks.map((n) => el('i', { class: n === 1 ? 'tick one' : 'tick', style: { left: at(n) } })),
      el('i', { class: 'range', style: { left: at(gain.low), width: `calc(${at(gain.high)} - ${at(gain.low)})` } }),
      el('i', { class: 'dot', style: { left: at(gain.estimate) } })) : null,
    note ? el('p', { class: 'note' }, prose(note)) : null);
  fill($('gains'), rows.map(line),
    el('div', { class: 'scale', 'aria-hidden': 'true' }, ticks.map((n) => el('span', { style: { left: at(n) }, text: `${n}×` }))),
    el('p', { class: 'note', text: '1× is the present speed. The bar is the prediction’s interval. The cost of moving data between processes is not counted.' }));
}

function showGil(report) {
  const { gil, target } = report;
  const lengths = (q) => (q ? [`${q.at_most ? '≤\u202f' : q.estimated ? '≈\u202f' : ''}${figures.ms(q.p50)}`, `99 % below ${figures.ms(q.p99)}`] : [NONE, 'no sample has one']);
  const [wait, waitNote] = lengths(gil.wait_ms);
  const [hold, holdNote] = lengths(gil.hold_ms);
  const rows = [
    ['Busy', figures.percent(gil.busy), 'of the time a thread held the GIL'],
    ['Contended', figures.percent(gil.contended), 'of the time a thread waited for it'],
    ['Waiting', figures.mean(gil.waiters_mean), 'threads on average'],
    ['A wait', wait, waitNote],
    ['A hold', hold, holdNote],
    ['Switches', gil.switches_per_s === null ? NONE : `${figures.count(gil.switches_per_s)}/s`,
      target.switch_interval_us ? `interval ${figures.ms(target.switch_interval_us / 1e3)}` : 'from one holder to the next'],
  ];
  fill($('gil'), rows.map((row) => pair(...row)));
}

function showRemarks(report) {
  const code = (text) => text.replaceAll('-', ' ').replace(/\b(gil|cpu)\b/g, (word) => word.toUpperCase());
  fill($('findings'), report.findings.map((f) => el('li', { class: `card finding ${f.severity}` },
    el('p', { class: 'kind' }, el('b', { text: sentence(code(f.code)) }), el('span', { class: 'severity', text: f.severity })),
    el('p', {}, prose(typeset(f.evidence))), el('p', { class: 'advice' }, prose(typeset(f.advice))))));
  fill($('warnings'), report.warnings.map((text) => el('li', {}, prose(text))));
  $('remarks').hidden = !report.findings.length && !report.warnings.length;
}

function showFacts(report) {
  const { window: w, target: t } = report;
  const rows = [
    ['Command', t.command.join(' ') || t.executable],
    ['Python', `${t.python}${t.free_threaded ? `, free-threaded, GIL ${t.gil_enabled ? 'on' : 'off'}` : ''}`],
    ['Interpreters', String(t.interpreters)],
    ['CPUs available to it', figures.count(t.cpus)],
    ['Samples', `${grouped(w.samples)} at ${grouped(w.rate_hz)}\u202fHz, ${grouped(w.missed)} missed, ${grouped(w.failed)} failed`],
    ['Torn stacks', `${grouped(w.torn)} (their outer frames are kept)`],
    ['Waits', w.exact ? `measured by ${grouped(w.events ?? 0)} kernel events, ${w.lost_events === undefined ? 'losses unknown' : `${grouped(w.lost_events)} lost`}` : 'estimated from samples'],
    ['CPU time of gilprof', `${figures.percent(w.profiler_cpu)} of a core`],
  ];
  fill($('facts'), rows.map((row) => pair(...row)));
}
