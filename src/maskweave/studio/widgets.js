// Editors that Gradio has none of: painting, boxes, colors, sliders. Each is built into the element of a gr.HTML component and sends its value as text.
// All of them work with the keyboard: on a canvas, the arrow keys move a cursor and the space bar paints or starts and ends a box.
window.maskweave = (() => {
  const UNPAINTED = 255, CELL = 4096;

  function make(tag, attributes = {}, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else if (value !== false && value !== null) node.setAttribute(name, value === true ? "" : value);
    }
    node.append(...children);
    return node;
  }

  function labeled(words, node) {
    return make("label", { class: "mw-label" }, words, node);
  }

  function start(element) {
    const root = element.querySelector(".mw-widget");
    root.replaceChildren();
    return root;
  }

  function parsed(text, otherwise) {
    try { return text ? JSON.parse(text) : otherwise; } catch { return otherwise; }
  }

  function bytesToText(bytes) {
    let text = "";
    for (let at = 0; at < bytes.length; at += CELL) text += String.fromCharCode(...bytes.subarray(at, at + CELL));
    return btoa(text);
  }

  function textToBytes(text) {
    return Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  }

  // A canvas of height × width points over an optional picture. `act(x, y, phase)` gets points; phases are "down", "move" and "up".
  function stage(root, [height, width], background, name, act, cursor) {
    const canvas = make("canvas", { width, height, tabindex: 0, role: "application", "aria-label":
      `${name}: drag to draw; or move with the arrow keys and press space` });
    const frame = make("div", { class: "mw-stage", style: `aspect-ratio:${width}/${height}` });
    const picture = make("img", { alt: "" });
    frame.append(picture, canvas);
    canvas.onBackground = (source) => { picture.src = source; picture.hidden = !source; };
    canvas.onBackground(background);
    root.append(frame);
    const at = (event) => [
      Math.min(width - 1, Math.max(0, Math.floor((event.offsetX / canvas.clientWidth) * width))),
      Math.min(height - 1, Math.max(0, Math.floor((event.offsetY / canvas.clientHeight) * height)))];
    let down = false;
    canvas.addEventListener("pointerdown", (event) => {
      down = true;
      canvas.setPointerCapture(event.pointerId);
      act(...at(event), "down");
      event.preventDefault();
      canvas.focus({ preventScroll: true });
    });
    canvas.addEventListener("pointermove", (event) => down && act(...at(event), "move"));
    for (const end of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(end, (event) => { if (down) act(...at(event), "up"); down = false; });
    }
    canvas.addEventListener("keydown", (event) => {
      const step = event.shiftKey ? 1 : Math.max(1, Math.round(Math.min(width, height) / 32));
      const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
      if (moves[event.key]) {
        cursor.x = Math.min(width - 1, Math.max(0, cursor.x + moves[event.key][0]));
        cursor.y = Math.min(height - 1, Math.max(0, cursor.y + moves[event.key][1]));
        act(cursor.x, cursor.y, "cursor");
      } else if (event.key === " " || event.key === "Enter") {
        act(cursor.x, cursor.y, "press");
      } else return;
      event.preventDefault();
    });
    return canvas;
  }

  function crosshair(pen, cursor, focused) {
    if (!focused) return;
    pen.fillStyle = "#e0218a";
    pen.fillRect(cursor.x - 2, cursor.y, 5, 1);
    pen.fillRect(cursor.x, cursor.y - 2, 1, 5);
  }

  function disc(x, y, radius, width, height, visit) {
    for (let row = Math.max(0, y - radius); row <= Math.min(height - 1, y + radius); row++)
      for (let column = Math.max(0, x - radius); column <= Math.min(width - 1, x + radius); column++)
        if ((row - y) ** 2 + (column - x) ** 2 <= radius * radius + 0.5) visit(row * width + column);
  }

  function line(x0, y0, x1, y1, visit) {
    const steps = Math.max(Math.abs(x1 - x0), Math.abs(y1 - y0), 1);
    for (let n = 0; n <= steps; n++) visit(Math.round(x0 + ((x1 - x0) * n) / steps), Math.round(y0 + ((y1 - y0) * n) / steps));
  }

  // Paints class ids, or a mask (one class over a picture), or colors (`draw`).
  function paint(element, props, trigger, watch) {
    const root = start(element), [height, width] = props.size, draws = props.mode === "draw";
    const ids = new Uint8Array(width * height).fill(UNPAINTED), colors = new Uint8Array(width * height * 3).fill(255);
    const before = parsed(draws ? "" : props.value, null);
    if (before && before.size[0] === height && before.size[1] === width) ids.set(textToBytes(before.ids));
    const cursor = { x: width >> 1, y: height >> 1 }, undo = [];
    let last = null, touched = Boolean(before);
    const choice = draws
      ? make("input", { type: "color", value: "#d9553b" })
      : make("select", {}, ...props.classes.map((name, n) => make("option", { value: n }, name)), make("option", { value: UNPAINTED }, "erase"));
    const size = make("input", { type: "range", min: 0, max: Math.max(2, Math.round(Math.min(width, height) / 8)), value: Math.max(1, Math.round(Math.min(width, height) / 24)) });

    function put(index) {
      if (draws) colors.set([1, 3, 5].map((at) => parseInt(choice.value.slice(at, at + 2), 16)), 3 * index);
      else ids[index] = Number(choice.value);
    }
    function show(focused = document.activeElement === canvas) {
      const pen = canvas.getContext("2d"), picture = pen.createImageData(width, height);
      for (let n = 0; n < width * height; n++) {
        const color = draws ? colors.subarray(3 * n, 3 * n + 3) : props.colors[ids[n]] || [0, 0, 0];
        picture.data.set([...color, draws || ids[n] !== UNPAINTED ? (props.mode === "mask" ? 150 : 255) : 0], 4 * n);
      }
      pen.putImageData(picture, 0, 0);
      crosshair(pen, cursor, focused);
    }
    function send() {
      show(false);
      props.value = !touched ? "" : draws ? canvas.toDataURL("image/png") : JSON.stringify({ size: [height, width], ids: bytesToText(ids) });
      show();
      trigger("change");
    }
    function keep() {
      undo.push(draws ? colors.slice() : ids.slice());
      if (undo.length > 20) undo.shift();
    }
    function act(x, y, phase) {
      if (phase === "cursor") return show(true);
      if (phase === "up") { last = null; return send(); }
      if (phase === "down" || phase === "press") keep();
      if (phase === "press") last = null;
      touched = true;
      line(...(last || [x, y]), x, y, (column, row) => disc(column, row, Number(size.value), width, height, put));
      last = phase === "press" ? null : [x, y];
      if (phase === "press") send(); else show(false);
    }
    const canvas = stage(root, props.size, props.background, props.name, act, cursor);
    watch("background", () => canvas.onBackground(props.background));
    for (const event of ["focus", "blur"]) canvas.addEventListener(event, () => show());
    const all = (action) => () => { keep(); action(); send(); };
    root.append(make("div", { class: "mw-tools" },
      labeled(draws ? "Color" : "Paint", choice), labeled("Brush", size),
      make("button", { type: "button", onclick: all(() => { touched = true; for (let n = 0; n < width * height; n++) put(n); }) }, "Fill"),
      make("button", { type: "button", onclick: () => { const old = undo.pop(); if (old) { (draws ? colors : ids).set(old); send(); } } }, "Undo"),
      make("button", { type: "button", onclick: all(() => { ids.fill(UNPAINTED); colors.fill(255); touched = false; }) }, "Clear")));
    if (!draws && props.mode !== "mask")
      root.append(make("div", { class: "mw-legend" }, ...props.classes.map((name, n) =>
        make("span", {}, make("i", { style: `background:rgb(${props.colors[n]})` }), name))));
    show(false);
  }

  function boxes(element, props, trigger) {
    const root = start(element), cursor = { x: 128, y: 128 }, side = 256;
    const items = parsed(props.value, []).map((item) => ({ class: item.class, box: [...item.box] }));
    let corner = null;
    const choice = make("select", {}, ...props.classes.map((name) => make("option", { value: name }, name)));
    function show(open = null) {
      const pen = canvas.getContext("2d");
      pen.clearRect(0, 0, side, side);
      pen.font = "12px sans-serif";
      for (const item of [...items, ...(open ? [open] : [])]) {
        const [x0, y0, x1, y1] = item.box.map((c) => c * side);
        pen.strokeStyle = pen.fillStyle = "#e0218a";
        pen.lineWidth = 2;
        pen.strokeRect(x0, y0, x1 - x0, y1 - y0);
        pen.fillText(item.class, x0 + 4, y0 + 14);
      }
      crosshair(pen, cursor, document.activeElement === canvas);
    }
    function send() {
      props.value = items.length ? JSON.stringify(items) : "";
      list();
      show();
      trigger("change");
    }
    function between(x, y) {
      const round = (c) => Math.round((c / side) * 1000) / 1000;
      return { class: choice.value, box: [Math.min(x, corner[0]), Math.min(y, corner[1]), Math.max(x, corner[0]), Math.max(y, corner[1])].map(round) };
    }
    function close(x, y) {
      const item = between(x, y);
      corner = null;
      if (item.box[2] > item.box[0] && item.box[3] > item.box[1]) items.push(item);
      send();
    }
    function act(x, y, phase) {
      if (phase === "down") corner = [x, y];
      else if (phase === "up") close(x, y);
      else if (phase === "press") { if (corner) close(x, y); else corner = [x, y]; }
      else if (corner) show(between(x, y));
      else show();
    }
    const canvas = stage(root, [side, side], props.background, props.name, act, cursor);
    root.querySelector(".mw-stage").classList.add("mw-paper");
    for (const event of ["focus", "blur"]) canvas.addEventListener(event, () => show());
    const rows = make("div", { class: "mw-rows" });
    function list() {
      rows.replaceChildren(...items.map((item, n) => make("div", {},
        make("span", {}, `${item.class} ${item.box.map((c) => c.toFixed(2)).join(", ")}`),
        make("button", { type: "button", "aria-label": `Remove ${item.class}`, onclick: () => { items.splice(n, 1); send(); } }, "Remove"))));
    }
    root.append(make("div", { class: "mw-tools" }, labeled("Class", choice),
      make("button", { type: "button", onclick: () => { items.length = 0; send(); } }, "Clear")), rows);
    list();
    show();
  }

  function colors(element, props, trigger) {
    const root = start(element), items = parsed(props.value, []).map((color) => [...color]);
    const rows = make("div", { class: "mw-colors" });
    const hex = (color) => "#" + color.map((c) => c.toString(16).padStart(2, "0")).join("");
    function send() {
      props.value = items.length ? JSON.stringify(items) : "";
      trigger("change");
    }
    function list() {
      rows.replaceChildren(...items.map((color, n) => make("span", {},
        make("input", { type: "color", value: hex(color), "aria-label": `Color ${n + 1}`,
          onchange: (event) => { items[n] = [1, 3, 5].map((at) => parseInt(event.target.value.slice(at, at + 2), 16)); send(); } }),
        make("button", { type: "button", "aria-label": `Remove color ${n + 1}`, onclick: () => { items.splice(n, 1); list(); send(); } }, "×"))));
    }
    root.append(rows, make("div", { class: "mw-tools" },
      make("button", { type: "button", onclick: () => { items.push(items.length ? [...items[items.length - 1]] : [60, 120, 200]); list(); send(); } }, "Add a color")));
    list();
  }

  function sliders(element, props, trigger) {
    const root = start(element), values = parsed(props.value, {});
    function send() {
      props.value = Object.keys(values).length ? JSON.stringify(values) : "";
      trigger("change");
    }
    for (const [name, key] of Object.entries(props.keys)) {
      const [low, high] = key.range, step = key.integer ? 1 : "any", known = name in values;
      const number = known ? values[name] : key.integer ? Math.round((low + high) / 2) : (low + high) / 2;
      const on = make("input", { type: "checkbox", checked: known });
      const range = make("input", { type: "range", min: low, max: high, step, value: number, "aria-label": name });
      const exact = make("input", { type: "number", min: low, max: high, step, value: Number(number.toPrecision(5)), "aria-label": `${name}, exact` });
      const set = (value) => { values[name] = Math.min(high, Math.max(low, Number(value))); on.checked = true; };
      on.addEventListener("change", () => { if (on.checked) set(range.value); else delete values[name]; send(); });
      range.addEventListener("input", () => { exact.value = Number(Number(range.value).toPrecision(5)); set(range.value); });
      range.addEventListener("change", send);
      exact.addEventListener("change", () => { if (exact.value === "") return; range.value = exact.value; set(exact.value); send(); });
      root.append(make("div", { class: "mw-slider" }, make("label", {}, on, name.replaceAll("_", " ") + (key.unit ? ` (${key.unit})` : "")), range, exact));
    }
  }

  return { paint, boxes, colors, sliders };
})();
