"use strict";
/* Charts, the theme, and photos on hovering. The page reads without any of it. */
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  const darker = { "#0072B2": "#5fb3e6", "#D55E00": "#ff8f4a", "#009E73": "#35c79c", "#CC79A7": "#e39cc3", "#E69F00": "#f2b632", "#56B4E9": "#8fd0f5", "#882255": "#d67ba6", "#555555": "#b4b8bd", "#999933": "#cccc66", "#C9C9C9": "#5a6068" };
  const paint = (colour) => (dark() ? darker[colour] || colour : colour);
  const token = (name) => getComputedStyle(root).getPropertyValue(name).trim();

  /* theme: the system's, unless somebody chose; paper is light */
  let printing = false;
  function dark() {
    if (printing) return false;
    const chosen = root.dataset.theme;
    return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  }
  const button = document.getElementById("theme");
  const named = () => { button.textContent = dark() ? "Light" : "Dark"; button.setAttribute("aria-label", `Switch to ${dark() ? "light" : "dark"} colours`); };
  button.addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; named(); drawAll(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { named(); drawAll(); });
  named();

  /* where we are */
  const links = [...document.querySelectorAll("nav a")];
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) for (const link of links) link.setAttribute("aria-current", String(link.hash === "#" + entry.target.id));
  }, { rootMargin: "-15% 0px -75% 0px" });
  document.querySelectorAll("main section[id]").forEach((section) => seen.observe(section));

  /* charts */
  const charts = [];
  const chart = (id, make) => { const at = document.getElementById(id); if (at) charts.push({ at, make }); };
  const narrow = () => innerWidth < 640;
  function layout(extra) {
    const ink = token("--ink"), quiet = token("--quiet"), hair = token("--hair");
    const axis = { gridcolor: hair, linecolor: hair, zeroline: false, tickfont: { color: quiet, size: 12 }, title: { font: { color: quiet, size: 13 }, standoff: 8 }, automargin: true };
    const over = (part) => ({ ...axis, ...part, title: { ...axis.title, ...(part.title || {}) } });
    return { paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { family: getComputedStyle(document.body).fontFamily, color: ink, size: 13 },
      margin: { l: 48, r: 16, t: 10, b: 40 }, showlegend: false, hoverlabel: { bgcolor: token("--surface"), bordercolor: hair, font: { color: ink } },
      hovermode: "x unified", dragmode: false, ...extra, xaxis: over(extra.xaxis || {}), yaxis: over(extra.yaxis || {}) };
  }
  const config = { displaylogo: false, responsive: true, displayModeBar: false, scrollZoom: false };
  const draw = ({ at, make }) => {
    const { traces, settings } = make();
    const off = new Set(at.off || []);
    for (const trace of traces) if (off.has(trace.name)) trace.visible = false;
    tell(at, traces, off);
    /* paper is narrower than the screen that charts were laid out for, and they are not asked again: in pixels of a page */
    const paper = printing ? { width: at.closest(".panels") ? 310 : 640 } : {};
    return Plotly.react(at, traces, { ...layout(settings), ...paper }, config);
  };
  /* the legend is a list of switches: it wraps on a phone, and a keyboard reaches it */
  function tell(at, traces, off) {
    const named = traces.filter((trace) => trace.name && trace.showlegend !== false);
    let list = at.nextElementSibling;
    if (!list || !list.classList.contains("legend")) { list = document.createElement("ul"); list.className = "legend"; at.after(list); }
    list.replaceChildren(...(named.length > 1 ? named : []).map((trace) => {
      const item = document.createElement("li"), press = document.createElement("button");
      press.type = "button";
      press.setAttribute("aria-pressed", String(!off.has(trace.name)));
      press.append(swatch(trace), trace.name);
      press.addEventListener("click", () => { at.off = off.has(trace.name) ? [...off].filter((one) => one !== trace.name) : [...off, trace.name]; draw(charts.find((one) => one.at === at)); at.nextElementSibling.querySelectorAll("button")[named.indexOf(trace)].focus(); });
      item.append(press);
      return item;
    }));
  }
  const marks = { circle: "M4 0A4 4 0 1 1-4 0A4 4 0 1 1 4 0", square: "M-4-4H4V4H-4Z", "triangle-up": "M0-5L5 4H-5Z", diamond: "M0-5L5 0L0 5L-5 0Z", cross: "M-1.5-5H1.5V-1.5H5V1.5H1.5V5H-1.5V1.5H-5V-1.5H-1.5Z", x: "M-5-3L-3-5L0-2L3-5L5-3L2 0L5 3L3 5L0 2L-3 5L-5 3L-2 0Z" };
  function swatch(trace) {
    const lined = !trace.mode || trace.mode.includes("lines"), dashes = { dash: "6 3", dot: "2 2", dashdot: "6 2 2 2" };
    const colour = lined ? trace.line.color : [trace.marker.color].flat()[0];
    const shape = marks[[trace.marker && trace.marker.symbol].flat()[0]] || marks.circle;
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("width", lined ? 26 : 12); svg.setAttribute("height", 12); svg.setAttribute("viewBox", lined ? "-13 -6 26 12" : "-6 -6 12 12"); svg.setAttribute("aria-hidden", "true");
    svg.innerHTML = (lined ? `<path d="M-13 0H13" stroke="${colour}" stroke-width="2.2" stroke-dasharray="${dashes[trace.line.dash] || ""}"/>` : "") + (lined && !(trace.mode || "").includes("markers") ? "" : `<path d="${shape}" fill="${colour}"${lined ? ' transform="scale(.8)"' : ""}/>`);
    return svg;
  }
  function drawAll() { if (window.Plotly) charts.forEach(draw); }

  const soft = (colour, share) => { const n = parseInt(colour.slice(1), 16); return `rgba(${n >> 16},${(n >> 8) & 255},${n & 255},${share})`; };
  chart("cmc", () => {
    const traces = [];
    for (const one of data.cmc) {
      const colour = paint(one.colour);
      if (one.low) traces.push({ x: [...one.x, ...[...one.x].reverse()], y: [...one.high, ...[...one.low].reverse()], fill: "toself", fillcolor: soft(colour, .14), line: { width: 0 }, hoverinfo: "skip", showlegend: false, legendgroup: one.name, mode: "lines" });
      traces.push({ x: one.x, y: one.y, name: one.name, legendgroup: one.name, mode: one.quiet ? "lines" : "lines+markers", line: { color: colour, width: one.quiet ? 1 : 2.2, dash: one.dash }, marker: { size: 5, symbol: one.symbol }, hovertemplate: "%{y:.1f} %" });
    }
    return { traces, settings: { xaxis: { title: { text: "rank" }, dtick: narrow() ? 5 : 1, range: [.6, data.cmc[0].x.length + .4] }, yaxis: { title: { text: "right answer among the first, %" } }, hovermode: data.cmc.length > 8 ? "closest" : "x unified" } };
  });

  const which = document.getElementById("training-run");
  const palette = data.palette;
  for (let number = 0; number < data.panels; number++) chart(`training-${number}`, () => {
    const panel = (data.training[which.value] || [])[number];
    const box = document.getElementById(`training-${number}`).closest(".card");
    box.hidden = !panel;
    if (!panel) return { traces: [], settings: {} };
    box.querySelector("h3").textContent = panel.title;
    const traces = panel.series.map((one, place) => ({ x: one.x, y: one.y, name: one.name, mode: one.x.length > 30 ? "lines" : "lines+markers", hovertemplate: "%{y:.4~g}", line: { color: paint(palette[place % palette.length]), width: 2, dash: place >= palette.length ? "dot" : "solid" }, marker: { size: 5 }, connectgaps: false, showlegend: one.named }));
    const shapes = panel.stages.map((at) => ({ type: "line", x0: at, x1: at, yref: "paper", y0: 0, y1: 1, line: { color: token("--quiet"), width: 1, dash: "dot" } }));
    const marks = panel.kept.map((at) => ({ type: "line", x0: at, x1: at, yref: "paper", y0: 0, y1: 1, line: { color: token("--accent"), width: 1.5 } }));
    return { traces, settings: { shapes: [...shapes, ...marks], xaxis: { title: { text: "epoch" } }, yaxis: { type: panel.log ? "log" : "linear", exponentformat: "power" } } };
  });
  if (which) which.addEventListener("change", () => charts.filter((one) => one.at.id.startsWith("training-")).forEach(draw));

  /* the map */
  const map = data.map, by = document.getElementById("map-colour"), how = document.getElementById("map-plane");
  const plane = () => map.planes[how.value];
  const card = document.getElementById("hint"), live = document.getElementById("live");
  if (map) {
    const shown = () => map.colourings[by.value];
    chart("map", () => {
      const of = shown();
      const traces = [];
      if (of.joined) traces.push({ x: plane().spokes.x, y: plane().spokes.y, mode: "lines", line: { color: token("--quiet"), width: .7 }, opacity: .35, hoverinfo: "skip", showlegend: false });
      for (const group of of.groups) traces.push({ x: group.photos.map((i) => plane().x[i]), y: group.photos.map((i) => plane().y[i]), customdata: group.photos, mode: "markers", name: group.name, showlegend: of.legend, hoverinfo: "none",
        marker: { color: group.photos.map((i, n) => paint(group.colours ? group.colours[n] : group.colour)), symbol: group.symbol || group.photos.map((i) => map.symbols[i]), size: plane().x.length > 900 ? 7 : 9, line: { color: token("--surface"), width: .8 } } });
      const bare = { showgrid: false, showline: false, showticklabels: false, ticks: "", title: { text: plane().axes[0] } };
      return { traces, settings: { hovermode: "closest", dragmode: "pan", margin: { l: 30, r: 8, t: 8, b: 36 }, xaxis: bare, yaxis: { ...bare, title: { text: plane().axes[1] }, ...(plane().scale ? { scaleanchor: "x" } : {}) } } };
    });
    for (const choice of [by, how]) choice.addEventListener("change", () => draw(charts.find((one) => one.at.id === "map")));
  }
  function hint(photo, x, y) {
    const shot = card.querySelector(".shot");
    if (map.sprite) {
      const columns = map.sprite.columns, rows = Math.ceil(map.words.length / columns);
      shot.style.backgroundImage = `url(${document.getElementById("sprite").src})`;
      shot.style.backgroundSize = `${columns * 100}% ${rows * 100}%`;
      shot.style.backgroundPosition = `${columns > 1 ? (photo % columns) / (columns - 1) * 100 : 0}% ${rows > 1 ? Math.floor(photo / columns) / (rows - 1) * 100 : 0}%`;
    } else shot.style.display = "none";
    card.querySelector(".words").innerHTML = map.words[photo];
    card.style.display = "block";
    const box = card.getBoundingClientRect();
    card.style.left = `${Math.max(8, Math.min(x + 16, innerWidth - box.width - 8))}px`;
    card.style.top = `${Math.max(8, Math.min(y + 16, innerHeight - box.height - 8))}px`;
  }
  const unhint = () => { card.style.display = "none"; };
  function place(photo) {
    const at = document.getElementById("map"), box = at.getBoundingClientRect(), full = at._fullLayout;
    return [box.left + full.xaxis._offset + full.xaxis.l2p(plane().x[photo]), box.top + full.yaxis._offset + full.yaxis.l2p(plane().y[photo])];
  }
  function wire() {
    const at = document.getElementById("map");
    if (!at) return;
    at.on("plotly_hover", (event) => { const photo = event.points[0].customdata; if (photo !== undefined) hint(photo, event.event.clientX, event.event.clientY); });
    at.on("plotly_unhover", unhint);
    /* by keyboard: arrows step to the nearest photo on that side */
    let current = null;
    const held = () => current !== null && document.activeElement === at && card.style.display === "block";
    addEventListener("scroll", () => { if (held()) hint(current, ...place(current)); else unhint(); }, { passive: true });
    const sides = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    at.addEventListener("keydown", (event) => {
      if (event.key === "Escape") return unhint();
      const side = sides[event.key];
      if (!side) return;
      event.preventDefault();
      if (current === null) current = 0;
      else {
        const { x, y } = plane();
        let best = Infinity, next = current;
        for (let i = 0; i < x.length; i++) {
          const dx = x[i] - x[current], dy = y[i] - y[current];
          const along = dx * side[0] + dy * side[1], across = Math.abs(dx * side[1]) + Math.abs(dy * side[0]);
          if (along > 0 && across <= along && along + across < best) { best = along + across; next = i; }
        }
        current = next;
      }
      hint(current, ...place(current));
      live.textContent = card.querySelector(".words").textContent;
    });
    at.addEventListener("blur", unhint);
  }

  /* plotly travels packed: the page is three megabytes smaller for it */
  async function unpack() {
    const packed = document.getElementById("plotly");
    if (!packed || !charts.length) return;
    const bytes = Uint8Array.from(atob(packed.textContent.trim()), (letter) => letter.charCodeAt(0));
    const text = await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
    const script = document.createElement("script");
    script.textContent = text;
    document.head.append(script);
    await Promise.all(charts.map(draw));
    wire();
    root.dataset.ready = "true";
  }
  const failed = (error) => { document.querySelectorAll(".chart").forEach((at) => { at.textContent = "This browser cannot draw the chart; the tables have its numbers."; }); console.error(error); };
  if (!charts.length) root.dataset.ready = "true";
  unpack().catch(failed);

  addEventListener("beforeprint", () => { printing = true; document.querySelectorAll("details").forEach((one) => { one.open = true; }); drawAll(); });
  addEventListener("afterprint", () => { printing = false; drawAll(); });
})();
