import { BarChart, ChartProvider, Table } from "@tinybirdco/charts";

const pipe = (name) => `https://analytics.example.com/v0/pipes/${name}.json`;

// The charts' own fetch sends cookies to the page's origin only.
async function fetcher(url) {
	const answer = await fetch(url, { credentials: "include" });
	const body = await answer.json();
	if (!answer.ok) throw new Error(body.error);
	return body;
}

export function Dashboard({ params }) {
	return (
		<ChartProvider queryConfig={{ token: "cookie", fetcher }}>
			<BarChart endpoint={pipe("sales_by_day")} params={params} index="day" categories={["amount"]} height="240px" title="Sales" />
			<Table endpoint={pipe("top_pages")} params={params} index="path" categories={["path", "views", "visitors"]} title="Pages" />
		</ChartProvider>
	);
}
