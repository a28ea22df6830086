// Draws the charts of a page, each from the JSON in its frame, in the reader's theme.
(function () {
  "use strict";

  // `chart` wins over nothing: the theme's values replace those it was stored with.
  function merge(chart, theme) {
    const merged = { ...chart };
    for (const [key, value] of Object.entries(theme)) {
      const nested = value && typeof value === "object" && !Array.isArray(value);
      merged[key] = nested ? merge(merged[key] || {}, value) : value;
    }
    return merged;
  }

  // A title is stored in lines for a wide page: break them anew for a narrow one.
  function wrap(lines, letters) {
    const wrapped = [""];
    for (const word of [].concat(lines || []).join(" ").split(" ")) {
      const last = wrapped[wrapped.length - 1];
      if (last && last.length + word.length >= letters) wrapped.push(word);
      else wrapped[wrapped.length - 1] = last ? `${last} ${word}` : word;
    }
    return wrapped;
  }

  // The chart as the page can show it: its colours, and no wider than its frame.
  function fitted(spec, theme, room) {
    const config = merge(spec.config || {}, window.annotatedCharts.config[theme]);
    const shown = { ...spec, config: { ...config, background: "transparent" } };
    if (typeof spec.width === "number" && room < spec.width) {
      shown.width = Math.max(room, 260);
      if (spec.title && spec.title.text) {
        shown.title = {
          ...spec.title,
          text: wrap(spec.title.text, shown.width / 9),
          subtitle: wrap(spec.title.subtitle, shown.width / 6.5),
        };
      }
    }
    return shown;
  }

  // What the reader has set: the place of each slider.
  function settings(view, spec) {
    const bound = (spec.params || []).filter((param) => param.bind && !param.select);
    return view ? bound.map(({ name }) => [name, view.signal(name)]) : [];
  }

  class Chart {
    constructor(frame) {
      this.frame = frame;
      this.place = frame.querySelector(".annotated-chart-view");
      this.spec = JSON.parse(frame.querySelector("script").textContent);
      this.queue = Promise.resolve();
    }

    redraw() {
      this.queue = this.queue.then(() => this.draw());
      return this.queue;
    }

    async draw() {
      const theme = document.documentElement.dataset.theme === "dark" ? "dark" : "light";
      const room = this.frame.clientWidth;
      const kept = settings(this.view, this.spec);
      const { vegaEmbed } = window.annotatedCharts;
      delete this.frame.dataset.drawn;
      const result = await vegaEmbed(this.place, fitted(this.spec, theme, room), {
        actions: false,
        renderer: "svg",
        tooltip: { theme },
      });
      this.finalize?.();
      [this.view, this.finalize, this.room] = [result.view, result.finalize, room];
      for (const [name, value] of kept) this.view.signal(name, value);
      await this.view.runAsync();
      // The frame has the name; a second one inside would be read twice.
      const drawing = this.place.querySelector("svg");
      drawing?.setAttribute("aria-hidden", "true");
      this.frame.dataset.drawn = theme;
    }
  }

  async function start() {
    const charts = [...document.querySelectorAll(".annotated-chart")].map(
      (frame) => new Chart(frame),
    );
    for (const chart of charts) await chart.redraw();
    const redraw = (chosen) => charts.filter(chosen).forEach((chart) => chart.redraw());
    new MutationObserver(() => redraw(() => true)).observe(document.documentElement, {
      attributeFilter: ["data-theme"],
    });
    let timer;
    addEventListener("resize", () => {
      clearTimeout(timer);
      timer = setTimeout(() => redraw((c) => c.frame.clientWidth !== c.room), 150);
    });
  }

  start();
})();
