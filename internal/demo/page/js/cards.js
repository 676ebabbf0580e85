// The charts of the organization's events: one card for each pipe, each asking for itself.

import { bar, columns } from "./charts.js";
import { $, announce, h, trying } from "./dom.js";
import { ask } from "./edge.js";
import { showFlow } from "./flow.js";
import { amount, count, day, short } from "./format.js";
import { onSession, session } from "./session.js";
import { table } from "./table.js";
import { why } from "./why.js";

const CARDS = [
	{ pipe: "sales_by_day", title: "Sales by day", wide: true, show: sales, numbers: salesNumbers },
	{ pipe: "top_pages", query: "?limit=6", title: "Top pages", show: pages },
	{ pipe: "live_events", query: "?limit=6", title: "Latest events", show: latest },
	{ pipe: "team_activity", title: "Your team", show: team },
	{ pipe: "my_activity", query: "?limit=6", title: "Your own activity", show: mine },
];

let generation = 0;

export function startCards() {
	$("cards").replaceChildren(...CARDS.map(frame));
	$("reload").addEventListener("click", () => trying(load));
	onSession(() => trying(load));
}

function frame(card) {
	card.content = h("div", { class: "content" }, h("p", { class: "waiting" }, "…"));
	card.behind = card.numbers ? h("details", { class: "numbers" }, h("summary", {}, "The numbers behind it"), h("div", { class: "scroll", tabindex: "0" })) : null;
	card.node = h("article", { class: card.wide ? "card wide" : "card", "aria-busy": "true", "aria-label": card.title },
		h("header", {}, h("h3", {}, card.title), h("code", {}, card.pipe)), card.content, card.behind);
	return card.node;
}

async function load() {
	const mine = ++generation;
	const org = session.user?.organization;
	$("charts-title").textContent = org ? `${org.name}’s last 30 days` : "Your organization’s events";
	for (const card of CARDS) card.node.setAttribute("aria-busy", "true");
	const answers = await Promise.all(CARDS.map((card) => ask({ path: `/v0/pipes/${card.pipe}.json${card.query ?? ""}` })
		.then((answer) => {
			if (mine === generation) render(card, answer);
			return answer;
		})));
	if (mine !== generation) return;
	showFlow(answers[CARDS.findIndex((card) => card.pipe === "top_pages")]);
	const good = answers.filter((a) => a.status === 200).length;
	announce(good === answers.length ? "All charts are loaded." : `${good} of ${answers.length} charts are loaded.`);
}

function render(card, answer) {
	card.node.setAttribute("aria-busy", "false");
	if (answer.status !== 200 || !answer.data) {
		card.content.replaceChildren(refusal(answer, card.wide));
		card.behind?.lastElementChild.replaceChildren(h("p", { class: "why" }, "There are none."));
		return;
	}
	if (answer.data.length === 0) card.content.replaceChildren(h("p", { class: "waiting" }, "No rows."));
	else card.content.replaceChildren(...card.show(answer.data));
	card.behind?.lastElementChild.replaceChildren(card.numbers(answer.data));
}

function refusal(answer, full) {
	return h("div", { class: "refused" },
		h("p", {}, h("span", { class: "status", "data-kind": answer.status === 429 ? "slow" : "bad" }, String(answer.status || "–")), " ",
			h("span", { class: "code-name" }, answer.code)),
		h("p", {}, answer.message),
		full && h("p", { class: "why" }, why(answer.code)));
}

function sales(rows) {
	const sum = rows.reduce((n, r) => n + r.amount, 0);
	const orders = rows.reduce((n, r) => n + r.orders, 0);
	const best = rows.reduce((a, b) => (b.amount > a.amount ? b : a), rows[0]);
	const total = (value, name) => h("p", { class: "total" }, h("b", {}, value), h("span", {}, name));
	return [
		h("div", { class: "totals" }, total(amount(sum), "sales"), total(count(orders), "orders"), total(amount(sum / Math.max(orders, 1)), "an order")),
		...columns(rows.map((r) => ({ label: day(r.day), value: r.amount, text: `${day(r.day)}: ${amount(r.amount)}, ${r.orders} orders` })),
			`Sales for each of ${rows.length} days, ${amount(sum)} in all; the best day was ${day(best.day)} with ${amount(best.amount)}.`),
	];
}

function salesNumbers(rows) {
	return table("Sales by day", [
		{ name: "Day", of: (r) => r.day },
		{ name: "Orders", number: true, of: (r) => count(r.orders) },
		{ name: "Sales", number: true, of: (r) => amount(r.amount) },
	], rows);
}

function pages(rows) {
	const most = Math.max(...rows.map((r) => r.views), 1);
	return [table("Top pages", [
		{ name: "Page", class: "path-cell", of: (r) => r.path, title: (r) => r.path },
		{ name: h("span", { class: "hidden" }, "Share of the first"), class: "bar-cell", of: (r) => bar(r.views / most) },
		{ name: "Views", number: true, of: (r) => count(r.views) },
	], rows)];
}

function latest(rows) {
	return [table("Latest events", [
		{ name: "UTC", of: (r) => r.ts.slice(11, 16), title: (r) => r.ts },
		{ name: "Page", class: "path-cell", of: (r) => r.path, title: (r) => r.path },
		{ name: "From", of: (r) => r.country },
		{ name: "Sale", number: true, of: (r) => (r.amount ? amount(r.amount) : "–") },
	], rows)];
}

function team(rows) {
	return [table("Your team’s activity", [
		{ name: "Team", of: (r) => r.team_id.replace("team_", "") },
		{ name: "User", class: "path-cell", of: (r) => short(r.user_id), title: (r) => r.user_id },
		{ name: "Events", number: true, of: (r) => count(r.events) },
		{ name: "Sales", number: true, of: (r) => amount(r.amount) },
	], rows)];
}

function mine(rows) {
	return [table("Your own activity", [
		{ name: "Day", of: (r) => day(r.ts.slice(0, 10)), title: (r) => r.ts },
		{ name: "Page", class: "path-cell", of: (r) => r.path, title: (r) => r.path },
		{ name: "Sale", number: true, of: (r) => (r.amount ? amount(r.amount) : "–") },
	], rows)];
}
