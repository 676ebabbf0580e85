// Runs before the first paint, so that a chosen theme does not flash the other one.
try {
	const chosen = localStorage.getItem("theme");
	if (chosen === "light" || chosen === "dark") {
		document.documentElement.dataset.theme = chosen;
	}
} catch {
	// Storage is switched off: the system's theme it is.
}
// What the page is made of is asked for first; main.js takes this away.
document.documentElement.dataset.loading = "";
