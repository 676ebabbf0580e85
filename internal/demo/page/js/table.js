// A table of rows as an API answers them.

import { h } from "./dom.js";

// table takes columns of {name, of, title, class, number}: of returns a cell's text or node, title what is shown over it.
export function table(caption, columns, rows) {
	return h("div", { class: "scroll" }, h("table", {},
		h("caption", { class: "hidden" }, caption),
		h("thead", {}, h("tr", {}, columns.map((c) => h("th", { scope: "col", class: c.number ? "number" : c.class }, c.name)))),
		h("tbody", {}, rows.map((r) => h("tr", {}, columns.map((c) => h("td", { class: c.number ? "number" : c.class, title: c.title?.(r) }, c.of(r))))))));
}

// plain shows whatever columns there are.
export function plain(caption, rows) {
	const names = Object.keys(rows[0] ?? {});
	return table(caption, names.map((name) => ({
		name, number: typeof rows[0][name] === "number", of: (r) => String(r[name]),
	})), rows);
}
