// Marks regions that have more than they show: content fades at the edge that hides some of it, and
// a note below says how to see it.

const scrolling = {
  watch(region) {
    const note = el('p', { class: 'note more', hidden: true });
    region.after(note);
    const update = perFrame(() => this.update(region, note));
    region.addEventListener('scroll', update, { passive: true });
    const observer = new ResizeObserver(update);
    [region, ...region.children].forEach((node) => observer.observe(node));
    // Rows that are sorted or filtered change the content's size, not the region's.
    new MutationObserver(update).observe(region, { childList: true, subtree: true });
  },

  update(region, note) {
    const { scrollLeft, scrollTop, scrollWidth, scrollHeight, clientWidth, clientHeight } = region;
    const hidden = {
      left: scrollLeft > 1, right: scrollLeft + clientWidth < scrollWidth - 1,
      top: scrollTop > 1, bottom: scrollTop + clientHeight < scrollHeight - 1,
    };
    const edges = Object.keys(hidden).filter((edge) => hidden[edge]);
    region.dataset.more = edges.join(' ');
    const [wide, tall] = [scrollWidth > clientWidth + 1, scrollHeight > clientHeight + 1];
    const ways = [wide ? 'sideways' : '', tall ? 'down' : ''].filter(Boolean);
    note.hidden = !ways.length;
    announce(note, ways.length ? `Scroll ${ways.join(' and ')} to see the rest.` : '');
  },

  listen() {
    document.querySelectorAll('.scroll, .tracks, .flame').forEach((region) => this.watch(region));
  },
};
