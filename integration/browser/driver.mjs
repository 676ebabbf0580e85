// Drives one Chromium for a Go test, browser_test.go: each line of standard input is a command as a JSON object, each line of
// standard output its answer. When standard input ends, the browser ends.
//
// node driver.mjs <path of Chromium>

import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

// Below the patience of the test, whose message would only say that nothing came.
const PATIENCE = 20_000;

const browser = await chromium.launch({
	executablePath: process.argv[2],
	args: [
		"--no-sandbox", // which root does not get
		"--disable-gpu",
		"--disable-quic",
		"--no-first-run",
		"--disable-background-networking",
		"--disable-component-update",
		"--disable-sync",
		"--disable-blink-features=AutomationControlled", // trackers leave out browsers that say that a program drives them
	],
});

let context, page;
let responses = [];
let messages = [];
let pending = new Map(); // requests without an end so far, and the statuses of those that are answered
let received = []; // answers with all that is in them, as promises

// One profile after another, each of them new.
async function begin({ script = true }) {
	await context?.close();
	responses = [];
	messages = [];
	pending = new Map();
	received = [];
	context = await browser.newContext({ javaScriptEnabled: script });
	context.setDefaultTimeout(PATIENCE);
	context.on("response", (r) => {
		if (pending.has(r.request())) pending.set(r.request(), r.status());
		responses.push({
			method: r.request().method(),
			url: r.url(),
			status: r.status(),
			type: r.request().resourceType(),
		});
	});
	context.on("request", (r) => pending.set(r));
	context.on("requestfailed", (r) => pending.delete(r));
	context.on("requestfinished", (r) => {
		pending.delete(r);
		const answer = whole(r);
		answer.catch(() => {}); // a failure counts where holds asks for it; else the profile may be closed before all was read
		received.push(answer);
	});
	context.on("console", (m) => messages.push(`${m.type()}: ${m.text()}`));
	context.on("weberror", (e) => messages.push(`error: ${e.error()}`));
	page = await context.newPage();
	return {};
}

// All of an answer. A redirect has no body, and what belonged to a page that is gone has none any more.
async function whole(request) {
	const r = await request.response();
	return { url: r.url(), header: await r.allHeaders(), body: await r.text().catch(() => "") };
}

// All that the browser got since the profile was new, and all that it keeps. An answer with the status unread is one whose body the
// page does not read: it has no end.
async function holds({ unread }) {
	const deadline = Date.now() + PATIENCE;
	for (;;) {
		const open = [...pending].filter(([, status]) => !status || status !== unread);
		if (open.length === 0) break;
		if (Date.now() > deadline) throw new Error(`no end of ${open.map(([r, status]) => `${r.method()} ${r.url()} (${status})`)}`);
		await page.waitForTimeout(10);
	}
	return {
		answers: await Promise.all(received),
		messages,
		cookies: await context.cookies(),
		stored: await page.evaluate(storedThere),
	};
}

// Where a navigation ended, after all redirects.
const landed = (response) => ({ url: page.url(), status: response?.status() ?? 0 });

// Runs in the page.
async function fetchThere({ url, init }) {
	const r = await fetch(url, { ...init, signal: AbortSignal.timeout(20_000) });
	return { url: r.url, status: r.status, redirected: r.redirected, header: Object.fromEntries(r.headers), body: await r.text() };
}

// Runs in the page.
function imageThere(url) {
	return new Promise((resolve) => {
		const image = new Image();
		image.onload = () => resolve({ width: image.naturalWidth });
		image.onerror = () => resolve({ width: 0 });
		image.src = url;
	});
}

// Runs in the page.
const storedThere = () => ({ local: { ...localStorage }, session: { ...sessionStorage }, document: document.documentElement.outerHTML });

// Runs in the page.
const twoFramesThere = () => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));

// Waits until an element's text matches, and says so if it never does.
async function awaitText({ selector, pattern }) {
	try {
		await page.locator(selector, { hasText: new RegExp(pattern) }).first().waitFor();
	} catch {
		throw new Error(`no ${selector} with the text ${pattern}; the page says: ${await page.innerText("body")}`);
	}
	return { text: await page.innerText(selector) };
}

const commands = {
	begin,
	open: async ({ url }) => landed(await page.goto(url)),
	reload: async () => landed(await page.reload()),
	click: async ({ selector }) => {
		const [response] = await Promise.all([page.waitForNavigation(), page.click(selector)]);
		return landed(response);
	},
	text: async ({ selector }) => ({ text: await page.innerText(selector) }),
	fetch: (command) => page.evaluate(fetchThere, command),
	image: ({ url }) => page.evaluate(imageThere, url),
	evaluate: async ({ script }) => ({ value: await page.evaluate(script) }),
	await: awaitText,
	press: async ({ selector }) => {
		await page.click(selector);
		return {};
	},
	preload: async ({ script }) => {
		await context.addInitScript(script);
		return {};
	},
	setCookies: async ({ cookies }) => {
		await context.addCookies(cookies);
		return {};
	},
	screenshot: async ({ path }) => {
		await page.screenshot({ path, fullPage: true });
		return {};
	},
	holds,
	cookies: async () => ({ cookies: await context.cookies() }),
	seen: async () => ({ responses: responses.splice(0), messages: messages.splice(0) }),
	resize: async ({ width, height }) => {
		await page.setViewportSize({ width, height });
		await page.evaluate(twoFramesThere); // for what the page draws itself
		return {};
	},
};

for await (const line of createInterface({ input: process.stdin })) {
	let answer;
	try {
		const command = JSON.parse(line);
		answer = await commands[command.do](command);
	} catch (error) {
		answer = { error: String(error.message ?? error) };
	}
	process.stdout.write(JSON.stringify(answer) + "\n");
}
await browser.close();
