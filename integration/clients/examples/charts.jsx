import { BarChart, ChartProvider, Table } from "@tinybirdco/charts";

// The charts take absolute addresses only. They send their token in the URL; the edge drops it there, and Clerk's cookie
// decides.
const pipe = (name) => `${location.origin}/v0/pipes/${name}.json`;

export function Dashboard({ params }) {
	return (
		<ChartProvider queryConfig={{ token: "cookie" }}>
			<BarChart endpoint={pipe("sales_by_day")} params={params} index="day" categories={["amount"]} height="240px" title="Sales" />
			<Table endpoint={pipe("top_pages")} params={params} index="path" categories={["path", "views", "visitors"]} title="Pages" />
		</ChartProvider>
	);
}
