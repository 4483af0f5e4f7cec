// The list as it is shown, with the marks. A cell that a spreadsheet would take for a formula gets one ' in front.
const FIGURE =
    /^(-( \/ (-|[-+]?\d+(\.\d+)?(e[-+]?\d+)?))*|[-+]?\d+(\.\d+)?(e[-+]?\d+)?(±[-+]?\d+(\.\d+)?(e[-+]?\d+)?)?( %)?)$/i;
const cell = v => {
    v = String(v ?? "");
    if (!FIGURE.test(v) && /^[=+\-@\t\r\n＝＋－＠']/.test(v)) v = `'${v}`;
    return /[",\r\n]/.test(v) ? `"${v.replaceAll('"', '""')}"` : v;
};
function table() {
    const several = FILTERS.slice(0, 3).filter(([f]) => state.filters[f]),
        yes = r => (line() === null || !state.good.length ? "" : above(r) ? "yes" : "no");
    const columns = asked
        ? [
              ["file", r => r.file],
              ["question", r => text(r.question)],
              ["level", r => text(r.level)],
              ["method", r => methods[r.method].name],
              ["right answer", r => text(r.answer)],
              ["chosen", r => text(r.choices[r.choice] ?? -1)],
              ["reply", r => text(r.text)],
              ["verdict", verdict],
              ["judge", r => text(r.marks)],
              ["similarity", r => r.similarity],
          ]
        : [
              ["file", r => r.file],
              ...several.map(([f, name]) => [name.toLowerCase(), r => of(r, f)]),
              ...(methods.length > 1 ? [["method", r => methods[r.method].name]] : []),
              ["score", r => r.score],
              ["percentile among the good", r => r.percentile],
              ["above the line", r => (r.scored ? yes(r) : "no score")],
              ...(labelled ? [["label", r => (r.label === null ? "" : r.label ? "anomalous" : "normal")]] : []),
          ];
    return [...columns, ["mark", r => marks[r.key] ?? ""]];
}
function save(name, kind, content) {
    const link = element("a", { download: name, href: URL.createObjectURL(new Blob([content], { type: kind })) });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
at("csv").onclick = () =>
    save(
        "ranking.csv",
        "text/csv",
        [table().map(([n]) => n), ...state.shown.map(r => table().map(([, f]) => f(r)))]
            .map(l => l.map(cell).join(",") + "\n")
            .join(""),
    );
at("json").onclick = () =>
    save(
        "ranking.json",
        "application/json",
        JSON.stringify(
            {
                run: data.run,
                method: state.method.name,
                line: state.tasks.length === 1 ? rawLine() : null,
                rows: state.shown.map(r => Object.fromEntries(table().map(([n, f]) => [n, f(r) ?? null]))),
            },
            null,
            1,
        ),
    );
