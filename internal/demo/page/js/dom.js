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

// announce says something to a screen reader without moving the focus.
export function announce(text) {
	$("announce").textContent = text;
}
