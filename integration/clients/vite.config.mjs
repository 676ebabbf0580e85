import { defineConfig } from "vite";

export default defineConfig({
	root: "web",
	// The tests serve the page at the root of a site, and write their own addresses over those of the examples.
	build: { outDir: "../dist", emptyOutDir: true, chunkSizeWarningLimit: 5000, reportCompressedSize: false },
	logLevel: "warn",
});
