// The tracks of several processes on one clock: a heading for each process, its threads below. Each
// process keeps its own data; only the rows are put together, and nothing is summed.

class SharedTracks {
  constructor(processes) {
    this.parts = processes.map((process) => ({ tracks: new Tracks(process.timeline, process.report.target.pid), offset: process.offset }));
    this.list = processes.flatMap((process, n) => [this.heading(process), ...this.parts[n].tracks.list.map((track, number) => ({ ...track, part: this.parts[n], number }))]);
    this.seconds = Math.max(...this.parts.map(({ tracks, offset }) => offset + tracks.seconds));
    this.exact = this.parts.every(({ tracks }) => tracks.exact);
    this.width = Math.max(...this.parts.map(({ tracks }) => tracks.width));
  }

  heading({ program, report }) {
    const { gil, target, verdict } = report;
    const about = `${verdict.code.replaceAll('-', ' ')}; GIL busy ${figures.percent(gil.busy)}, ${figures.mean(gil.waiters_mean)} threads waiting`;
    return { heading: `${target.role ?? 'process'} ${program}, pid ${target.pid}`, about, pid: target.pid };
  }

  within(row, from, to, out) {
    if (row.heading) return void out.fill(0);
    row.part.tracks.within(row, from - row.part.offset, to - row.part.offset, out);
  }

  at(number, time) {
    const row = this.list[number];
    if (!row || row.heading) return null;
    const { tracks, offset } = row.part;
    const found = tracks.at(row.number, time - offset);
    return found && { ...found, from: found.from + offset, to: found.to + offset };
  }
}
