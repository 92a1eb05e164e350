'use strict';

/* The attention explorer: shows what a position of an image attends to, in every layer and group.
 *
 * mountExplorer(element, view) builds it inside `element` from a view made by `csametric.visualization.explorer.encode_view`, and
 * replaces an explorer that is already there; mountExplorers(root) does so for each .explorer[data-view] that comes near the window.
 * element.explorer has
 *   select(y, x)                  select a position, in pixels of the image
 *   position                      { y, x, pinned, cells: [{ y, x } of each layer] }
 *   map(layer, group)             the reconstructed map at the position, a Float32Array of H x W; 1 is the uniform map
 *   weights(layer, group)         the D weights at the position
 *   milliseconds                  duration of the last change of position
 *   destroy()                     empty the element and remove all listeners
 * and `element` dispatches the event "explorer:select" with the position as its detail.
 */
(() => {
  const INFERNO =
    '000004 0b0724 210c4a 3d0965 57106e 71196e 8a226a a32c61 bc3754 d04545 e35933 f1711f f98c0a fcaa0f f9c932 f2e865 fcffa4';
  const EMPHASISED = 3; // the number of base maps with the largest weights that are outlined
  const QUIET = 600; // milliseconds without a change before the position is announced to screen readers
  const SCALES = [0.05, 0.1, 0.2, 0.5, 1]; // weights at the top of the bar chart
  const NONE = -1; // the index of no base map or no cell
  const ARROWS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  const colours = colourTable(INFERNO.split(' '));

  function mountExplorer(element, view) {
    if (element.explorer) element.explorer.destroy();
    const stop = new AbortController();
    const listen = (target, kind, handler) => target.addEventListener(kind, handler, { signal: stop.signal });
    const layers = view.layers.map(readLayer);
    const finest = layers.reduce((a, b) => (b.positions > a.positions ? b : a));
    const picker = buildPicker(view);
    const stages = layers.map((layer) => buildStage(layer, view));
    const panels = stages.flatMap((stage) => stage.panels);
    const state = { y: view.height / 2, x: view.width / 2, pinned: false, pressed: null, pointer: null, frame: 0, timer: 0 };

    const cellOf = (layer, y = state.y, x = state.x) => ({
      y: limit(Math.floor((y / view.height) * layer.height), layer.height - 1),
      x: limit(Math.floor((x / view.width) * layer.width), layer.width - 1),
    });

    function update() {
      const started = performance.now();
      showPosition(picker, view, state, cellOf(finest), finest);
      stages.forEach((stage) => showStage(stage, cellOf(stage.layer), picker.sameScale.checked));
      explorer.milliseconds = performance.now() - started;
      element.dispatchEvent(new CustomEvent('explorer:select', { detail: explorer.position }));
    }

    function select(y, x) {
      state.y = Math.min(Math.max(y, 0), view.height);
      state.x = Math.min(Math.max(x, 0), view.width);
      update();
    }

    function pin(pinned) {
      state.pinned = pinned;
      showPinned(picker, pinned);
    }

    function announceSoon() {
      clearTimeout(state.timer);
      state.timer = setTimeout(() => {
        picker.live.textContent = describePosition(cellOf(finest), panels);
      }, QUIET);
    }

    function followPointer() {
      state.frame = 0;
      select(...pixelUnder(picker.image, view, state.pointer));
    }

    function pointerMoved(event) {
      if (!state.pressed && (state.pinned || event.pointerType === 'touch')) return;
      state.pointer = { x: event.clientX, y: event.clientY };
      state.frame ||= requestAnimationFrame(followPointer);
    }

    function pointerPressed(event) {
      if (event.button !== 0) return;
      const before = cellOf(finest);
      picker.image.setPointerCapture(event.pointerId);
      select(...pixelUnder(picker.image, view, { x: event.clientX, y: event.clientY }));
      state.pressed = { again: state.pinned && sameCell(before, cellOf(finest)), cell: cellOf(finest) };
    }

    function pointerReleased() {
      if (!state.pressed) return;
      const stayed = sameCell(state.pressed.cell, cellOf(finest));
      pin(!(state.pressed.again && stayed));
      state.pressed = null;
      announceSoon();
    }

    function move(rows, columns) {
      const cell = cellOf(finest);
      const row = limit(cell.y + rows, finest.height - 1);
      const column = limit(cell.x + columns, finest.width - 1);
      pin(true);
      select(((row + 0.5) * view.height) / finest.height, ((column + 0.5) * view.width) / finest.width);
      announceSoon();
    }

    function keyPressed(event) {
      const step = event.shiftKey ? 4 : 1;
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key in ARROWS) move(...ARROWS[event.key].map((offset) => offset * step));
      else if (event.key === 'Enter' || event.key === ' ') pin(!state.pinned);
      else if (event.key === 'Escape' && state.pinned) pin(false);
      else return;
      event.preventDefault();
    }

    function destroy() {
      stop.abort();
      cancelAnimationFrame(state.frame);
      clearTimeout(state.timer);
      element.replaceChildren();
      delete element.explorer;
    }

    const panelAt = (layer, group) => stages[layer].panels[group];
    const explorer = {
      select,
      destroy,
      milliseconds: 0,
      map: (layer, group) => panelAt(layer, group).reconstructed.slice(),
      weights: (layer, group) => panelAt(layer, group).weights.slice(),
      get position() {
        return { y: state.y, x: state.x, pinned: state.pinned, cells: layers.map((layer) => cellOf(layer)) };
      },
    };

    listen(picker.image, 'pointermove', pointerMoved);
    listen(picker.image, 'pointerdown', pointerPressed);
    listen(picker.image, 'pointerup', pointerReleased);
    listen(picker.image, 'pointercancel', pointerReleased);
    listen(picker.image, 'keydown', keyPressed);
    listen(picker.pin, 'click', () => pin(!state.pinned));
    listen(picker.strength, 'input', () => element.style.setProperty('--strength', picker.strength.value));
    listen(picker.sameScale, 'change', () => {
      panels.forEach((panel) => paintStrip(panel, picker.sameScale.checked));
      panels.forEach((panel) => paintMap(panel, picker.sameScale.checked));
    });
    panels.forEach((panel) => {
      listenToPanel(panel, listen, () => paintMap(panel, picker.sameScale.checked));
      paintStrip(panel, false);
    });
    element.classList.add('explorer');
    element.style.setProperty('--aspect', view.width / view.height);
    element.style.setProperty('--strength', picker.strength.value);
    element.replaceChildren(buildBody(picker, stages));
    element.explorer = explorer;
    showPinned(picker, false);
    update();
  }

  function mountExplorers(root = document) {
    const waiting = [...root.querySelectorAll('.explorer[data-view]')].filter((element) => !element.explorer);
    const mount = (element) => {
      watcher.unobserve(element);
      if (!element.explorer) mountExplorer(element, JSON.parse(document.getElementById(element.dataset.view).textContent));
    };
    const watcher = new IntersectionObserver(
      (entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => mount(entry.target)),
      { rootMargin: '100% 0px' },
    );
    waiting.forEach((element) => watcher.observe(element));
    addEventListener('beforeprint', () => waiting.forEach(mount), { once: true });
  }

  /* Reading a view. Legend: G groups, D base maps, P positions; arrays are [g][d][p] in row-major order. */

  function readLayer(source) {
    const { name, alpha, groups, maps, height, width } = source;
    const positions = height * width;
    const base = readHalves(source.base, groups * maps * positions);
    const weights = readHalves(source.weights, groups * maps * positions);
    const layer = { name, alpha, groups, maps, height, width, positions, base, weights };
    layer.largest = base.reduce((a, b) => Math.max(a, b), 0);
    layer.products = Array.from({ length: groups }, (_, group) => innerProducts(layer, group));
    return layer;
  }

  function readHalves(base64, count) {
    const bytes = atob(base64);
    if (bytes.length !== 2 * count) throw new Error(`a view must hold ${2 * count} bytes, got ${bytes.length}`);
    return Float32Array.from({ length: count }, (_, i) => half(bytes.charCodeAt(2 * i) | (bytes.charCodeAt(2 * i + 1) << 8)));
  }

  function half(bits) {
    const exponent = (bits >> 10) & 31;
    const fraction = (bits & 1023) / 1024;
    const size = exponent ? 2 ** (exponent - 15) * (1 + fraction) : 2 ** -14 * fraction;
    return bits & 0x8000 ? -size : size;
  }

  function baseMap(layer, group, map) {
    const start = (group * layer.maps + map) * layer.positions;
    return layer.base.subarray(start, start + layer.positions);
  }

  function innerProducts(layer, group) {
    const products = new Float64Array(layer.maps * layer.maps);
    for (let j = 0; j < layer.maps; j++) {
      const a = baseMap(layer, group, j);
      for (let k = 0; k <= j; k++) {
        const b = baseMap(layer, group, k);
        let sum = 0;
        for (let p = 0; p < a.length; p++) sum += a[p] * b[p];
        products[j * layer.maps + k] = products[k * layer.maps + j] = sum;
      }
    }
    return products;
  }

  function readWeights(panel, cell) {
    const { layer, group, weights } = panel;
    let index = group * layer.maps * layer.positions + cell.y * layer.width + cell.x;
    for (let k = 0; k < layer.maps; k++, index += layer.positions) weights[k] = layer.weights[index];
  }

  /* Equation (4): the weighted sum of the base maps. */
  function reconstruct(panel) {
    const { layer, group, weights, reconstructed } = panel;
    reconstructed.fill(0);
    for (let k = 0; k < layer.maps; k++) {
      const base = baseMap(layer, group, k);
      const weight = weights[k];
      for (let p = 0; p < base.length; p++) reconstructed[p] += weight * base[p];
    }
  }

  /* The base map with the largest cosine to the reconstructed map, computed from the inner products of the base maps. */
  function mostSimilar(panel) {
    const { layer, group, weights } = panel;
    const products = layer.products[group];
    const best = { map: 0, cosine: 0 };
    let square = 0;
    for (let k = 0; k < layer.maps; k++) {
      let product = 0;
      for (let j = 0; j < layer.maps; j++) product += weights[j] * products[k * layer.maps + j];
      square += weights[k] * product;
      const cosine = product / Math.sqrt(products[k * layer.maps + k]);
      if (cosine > best.cosine) Object.assign(best, { map: k, cosine });
    }
    return { map: best.map, cosine: best.cosine / Math.sqrt(square) };
  }

  function largestWeights(weights) {
    return [...weights.keys()].sort((a, b) => weights[b] - weights[a]).slice(0, EMPHASISED);
  }

  /* Drawing. */

  function colourTable(anchors) {
    const channels = anchors.map((anchor) => [0, 2, 4].map((start) => parseInt(anchor.slice(start, start + 2), 16)));
    const bytes = new Uint8ClampedArray(256 * 4).fill(255);
    for (let i = 0; i < 256; i++) {
      const position = (i / 255) * (anchors.length - 1);
      const low = Math.min(Math.floor(position), anchors.length - 2);
      for (let c = 0; c < 3; c++) bytes[4 * i + c] = channels[low][c] + (position - low) * (channels[low + 1][c] - channels[low][c]);
    }
    return new Uint32Array(bytes.buffer);
  }

  function paint(canvas, values, [low, high]) {
    const context = canvas.getContext('2d');
    const pixels = context.createImageData(canvas.width, canvas.height);
    const packed = new Uint32Array(pixels.data.buffer);
    const scale = high > low ? 255 / (high - low) : 0;
    for (let p = 0; p < packed.length; p++) packed[p] = colours[limit(Math.round((values[p] - low) * scale), 255)];
    context.putImageData(pixels, 0, 0);
  }

  function rangeOf(values) {
    let low = Infinity;
    let high = 0;
    for (let p = 0; p < values.length; p++) {
      if (values[p] < low) low = values[p];
      if (values[p] > high) high = values[p];
    }
    return [low, high];
  }

  function paintMap(panel, sameScale) {
    const { layer, group } = panel;
    const highlighted = highlightedMap(panel);
    const values = highlighted === NONE ? panel.reconstructed : baseMap(layer, group, highlighted);
    const range = rangeOf(values);
    paint(panel.canvas, values, sameScale ? [0, layer.largest] : range);
    const weight = highlighted === NONE ? 0 : panel.weights[highlighted];
    setText(panel.what, highlighted === NONE ? 'map of the position' : `base map ${highlighted}: ${weight.toFixed(3)}`);
    setText(panel.range, `${times(range[0])} to ${times(range[1])}`);
  }

  /* Base maps are drawn as images, because hundreds of canvases would slow down every frame. */
  function paintStrip(panel, sameScale) {
    const { layer, group } = panel;
    const canvas = makeCanvas(layer);
    panel.cells.forEach((cell, k) => {
      const values = baseMap(layer, group, k);
      paint(canvas, values, sameScale ? [0, layer.largest] : rangeOf(values));
      cell.firstChild.src = canvas.toDataURL();
    });
  }

  function showStage(stage, cell, sameScale) {
    if (sameCell(stage.cell, cell)) return;
    stage.cell = cell;
    setText(stage.where, `y ${cell.y}, x ${cell.x}`);
    stage.panels.forEach((panel) => showPanel(panel, cell, sameScale));
  }

  function showPanel(panel, cell, sameScale) {
    readWeights(panel, cell);
    reconstruct(panel);
    panel.marker.style.transform = `translate(${100 * cell.x}%, ${100 * cell.y}%)`;
    emphasise(panel, largestWeights(panel.weights));
    showBars(panel);
    const similar = mostSimilar(panel);
    setText(panel.similar, `${similar.cosine.toFixed(2)}: base map ${similar.map}`);
    paintMap(panel, sameScale);
  }

  /* The scale changes in steps, so that bars can be compared between positions. */
  function showBars(panel) {
    const top = SCALES.find((scale) => scale >= panel.weights[panel.largest[0]]) ?? 1;
    setText(panel.top, `weights, 0 to ${top}`);
    panel.uniform.style.transform = `translateY(${-100 / panel.layer.maps / top}%)`;
    panel.scale = top;
    panel.bars.style.clipPath = outline(panel, [...panel.weights.keys()]);
    panel.largeBars.style.clipPath = outline(panel, panel.largest.slice(1).sort((a, b) => a - b));
    panel.largestBar.style.clipPath = outline(panel, panel.largest.slice(0, 1));
    showHighlightedBar(panel);
  }

  function showHighlightedBar(panel) {
    const highlighted = highlightedMap(panel);
    panel.chosenBar.style.clipPath = outline(panel, highlighted === NONE ? [] : [highlighted]);
  }

  /* A clip path that leaves the bars of the maps visible; heights are relative to the scale. */
  function outline(panel, maps) {
    const corners = maps.flatMap((k) => {
      const top = 100 - (100 * panel.weights[k]) / panel.scale;
      const [left, right] = [k, k + 0.88].map((offset) => (100 * offset) / panel.layer.maps);
      return [`${left}% 100%`, `${left}% ${top}%`, `${right}% ${top}%`, `${right}% 100%`];
    });
    return `polygon(${corners.join() || '0 0'})`;
  }

  function emphasise(panel, largest) {
    if (largest[0] !== panel.largest[0]) {
      mark(panel, panel.largest.slice(0, 1), 'is-largest', false);
      mark(panel, largest.slice(0, 1), 'is-largest', true);
    }
    mark(panel, panel.largest.filter((map) => !largest.includes(map)), 'is-large', false);
    mark(panel, largest.filter((map) => !panel.largest.includes(map)), 'is-large', true);
    panel.largest = largest;
    setText(panel.strongest, `${panel.weights[largest[0]].toFixed(3)}: base map ${largest[0]}`);
  }

  function mark(panel, maps, name, on) {
    maps.forEach((map) => panel.cells[map].classList.toggle(name, on));
  }

  function showPosition(picker, view, state, cell, finest) {
    const moved = `translate(${(100 * state.x) / view.width}%, ${(100 * state.y) / view.height}%)`;
    picker.cross.style.transform = moved;
    setText(picker.where, `y ${Math.floor(state.y)}, x ${Math.floor(state.x)}`);
    picker.image.setAttribute('aria-valuenow', cell.y * finest.width + cell.x);
    picker.image.setAttribute('aria-valuetext', `row ${cell.y}, column ${cell.x}`);
    picker.image.setAttribute('aria-valuemax', finest.positions - 1);
  }

  function showPinned(picker, pinned) {
    picker.pin.setAttribute('aria-pressed', pinned);
    picker.image.classList.toggle('is-pinned', pinned);
  }

  function describePosition(cell, panels) {
    const maps = panels.map((panel) => `${panel.label}: base map ${panel.largest[0]}`);
    return `Row ${cell.y}, column ${cell.x}. Largest weights: ${maps.join('; ')}.`;
  }

  /* The base map under the pointer or the keyboard focus, else the one selected by a click. */
  function highlightedMap(panel) {
    return panel.hovered === NONE ? panel.selected : panel.hovered;
  }

  function highlight(panel, change, repaint) {
    const before = highlightedMap(panel);
    Object.assign(panel, change);
    const now = highlightedMap(panel);
    if (now === before) return;
    mark(panel, [before, now].filter((map) => map !== NONE), 'is-chosen', false);
    mark(panel, [now].filter((map) => map !== NONE), 'is-chosen', true);
    showHighlightedBar(panel);
    repaint();
  }

  function listenToPanel(panel, listen, repaint) {
    const last = panel.layer.maps - 1;
    const barUnder = (event) => {
      const box = panel.chart.getBoundingClientRect();
      return limit(Math.floor(((event.clientX - box.left) / box.width) * panel.layer.maps), last);
    };
    const cellUnder = (event) => panel.cells.indexOf(event.target.closest('[role=option]'));
    const toggleSelected = (map) => {
      const selected = map === panel.selected ? NONE : map;
      panel.cells.forEach((cell, k) => cell.setAttribute('aria-selected', k === selected));
      highlight(panel, { selected, hovered: NONE }, repaint);
    };
    const whenHovered = (handler) => (event) => event.pointerType !== 'touch' && handler(event);
    const leave = () => highlight(panel, { hovered: NONE }, repaint);
    listen(panel.chart, 'pointermove', whenHovered((event) => highlight(panel, { hovered: barUnder(event) }, repaint)));
    listen(panel.chart, 'pointerleave', leave);
    listen(panel.chart, 'click', (event) => toggleSelected(barUnder(event)));
    listen(panel.strip, 'pointerover', whenHovered((event) => highlight(panel, { hovered: cellUnder(event) }, repaint)));
    listen(panel.strip, 'pointerleave', leave);
    listen(panel.strip, 'click', (event) => cellUnder(event) !== NONE && toggleSelected(cellUnder(event)));
    listen(panel.strip, 'focusout', leave);
    listen(panel.strip, 'keydown', (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const at = panel.cells.indexOf(event.target);
      if (event.key === 'Enter' || event.key === ' ') toggleSelected(at);
      else if (event.key === 'Escape') toggleSelected(panel.selected);
      else if (event.key in ARROWS) moveFocus(panel, at, ARROWS[event.key], repaint);
      else return;
      event.preventDefault();
    });
  }

  function moveFocus(panel, at, [rows, columns], repaint) {
    const perRow = panel.cells.filter((cell) => cell.offsetTop === panel.cells[0].offsetTop).length;
    const to = limit(at + rows * perRow + columns, panel.layer.maps - 1);
    panel.cells.forEach((cell, k) => (cell.tabIndex = k === to ? 0 : -1));
    panel.cells[to].setAttribute('aria-label', `base map ${to}, weight ${panel.weights[to].toFixed(3)}`);
    panel.cells[to].focus();
    highlight(panel, { hovered: to }, repaint);
  }

  /* Building the elements. */

  function create(tag, className = '', attributes = {}, ...children) {
    const element = document.createElement(tag);
    if (className) element.className = className;
    Object.entries(attributes).forEach(([name, value]) => element.setAttribute(name, value));
    element.append(...children);
    return element;
  }

  function buildBody(picker, stages) {
    const root = create('div', 'explorer-stages', {}, ...stages.map((stage) => stage.root));
    return create('div', 'explorer-body', {}, picker.controls, picker.image, root, picker.live);
  }

  function buildPicker(view) {
    const cross = create('i', 'explorer-cross', {}, create('i', 'row'), create('i', 'column'), create('i', 'ring'));
    const photo = create('img', '', { src: view.image, alt: '', draggable: 'false' });
    const image = create('div', 'explorer-image', {
      tabindex: '0',
      role: 'slider',
      'aria-label': 'Position in the image; use the arrow keys, with shift for larger steps, and Enter to pin it',
      'aria-valuemin': '0',
    }, photo, cross);
    const where = create('output', 'explorer-where', { 'aria-live': 'off' });
    const pin = create('button', 'explorer-pin', { type: 'button' }, 'Pin the position');
    const strength = create('input', '', { type: 'range', min: '0', max: '1', step: '0.05', value: '0.7' });
    const sameScale = create('input', '', { type: 'checkbox' });
    const live = create('p', 'explorer-live', { 'aria-live': 'polite' });
    const controls = create('div', 'explorer-controls', {},
      create('p', '', {}, 'Position ', where),
      pin,
      create('label', '', {}, 'Map over the image', strength),
      create('label', 'explorer-check', {}, sameScale, 'One colour scale per stage'),
      create('div', 'explorer-legend', { 'aria-hidden': 'true' }, 'least', create('i'), 'most'),
      create('p', 'explorer-quiet', {}, 'Hover, drag, or use the arrow keys; click or tap to pin. Positions and base maps are numbered from 0, as in maps.at(y, x).'),
    );
    return { image, controls, cross, where, pin, strength, sameScale, live };
  }

  function buildStage(layer, view) {
    const where = create('span', 'explorer-where');
    const title = create('h3', '', {}, layer.name);
    const alpha = create('span', '', {}, `alpha ${layer.alpha.toFixed(3).replace('-', '−')}`);
    const size = create('span', '', {}, where, ` of ${layer.height} × ${layer.width}`);
    const panels = Array.from({ length: layer.groups }, (_, group) => buildPanel(layer, group, view));
    const head = create('header', '', {}, title, size, alpha);
    const root = create('section', 'explorer-stage', {}, head, create('div', 'explorer-panels', {}, ...panels.map((panel) => panel.root)));
    return { root, layer, panels, where, cell: { y: NONE, x: NONE } };
  }

  function buildPanel(layer, group, view) {
    const label = `${layer.name}, group ${group + 1}`;
    const { over, canvas, marker } = buildOverlay(layer, view);
    const cells = Array.from({ length: layer.maps }, (_, map) => buildCell(map));
    const strip = create('div', 'explorer-strip', { role: 'listbox', 'aria-label': `Base maps of ${label}` }, ...cells);
    strip.style.setProperty('--columns', Math.min(Math.max(layer.maps, 8), 16));
    const { chart, ...bars } = buildBars(layer, label);
    const top = create('span');
    const legend = create('p', 'explorer-scale', {}, top, create('span', '', {}, `dashed: 1/${layer.maps}`));
    const { facts, ...numbers } = buildFacts();
    const side = create('div', 'explorer-side', {}, create('h4', '', {}, `group ${group + 1} of ${layer.groups}`), facts, legend, chart, strip);
    const root = create('section', 'explorer-panel', { 'aria-label': label }, over, side);
    return {
      root, layer, group, label, canvas, marker, cells, strip, chart, top, scale: 1, ...bars, ...numbers,
      weights: new Float32Array(layer.maps), reconstructed: new Float32Array(layer.positions),
      largest: [], hovered: NONE, selected: NONE,
    };
  }

  function buildOverlay(layer, view) {
    const canvas = makeCanvas(layer);
    const marker = create('i', 'explorer-cell');
    Object.assign(marker.style, { width: `${100 / layer.width}%`, height: `${100 / layer.height}%` });
    const photo = create('img', '', { src: view.image, alt: '' });
    return { canvas, marker, over: create('div', 'explorer-over', { 'aria-hidden': 'true' }, photo, canvas, marker) };
  }

  function buildCell(map) {
    const attributes = { role: 'option', tabindex: map ? '-1' : '0', 'aria-label': `base map ${map}`, 'aria-selected': 'false' };
    return create('div', '', attributes, create('img', '', { alt: '', draggable: 'false' }));
  }

  function buildBars(layer, label) {
    const names = ['bars', 'largeBars', 'largestBar', 'chosenBar'];
    const boxes = Object.fromEntries(names.map((name) => [name, create('i', name)]));
    const uniform = create('b', 'explorer-uniform');
    const attributes = { role: 'img', 'aria-label': `Weights of the base maps of ${label}` };
    return { ...boxes, uniform, chart: create('div', 'explorer-bars', attributes, ...Object.values(boxes), uniform) };
  }

  function buildFacts() {
    const labels = { what: 'shown', range: 'times uniform', strongest: 'largest weight', similar: 'largest cosine' };
    const numbers = Object.fromEntries(Object.keys(labels).map((name) => [name, create('dd')]));
    const rows = Object.entries(labels).flatMap(([name, label]) => [create('dt', '', {}, label), numbers[name]]);
    return { facts: create('dl', '', {}, ...rows), ...numbers };
  }

  function makeCanvas(layer) {
    return Object.assign(document.createElement('canvas'), { width: layer.width, height: layer.height });
  }

  function pixelUnder(image, view, pointer) {
    const box = image.getBoundingClientRect();
    const inside = (fraction, size) => Math.min(Math.max(fraction, 0), 1) * size;
    return [inside((pointer.y - box.top) / box.height, view.height), inside((pointer.x - box.left) / box.width, view.width)];
  }

  function sameCell(a, b) {
    return a.y === b.y && a.x === b.x;
  }

  function limit(value, last) {
    return value < 0 ? 0 : value > last ? last : value;
  }

  function setText(element, text) {
    if (element.textContent !== text) element.textContent = text;
  }

  function times(value) {
    return value.toFixed(value < 10 ? 2 : 1);
  }

  Object.assign(globalThis, { mountExplorer, mountExplorers });
})();
