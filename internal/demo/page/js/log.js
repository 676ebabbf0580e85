// Every request of the page with its answer, newest first.

import { $, h } from "./dom.js";
import { onAnswer } from "./edge.js";
import { kind } from "./format.js";

const KEEP = 60;
const SHOWN = /^(content-type|cache-control|retry-after|ratelimit.*|x-ratelimit.*|www-authenticate|allow|etag|x-content-type-options)$/;
const time = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });

export function startLog() {
	$("clear").addEventListener("click", () => {
		$("log").replaceChildren();
		$("log-empty").hidden = false;
	});
	onAnswer((answer) => {
		$("log-empty").hidden = true;
		$("log").prepend(entry(answer));
		while ($("log").children.length > KEEP) $("log").lastElementChild.remove();
	});
}

function entry(a) {
	const facts = [];
	if (a.code) facts.push(h("b", {}, a.code));
	if (a.rows !== null) facts.push(a.rows === 1 ? "1 row" : `${a.rows} rows`);
	const remaining = a.headers["x-ratelimit-remaining"];
	if (remaining !== undefined) facts.push(`${remaining} of ${a.headers["x-ratelimit-limit"]} left`);
	if (a.headers["retry-after"]) facts.push(`retry after ${a.headers["retry-after"]} s`);
	facts.push(`${Math.round(a.took)} ms`);
	return h("li", { class: "entry" }, h("details", {},
		h("summary", {},
			h("span", { class: "status", "data-kind": kind(a.status) }, String(a.status || "–")),
			h("span", { class: "path", title: a.path }, `${a.method} ${a.path.replace("/v0/pipes/", "…/")}`),
			h("span", { class: "time" }, time.format(a.at)),
			h("span", { class: "facts" }, facts.flatMap((f, n) => (n ? [" · ", f] : [f])))),
		h("div", { class: "detail" },
			a.message && h("p", {}, a.message),
			h("dl", {}, pairs(a)))));
}

function pairs(a) {
	const list = [["path", a.path]];
	if (a.body) list.push(["body", a.body]);
	list.push(["credential", a.auth]);
	list.push(...Object.entries(a.headers).filter(([name]) => SHOWN.test(name)));
	return list.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]);
}
