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
let received = []; // answers with all that is in them, as promises

// One profile after another, each of them new.
async function begin({ script = true }) {
	await context?.close();
	responses = [];
	messages = [];
	received = [];
	context = await browser.newContext({ javaScriptEnabled: script });
	context.setDefaultTimeout(PATIENCE);
	context.on("response", (r) => {
		responses.push({
			method: r.request().method(),
			url: r.url(),
			status: r.status(),
			type: r.request().resourceType(),
		});
		received.push(whole(r));
	});
	context.on("console", (m) => messages.push(`${m.type()}: ${m.text()}`));
	context.on("weberror", (e) => messages.push(`error: ${e.error()}`));
	page = await context.newPage();
	return {};
}

// All of an answer. One that is no page's any more, and a redirect, have no body.
const whole = async (r) => ({
	url: r.url(),
	header: await r.allHeaders().catch(() => r.headers()),
	body: await r.text().catch(() => ""),
});

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
	holds: async () => ({
		answers: await Promise.all(received),
		messages,
		cookies: await context.cookies(),
		stored: await page.evaluate(storedThere),
	}),
	cookies: async () => ({ cookies: await context.cookies() }),
	seen: async () => ({ responses: responses.splice(0), messages: messages.splice(0) }),
	resize: async ({ width, height }) => {
		await page.setViewportSize({ width, height });
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
