// Several processes: the verdict on all of them together, and the table that leads to each.

function showService(service, choose) {
  $('service').hidden = !service;
  document.querySelectorAll('[data-service]').forEach((node) => (node.hidden = !service));
  if (!service) return;
  const { verdict } = service;
  const card = $('service-verdict');
  card.style.setProperty('--tone', `var(--s${service.tone})`);
  $('service-banner').textContent = service.banner;
  $('service-banner').style.color = textColourOn(palette.colours[service.tone]);
  fill($('service-headline'), prose(sentence(typeset(service.headline))));
  fill($('service-because'), verdict.because.map((fact) => el('li', {}, prose(fact))));
  fill($('service-steps'), verdictSteps(verdict));
  const gain = verdict.speedup.processes;
  const answers = service.what_if.map((answer) => pair(answer.question, answer.gain ? `${figures.factor(answer.gain.estimate)} (${figures.interval(answer.gain)})` : NONE, answer.note));
  fill($('service-sure'),
    pair('Confidence', verdict.confidence, CONFIDENCE[verdict.confidence]),
    gain ? pair('Predicted gain', `${figures.factor(gain.estimate)} (${figures.interval(gain)})`, 'Times the work of today; what moves between processes is not counted.') : null,
    pair('Measured', finite(service.measured_share) ? figures.percent(service.measured_share) : NONE, 'of the CPU time of these processes and those below them'), answers);
  const head = ['Process', 'What it is', 'threads', 'GIL busy', 'waiting', 'cpu', 'Verdict'];
  fill($('process-table'),
    el('thead', {}, el('tr', {}, head.map((text, n) => el('th', { scope: 'col', class: n > 1 && n < 6 ? 'n' : '', text })))),
    el('tbody', {}, service.table.map((entry) => processRow(entry, choose))));
  $('more-processes').textContent = service.more_rows ? `${grouped(service.more_rows)} more rows are in gilprof's JSON.` : '';
}

function processRow({ row, program, tone, shown }, choose) {
  const kind = row.helper ?? `${row.processes > 1 ? `${grouped(row.processes)} ${row.role}s` : row.role} ${program ?? ''}`;
  const pid = shown === null ? String(row.pid) : el('button', { type: 'button', class: 'link', 'data-process': shown, onclick: () => choose(shown) }, String(row.pid));
  const cells = [[figures.count(row.threads), 'threads'], [figures.percent(row.busy), 'busy'], [figures.percent(row.waiting), 'waiting'], [figures.percent(row.cpu), 'cpu']];
  return el('tr', { 'data-pid': row.pid },
    el('th', { scope: 'row', style: { 'padding-left': `${20 + 18 * Math.min(6, row.depth)}px` } }, pid), el('td', {}, name(kind, 'name')),
    cells.map(([text, key]) => el('td', { class: 'n', 'data-key': key, text })),
    el('td', {}, el('i', { class: 'swatch', style: { background: `var(--s${tone})`, display: 'inline-block' } }), ` ${row.verdict.replaceAll('-', ' ')}`));
}
