// How numbers, days and organizations are written.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const cents = new Intl.NumberFormat("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 });
const dayMonth = new Intl.DateTimeFormat("en", { day: "numeric", month: "short", timeZone: "UTC" });

export const count = (n) => whole.format(n);
export const amount = (n) => cents.format(n);
export const day = (text) => dayMonth.format(new Date(`${text}T00:00:00Z`));

// The short ids are for narrow tables; the full one is in the cell's title.
export const short = (id) => (id.length > 16 ? `${id.slice(0, 11)}…${id.slice(-3)}` : id);

// kind sorts a status into what it means for the reader.
export function kind(status) {
	if (status === 429) return "slow";
	return status >= 200 && status < 300 ? "good" : "bad";
}

// orgOf tells whose a row is. The rows of the stand-in show it by their paths, users or organization.
export function orgOf(row) {
	const text = `${row.path ?? ""} ${row.organization_id ?? ""} ${row.user_id ?? ""}`;
	for (const [slug, marks] of Object.entries(MARKS)) {
		if (marks.some((m) => text.includes(m))) return slug;
	}
	return null;
}

const MARKS = {
	acme: ["/acme/", "org_2acme", "user_2a", "user_2ben"],
	globex: ["/globex/", "org_2globex", "user_2c"],
	initech: ["/initech/", "org_2initech", "user_2i"],
};

const NAMES = { acme: "Acme", globex: "Globex", initech: "Initech" };

// whose is the organizations that an answer has rows of.
export function whose(rows) {
	const slugs = new Set(rows.map(orgOf));
	slugs.delete(null);
	return [...slugs].map((slug) => ({ slug, name: NAMES[slug] }));
}
