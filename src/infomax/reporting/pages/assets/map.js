"use strict";

/**
 * Draws a map of images: up to 200,000 points by one call of WebGL, or 20,000 of them on a plain canvas where WebGL is
 * missing or its context is lost. All of its data is in a JSON block of its figure, which infomaxPage gives it.
 *
 * Places on the map are from 0 to 1, y up; places on the screen are in CSS pixels from the corner of the box, y down.
 */
(() => {
  const PLAIN_POINTS = 20000;  // points that a plain canvas draws in the time of a frame
  const MAX_ZOOM = 500;
  const OTHER = 255;  // style of the categories that share one
  const SHAPES = 8;
  const OTHER_COLOUR = { light: "#8c8c8c", dark: "#6e6e6e" };

  const VERTEX = `
    attribute vec2 place;
    attribute vec2 mark;
    uniform vec2 scale, offset;
    uniform vec3 palette[9];
    uniform float size, opacity;
    varying vec4 colour;
    varying float shape, pixels;
    void main() {
      bool other = mark.x > 254.5;
      float hue = other ? 8.0 : mod(mark.x, 8.0);
      shape = other ? 0.0 : mod(mark.x + floor(mark.x / 8.0), 8.0);
      bool dim = mark.y > 0.5 && mark.y < 1.5, bright = mark.y > 1.5;
      vec3 rgb = palette[int(hue + 0.5)];
      colour = vec4(dim ? palette[8] : rgb, dim ? 0.18 * opacity : bright ? 1.0 : opacity);
      pixels = size * (bright ? 1.5 : other ? 0.8 : 1.0);
      gl_PointSize = pixels;
      gl_Position = vec4(place * scale + offset, dim ? 0.5 : bright ? -0.5 : 0.0, 1.0);
    }`;
  // shape_distance of embedding_map.py has the same formulas.
  const FRAGMENT = `
    precision mediump float;
    uniform float outline;
    varying vec4 colour;
    varying float shape, pixels;
    void main() {
      vec2 p = gl_PointCoord * 2.0 - 1.0, a = abs(p);
      float r = length(p), d;
      if (pixels < 3.5) d = 0.0;
      else if (shape < 0.5) d = r;
      else if (shape < 1.5) d = max(a.x, a.y) * 1.2;
      else if (shape < 2.5) d = max(a.x * 1.6 - p.y * 0.8, p.y * 1.25);
      else if (shape < 3.5) d = (a.x + a.y) * 1.05;
      else if (shape < 4.5) d = abs(a.x - a.y) < 0.42 ? max(a.x, a.y) * 1.1 : 2.0;
      else if (shape < 5.5) d = min(a.x, a.y) < 0.3 ? max(a.x, a.y) : 2.0;
      else if (shape < 6.5) d = r > 0.5 ? r : 2.0;
      else d = max(a.x * 0.87 + a.y * 0.5, a.y) * 1.1;
      if (d > 1.0) discard;
      float edge = pixels > 6.0 ? step(1.0 - 2.6 / pixels, d) * outline : 0.0;
      gl_FragColor = vec4(colour.rgb * (1.0 - edge) * colour.a, colour.a);
    }`;

  const bytesOf = (text) => {
    const characters = atob(text), bytes = new Uint8Array(characters.length);
    for (let k = 0; k < bytes.length; k += 1) bytes[k] = characters.charCodeAt(k);
    return bytes;
  };
  const numbersOf = (text, Kind) => new Kind(bytesOf(text).buffer);
  const rgbOf = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16) / 255);
  const element = (tag, properties = {}, ...children) => {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  };
  const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;

  // Returns the numbers below count in an order that looks random, and is always the same.
  function shuffled(count) {
    const order = Uint32Array.from({ length: count }, (_, k) => k);
    for (let k = count - 1, state = 1; k > 0; k -= 1) {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      const other = Math.floor((state / 2 ** 32) * (k + 1)), kept = order[k];
      order[k] = order[other];
      order[other] = kept;
    }
    return order;
  }

  // Names, of which each lacks what it shares with the one before it.
  class Names {
    constructor(data, numbers) {
      this.data = data;
      this.numbers = numbers;
      this.positions = data.positions === null ? null : numbersOf(data.positions, Uint32Array);
    }
    get texts() {
      if (!this.decoded) {
        const shared = bytesOf(this.data.shared), ending = this.data.ending;
        let before = "";
        this.decoded = this.data.rest.map((rest, k) => {
          before = before.slice(0, shared[k]) + rest;
          return before + ending;
        });
      }
      return this.decoded;
    }
    get count() { return this.texts.length; }
    of(point) {
      if (this.positions === null) return this.texts[point];
      if (!this.slots) this.slots = new Map(Array.from(this.positions, (position, k) => [position, k]));
      const slot = this.slots.get(point);
      const number = (this.numbers === null ? point : this.numbers[point]) + 1;
      return slot === undefined ? `image ${number.toLocaleString("en")}` : this.texts[slot];
    }
    containing(part) {
      if (!this.lowered) this.lowered = this.texts.map((text) => text.toLowerCase());
      const hits = [];
      this.lowered.forEach((text, k) => {
        if (text.includes(part)) hits.push(this.positions === null ? k : this.positions[k]);
      });
      return hits;
    }
  }

  // Points in the cells of a uniform grid, so that the nearest one is among those of a few cells.
  class Grid {
    constructor(places, points) {
      this.places = places;
      this.side = Math.max(1, Math.min(512, Math.ceil(Math.sqrt(points.length / 3))));
      this.start = new Uint32Array(this.side * this.side + 1);
      for (const point of points) this.start[this.cellOf(point) + 1] += 1;
      for (let cell = 0; cell < this.side * this.side; cell += 1) this.start[cell + 1] += this.start[cell];
      const next = this.start.slice(0, -1);
      this.points = new Uint32Array(points.length);
      for (const point of points) this.points[next[this.cellOf(point)]++] = point;
    }
    x(point) { return this.places[2 * point] / 65535; }
    y(point) { return this.places[2 * point + 1] / 65535; }
    cut(value) { return Math.max(0, Math.min(this.side - 1, Math.floor(value * this.side))); }
    cellOf(point) { return this.cut(this.y(point)) * this.side + this.cut(this.x(point)); }
    // Returns the point of the least cost, which must not be below its distance from (x, y), or -1.
    search(x, y, most, costOf) {
      const column = this.cut(x), row = this.cut(y);
      let best = most, nearest = -1;
      for (let ring = 0; ring < this.side && (ring - 1) / this.side <= best; ring += 1) {
        for (let j = Math.max(0, row - ring); j <= Math.min(this.side - 1, row + ring); j += 1) {
          const step = Math.abs(j - row) === ring || ring === 0 ? 1 : 2 * ring;
          for (let i = column - ring; i <= column + ring; i += step) {
            if (i < 0 || i >= this.side) continue;
            const cell = j * this.side + i;
            for (let k = this.start[cell]; k < this.start[cell + 1]; k += 1) {
              const cost = costOf(this.points[k]);
              if (cost < best || (cost === best && nearest < 0)) {
                best = cost;
                nearest = this.points[k];
              }
            }
          }
        }
      }
      return nearest;
    }
    nearest(x, y, most, accepts) {
      return this.search(x, y, most, (point) =>
        accepts(point) ? Math.hypot(this.x(point) - x, this.y(point) - y) : Infinity);
    }
    // Returns the nearest point in a quarter of the plane, at least some way off.
    towards(from, dx, dy, least, accepts) {
      const x = this.x(from), y = this.y(from);
      return this.search(x, y, 4, (point) => {
        const vx = this.x(point) - x, vy = this.y(point) - y;
        const along = vx * dx + vy * dy, across = Math.abs(vx * dy - vy * dx);
        const far = along > 0 && across <= along && Math.hypot(vx, vy) >= least;
        return far && accepts(point) ? along + 2 * across : Infinity;
      });
    }
    // Returns at most so many points, in turn from all cells that have some.
    sample(most, accepts) {
      const chosen = [];
      for (let turn = 0, left = true; left && chosen.length < most; turn += 1) {
        left = false;
        for (let cell = 0; cell < this.side * this.side && chosen.length < most; cell += 1) {
          const at = this.start[cell] + turn;
          if (at >= this.start[cell + 1]) continue;
          left = true;
          if (accepts(this.points[at])) chosen.push(this.points[at]);
        }
      }
      return chosen;
    }
  }

  class WebGlLayer {
    constructor(canvas, places) {
      this.canvas = canvas;
      // In a shuffled order no category covers another, and any first part of the points shows the whole map.
      this.order = shuffled(places.length / 2);
      this.places = new Uint16Array(places.length);
      for (let k = 0; k < this.order.length; k += 1) {
        this.places[2 * k] = places[2 * this.order[k]];
        this.places[2 * k + 1] = places[2 * this.order[k] + 1];
      }
      this.marks = new Uint8Array(places.length);
      this.gl = canvas.getContext("webgl", { antialias: false, premultipliedAlpha: true });
      if (!this.gl) throw new Error("no WebGL");
      this.build();
    }
    build() {
      const gl = this.gl, program = gl.createProgram();
      for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
        const shader = gl.createShader(kind);
        gl.shaderSource(shader, source);
        gl.compileShader(shader);
        gl.attachShader(program, shader);
      }
      gl.bindAttribLocation(program, 0, "place");
      gl.bindAttribLocation(program, 1, "mark");
      gl.linkProgram(program);
      if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error("WebGL cannot draw the map");
      gl.useProgram(program);
      this.at = (name) => gl.getUniformLocation(program, name);
      gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
      gl.bufferData(gl.ARRAY_BUFFER, this.places, gl.STATIC_DRAW);
      gl.enableVertexAttribArray(0);
      gl.vertexAttribPointer(0, 2, gl.UNSIGNED_SHORT, true, 0, 0);
      gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());  // stays bound for the marks
      gl.enableVertexAttribArray(1);
      gl.vertexAttribPointer(1, 2, gl.UNSIGNED_BYTE, false, 0, 0);
      gl.enable(gl.BLEND);
      gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
      gl.enable(gl.DEPTH_TEST);
      gl.depthFunc(gl.LEQUAL);
    }
    mark(marks) {
      for (let k = 0; k < this.order.length; k += 1) {
        this.marks[2 * k] = marks[2 * this.order[k]];
        this.marks[2 * k + 1] = marks[2 * this.order[k] + 1];
      }
      this.gl.bufferData(this.gl.ARRAY_BUFFER, this.marks, this.gl.DYNAMIC_DRAW);
    }
    draw(view) {
      const gl = this.gl, { width, height, unit, x, y } = view;
      gl.viewport(0, 0, this.canvas.width, this.canvas.height);
      gl.clearColor(0, 0, 0, 0);
      gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
      const across = 2 * unit / width, up = 2 * unit / height;
      gl.uniform2f(this.at("scale"), across, up);
      gl.uniform2f(this.at("offset"), -x * across, -y * up);
      gl.uniform1f(this.at("size"), view.size * view.ratio);
      gl.uniform1f(this.at("opacity"), view.opacity);
      gl.uniform1f(this.at("outline"), view.dark ? 0.6 : 0.45);
      gl.uniform3fv(this.at("palette"), view.palette.flatMap(rgbOf));
      gl.drawArrays(gl.POINTS, 0, Math.ceil(view.share * this.order.length));
    }
  }

  function paintShape(context, shape, x, y, radius) {
    const line = (...corners) => {
      context.beginPath();
      corners.forEach(([i, j]) => context.lineTo(x + i * radius, y + j * radius));
      context.closePath();
      context.fill();
    };
    if (shape === 0 || shape === 6) {
      context.beginPath();
      context.arc(x, y, radius, 0, 2 * Math.PI);
      if (shape === 6) {
        context.moveTo(x + radius / 2, y);
        context.arc(x, y, radius / 2, 0, 2 * Math.PI);
      }
      context.fill("evenodd");
    } else if (shape === 1) context.fillRect(x - 0.83 * radius, y - 0.83 * radius, 1.66 * radius, 1.66 * radius);
    else if (shape === 2) line([0, -1], [1, 0.8], [-1, 0.8]);
    else if (shape === 3) line([0, -0.95], [0.95, 0], [0, 0.95], [-0.95, 0]);
    else if (shape === 7) line([-0.5, -0.9], [0.5, -0.9], [1, 0], [0.5, 0.9], [-0.5, 0.9], [-1, 0]);
    else {
      const turn = shape === 4 ? Math.SQRT1_2 : 1, rest = shape === 4 ? Math.SQRT1_2 : 0;
      for (const [a, b] of [[turn, rest], [-rest, turn]]) {
        line([a - 0.3 * b, b + 0.3 * a], [a + 0.3 * b, b - 0.3 * a], [-a + 0.3 * b, -b - 0.3 * a],
          [-a - 0.3 * b, -b + 0.3 * a]);
      }
    }
  }

  const hueOf = (style) => (style === OTHER ? 8 : style % 8);
  const shapeOf = (style) => (style === OTHER ? 0 : (style + Math.floor(style / 8)) % SHAPES);

  class PlainLayer {
    constructor(canvas, grid) {
      this.canvas = canvas;
      this.grid = grid;
    }
    mark(marks) {
      this.marks = marks;
      const lit = this.grid.sample(PLAIN_POINTS, (point) => marks[2 * point + 1] !== 1);
      const dim = this.grid.sample(PLAIN_POINTS - lit.length, (point) => marks[2 * point + 1] === 1);
      this.points = dim.concat(lit);
    }
    draw(view) {
      const context = this.canvas.getContext("2d");
      context.setTransform(view.ratio, 0, 0, view.ratio, 0, 0);
      context.clearRect(0, 0, view.width, view.height);
      for (const point of this.points) {
        const x = view.screenX(this.grid.x(point)), y = view.screenY(this.grid.y(point));
        if (x < -9 || y < -9 || x > view.width + 9 || y > view.height + 9) continue;
        const style = this.marks[2 * point], flag = this.marks[2 * point + 1];
        const size = view.size * (flag === 2 ? 1.5 : style === OTHER ? 0.8 : 1);
        context.globalAlpha = flag === 1 ? 0.18 * view.opacity : flag === 2 ? 1 : view.opacity;
        context.fillStyle = view.palette[flag === 1 ? 8 : hueOf(style)];
        if (size < 3.5) context.fillRect(x - size / 2, y - size / 2, size, size);
        else paintShape(context, shapeOf(style), x, y, size / 2);
      }
      context.globalAlpha = 1;
    }
  }

  class EmbeddingMap {
    constructor(figure) {
      this.figure = figure;
      this.find = (name) => figure.querySelector(`[data-map-${name}]`);
      this.box = this.find("box");
      this.readData(JSON.parse(figure.querySelector('script[type="application/json"]').textContent));
      this.view = { x: 0.5, y: 0.5, zoom: 1 };
      this.hovered = this.current = -1;
      this.isolated = new Set();
      this.hits = null;
      this.pins = [];
      this.pointers = new Map();
      this.share = 1;
      this.painted = this.movedAt = -1e9;
      this.end = new AbortController();
      this.still = matchMedia("(prefers-reduced-motion: reduce)");
      this.makeElements();
      this.openLayer();
      this.listen();
      this.chooseLayer(0);
      this.readTheme();
      this.resize();
      for (const name of ["tools", "help", "legend"]) this.find(name).hidden = false;
      figure.classList.add("map-ready");
      figure.embeddingMap = this;
      requestAnimationFrame(() => {
        figure.dataset.mapState = "ready";
        performance.mark("map-ready");
        setTimeout(() => this.names.texts, 50);  // before the first name is asked for
      });
    }

    readData(data) {
      this.data = data;
      this.count = data.count;
      this.places = numbersOf(data.places, Uint16Array);
      const numbers = data.numbers === null ? null : numbersOf(data.numbers, Uint32Array);
      this.names = new Names(data.names, numbers);
      this.layers = data.layers.map((layer) => ({
        ...layer, values: numbersOf(layer.values, layer.bytes === 1 ? Uint8Array : Uint16Array),
      }));
      this.grid = new Grid(this.places, Uint32Array.from({ length: this.count }, (_, k) => k));
      const pictured = numbersOf(data.pictured, Uint32Array), tiles = numbersOf(data.tiles, Uint16Array);
      this.pictured = pictured;
      this.tileOf = new Map(Array.from(pictured, (point, k) => [point, tiles[k]]));
      this.pictureGrid = new Grid(this.places, pictured);
      this.sheets = [...this.figure.querySelectorAll("[data-map-sheet]")];
      for (const sheet of this.sheets) sheet.decode().then(() => { this.showCard(); this.draw(); }, () => {});
      this.marks = new Uint8Array(2 * this.count);
    }

    makeElements() {
      const canvas = () => element("canvas", { className: "map-layer" });
      this.glCanvas = canvas();
      this.plainCanvas = canvas();
      this.overCanvas = canvas();
      this.glCanvas.dataset.mapGl = this.plainCanvas.dataset.mapPlain = this.overCanvas.dataset.mapOver = "";
      this.overCanvas.classList.add("map-shown");
      this.card = element("div", { className: "map-card", hidden: true });
      this.card.dataset.mapCard = "";
      this.cardPicture = element("canvas");
      this.cardPicture.setAttribute("aria-hidden", "true");
      this.cardWords = element("div");
      this.cardButtons = element("p", { className: "map-buttons", hidden: true });
      this.card.append(this.cardPicture, element("div", {}, this.cardWords, this.cardButtons));
      this.box.append(this.glCanvas, this.plainCanvas, this.overCanvas, this.card);
      this.box.tabIndex = 0;
      this.box.setAttribute("role", "application");
      this.box.setAttribute("aria-roledescription", "map");
      this.box.setAttribute("aria-label", `Map of ${plural(this.count, "image")}; arrows go from image to image`);
      const select = this.find("layer");
      this.layers.forEach((layer, k) => select.append(element("option", { value: k, textContent: layer.name })));
      select.parentElement.hidden = this.layers.length < 2;
      this.find("images").parentElement.hidden = !this.pictured.length;
    }

    // Drawing: by WebGL, or on a plain canvas

    openLayer() {
      this.plain = new PlainLayer(this.plainCanvas, this.grid);
      try {
        this.webGl = new WebGlLayer(this.glCanvas, this.places);
        this.useLayer(this.webGl, "");
      } catch {
        this.useLayer(this.plain, "This browser has no WebGL");
      }
      this.glCanvas.addEventListener("webglcontextlost", (event) => {
        event.preventDefault();  // so that the browser restores it
        this.useLayer(this.plain, "The browser has taken WebGL's context away");
      });
      this.glCanvas.addEventListener("webglcontextrestored", () => {
        try {
          this.webGl.build();
          this.useLayer(this.webGl, "");
        } catch {
          this.useLayer(this.plain, "WebGL's context came back, but cannot draw the map");
        }
      });
    }

    useLayer(layer, reason) {
      this.layer = layer;
      this.glCanvas.classList.toggle("map-shown", layer === this.webGl);
      this.plainCanvas.classList.toggle("map-shown", layer === this.plain);
      this.figure.dataset.mapDrawn = layer === this.webGl ? "webgl" : "canvas";
      const note = this.find("note"), drawn = Math.min(this.count, PLAIN_POINTS);
      note.hidden = reason === "";
      note.textContent = drawn < this.count
        ? `${reason}, so ${drawn.toLocaleString("en")} of ${plural(this.count, "point")} are drawn, from all parts of ` +
          "the map. Pointing, arrows and search reach all."
        : `${reason}, so the points are drawn without it.`;
      layer.mark(this.marks);
      this.draw();
    }

    readTheme() {
      const numbers = getComputedStyle(this.figure).color.match(/[\d.]+/g).map(Number);
      this.dark = numbers[0] + numbers[1] + numbers[2] > 384;
      const style = getComputedStyle(this.figure);
      this.palette = Array.from({ length: 8 }, (_, k) => style.getPropertyValue(`--run-${k}`).trim());
      this.palette.push(this.dark ? OTHER_COLOUR.dark : OTHER_COLOUR.light);
      this.ink = this.dark ? "#ffffff" : "#000000";
      this.paper = this.dark ? "#000000" : "#ffffff";
      this.paintLegend();
      this.draw();
    }

    resize() {
      this.width = this.box.clientWidth;
      this.height = this.box.clientHeight;
      this.ratio = Math.min(devicePixelRatio || 1, 2.5);
      for (const canvas of [this.glCanvas, this.plainCanvas, this.overCanvas]) {
        canvas.width = Math.max(1, Math.round(this.width * this.ratio));
        canvas.height = Math.max(1, Math.round(this.height * this.ratio));
      }
      this.paint();  // at once: a resized canvas is empty
    }

    get unit() { return 0.94 * Math.min(this.width, this.height) * this.view.zoom; }
    screenX(x) { return this.width / 2 + (x - this.view.x) * this.unit; }
    screenY(y) { return this.height / 2 - (y - this.view.y) * this.unit; }
    mapX(x) { return this.view.x + (x - this.width / 2) / this.unit; }
    mapY(y) { return this.view.y - (y - this.height / 2) / this.unit; }
    // Where a point is drawn.
    screenOf(point) { return [this.screenX(this.grid.x(point)), this.screenY(this.grid.y(point))]; }

    get pointSize() {
      const least = Math.min(10, 60 / this.count ** 0.27) * Math.max(0.6, Math.min(1, this.height / 600, this.width / 600));
      return Math.min(14, Math.max(2.2, least) * this.view.zoom ** 0.45);
    }

    draw() {
      if (this.waiting || !this.width) return;
      this.waiting = true;
      requestAnimationFrame(() => {
        this.waiting = false;
        this.paint();
      });
    }

    paint() {
      const { width, height, ratio, unit, palette, dark } = this;
      if (!width || !palette) return;
      const share = this.shareNow();
      const size = this.pointSize, opacity = size < 4 ? 0.8 : 0.92;
      this.layer.draw({
        width, height, ratio, unit, palette, dark, size, opacity, share, x: this.view.x, y: this.view.y,
        screenX: (x) => this.screenX(x), screenY: (y) => this.screenY(y),
      });
      this.paintOver();
    }

    // Returns the share of the points to draw: a part of them while the map moves, if a frame of all takes too long.
    shareNow() {
      const now = performance.now(), frame = now - this.painted;
      this.painted = now;
      clearTimeout(this.resting);
      if (now - this.movedAt > 150) return 1;
      if (frame > 50 && frame < 1000) this.share = Math.max(0.05, 0.6 * this.share);
      else if (frame < 40) this.share = Math.min(1, 1.06 * this.share);
      if (this.share < 1) this.resting = setTimeout(() => this.draw(), 200);
      return this.share;
    }

    paintOver() {
      const context = this.overCanvas.getContext("2d");
      context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
      context.clearRect(0, 0, this.width, this.height);
      if (this.find("images").checked) this.paintPictures(context);
      if (this.find("words").checked) this.paintWords(context);
      this.pins.forEach((point, k) => this.paintRing(context, point, 8, String(k + 1)));
      if (this.current >= 0) this.paintRing(context, this.current, 11, "");
      if (this.hovered >= 0 && this.hovered !== this.current) this.paintRing(context, this.hovered, 8, "");
    }

    paintRing(context, point, radius, label) {
      const [x, y] = this.screenOf(point);
      for (const [width, colour] of [[5, this.paper], [2, this.ink]]) {
        context.lineWidth = width;
        context.strokeStyle = colour;
        context.beginPath();
        context.arc(x, y, radius, 0, 7);
        context.stroke();
        if (label) {
          context.font = "bold 13px system-ui, sans-serif";
          if (colour === this.paper) context.strokeText(label, x + radius + 3, y + 5);
          context.fillStyle = colour;
          context.fillText(label, x + radius + 3, y + 5);
        }
      }
    }

    // Draws the names of categories, without one that would cover a more frequent one.
    paintWords(context) {
      const drawn = [];
      context.font = "600 13px system-ui, sans-serif";
      context.textAlign = "center";
      context.lineJoin = "round";
      context.lineWidth = 4;
      for (const { rank, name, x, y } of this.spots) {
        if (this.isolated.size && !this.isolated.has(rank)) continue;
        const text = name.length > 28 ? `${name.slice(0, 27)}…` : name, half = context.measureText(text).width / 2 + 4;
        const [left, top] = [this.screenX(x), this.screenY(y)];
        const covers = (other) => Math.abs(other.left - left) < other.half + half && Math.abs(other.top - top) < 18;
        if (drawn.some(covers)) continue;
        drawn.push({ left, top, half });
        context.strokeStyle = this.paper;
        context.strokeText(text, left, top + 4);
        context.fillStyle = this.ink;
        context.fillText(text, left, top + 4);
      }
      context.textAlign = "start";
    }

    // Draws pictures that do not cover each other, one in a cell of the map: moving it does not change which ones. The
    // atlas begins with pictures that are spread over the map.
    paintPictures(context) {
      const cell = 2 ** Math.ceil(Math.log2(36 / this.unit)), size = cell * this.unit - 4, taken = new Set();
      for (const point of this.pictured) {
        if (!this.isLit(point)) continue;
        const column = Math.floor(this.grid.x(point) / cell), row = Math.floor(this.grid.y(point) / cell);
        const x = this.screenX((column + 0.5) * cell), y = this.screenY((row + 0.5) * cell);
        if (x < -size || y < -size || x > this.width + size || y > this.height + size) continue;
        const key = row * 2 ** 21 + column;
        if (taken.has(key)) continue;
        taken.add(key);
        this.drawTile(context, point, x - size / 2, y - size / 2, size);
      }
    }

    drawTile(context, point, x, y, size) {
      const { side, columns } = this.data.atlas, tile = this.tileOf.get(point);
      const sheet = this.sheets[Math.floor(tile / (columns * columns))], place = tile % (columns * columns);
      if (!sheet || !sheet.naturalWidth) return false;
      const column = place % columns, row = Math.floor(place / columns);
      context.drawImage(sheet, column * side, row * side, side, side, x, y, size, size);
      return true;
    }

    // The card of a point: its picture, its name, its categories

    // Returns the point whose picture is shown for a point: itself, or the nearest that has one.
    pictureOf(point) {
      if (this.tileOf.has(point)) return point;
      return this.pictureGrid.nearest(this.grid.x(point), this.grid.y(point), 4, () => true);
    }

    paintPicture(canvas, point, side) {
      const from = this.pictureOf(point);
      canvas.hidden = from < 0;
      if (from < 0) return from;
      const pixels = Math.round(side * this.ratio), context = canvas.getContext("2d");
      if (canvas.width !== pixels) canvas.width = canvas.height = pixels;  // which takes longer than to draw in it
      context.clearRect(0, 0, pixels, pixels);
      context.imageSmoothingQuality = "high";
      this.drawTile(context, from, 0, 0, pixels);
      return from;
    }

    categoriesOf(point) {
      return this.layers.map((layer) => [layer.name, layer.categories[layer.values[point]]]);
    }

    wordsOf(point, from) {
      const words = this.categoriesOf(point).map(([layer, category]) =>
        category.startsWith(`${layer} `) ? category : `${layer}: ${category}`);
      if (from >= 0 && from !== point) words.push(`picture of the nearest image that has one, ${this.names.of(from)}`);
      return words;
    }

    showCard() {
      const point = this.hovered >= 0 ? this.hovered : this.current;
      this.card.hidden = point < 0;
      if (point < 0) return;
      const kept = point === this.current, from = this.paintPicture(this.cardPicture, point, 96);
      this.card.dataset.point = point;
      this.card.classList.toggle("map-kept", kept);
      this.cardWords.replaceChildren(
        element("p", { className: "map-name" }, element("bdi", { textContent: this.names.of(point) })),
        ...this.wordsOf(point, from).map((words) => element("p", {}, element("bdi", { textContent: words }))));
      this.cardButtons.hidden = !kept;
      this.cardButtons.replaceChildren();
      if (kept) {
        const pinned = this.pins.includes(point);
        const pin = element("button", { type: "button", className: "button", textContent: pinned ? "Remove pin" : "Pin" });
        pin.addEventListener("click", () => (pinned ? this.unpin(point) : this.pin(point)));
        this.cardButtons.append(pin);
        this.layers.forEach((layer, k) => {
          const only = element("button", { type: "button", className: "button", textContent: `Only this ${layer.name}` });
          only.addEventListener("click", () => this.isolateAlone(k, layer.values[point]));
          this.cardButtons.append(only);
        });
      }
      this.placeCard(point);
    }

    placeCard(point) {
      const [x, y] = this.screenOf(point), { offsetWidth, offsetHeight } = this.card;
      const narrow = this.width < 480;
      let left = x + 16, top = y + 16;
      if (left + offsetWidth > this.width - 8) left = x - 16 - offsetWidth;
      if (top + offsetHeight > this.height - 8) top = y - 16 - offsetHeight;
      if (narrow) [left, top] = [8, y > this.height / 2 ? 8 : this.height - offsetHeight - 8];
      this.card.style.left = `${Math.max(8, Math.min(left, this.width - offsetWidth - 8))}px`;
      this.card.style.top = `${Math.max(8, Math.min(top, this.height - offsetHeight - 8))}px`;
    }

    hover(point) {
      if (point === this.hovered) return;
      this.hovered = point;
      this.showCard();
      this.drawOver();
    }

    drawOver() {
      if (this.waiting || this.waitingOver) return;
      this.waitingOver = true;
      requestAnimationFrame(() => {
        this.waitingOver = false;
        this.paintOver();
      });
    }

    select(point, aloud) {
      this.current = point;
      this.hovered = -1;
      this.showCard();
      this.drawOver();
      if (aloud && point >= 0) this.say([this.names.of(point), ...this.wordsOf(point, -1)].join(", "));
    }

    say(words) { this.find("status").textContent = words; }

    pick(x, y, radius) {
      return this.grid.nearest(this.mapX(x), this.mapY(y), radius / this.unit, (point) => this.isLit(point));
    }

    isLit(point) { return this.marks[2 * point + 1] !== 1; }

    // Pins: a list of images below the map

    pin(point) {
      if (point < 0 || this.pins.includes(point)) return;
      this.pins.push(point);
      this.showPins();
      this.say(`Pinned ${this.names.of(point)}, ${plural(this.pins.length, "pin")}`);
    }

    unpin(point) {
      if (!this.pins.includes(point)) return;
      this.pins = this.pins.filter((other) => other !== point);
      this.showPins();
      this.say(`Removed the pin of ${this.names.of(point)}, ${plural(this.pins.length, "pin")} left`);
    }

    showPins() {
      const place = this.find("pins");
      place.hidden = !this.pins.length;
      const list = element("ol", {}, ...this.pins.map((point, k) => this.pinItem(point, k)));
      place.replaceChildren(element("strong", { textContent: `Pinned: ${this.pins.length}` }), list);
      this.showCard();
      this.drawOver();
    }

    pinItem(point, k) {
      const picture = element("canvas"), name = this.names.of(point);
      picture.setAttribute("aria-hidden", "true");
      const from = this.paintPicture(picture, point, 48);
      const go = element("button", { type: "button", className: "map-go", title: "Show on the map" },
        element("bdi", { textContent: `${k + 1}. ${name}` }));
      const remove = element("button", { type: "button", className: "button", textContent: "×" });
      remove.setAttribute("aria-label", `Remove the pin of ${name}`);
      const item = element("li", {}, picture,
        element("div", {}, go, ...this.wordsOf(point, from).map((words) =>
          element("div", {}, element("bdi", { textContent: words })))), remove);
      item.dataset.point = point;
      const drop = () => {
        this.unpin(point);
        const next = this.find("pins").querySelectorAll(".map-go");
        (next[Math.min(k, next.length - 1)] || this.box).focus();
      };
      go.addEventListener("click", () => {
        this.select(point, true);
        this.fly({ x: this.grid.x(point), y: this.grid.y(point), zoom: Math.max(this.view.zoom, 4) });
      });
      remove.addEventListener("click", drop);
      item.addEventListener("keydown", (event) => { if (event.key === "Delete") drop(); });
      return item;
    }

    // Colours, the legend, and which points are lit

    chooseLayer(number) {
      this.shown = number;
      this.isolated.clear();
      this.find("layer").value = String(number);
      const layer = this.layers[number], named = this.data.namedCategories;
      for (let point = 0; point < this.count; point += 1) {
        const rank = layer ? layer.values[point] : 0;
        this.marks[2 * point] = rank < named ? rank : OTHER;
      }
      this.findSpots();
      this.makeLegend();
      this.light();
    }

    // Finds where the names of categories stand: in the middle of those that are in one part of the map.
    findSpots() {
      const layer = this.layers[this.shown], named = this.data.namedCategories;
      const groups = Array.from({ length: layer ? Math.min(named, layer.categories.length) : 0 }, () => []);
      const step = groups.map((_, rank) => Math.ceil(layer.counts[rank] / 1000)), seen = groups.map(() => 0);
      for (let point = 0; groups.length > 1 && point < this.count; point += 1) {
        const rank = layer.values[point];
        if (rank < groups.length && seen[rank]++ % step[rank] === 0) groups[rank].push(point);
      }
      const middle = (numbers) => numbers.sort((a, b) => a - b)[numbers.length >> 1];
      const around = (points) => {
        const x = middle(points.map((point) => this.grid.x(point))), y = middle(points.map((point) => this.grid.y(point)));
        return { x, y, spread: middle(points.map((point) => Math.hypot(this.grid.x(point) - x, this.grid.y(point) - y))) };
      };
      this.spots = [];
      if (groups.length < 2) return;
      const limit = 0.6 * around(groups.flat()).spread;
      groups.forEach((points, rank) => {
        const spot = around(points);
        if (points.length > 4 && spot.spread < limit) this.spots.push({ rank, name: layer.categories[rank], ...spot });
      });
    }

    makeLegend() {
      const legend = this.find("legend"), layer = this.layers[this.shown], named = this.data.namedCategories;
      legend.replaceChildren();
      this.legendButtons = new Map();
      if (!layer) return;
      legend.setAttribute("role", "group");
      legend.setAttribute("aria-label", `Show only some of the categories of ${layer.name}`);
      const add = (key, style, label, count) => {
        const symbol = element("canvas", { width: 32, height: 32 });
        symbol.setAttribute("aria-hidden", "true");
        const button = element("button", { type: "button", className: "button" }, symbol,
          element("bdi", { textContent: label }), element("span", { className: "map-count", textContent: count.toLocaleString("en") }));
        button.setAttribute("aria-pressed", "false");
        button.dataset.category = key;
        button.addEventListener("click", () => {
          if (!this.isolated.delete(key)) this.isolated.add(key);
          this.light();
        });
        this.legendButtons.set(key, { button, symbol, style });
        legend.append(button);
      };
      layer.categories.slice(0, named).forEach((name, rank) => add(rank, rank, name, layer.counts[rank]));
      const rest = layer.counts.slice(named);
      if (rest.length) add(-1, OTHER, `other: ${rest.length} less frequent`, rest.reduce((a, b) => a + b));
      this.showAll = element("button", { type: "button", className: "button", textContent: "Show all", hidden: true });
      this.showAll.addEventListener("click", () => {
        this.isolated.clear();
        this.light();
        this.box.focus({ preventScroll: true });
      });
      legend.append(this.showAll);
      this.paintLegend();
    }

    paintLegend() {
      if (!this.legendButtons || !this.palette) return;
      for (const { symbol, style } of this.legendButtons.values()) {
        const context = symbol.getContext("2d");
        context.clearRect(0, 0, 32, 32);
        context.fillStyle = this.palette[hueOf(style)];
        paintShape(context, shapeOf(style), 16, 16, style === OTHER ? 7 : 13);
      }
    }

    isolateAlone(layer, rank) {
      if (layer !== this.shown) this.chooseLayer(layer);
      this.isolated.clear();
      this.isolated.add(rank);
      this.light();
    }

    // Sets each point's flag: 1 for those that are not asked for, 2 for what was searched, 0 for the others.
    light() {
      const layer = this.layers[this.shown], named = this.data.namedCategories, { isolated, hits } = this;
      let lit = 0;
      for (let point = 0; point < this.count; point += 1) {
        const rank = layer ? layer.values[point] : 0;
        const wanted = !isolated.size || isolated.has(rank) || (rank >= named && isolated.has(-1));
        const flag = wanted && (!hits || hits[point]) ? (hits ? 2 : 0) : 1;
        this.marks[2 * point + 1] = flag;
        lit += flag !== 1;
      }
      for (const [key, { button }] of this.legendButtons) {
        button.setAttribute("aria-pressed", String(isolated.has(key)));
      }
      if (this.showAll) this.showAll.hidden = !isolated.size;
      if (isolated.size) this.say(`${lit.toLocaleString("en")} of ${plural(this.count, "image")} shown`);
      else if (!hits) this.say("");
      this.lit = lit;
      this.layer.mark(this.marks);
      this.draw();
    }

    search(text) {
      const part = text.trim().toLowerCase();
      this.hits = null;
      if (part) {
        this.hits = new Uint8Array(this.count);
        for (const point of this.names.containing(part)) this.hits[point] = 1;
      }
      this.light();
      if (part) {
        const all = this.names.count < this.count ? `the ${plural(this.names.count, "name")} in this page` : "all names";
        this.say(`${plural(this.lit, "image")} with “${text.trim()}” in ${all}`);
      }
    }

    // Moving about

    zoomAt(x, y, factor) {
      const zoom = Math.max(1, Math.min(MAX_ZOOM, this.view.zoom * factor));
      const [mapX, mapY] = [this.mapX(x), this.mapY(y)], before = this.view.zoom;
      this.view.zoom = zoom;
      this.view.x += mapX - this.mapX(x);
      this.view.y += mapY - this.mapY(y);
      this.moved();
      return zoom !== before;
    }

    pan(dx, dy) {
      this.view.x -= dx / this.unit;
      this.view.y += dy / this.unit;
      this.moved();
    }

    moved() {
      const { view } = this;
      this.movedAt = performance.now();
      // The whole map stands still in the middle; a part of it moves as far as its points reach.
      const slack = 0.5 - 0.5 / view.zoom ** 2;
      view.x = Math.max(0.5 - slack, Math.min(0.5 + slack, view.x));
      view.y = Math.max(0.5 - slack, Math.min(0.5 + slack, view.y));
      // One finger scrolls the page while the whole map is seen.
      this.box.style.touchAction = view.zoom > 1 ? "none" : "pan-y";
      if (!this.card.hidden) this.placeCard(Number(this.card.dataset.point));
      this.draw();
    }

    fly(goal) {
      const from = { ...this.view }, start = performance.now();
      const flight = (this.flight = {});
      const step = (now) => {
        if (this.flight !== flight) return;
        const t = this.still.matches ? 1 : Math.max(0, Math.min(1, (now - start) / 250)), s = t * t * (3 - 2 * t);
        this.view.zoom = from.zoom * (goal.zoom / from.zoom) ** s;
        this.view.x = from.x + (goal.x - from.x) * s;
        this.view.y = from.y + (goal.y - from.y) * s;
        this.moved();
        if (t < 1) requestAnimationFrame(step);
      };
      step(start);
    }

    zoomButton(kind) {
      if (kind === "reset") return this.fly({ x: 0.5, y: 0.5, zoom: 1 });
      const zoom = Math.max(1, Math.min(MAX_ZOOM, this.view.zoom * (kind === "in" ? 2 : 0.5)));
      const point = this.current;
      const [x, y] = point >= 0 && kind === "in" ? [this.grid.x(point), this.grid.y(point)] : [this.view.x, this.view.y];
      return this.fly({ x, y, zoom });
    }

    go(dx, dy) {
      if (this.current < 0) {
        this.select(this.grid.nearest(this.view.x, this.view.y, 4, (point) => this.isLit(point)), true);
        return;
      }
      const lit = (point) => this.isLit(point);
      let next = this.grid.towards(this.current, dx, dy, 14 / this.unit, lit);
      if (next < 0) next = this.grid.towards(this.current, dx, dy, 0, lit);
      if (next < 0) return this.say("No image further in this direction");
      this.select(next, true);
      const [x, y] = this.screenOf(next), margin = 24;
      const out = (value, size) => Math.min(0, value - margin) + Math.max(0, value - size + margin);
      const [right, down] = [out(x, this.width), out(y, this.height)];
      if (right || down) this.pan(-right, -down);
      return undefined;
    }

    clear() {
      this.find("search").value = "";
      this.hits = null;
      this.isolated.clear();
      this.light();
      this.select(-1, false);
      this.say("");
    }

    // Events

    listen() {
      const { box } = this;
      const on = (target, kind, act) => target.addEventListener(kind, act, { signal: this.end.signal, passive: true });
      box.addEventListener("pointerdown", (event) => this.onDown(event));
      box.addEventListener("pointermove", (event) => this.onMove(event));
      box.addEventListener("pointerup", (event) => this.onUp(event));
      box.addEventListener("pointercancel", (event) => this.pointers.delete(event.pointerId));
      box.addEventListener("pointerleave", () => this.hover(-1));
      box.addEventListener("wheel", (event) => this.onWheel(event), { passive: false });
      box.addEventListener("dblclick", (event) => {
        if (!this.card.contains(event.target)) this.zoomAt(...this.placeOf(event), 2);
      });
      box.addEventListener("keydown", (event) => this.onKey(event));
      this.find("layer").addEventListener("change", (event) => this.chooseLayer(Number(event.target.value)));
      for (const name of ["images", "words"]) this.find(name).addEventListener("change", () => this.drawOver());
      this.find("search").addEventListener("input", (event) => {
        clearTimeout(this.typing);
        this.typing = setTimeout(() => this.search(event.target.value), 120);
      });
      this.find("search").addEventListener("keydown", (event) => {
        if (event.key === "Enter" && this.lit) {
          clearTimeout(this.typing);
          this.search(event.target.value);
          box.focus();
          this.current = -1;
          this.go(0, 0);
        }
      });
      for (const button of this.figure.querySelectorAll("[data-map-zoom]")) {
        button.addEventListener("click", () => this.zoomButton(button.dataset.mapZoom));
      }
      on(window, "scroll", () => { this.scrolled = performance.now(); });
      on(document, "infomax-colours", () => this.readTheme());
      // Also when the window is moved to a screen with other pixels, or zoomed: both change its size in CSS pixels.
      on(window, "resize", () => this.resize());
      this.sizes = new ResizeObserver(() => this.resize());
      this.sizes.observe(box);
    }

    // Ends what goes on outside of the figure, after a server has replaced it.
    leave() {
      this.end.abort();
      this.sizes.disconnect();
      const loser = this.webGl && this.webGl.gl.getExtension("WEBGL_lose_context");
      if (loser) loser.loseContext();
    }

    placeOf(event) {
      const corner = this.box.getBoundingClientRect();
      return [event.clientX - corner.left - this.box.clientLeft, event.clientY - corner.top - this.box.clientTop];
    }

    onDown(event) {
      if (this.card.contains(event.target) || event.button > 0) return;
      this.flight = null;
      this.box.setPointerCapture(event.pointerId);
      if (!this.pointers.size) this.travelled = 0;
      this.pointers.set(event.pointerId, this.placeOf(event));
    }

    onMove(event) {
      const place = this.placeOf(event), before = this.pointers.get(event.pointerId);
      if (!before) {
        const touching = event.pointerType === "touch" || this.card.contains(event.target);
        if (!touching) this.hover(this.pick(...place, 14));
        return;
      }
      const [dx, dy] = [place[0] - before[0], place[1] - before[1]];
      this.travelled += Math.hypot(dx, dy);
      if (this.pointers.size === 2) this.pinch(event.pointerId, place);
      else if (this.travelled > 5) {
        this.figure.classList.add("map-dragging");
        this.hover(-1);
        this.pan(dx, dy);
      } else return;
      this.pointers.set(event.pointerId, place);
    }

    pinch(id, place) {
      this.travelled += 99;  // two fingers are no tap
      const others = [...this.pointers].filter(([other]) => other !== id), fixed = others[0][1];
      const before = this.pointers.get(id);
      const length = (a) => Math.max(1, Math.hypot(a[0] - fixed[0], a[1] - fixed[1]));
      this.pan((place[0] - before[0]) / 2, (place[1] - before[1]) / 2);
      this.zoomAt((place[0] + fixed[0]) / 2, (place[1] + fixed[1]) / 2, length(place) / length(before));
    }

    onUp(event) {
      if (!this.pointers.delete(event.pointerId)) return;
      this.figure.classList.remove("map-dragging");
      if (this.travelled > 5) return;
      this.select(this.pick(...this.placeOf(event), event.pointerType === "touch" ? 28 : 14), true);
    }

    // Zooms; but who scrolls down the page and so comes across the map goes on to scroll the page.
    onWheel(event) {
      const now = performance.now();
      if (!event.ctrlKey && now - (this.scrolled || -1e9) < 300) return;
      const lines = event.deltaMode === 0 ? 1 : 20;
      const factor = Math.exp(-event.deltaY * lines * (event.ctrlKey ? 0.01 : 0.002));
      this.flight = null;
      if (this.zoomAt(...this.placeOf(event), factor)) this.zoomed = now;
      if (now - (this.zoomed || -1e9) < 300 || event.ctrlKey) event.preventDefault();
    }

    onKey(event) {
      if (event.target !== this.box || event.ctrlKey || event.metaKey || event.altKey) return;
      const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
      const actions = {
        "+": () => this.zoomButton("in"), "=": () => this.zoomButton("in"), "-": () => this.zoomButton("out"),
        _: () => this.zoomButton("out"), 0: () => this.zoomButton("reset"), Enter: () => this.pin(this.current),
        Delete: () => this.unpin(this.current), Escape: () => this.clear(),
      };
      if (steps[event.key]) this.go(...steps[event.key]);
      else if (Object.hasOwn(actions, event.key)) actions[event.key]();
      else return;
      event.preventDefault();
    }
  }

  let maps = [];
  // The page is shown before the map is built.
  infomaxPage.each("[data-map]", (figure) => requestAnimationFrame(() => setTimeout(() => {
    for (const map of maps) if (!map.figure.isConnected) map.leave();
    maps = maps.filter((map) => map.figure.isConnected);
    maps.push(new EmbeddingMap(figure));
  })));
})();
