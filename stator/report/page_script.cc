#include "stator/report/page_assets.h"

namespace stator::report {

// Reads values back from the curves' coordinates and the axes' attributes; all text is set as text,
// never as markup.
const std::string_view kPageScript = R"js(
"use strict";
(() => {
  const root = document.documentElement;
  const button = document.getElementById("theme");
  const dark = () => root.dataset.theme ? root.dataset.theme === "dark"
      : matchMedia("(prefers-color-scheme: dark)").matches;
  const name = () => { button.textContent = dark() ? "Light" : "Dark"; };
  button.hidden = false;
  button.onclick = () => { root.dataset.theme = dark() ? "light" : "dark"; name(); };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", name);
  name();

  const figure = v => {
    const a = Math.abs(v);
    if (a === 0) return "0";
    if (a >= 99.95) return Math.round(v).toLocaleString("en-US");
    return a >= 9.995 ? v.toFixed(1) : a >= 0.9995 ? v.toFixed(2) : v.toPrecision(3);
  };
  const show = {
    plain: figure,
    latency: v => v < 999.5 ? figure(v) + " ms" : figure(v / 1000) + " s",
    share: v => (v * 100).toFixed(v > 0.99 ? 2 : 1) + " %",
    time: v => v < 120 ? v.toFixed(1) + " s" : v < 7200
        ? Math.floor(v / 60) + " min " + Math.round(v % 60) + " s" : (v / 3600).toFixed(2) + " h",
  };
  const tail = p => -Math.log10(1 - p);
  const axis = text => {
    const [scale, unit, low, high] = text.split(" ");
    const a = +low, b = +high;
    const at = t => scale === "log" ? a * Math.pow(b / a, t)
        : scale === "tail" ? 1 - Math.pow(10, -(tail(a) + t * (tail(b) - tail(a))))
        : a + t * (b - a);
    return {at, text: t => show[unit](at(t))};
  };
  const svgNode = (tag, attributes) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const key in attributes) node.setAttribute(key, attributes[key]);
    return node;
  };

  for (const svg of document.querySelectorAll("svg[data-x]")) {
    const x = axis(svg.dataset.x), y = axis(svg.dataset.y);
    const [left, right, top, floor] = svg.dataset.frame.split(" ").map(Number);
    let curves = null;
    const read = () => [...svg.querySelectorAll("path[data-name]")].map(path => ({
      name: path.dataset.name,
      colour: path.style.getPropertyValue("--c"),
      dots: path.classList.contains("dots"),
      points: [...path.getAttribute("d").matchAll(/(-?[\d.]+) (-?[\d.]+)/g)]
          .map(m => [+m[1], +m[2]]),
    }));
    const layer = svg.appendChild(svgNode("g", {}));
    const box = document.createElement("div");
    box.className = "read";
    box.hidden = true;
    svg.parentNode.appendChild(box);
    const line = (text, colour) => {
      const row = document.createElement(colour ? "div" : "b");
      if (colour) {
        const key = document.createElement("i");
        key.style.background = colour;
        row.append(key);
      }
      row.append(text);
      box.append(row);
    };
    const hide = () => { box.hidden = true; layer.replaceChildren(); };
    svg.addEventListener("pointerleave", hide);
    svg.addEventListener("pointermove", event => {
      curves ??= read();
      const frame = svg.getBoundingClientRect();
      const zoom = svg.viewBox.baseVal.width / frame.width;
      const px = (event.clientX - frame.left) * zoom, py = (event.clientY - frame.top) * zoom;
      if (px < left - 8 || px > right + 8) return hide();
      const near = [];
      for (const curve of curves) {
        let best = null, least = Infinity;
        for (const [cx, cy] of curve.points) {
          const d = curve.dots ? Math.hypot(cx - px, cy - py) : Math.abs(cx - px);
          if (d < least) { least = d; best = [cx, cy]; }
        }
        if (best && least < 14) near.push({curve, best, least});
      }
      if (!near.length) return hide();
      near.sort((a, b) => a.least - b.least);
      const picked = near[0].curve.dots ? [near[0]] : near.slice(0, 12);
      const at = picked[0].best[0];
      picked.sort((a, b) => a.best[1] - b.best[1]);
      box.replaceChildren();
      layer.replaceChildren(svgNode("path", {class: "cross", d: `M${at} ${top}V${floor}`}));
      line(`${x.text((at - left) / (right - left))} ${svg.dataset.of}`);
      for (const {curve, best} of picked) {
        layer.append(svgNode("circle", {class: "spot", cx: best[0], cy: best[1], r: 4,
          style: `stroke:${curve.colour}`}));
        line(`${curve.name}: ${y.text((floor - best[1]) / (floor - top))}`, curve.colour);
      }
      box.hidden = false;
      const host = svg.parentNode.getBoundingClientRect();
      const cx = at / zoom + frame.left - host.left;
      const room = host.width - box.offsetWidth - 4;
      box.style.left = Math.max(2, cx + 14 < room ? cx + 14 : cx - box.offsetWidth - 14) + "px";
      box.style.top = Math.max(0, py / zoom - box.offsetHeight - 12) + "px";
    });
  }
})();
)js";

}  // namespace stator::report
