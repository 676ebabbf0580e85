// Exceeding the limit: twelve requests at once, then one more as soon as Retry-After says so.

import { $, announce, busy, h } from "./dom.js";
import { ask } from "./edge.js";
import { kind } from "./format.js";
import { freshen, onSession } from "./session.js";

const SHOTS = 12;
let run = 0;

export function startLimit() {
	$("flood").addEventListener("click", () => busy($("flood"), flood));
	onSession(reset);
}

function reset() {
	run++;
	$("countdown").replaceChildren();
	$("shots").replaceChildren(...Array.from({ length: SHOTS }, (_, n) => shot(`no. ${n + 1}`)), shot("later"));
}

async function flood() {
	reset();
	const mine = run;
	await freshen();
	const boxes = [...$("shots").children].slice(0, SHOTS);
	const answers = await Promise.all(boxes.map((box, n) => fire(box, `no. ${n + 1}`)));
	if (mine !== run) return;
	const refused = answers.find((a) => a.status === 429);
	const first = answers.find((a) => a.status !== 200);
	const good = answers.filter((a) => a.status === 200).length;
	announce(`${good} of ${SHOTS} were answered.`);
	if (refused) await again(mine, Number(refused.headers["retry-after"]), good, refused);
	else say(good === SHOTS ? `All ${SHOTS} were answered.` : `${first.status || "No answer"} ${first.code}: nothing is counted for a request that is refused before.`);
}

// again counts Retry-After down and then asks once more.
async function again(mine, seconds, good, refused) {
	const left = h("span", {});
	const line = h("progress", { max: seconds, value: seconds, "aria-label": "Time left" });
	const limit = refused.headers["x-ratelimit-limit"];
	$("countdown").setAttribute("aria-live", "off");
	$("countdown").replaceChildren(line, left);
	const until = performance.now() + seconds * 1000;
	for (;;) {
		const rest = Math.max(0, (until - performance.now()) / 1000);
		line.value = rest;
		left.textContent = `${good} of ${SHOTS} answered, limit ${limit} a second. Retry-After ${seconds} s: again in ${rest.toFixed(1)} s`;
		if (rest === 0) break;
		await new Promise((done) => setTimeout(done, Math.min(100, rest * 1000 + 1)));
		if (mine !== run) return;
	}
	const answer = await fire($("shots").lastElementChild, "later");
	if (mine !== run) return;
	$("countdown").setAttribute("aria-live", "polite");
	say(answer.status === 200 ? `${good} of ${SHOTS} answered, the rest refused. After ${seconds} s, as Retry-After said, the next one got in.` : `Still ${answer.status} ${answer.code}.`);
}

function say(text) {
	$("countdown").replaceChildren(text);
}

async function fire(box, name) {
	const answer = await ask({ path: "/v0/pipes/live_events.json?limit=1" });
	box.dataset.kind = kind(answer.status);
	box.replaceChildren(h("b", {}, String(answer.status || "–")), left(answer, name));
	return answer;
}

function left(answer, name) {
	const remaining = answer.headers["x-ratelimit-remaining"];
	if (answer.status === 429) return `wait ${answer.headers["retry-after"]} s`;
	return remaining === undefined ? name : `${remaining} left`;
}

function shot(name) {
	return h("li", { class: "shot" }, h("b", {}, "–"), name);
}
