import { BarChart, ChartProvider, Table } from "@tinybirdco/charts";

const pipe = (name) => `${location.origin}/v0/pipes/${name}.json`;

// The charts show the whole body of a refusal. This shows the sentence in it.
function ChartError({ error }) {
	let sentence = error;
	try {
		sentence = JSON.parse(error.replace("Error: ", "")).error;
	} catch {
		// The network's own words, such as "Failed to fetch".
	}
	return <p role="alert">{sentence}</p>;
}

export function Dashboard({ params }) {
	return (
		<ChartProvider queryConfig={{ token: "cookie" }} fallbacks={{ error: ChartError }}>
			<BarChart endpoint={pipe("sales_by_day")} params={params} index="day" categories={["amount"]} height="240px" title="Sales" />
			<Table endpoint={pipe("top_pages")} params={params} index="path" categories={["path", "views", "visitors"]} title="Pages" />
		</ChartProvider>
	);
}
