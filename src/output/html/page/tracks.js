// The timeline's data: what a thread did in any range of time, at any level of detail.
//
// An exact track is a list of spans, found by binary search. A track in columns becomes prefix sums,
// so that every zoom level costs the same, whatever the recording's length.

const STATES = 10;

class Tracks {
  constructor(timeline, pid) {
    const { exact, seconds, columns, units, texts, span_types, tracks } = timeline;
    Object.assign(this, { exact, seconds, columns, units, texts, span_types });
    this.list = tracks.map((track) => ({ name: track.name, tid: track.tid, pid, ...(exact ? this.spans(track.packed) : this.cells(track.packed)) }));
    this.width = seconds / columns;
    this.stateOf = Uint8Array.from(span_types, ([state]) => state);
  }

  // The ends of the spans in microseconds, and their types.
  spans(packed) {
    const numbers = unpack(packed);
    const ends = new Float64Array(numbers.length / 2);
    const what = new Uint16Array(ends.length);
    for (let i = 0, at = 0; i < ends.length; i++) {
      ends[i] = at += numbers[2 * i];
      what[i] = numbers[2 * i + 1];
    }
    return { ends, what };
  }

  // Prefix sums of each state's units, and the most frequent span type of each column.
  cells(packed) {
    const numbers = unpack(packed);
    const sums = new Float64Array((this.columns + 1) * STATES);
    const what = new Uint16Array(this.columns);
    const cell = new Float64Array(STATES);
    let column = 0;
    for (let i = 0; i < numbers.length;) {
      const count = numbers[i++];
      cell.fill(0);
      for (let states = numbers[i++]; states > 0; states--, i += 2) cell[numbers[i]] = numbers[i + 1];
      const spanType = numbers[i++];
      for (const end = Math.min(this.columns, column + count); column < end; column++) {
        what[column] = spanType;
        for (let s = 0; s < STATES; s++) sums[(column + 1) * STATES + s] = sums[column * STATES + s] + cell[s];
      }
    }
    for (; column < this.columns; column++) sums.copyWithin((column + 1) * STATES, column * STATES, (column + 1) * STATES);
    return { sums, what };
  }

  // Writes the seconds of each state in a range into `out`.
  within(track, from, to, out) {
    out.fill(0);
    if (this.exact) this.withinSpans(track, from * 1e6, to * 1e6, out);
    else for (let s = 0; s < STATES; s++) out[s] = this.until(track, to, s) - this.until(track, from, s);
  }

  withinSpans({ ends, what }, from, to, out) {
    for (let i = this.first(ends, from); i < ends.length; i++) {
      const begin = Math.max(from, i ? ends[i - 1] : 0);
      if (begin >= to) return;
      if (what[i]) out[this.stateOf[what[i]]] += (Math.min(to, ends[i]) - begin) / 1e6;
    }
  }

  // The index of the first span that ends after a time.
  first(ends, at) {
    let [low, high] = [0, ends.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (ends[middle] > at) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  // Seconds of a state since the begin. Within a column, each state is spread evenly.
  until({ sums }, at, state) {
    const column = Math.max(0, Math.min(this.columns, at / this.width));
    const whole = Math.min(this.columns - 1, Math.floor(column));
    const [before, after] = [sums[whole * STATES + state], sums[(whole + 1) * STATES + state]];
    return ((before + (after - before) * (column - whole)) / this.units) * this.width;
  }

  // What a thread did at a time: the span, or the column with the shares of its states. Null where
  // no sample covers the time.
  at(number, time) {
    const track = this.list[number];
    if (!track || time < 0 || time > this.seconds) return null;
    if (this.exact) {
      const i = this.first(track.ends, time * 1e6);
      if (i >= track.ends.length) return null;
      return { ...this.describe(track.what[i]), from: (i ? track.ends[i - 1] : 0) / 1e6, to: track.ends[i] / 1e6 };
    }
    const column = Math.min(this.columns - 1, Math.floor(time / this.width));
    const [from, to] = [column * this.width, (column + 1) * this.width];
    const shares = new Float64Array(STATES);
    this.within(track, from, to, shares);
    return { ...this.describe(track.what[column]), from, to, shares: shares.map((s) => s / this.width) };
  }

  describe(spanType) {
    if (!spanType) return { state: null };
    const [state, place, holder] = this.span_types[spanType];
    return { state, place: this.texts[place], holder: this.texts[holder] };
  }
}
