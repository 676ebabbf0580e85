// Calls the examples for Node, for a Go test, clients_test.go: each line of standard input is a call as a JSON object, each line
// of standard output says what became of it, with all answers that were got on the way.
//
// {"client": "sdk", "call": "topPages", "args": [...], "hurry": true}

import { createInterface } from "node:readline";
import * as sdk from "./examples/sdk.mjs";
import * as template from "./examples/template.mjs";
import * as zodBird from "./examples/zod-bird.mjs";

// A session whose template makes this token.
const withTemplate = { topPages: (token) => template.topPages({ getToken: async () => token }) };

const examples = { sdk, template: withTemplate, "zod-bird": zodBird };

const { fetch, setTimeout } = globalThis;
let answers = [];
let delays = [];

globalThis.fetch = async (...request) => {
	const answer = await fetch(...request);
	answers.push({
		url: answer.url,
		status: answer.status,
		header: Object.fromEntries(answer.headers),
		body: await answer.clone().text(),
	});
	return answer;
};

// In a hurry, the waiting of a package is noted and not done. That of Node, such as for idle connections, stays.
function hurried(f, ms, ...rest) {
	if (!new Error().stack.includes("/node_modules/")) return setTimeout(f, ms, ...rest);
	delays.push(ms);
	return setTimeout(f, 0, ...rest);
}

// What the errors of the SDK say of themselves.
const kinds = ["isAuthError", "isRateLimitError", "isNotFoundError", "isServerError"];

for await (const line of createInterface({ input: process.stdin })) {
	const { client, call, args, hurry } = JSON.parse(line);
	answers = [];
	delays = [];
	globalThis.setTimeout = hurry ? hurried : setTimeout;
	const outcome = {};
	try {
		outcome.value = await examples[client][call](...args);
	} catch (error) {
		outcome.error = {
			name: error.name,
			message: error.message,
			status: error.statusCode,
			code: error.response?.code,
			kinds: kinds.filter((kind) => error[kind]?.()),
		};
	}
	process.stdout.write(JSON.stringify({ ...outcome, answers, delays }) + "\n");
}
