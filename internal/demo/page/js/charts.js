// The charts, drawn as SVG. Each stands beside the table of its numbers, so a picture is never the only way in.

import { h, svg } from "./dom.js";

const PAD = { left: 44, right: 2, top: 8, bottom: 22 };

// columns draws one column for each point and redraws when its width changes. Points: {label, value, text}.
export function columns(points, label) {
	const picture = svg("svg", { role: "img", "aria-label": label });
	const readout = h("p", { class: "readout", "aria-hidden": "true" });
	const plot = h("div", { class: "plot" }, picture);
	let width = 0;
	new ResizeObserver(([entry]) => {
		const now = Math.round(entry.contentRect.width);
		if (now === width || now === 0) return;
		width = now;
		picture.replaceChildren(...draw(points, width, Math.round(entry.contentRect.height), readout));
	}).observe(plot);
	return [plot, readout];
}

function draw(points, width, height, readout) {
	const top = ceiling(Math.max(...points.map((p) => p.value), 1));
	const inner = { w: width - PAD.left - PAD.right, h: height - PAD.top - PAD.bottom };
	const y = (value) => PAD.top + inner.h * (1 - value / top);
	const step = inner.w / points.length;
	const nodes = [];
	for (const tick of [0, top / 2, top]) {
		const at = Math.round(y(tick)) + 0.5;
		nodes.push(
			svg("line", { class: "grid", x1: PAD.left, x2: width, y1: at, y2: at }),
			svg("text", { class: "tick", x: PAD.left - 8, y: at + 4, "text-anchor": "end" }, compact(tick)),
		);
	}
	const every = Math.ceil(points.length / Math.max(2, Math.floor(inner.w / 90)));
	points.forEach((p, n) => {
		const x = PAD.left + n * step;
		const gap = Math.min(4, step * 0.25);
		const at = y(p.value);
		nodes.push(svg("rect", { class: "bar", x: x + gap / 2, y: at, width: Math.max(1, step - gap), height: Math.max(0, PAD.top + inner.h - at), rx: Math.min(2, step / 4) }));
		if (n % every === 0) {
			nodes.push(svg("text", { class: "tick", x, y: height - 5 }, p.label));
		}
		nodes.push(svg("rect", {
			class: "hit", x, y: PAD.top, width: step, height: inner.h,
			pointerenter: () => { readout.textContent = p.text; },
			pointerleave: () => { readout.textContent = ""; },
		}));
	});
	return nodes;
}

// bar is one bar of a horizontal chart, to stand in a table's cell.
export function bar(share) {
	return svg("svg", { viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" },
		svg("rect", { width: Math.max(0.5, share * 100), height: 10 }));
}

// ceiling rounds up to a number that halves nicely.
function ceiling(value) {
	const unit = 10 ** Math.floor(Math.log10(value));
	return [1, 2, 4, 5, 6, 8, 10].map((n) => n * unit).find((n) => n >= value);
}

function compact(n) {
	return n >= 1000 ? `${+(n / 1000).toFixed(1)}k` : String(n);
}
