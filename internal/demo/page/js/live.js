// What the edge decides about each request, as its log tells: the page's own requests and all others.

import { $, h } from "./dom.js";
import { count, kind } from "./format.js";

const KEEP = 40;
const time = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });
const LAST = ["answer", "refuse"]; // the step that ends a request that Tinybird was not asked for

let people = new Map();
let stream = null;
let paused = false;
let waiting = []; // the lines that came meanwhile
let last = 0;

export function startLive(users) {
	people = new Map(users.map((u) => [u.id, u]));
	$("live-pause").addEventListener("click", pause);
	// A browser has few connections to a server, and all tabs share them.
	document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
	if (!document.hidden) open();
}

function open() {
	if (stream) return;
	stream = new EventSource(`/demo/decisions?after=${last}`);
	stream.addEventListener("open", () => say("Live"));
	stream.addEventListener("error", () => say(stream.readyState === EventSource.CLOSED ? "Ended: reload the page" : "Interrupted, trying again"));
	stream.addEventListener("message", (event) => take(JSON.parse(event.data)));
}

function close() {
	stream?.close();
	stream = null;
}

function say(text) {
	if ($("live-state").textContent !== text) $("live-state").textContent = text;
}

function take(decision) {
	if (decision.id <= last) return;
	last = decision.id;
	waiting = [...waiting, decision].slice(-KEEP);
	if (paused) label();
	else show();
}

function show() {
	$("live-empty").hidden = true;
	$("live-rows").prepend(...waiting.map(row).reverse());
	waiting = [];
	while ($("live-rows").children.length > KEEP) $("live-rows").lastElementChild.remove();
}

function pause() {
	paused = !paused;
	if (!paused) show();
	label();
}

function label() {
	$("live-pause").textContent = paused ? `Go on${waiting.length ? ` (${waiting.length} new)` : ""}` : "Pause";
}

function row(d) {
	return h("tr", { role: "row" },
		cell("time", time.format(new Date(d.ts * 1000))),
		h("th", { scope: "row", role: "rowheader", class: "who" }, who(d)),
		cell("pipe", h("code", {}, d.pipe)),
		cell("params", parameters(d)),
		cell("left", left(d)),
		cell("memory", remembered(d)),
		cell("answer", answer(d)),
		cell("steps", steps(d)));
}

// Its role is written out, because on a phone the style makes blocks of the table, and then browsers forget what it is.
const cell = (name, content) => h("td", { role: "cell", class: name }, content);

function who(d) {
	if (!d.clerk_user) return h("span", { class: "none" }, "nobody");
	const user = people.get(d.clerk_user);
	const org = user?.organization;
	return [
		h("span", { title: d.clerk_user }, user?.name.split(" ")[0] ?? d.clerk_user), " ",
		d.clerk_org
			? h("span", { class: "org", "data-org": org?.slug ?? "none", title: d.clerk_org }, org?.id === d.clerk_org ? org.name : d.clerk_org)
			: h("span", { class: "none" }, "no organization"),
	];
}

function parameters(d) {
	const list = [["fixed", d.params_fixed, "ins"], ["taken", d.params_taken, "span"], ["dropped", d.params_dropped, "del"]]
		.filter(([, names]) => names?.length)
		.map(([what, names, tag]) => h("div", { class: what }, h("span", { class: "none" }, what), " ",
			names.flatMap((name, n) => [n ? ", " : "", h(tag, {}, name)])));
	return list.length ? list : none();
}

function left(d) {
	if (d.rate_remaining === undefined) return none();
	const again = d.retry_after_seconds === undefined ? `${d.rate_limit} a second` : `again in ${d.retry_after_seconds} s`;
	return [h("b", {}, count(d.rate_remaining)), h("div", { class: "none" }, again)];
}

function remembered(d) {
	const list = [];
	if (d.cache) list.push(h("div", {}, `answer: ${d.cache}`));
	if (d.token_cached !== undefined) list.push(h("div", {}, `token: ${d.token_cached ? "kept" : "minted"}`));
	return list.length ? list : none();
}

function answer(d) {
	const good = d.code === "ok";
	const status = h("span", { class: "status", "data-kind": d.status ? kind(d.status) : good && "good" }, String(d.status ?? d.code));
	return !good && d.status ? [status, h("div", { class: "code-name" }, d.code)] : status;
}

// steps draws the edge's own time to scale. Beside what Tinybird takes it would not be seen.
function steps(d) {
	const all = Object.entries(d.steps_us);
	const own = all.filter(([name]) => name !== "forward");
	const sum = own.reduce((n, [, took]) => n + took, 0);
	const after = all.find(([name]) => name === "forward");
	const bar = h("div", { class: "bar", "aria-hidden": "true" }, own.map(([name, took]) => {
		const part = h("span", { "data-step": LAST.includes(name) ? "end" : name });
		part.style.flexGrow = took / Math.max(sum, 0.1);
		return part;
	}));
	return [
		h("div", {}, h("b", {}, `edge ${amountOf(sum)}`), after && ` · Tinybird ${amountOf(after[1])}`),
		bar,
		h("div", { class: "none" }, own.map(([name, took]) => `${name} ${amountOf(took)}`).join(" · ")),
	];
}

const amountOf = (us) => (us < 10 ? us.toFixed(1) : count(us));

const none = () => h("span", { class: "none" }, "–");
