"use strict";
// Values under the pointer, for every chart.
for (const plot of document.querySelectorAll("[data-chart]")) {
  const chart = JSON.parse(plot.dataset.chart);
  const rule = Object.assign(document.createElement("div"), { className: "rule", hidden: true });
  const tip = Object.assign(document.createElement("div"), { className: "tip", hidden: true });
  plot.append(rule, tip);
  const show = (event) => {
    const box = plot.getBoundingClientRect();
    const [low, high] = chart.x;
    const at = low + ((event.clientX - box.left) / box.width) * (high - low);
    const nearest = (xs) => xs.reduce((best, x, i) => (Math.abs(x - at) < Math.abs(xs[best] - at) ? i : best), 0);
    const index = nearest(chart.curves[0].x);
    const share = (chart.curves[0].x[index] - low) / (high - low);
    const many = chart.curves.length > 1;
    const values = chart.curves.map((c) => (many ? c.label + " " : "") + c.y[nearest(c.x)].toLocaleString("en", { maximumSignificantDigits: 4 }) + chart.unit);
    tip.textContent = `${chart.name} ${Math.round(chart.curves[0].x[index] * 100) / 100}: ${values.join(", ")}`;
    rule.style.left = `${100 * share}%`;
    tip.style.left = share < 0.5 ? `calc(${100 * share}% + 8px)` : "auto";
    tip.style.right = share < 0.5 ? "auto" : `calc(${100 * (1 - share)}% + 8px)`;
    rule.hidden = tip.hidden = false;
  };
  plot.addEventListener("pointermove", show);
  plot.addEventListener("pointerdown", show);
  plot.addEventListener("pointerleave", () => { rule.hidden = tip.hidden = true; });
}
// The map: thumbnails or dots, one class at a time.
for (const map of document.querySelectorAll(".map")) {
  for (const choice of map.querySelectorAll("input")) {
    choice.addEventListener("change", () => map.classList.toggle("dots", choice.value === "dots"));
    if (choice.checked) map.classList.toggle("dots", choice.value === "dots");
  }
  const plane = map.querySelector(".plane");
  for (const button of map.querySelectorAll("button")) {
    button.addEventListener("click", () => {
      const on = button.getAttribute("aria-pressed") !== "true";
      for (const other of map.querySelectorAll("button")) other.setAttribute("aria-pressed", String(on && other === button));
      plane.classList.toggle("faded", on);
      for (const point of plane.querySelectorAll("i")) point.classList.toggle("chosen", point.dataset.class === button.dataset.class);
    });
  }
}
