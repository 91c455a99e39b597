// Reads the data, shows the chosen process, and keeps the theme.

const data = JSON.parse($('data').textContent);
const theme = matchMedia('(prefers-color-scheme: dark)');
let current = null;
let tracks = null;

function show(number) {
  current = data.processes[number];
  const { report } = current;
  document.title = `${current.program}: ${current.banner.toLowerCase()} – gilprof`;
  $('program').textContent = current.program;
  const others = data.left_out ? `; ${grouped(data.left_out)} more processes are not on this page` : '';
  $('about').textContent = `pid ${report.target.pid}, Python ${report.target.python}, ${figures.length(report.window.seconds)}, ${grouped(report.window.samples)} samples${others}`;
  showVerdict(current);
  showGil(report);
  showRemarks(report);
  showThreads(current);
  // Several processes share one timeline.
  const several = data.processes.length > 1;
  if (!several || !tracks) tracks = several ? new SharedTracks(data.processes) : new Tracks(current.timeline, report.target.pid);
  timeline.show(tracks, current, data.processes.reduce((sum, process) => sum + process.timeline.left_out, 0));
  flame.show(current.flames);
  showMatrix(current.matrix);
  functionTable.show(current);
  showFacts(report);
}

// Shows another process, from the table of processes.
function choose(number) {
  $('process').value = String(number);
  show(number);
  $('verdict').scrollIntoView();
}

// One attribute selects the theme of the styles; canvases are painted again.
function applyTheme(dark) {
  document.documentElement.dataset.theme = dark ? 'dark' : 'light';
  $('theme').setAttribute('aria-pressed', String(dark));
  palette.apply();
  if (!current) return;
  showService(data.service, choose);
  showVerdict(current);
  showMatrix(current.matrix);
  gilChart.make();
  timeline.redraw();
  flame.redraw();
}

function start() {
  document.documentElement.dataset.theme = theme.matches ? 'dark' : 'light';
  palette.read(data);
  timeline.listen();
  flame.listen();
  functionTable.listen();
  scrolling.listen();
  const { processes } = data;
  fill($('process'), processes.map((process, n) => el('option', { value: n, text: `${process.program}, pid ${process.report.target.pid}` })));
  $('chooser').hidden = processes.length < 2;
  $('process').addEventListener('change', (event) => show(Number(event.target.value)));
  $('version').textContent = data.gilprof;
  applyTheme(theme.matches);
  if (processes.length) show(0);
  showService(data.service, choose);
  // A change of the system's theme overrides the button.
  theme.addEventListener('change', (event) => applyTheme(event.matches));
  $('theme').addEventListener('click', () => applyTheme(document.documentElement.dataset.theme !== 'dark'));
  let width = innerWidth;
  addEventListener('resize', perFrame(() => {
    if (innerWidth === width) return;
    width = innerWidth;
    gilChart.make();
    timeline.draw();
    flame.draw();
  }));
  // After two frames, everything has been painted once.
  requestAnimationFrame(() => requestAnimationFrame(() => {
    document.documentElement.dataset.ready = 'yes';
    performance.mark('gilprof-interactive');
  }));
}

start();
