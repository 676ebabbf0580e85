// Building and finding elements. Text is always text: nothing an API answers is ever parsed as HTML.

export const $ = (id) => document.getElementById(id);

export function h(tag, props = {}, ...children) {
	return fill(document.createElement(tag), props, children);
}

export function svg(tag, props = {}, ...children) {
	return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), props, children);
}

function fill(node, props, children) {
	for (const [name, value] of Object.entries(props)) {
		if (value === undefined || value === null || value === false) continue;
		if (typeof value === "function") node.addEventListener(name, value);
		else node.setAttribute(name, value === true ? "" : value);
	}
	node.append(...children.flat(2).filter((c) => c !== null && c !== undefined && c !== false));
	return node;
}

// trying runs what a button starts. Without it, what a server that has gone away makes of it would be told to the console alone.
export async function trying(f) {
	try {
		await f();
		$("trouble").hidden = true;
		$("trouble").textContent = "";
	} catch (error) {
		$("trouble").textContent = `The demo does not answer (${error.message}). Is it still running? Start it and reload this page.`;
		$("trouble").hidden = false;
	}
}

// busy is trying, with the button switched off until it is done. Switching it off takes the focus away, so it gets it back.
export async function busy(button, f) {
	const focused = document.activeElement === button;
	button.disabled = true;
	await trying(f);
	button.disabled = false;
	if (focused && document.activeElement === document.body) button.focus();
}

// announce says something to a screen reader without moving the focus.
export function announce(text) {
	$("announce").textContent = text;
}
