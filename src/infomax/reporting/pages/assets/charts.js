"use strict";

/**
 * Adds to charts: a crosshair that shows the values by mouse, touch and arrow keys, and curves that the buttons of the
 * legend hide.
 */
(() => {
  const MOST_VALUES = 10; // at the crosshair

  /** Returns a new element of the kind that an SVG holds. */
  function makeSvg(svg, tag, attributes) {
    const element = document.createElementNS(svg.namespaceURI, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  }

  /** Returns a number as `format_number` of axes.py does. */
  function formatNumber(value, digits) {
    if (value === 0) return "0";
    const magnitude = Math.floor(Math.log10(Math.abs(value)));
    if (magnitude < -4 || magnitude >= 7) return value.toExponential(digits - 1).replace("e+", "e");
    const decimals = Math.max(0, digits - 1 - magnitude);
    return value.toLocaleString("en-US", { minimumFractionDigits: decimals, maximumFractionDigits: decimals });
  }

  /** Returns the index of the number nearest to x in an ascending list. */
  function nearest(numbers, x) {
    let [low, high] = [0, numbers.length - 1];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (numbers[middle] < x) low = middle + 1;
      else high = middle;
    }
    return low > 0 && x - numbers[low - 1] <= numbers[low] - x ? low - 1 : low;
  }

  class Chart {
    constructor(figure) {
      this.figure = figure;
      this.data = JSON.parse(figure.querySelector('script[type="application/json"]').textContent);
      this.plot = figure.querySelector("[data-plot]");
      this.svg = this.plot.querySelector("svg");
      this.hidden = new Set();
      this.title = figure.querySelector("h3").textContent;
      this.x = null;
      this.findPositions();
      this.startLegend();
      if (this.positions.length) this.startCrosshair();
    }

    /** Finds where the crosshair can stand: at the points of all curves that are shown. */
    findPositions() {
      const shown = this.data.curves.filter((_, number) => !this.hidden.has(number));
      this.positions = [...new Set(shown.flatMap((curve) => curve.x))].sort((a, b) => a - b);
    }

    startLegend() {
      for (const item of this.figure.querySelectorAll("[data-legend]")) {
        const number = Number(item.dataset.legend);
        const button = infomaxPage.make("button");
        button.setAttribute("aria-pressed", "true");
        button.title = "Hides or shows this curve";
        button.append(...item.childNodes);
        item.append(button);
        item.classList.add("pressable");
        button.addEventListener("click", () => {
          const hides = !this.hidden.has(number);
          if (hides) this.hidden.add(number);
          else this.hidden.delete(number);
          button.setAttribute("aria-pressed", String(!hides));
          for (const part of this.svg.querySelectorAll(`[data-curve="${number}"]`)) {
            if (hides) part.setAttribute("display", "none");
            else part.removeAttribute("display");
          }
          this.findPositions();
          this.leave();
        });
      }
    }

    startCrosshair() {
      this.readout = infomaxPage.make("div", "readout");
      this.readout.hidden = true;
      this.readout.setAttribute("aria-hidden", "true");
      this.spoken = infomaxPage.make("p", "unseen");
      this.spoken.setAttribute("aria-live", "polite");
      this.line = makeSvg(this.svg, "line", { class: "crosshair", y1: "0", y2: "100%" });
      this.spots = makeSvg(this.svg, "g", {});
      this.plot.append(this.readout, this.spoken);
      this.plot.tabIndex = 0;
      this.plot.setAttribute("role", "application");
      this.plot.setAttribute("aria-label", `${this.title}: arrow keys show the values, Escape leaves`);
      this.plot.addEventListener("pointermove", (event) => this.point(event));
      this.plot.addEventListener("pointerdown", (event) => this.point(event));
      this.plot.addEventListener("pointerleave", (event) => {
        if (event.pointerType !== "touch") this.leave();
      });
      this.plot.addEventListener("focus", () => {
        if (this.plot.matches(":focus-visible")) this.show(this.positions.length - 1);
      });
      this.plot.addEventListener("blur", () => this.leave());
      this.plot.addEventListener("keydown", (event) => this.press(event));
    }

    /** Shows the values where a mouse or a finger points. */
    point(event) {
      if (!this.positions.length) return;
      const box = this.svg.getBoundingClientRect();
      const share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
      const position = nearest(this.positions, this.xAtShare(share));
      this.show(position, 1 - (event.clientY - box.top) / box.height);
    }

    press(event) {
      const last = this.positions.length - 1;
      if (event.key === "Escape") {
        this.leave();
        this.plot.blur();
        return;
      }
      const many = Math.max(1, Math.round(last / 10));
      const steps = {
        ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageUp: -many, PageDown: many, Home: -last, End: last,
      };
      if (!(event.key in steps) || event.ctrlKey || event.altKey || event.metaKey || last < 0) return;
      event.preventDefault();
      const start = this.x === null ? last : nearest(this.positions, this.x);
      const step = event.shiftKey ? Math.sign(steps[event.key]) * many : steps[event.key];
      this.show(Math.min(last, Math.max(0, start + step)));
    }

    leave() {
      this.x = null;
      if (!this.readout) return;
      this.readout.hidden = true;
      this.spoken.textContent = "";
      this.line.remove();
      this.spots.remove();
    }

    /** Returns where a curve stands near x; null where it has ended, or not begun, or has a gap. */
    at(curve, x) {
      const i = nearest(curve.x, x);
      if (!curve.x.length || curve.y[i] === null) return null;
      const [first, place, last] = [curve.x[0], x, curve.x[curve.x.length - 1]].map((value) => this.xShare(value));
      return Math.max(first - place, place - last) <= 1 / 200 ? i : null;
    }

    /** Returns how far right an x stands, from 0 to 1. */
    xShare(x) {
      const { xLow, xHigh, xLog } = this.data;
      return xLog ? Math.log(x / xLow) / Math.log(xHigh / xLow) : (x - xLow) / (xHigh - xLow);
    }

    xAtShare(share) {
      const { xLow, xHigh, xLog } = this.data;
      return xLog ? xLow * (xHigh / xLow) ** share : xLow + share * (xHigh - xLow);
    }

    height(value) {
      const { yLow, yHigh, log } = this.data;
      if (!log) return (value - yLow) / (yHigh - yLow);
      return value > 0 ? Math.log(value / yLow) / Math.log(yHigh / yLow) : NaN;
    }

    valueText(value) {
      return this.data.yWhole ? value.toLocaleString("en-US") : formatNumber(value, this.data.digits);
    }

    xText(x, curve, i) {
      if (curve && curve.labels && i !== null) return curve.labels[i];
      const { xWhole, xLabel } = this.data;
      return `${xLabel} ${xWhole ? x.toLocaleString("en-US", { maximumFractionDigits: 0 }) : formatNumber(x, 4)}`;
    }

    /** Returns a curve's value near x, as it is written, and how high it stands. */
    valueAt(number, x) {
      const curve = this.data.curves[number];
      const i = this.at(curve, x);
      if (i === null) return { number, curve, i, text: "\u2013", height: NaN };
      let text = this.valueText(curve.y[i]);
      if (curve.low && curve.low[i] !== null && curve.high[i] !== null) {
        text += ` (${this.valueText(curve.low[i])} to ${this.valueText(curve.high[i])})`;
      }
      return { number, curve, i, text, height: this.height(curve.y[i]) };
    }

    /** Returns the curves that there is room for: all, or those nearest to a height, or the first ones. */
    mostImportant(values, height) {
      if (values.length <= MOST_VALUES) return values;
      const distance = (value) => Number.isFinite(value.height) ? Math.abs(value.height - height) : Infinity;
      const sorted = height === null ? values : [...values].sort((a, b) => distance(a) - distance(b));
      return sorted.slice(0, MOST_VALUES).sort((a, b) => a.number - b.number);
    }

    /** Shows the crosshair at one of its positions: for a pointer at a height; in words too, if keys moved it there. */
    show(position, height = null) {
      const { data } = this;
      const x = this.positions[position];
      const share = this.xShare(x);
      this.x = x;
      const numbers = [...data.curves.keys()].filter((number) => !this.hidden.has(number));
      const values = numbers.map((number) => this.valueAt(number, x));
      const shown = this.mostImportant(values, height);
      const heading = this.xText(x, data.curves[0], this.at(data.curves[0], x));
      const list = infomaxPage.make("dl");
      for (const { number, curve, text } of shown) {
        const swatch = this.figure.querySelector(`[data-legend="${number}"] .swatch`);
        list.append(swatch ? swatch.cloneNode(true) : infomaxPage.make("span"));
        list.append(infomaxPage.make("dt", "", curve.name), infomaxPage.make("dd", "", text));
      }
      const left = values.length - shown.length;
      const more = left ? [infomaxPage.make("p", "more", `and ${left} more`)] : [];
      this.readout.replaceChildren(infomaxPage.make("p", "", heading), list, ...more);
      this.line.setAttribute("x1", `${100 * share}%`);
      this.line.setAttribute("x2", `${100 * share}%`);
      const drawn = shown.filter((value) => Number.isFinite(value.height));
      this.spots.replaceChildren(...drawn.map((value) => this.spot(value)));
      this.svg.append(this.line, this.spots);
      this.readout.hidden = false;
      this.place(share);
      if (height !== null) return;
      const sentences = shown.map(({ curve, i, text }) => `${curve.name}: ${i === null ? "no value" : text}`);
      this.spoken.textContent = `${heading}. ${sentences.join(", ")}${left ? `, and ${left} more` : ""}`;
    }

    spot({ curve, i, height }) {
      return makeSvg(this.svg, "circle", {
        class: `spot run-${curve.style}`,
        r: "4",
        cx: `${100 * this.xShare(curve.x[i])}%`,
        cy: `${100 * (1 - height)}%`,
      });
    }

    /** Puts the values beside the crosshair, on the side with more room. */
    place(share) {
      const inner = this.svg.getBoundingClientRect();
      const outer = this.plot.getBoundingClientRect();
      const x = inner.left - outer.left + share * inner.width;
      const width = this.readout.offsetWidth;
      const left = share > 0.5 ? x - width - 12 : x + 12;
      this.readout.style.left = `${Math.max(0, Math.min(left, outer.width - width))}px`;
    }
  }

  infomaxPage.each("[data-chart]", (figure) => new Chart(figure));
})();
