// Puts the page together.

import { startAttempts } from "./attempts.js";
import { startCards } from "./cards.js";
import { $, h, trying } from "./dom.js";
import { startFlow } from "./flow.js";
import { startLimit } from "./limit.js";
import { startLive } from "./live.js";
import { startLog } from "./log.js";
import { startMinted } from "./minted.js";
import { startOutage } from "./outage.js";
import { resume, showPeople } from "./session.js";

const THEMES = ["system", "light", "dark"];

function startTheme() {
	const root = document.documentElement;
	const name = () => root.dataset.theme ?? "system";
	$("theme-name").textContent = name();
	$("theme").addEventListener("click", () => {
		const next = THEMES[(THEMES.indexOf(name()) + 1) % THEMES.length];
		if (next === "system") delete root.dataset.theme;
		else root.dataset.theme = next;
		$("theme-name").textContent = next;
		try {
			localStorage.setItem("theme", next);
		} catch {
			// Storage is switched off: the choice lasts until the page is closed.
		}
	});
}

function showConfig(text) {
	$("caddyfile").replaceChildren(...text.split(/(#[^\n]*)/).map((part) => (part.startsWith("#") ? h("span", { class: "comment" }, part) : part)));
}

async function start() {
	const response = await fetch("/demo/setup", { cache: "no-store" });
	if (!response.ok) throw new Error(`/demo/setup answered ${response.status}`);
	const setup = await response.json();
	showPeople(setup.users);
	showConfig(setup.caddyfile);
	$("site-link").href = setup.site;
	startLive(setup.users);
	startLog();
	startFlow();
	startCards();
	startAttempts(setup.organizations);
	startLimit();
	startMinted();
	startOutage(setup.issuer);
	await resume();
}

startTheme();
await trying(start);
delete document.documentElement.dataset.loading;
