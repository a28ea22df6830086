// Draws the charts of a page in the reader's theme: each when the reader comes near it,
// from a script of its own beside this one. Until then its picture stands in its place.
(function () {
  "use strict";

  const NEAR = "400px 0px"; // how far from the screen a chart begins to be drawn
  const { src, dataset } = document.currentScript;

  const loading = {};
  function load(address) {
    loading[address] ??= new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = new URL(address, src);
      script.onload = resolve;
      script.onerror = () => reject(new Error(`${script.src} can't be loaded`));
      document.head.append(script);
    });
    return loading[address];
  }

  const specs = {};
  window.annotatedChart = (name, spec) => {
    specs[name] = spec;
  };

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

  // A mouse chooses a group in the legend: a list under the chart does so by keyboard.
  function groupControl(view, place, param) {
    const [field] = param.select.fields;
    const label = document.createElement("label");
    const list = document.createElement("select");
    const groups = view.scale("color").domain();
    list.append(new Option("all", ""), ...groups.map((group) => new Option(group)));
    list.addEventListener("change", () => {
      view.signal(`${param.name}_${field}_legend`, list.value || null).runAsync();
    });
    const name = document.createElement("span");
    name.textContent = field;
    label.append(name, list);
    const box = document.createElement("div");
    box.className = "vega-bind";
    box.append(label);
    place.querySelector(".vega-bindings").append(box);
  }

  // A mouse moves a map and comes nearer with the wheel: here are the keys for that.
  const KEYS = "+ and − zoom, Shift with an arrow moves, 0 goes back";
  const ZOOM = { "+": 0.8, "=": 0.8, "-": 1.25, "−": 1.25 };
  const MOVE = {
    ArrowLeft: ["x", -1],
    ArrowRight: ["x", 1],
    ArrowUp: ["y", 1],
    ArrowDown: ["y", -1],
  };

  function mapKeys(chart, param) {
    const axes = ["x", "y"];
    const ranges = () => axes.map((axis) => chart.view.scale(axis).domain());
    chart.frame.dataset.keys = KEYS;
    chart.frame.addEventListener("keydown", (event) => {
      if (event.target !== chart.frame || event.ctrlKey || event.metaKey) return;
      let shown = ranges();
      if (event.key in ZOOM) {
        shown = shown.map(([low, high]) => {
          const half = ((high - low) / 2) * ZOOM[event.key];
          return [(low + high) / 2 - half, (low + high) / 2 + half];
        });
      } else if (event.shiftKey && event.key in MOVE) {
        const [moved, sign] = MOVE[event.key];
        shown = shown.map(([low, high], index) => {
          const step = axes[index] === moved ? (sign * (high - low)) / 10 : 0;
          return [low + step, high + step];
        });
      } else if (event.key === "0") shown = [null, null];
      else return;
      event.preventDefault();
      axes.forEach((axis, index) => chart.view.signal(`${param.name}_${axis}`, shown[index]));
      chart.view.runAsync();
    });
  }

  class Chart {
    constructor(frame) {
      this.frame = frame;
      this.place = frame.querySelector(".annotated-chart-view");
      this.name = frame.dataset.chart;
    }

    // One chart at a time, so that the page still answers while they are drawn.
    redraw() {
      Chart.queue = Chart.queue.then(() => this.draw()).catch(console.error);
    }

    async draw() {
      await Promise.all([load(dataset.vega), load(`charts/${this.name}.js`)]);
      this.spec = specs[this.name];
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
      for (const param of this.spec.params || []) {
        if (param.bind === "legend") groupControl(this.view, this.place, param);
        if (param.bind === "scales" && !this.frame.dataset.keys) mapKeys(this, param);
      }
      // The frame has the name; a second one inside would be read twice.
      const drawing = this.place.querySelector("svg");
      drawing?.setAttribute("aria-hidden", "true");
      this.frame.dataset.drawn = theme;
      this.frame.dataset.live = "";
    }
  }
  Chart.queue = Promise.resolve();

  function start() {
    const charts = new Map();
    const near = new IntersectionObserver(
      (changes) => {
        for (const { target, isIntersecting } of changes) {
          if (!isIntersecting) continue;
          near.unobserve(target);
          charts.set(target, new Chart(target));
          charts.get(target).redraw();
        }
      },
      { rootMargin: NEAR },
    );
    document.querySelectorAll(".annotated-chart").forEach((frame) => near.observe(frame));

    const redraw = (chosen) =>
      [...charts.values()].filter(chosen).forEach((chart) => chart.redraw());
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
